"""Sealed objects: small signed maps that only holders of the metadata key can read.

    header (64) || AES-256-GCM(codec, length, signature, signer, body, padding)

docs/format.md, section 5, is the authority. Each object has a key of its own, derived from a random salt,
so the nonce can be zero for ever; the commitment in the header makes an object open under one key only. The
signature binds the body to the repository, the kind and the object's name: moved elsewhere, it is refused.
This module turns bodies into bytes and back; it touches no storage.
"""

import os
import struct
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repo_store.errors import ObjectDamaged
from repo_store.key_ring import SIGNER_BYTES, KeyRing, derive
from repo_store.padme import padme

FORMAT = 1
SEALED_BYTES_MAX = 64 * 1024 * 1024
HEADER = struct.Struct("<4sBBHII32s16s")
HEADER_BYTES = 64
assert HEADER.size == HEADER_BYTES  # the size docs/format.md gives
TAG_BYTES = 16
_LEAD = struct.Struct("<BI")  # codec, length of the payload as stored
_SIGNATURE_BYTES = 64
_MAGIC = b"HFSO"
_NONCE = bytes(12)


class Kind(IntEnum):
    """What an object or a frame is. The numbers are part of the format."""

    PENDING = 1
    MANIFEST = 2
    TOMBSTONE = 3
    FORGET = 4
    MARK = 5
    SWEEP = 6
    DONE = 7
    LEDGER = 8
    DATA_DIRECTORY = 10
    METADATA_DIRECTORY = 11
    WAL_HEADER = 12
    NOTE = 13
    OVERLAY = 14
    TABLE = 15
    DATA_FRAME = 32
    METADATA_FRAME = 33
    WAL_FRAME = 34


class Header(NamedTuple):
    """The clear start of a sealed object or a table, with the key it leads to."""

    data: bytes
    epoch: int
    commitment: bytes
    key: bytes


class Opened(NamedTuple):
    """A body that was sealed, and who signed it."""

    body: dict[str, Any]
    signer: bytes


def make_header(ring: KeyRing, kind: Kind, *, magic: bytes = _MAGIC) -> Header:
    """Return a fresh header of the newest epoch with a key that nothing else has."""
    salt = os.urandom(32)
    key = _object_key(ring, ring.epoch, kind, salt)
    commitment = _commitment(key)
    data = HEADER.pack(magic, FORMAT, kind, 0, ring.epoch, 0, salt, commitment)
    return Header(data, ring.epoch, commitment, key)


def read_header(
    ring: KeyRing, kinds: tuple[Kind, ...], name: str, data: bytes, *, magic: bytes = _MAGIC
) -> tuple[Kind, Header]:
    """Return the kind and header that `data` starts with. Raises ObjectDamaged if it is not one of `kinds`."""
    if len(data) < HEADER_BYTES:
        raise ObjectDamaged(name, "too short for its header")
    found, version, kind, zero, epoch, zero_too, salt, commitment = HEADER.unpack_from(data)
    if found != magic:
        raise ObjectDamaged(name, "does not start like an object of holdfast")
    if version != FORMAT:
        raise ObjectDamaged(name, f"has format {version}; this version reads up to {FORMAT}")
    if kind not in kinds or zero or zero_too:
        raise ObjectDamaged(name, f"kind {kind} does not belong there")
    if epoch not in ring.epochs:
        raise ObjectDamaged(name, f"belongs to epoch {epoch}, of which this key holds nothing")
    key = _object_key(ring, epoch, kind, salt)
    if _commitment(key) != commitment:
        raise ObjectDamaged(name, "was sealed under another key, or its header is damaged")
    return Kind(kind), Header(bytes(data[:HEADER_BYTES]), epoch, commitment, key)


def seal_object(
    ring: KeyRing, kind: Kind, body: dict[str, Any], *, subject: str = "", beside_bytes: int = 0
) -> bytes:
    """Return `body` signed and sealed as an object of `kind` named `subject`.

    The size is padded so that it and `beside_bytes` (what else the object holds) add up to a Padmé size.
    """
    encoded = msgpack.packb(body)
    header = make_header(ring, kind)
    signature = ring.signing_key.sign(_signed(ring.repository, kind, header.epoch, subject, encoded))
    payload = signature + ring.signer + encoded
    squeezed = zstandard.ZstdCompressor(level=3).compress(payload)
    codec, stored = (1, squeezed) if len(squeezed) < len(payload) else (0, payload)
    plain_bytes = _LEAD.size + len(stored)
    bare_bytes = beside_bytes + HEADER_BYTES + plain_bytes + TAG_BYTES
    plain = _LEAD.pack(codec, len(stored)) + stored + bytes(padme(bare_bytes) - bare_bytes)
    sealed = header.data + AESGCM(header.key).encrypt(_NONCE, plain, ring.repository + header.data)
    if len(sealed) > SEALED_BYTES_MAX:
        raise ObjectDamaged(subject or kind.name.lower(), f"would have {len(sealed)} bytes, above the limit")
    return sealed


def open_object(ring: KeyRing, kind: Kind, name: str, data: bytes, *, subject: str | None = None) -> Opened:
    """Return the body and signer of a sealed object of `kind`; `subject` is `name` unless given.

    Raises ObjectDamaged if it is not whole, not of this repository, or not signed by one who may sign its kind.
    """
    return open_any(ring, (kind,), name, data, subject=subject)[1]


def open_any(
    ring: KeyRing, kinds: tuple[Kind, ...], name: str, data: bytes, *, subject: str | None = None
) -> tuple[Kind, Opened]:
    """As `open_object`, for an object that may be one of several kinds; the first item says which."""
    if len(data) > SEALED_BYTES_MAX:
        raise ObjectDamaged(name, f"has {len(data)} bytes, above the limit")
    kind, header = read_header(ring, kinds, name, data)
    try:
        plain = AESGCM(header.key).decrypt(
            _NONCE, memoryview(data)[HEADER_BYTES:], ring.repository + header.data
        )
    except InvalidTag:
        raise ObjectDamaged(name, "fails authentication") from None
    payload = _payload(name, plain)
    signature = payload[:_SIGNATURE_BYTES]
    signer = payload[_SIGNATURE_BYTES : _SIGNATURE_BYTES + SIGNER_BYTES]
    encoded = payload[_SIGNATURE_BYTES + SIGNER_BYTES :]
    line = ring.roster.get(signer)
    if line is None:
        raise ObjectDamaged(name, f"is signed by {signer.hex()}, which is not in the roster")
    if not line.may_sign(kind, header.epoch):
        removed = f", removed in epoch {line.until}" if line.until is not None else ""
        raise ObjectDamaged(
            name, f"is signed by slot {line.slot}, a {line.role}{removed}, which may not sign this"
        )
    bound = name if subject is None else subject
    try:
        line.verifier.verify(signature, _signed(ring.repository, kind, header.epoch, bound, encoded))
    except InvalidSignature:
        raise ObjectDamaged(name, "its signature does not hold") from None
    return kind, Opened(unpack_map(name, encoded), signer)


def unpack_map(name: str, encoded: bytes) -> dict[str, Any]:
    """Return the map that `encoded` holds. Raises ObjectDamaged if it is anything else."""
    try:
        body = msgpack.unpackb(encoded, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ObjectDamaged(name, f"holds no valid map: {error}") from None
    if not isinstance(body, dict):
        raise ObjectDamaged(name, "holds no map")
    return body


def _payload(name: str, plain: bytes) -> bytes:
    if len(plain) < _LEAD.size:
        raise ObjectDamaged(name, "is empty")
    codec, length = _LEAD.unpack_from(plain)
    stored = plain[_LEAD.size : _LEAD.size + length]
    if len(stored) != length or any(plain[_LEAD.size + length :]):
        raise ObjectDamaged(name, "its padding or length is wrong")
    if codec == 0:
        payload = stored
    elif codec == 1:
        payload = _decompress(name, stored)
    else:
        raise ObjectDamaged(name, f"uses codec {codec}, which this version does not know")
    if len(payload) < _SIGNATURE_BYTES + SIGNER_BYTES:
        raise ObjectDamaged(name, "is too short to be signed")
    return payload


def _decompress(name: str, stored: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(stored)
        if not 0 <= size <= SEALED_BYTES_MAX:
            raise ObjectDamaged(name, "its content size is unknown or above the limit")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ObjectDamaged(name, f"does not decompress: {error}") from None


def _object_key(ring: KeyRing, epoch: int, kind: int, salt: bytes) -> bytes:
    return derive("sealed object", ring.metadata_key(epoch) + bytes([kind]) + salt)


def _commitment(key: bytes) -> bytes:
    return derive("sealed commitment", key)[:16]


def _signed(repository: bytes, kind: int, epoch: int, subject: str, encoded: bytes) -> bytes:
    name = subject.encode()
    return b"".join(
        (b"holdfast 1 signature", repository, struct.pack("<BIH", kind, epoch, len(name)), name, encoded)
    )
