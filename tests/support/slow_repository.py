"""The slow repository: the whole format in plain Python, as the oracle for everything that reads and writes it.

    slow = SlowRepository(disk.objects(), secrets_of(ring))
    slow.manifests()                    id → body of every live manifest
    slow.entries(body)                  [(path, row), …] in order
    slow.content(row)                   the bytes of a file or stream

Written from docs/format.md. It shares no code with the product and remembers nothing: tables do not exist for it, every
pack is searched for every chunk, every frame is opened anew, each time. What it cannot find or verify raises Lost.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from repo_store.key_ring import KeyRing

HOLE = bytes(32)
DATA, METADATA = 10, 11
PathOf = tuple[bytes, ...]
Row = list[Any]


class Lost(Exception):
    """What was asked for is nowhere, or not what it should be."""


@dataclass(frozen=True)
class Signer:
    """A line of the roster."""

    public: bytes
    kinds: frozenset[int]
    until: int | None


@dataclass(frozen=True)
class Secrets:
    """What an owner's key opens: by epoch where it differs by epoch."""

    repository: bytes
    id_key: bytes
    metadata_keys: Mapping[int, bytes]
    data_privates: Mapping[int, bytes | None]
    roster: Mapping[bytes, Signer]


def secrets_of(ring: KeyRing) -> Secrets:
    """Return the bare secrets of an opened key ring."""
    return Secrets(
        ring.repository,
        ring.id_key,
        {number: keys.metadata_key for number, keys in ring.epochs.items()},
        {number: keys.data_private for number, keys in ring.epochs.items()},
        {name: Signer(line.public, line.kinds, line.until) for name, line in ring.roster.items()},
    )


@dataclass(frozen=True)
class Frame:
    """A frame as one pack has it."""

    pack: str
    kind: int
    name: bytes
    key: Row
    codec: int
    offset: int
    sealed_bytes: int
    plain_bytes: int
    base: bytes
    chunks: tuple[tuple[bytes, int], ...]  # id, length


class SlowRepository:
    """One state of a repository: object name → bytes."""

    def __init__(self, objects: Mapping[str, bytes], secrets: Secrets) -> None:
        self._objects = objects
        self._secrets = secrets

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Return the body of every live manifest that holds, by id."""
        live: dict[str, dict[str, Any]] = {}
        for name, data in self._objects.items():
            folder, _, shown = name.partition("/")
            if folder == "manifests" and f"forgotten/{shown}" not in self._objects:
                try:
                    kind, body = self.open_object(data, (2, 3), name)
                except Lost:
                    continue
                if kind == 2:
                    live[shown] = body
        return live

    def entries(self, body: Mapping[str, Any]) -> list[tuple[PathOf, Row]]:
        """Return every entry of a manifest, with its path, in order."""
        if body["root"] is None:
            return []
        root, height, count = body["root"]
        found = list(self._entries(root, height))
        paths = [path for path, _ in found]
        if len(found) != count or paths != sorted(set(paths)):
            raise Lost("the tree is not in order")
        return found

    def content(self, row: Row) -> bytes:
        """Return the bytes that the entry `row` has."""
        whole = b"".join(
            bytes(length) if chunk == HOLE else self.chunk(DATA, chunk, length)
            for chunk, length in self.pairs(row[9], row[8])
        )
        if len(whole) != row[8]:
            raise Lost("the content does not add up to its size")
        return whole

    def pairs(self, content: Any, size: int) -> Iterator[tuple[bytes, int]]:
        """Yield (chunk id, length) of a content."""
        if isinstance(content, bytes):
            yield content, size
        elif content is not None and isinstance(content[1], list):
            ids, lengths = content
            for number, length in enumerate(lengths):
                yield ids[32 * number : 32 * number + 32], length
        elif content is not None:
            node = self._node(content[0], content[1])
            if content[1] == 0:
                yield from self.pairs(node[1:], size)
            else:
                for child, child_bytes in node[1]:
                    yield from self.pairs([child, content[1] - 1], child_bytes)

    def chunk(self, kind: int, chunk_id: bytes, length: int | None = None) -> bytes:
        """Return a chunk, from whichever frame has it whole."""
        label = "data chunk id" if kind == DATA else "metadata chunk id"
        key = _derive(label, self._secrets.id_key)
        for frame in self.frames():
            start = 0
            for found, size in frame.chunks:
                if (frame.kind, found) == (kind, chunk_id):
                    try:
                        data = self._plain(frame)[start : start + size]
                    except Lost:
                        break
                    if blake3(data, key=key).digest() == chunk_id and length in (None, len(data)):
                        return data
                start += size
        raise Lost(f"chunk {chunk_id.hex()[:16]}")

    def frames(self) -> Iterator[Frame]:
        """Yield every frame of every pack whose directory holds."""
        for name, data in self._objects.items():
            if name.startswith("packs/"):
                try:
                    yield from self._frames_of(name, data)
                except (Lost, struct.error, KeyError, ValueError):
                    continue

    def open_object(self, data: bytes, kinds: tuple[int, ...], subject: str) -> tuple[int, dict[str, Any]]:
        """Return kind and body of a sealed object (section 5). Raises Lost."""
        secrets = self._secrets
        try:
            magic, version, kind, zero, epoch, last, salt, commitment = struct.unpack_from(
                "<4sBBHII32s16s", data
            )
            if (magic, version, zero, last) != (b"HFSO", 1, 0, 0) or kind not in kinds:
                raise Lost(f"{subject}: another kind of object")
            key = _derive("sealed object", secrets.metadata_keys[epoch] + bytes([kind]) + salt)
            if _derive("sealed commitment", key)[:16] != commitment:
                raise Lost(f"{subject}: another key")
            plain = AESGCM(key).decrypt(bytes(12), data[64:], secrets.repository + data[:64])
            codec, length = struct.unpack_from("<BI", plain)
            payload = plain[5 : 5 + length]
            if codec not in (0, 1) or any(plain[5 + length :]) or (subject and len(data) != padme(len(data))):
                raise Lost(f"{subject}: codec or padding")
            if codec == 1:
                payload = zstandard.ZstdDecompressor().decompress(payload)
            signature, name, encoded = payload[:64], payload[64:80], payload[80:]
            signer = secrets.roster[name]
            if kind not in signer.kinds or (signer.until is not None and epoch > signer.until):
                raise Lost(f"{subject}: its signer may not sign it")
            place = struct.pack("<BIH", kind, epoch, len(subject.encode())) + subject.encode()
            signed = b"holdfast 1 signature" + secrets.repository + place + encoded
            ed25519.Ed25519PublicKey.from_public_bytes(signer.public).verify(signature, signed)
        except (struct.error, KeyError, InvalidTag, InvalidSignature, zstandard.ZstdError) as error:
            raise Lost(f"{subject}: {type(error).__name__}") from error
        return kind, msgpack.unpackb(encoded, strict_map_key=False)

    def _frames_of(self, name: str, data: bytes) -> Iterator[Frame]:
        magic, version, kind, zero, tail, frames_bytes = struct.unpack("<4sBBHII", data[-16:])
        if (magic, version, zero) != (b"HFPK", 1, 0) or frames_bytes + tail + 16 != len(data):
            raise Lost(f"{name}: footer")
        if len(data) != padme(len(data)):
            raise Lost(f"{name}: its size tells more than it may")
        _, body = self.open_object(data[frames_bytes:-16], (DATA, METADATA), "")
        lengths = [length for (length,) in struct.iter_unpack("<I", body["lengths"])]
        ids = [body["ids"][at : at + 32] for at in range(0, len(body["ids"]), 32)]
        chunks = list(zip(ids, lengths, strict=True))
        for row in struct.iter_unpack("<HBBIIIII20sI", body["frames"]):
            key, codec, _, ordinal, offset, sealed, plain, count, base, _ = row
            frame_name = body["keys"][key][0] + struct.pack("<I", ordinal)
            here, chunks = tuple(chunks[:count]), chunks[count:]
            yield Frame(name, kind, frame_name, body["keys"][key], codec, offset, sealed, plain, base, here)

    def _plain(self, frame: Frame) -> bytes:
        """Open a frame (section 6). Raises Lost."""
        secrets = self._secrets
        origin, epoch, suite, sealed_key = frame.key
        try:
            key = self._pack_key(origin, epoch, suite, sealed_key)
            sealed = self._objects[frame.pack][frame.offset : frame.offset + frame.sealed_bytes]
            place = bytes([{DATA: 32, METADATA: 33}[frame.kind]]) + frame.name + bytes([frame.codec])
            bound = secrets.repository + place + frame.base
            data = AESGCM(key).decrypt(frame.name[16:] + bytes(8), sealed, bound)
            if frame.codec == 1:
                data = zstandard.ZstdDecompressor().decompress(data)
            elif frame.codec == 2:
                prefix = zstandard.ZstdCompressionDict(
                    self._base(frame.base), dict_type=zstandard.DICT_TYPE_RAWCONTENT
                )
                data = zstandard.ZstdDecompressor(dict_data=prefix).decompress(data)
        except (InvalidTag, KeyError, zstandard.ZstdError) as error:
            raise Lost(f"{frame.pack}: {type(error).__name__}") from error
        if frame.codec > 2 or len(data) != frame.plain_bytes:
            raise Lost(f"{frame.pack}: codec or length")
        return data

    def _base(self, name: bytes) -> bytes:
        for frame in self.frames():
            if frame.name == name and frame.codec != 2:
                try:
                    return self._plain(frame)
                except Lost:
                    continue
        raise Lost(f"base frame {name.hex()}")

    def _pack_key(self, origin: bytes, epoch: int, suite: int, sealed: bytes) -> bytes:
        secrets = self._secrets
        if suite == 0:
            key = _derive("metadata pack key", secrets.metadata_keys[epoch] + sealed)
        else:
            private = secrets.data_privates[epoch]
            assert private is not None, "the oracle needs a key that reads contents"
            kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:64])
            curve = x25519.X25519PrivateKey.from_private_bytes(private[64:])
            hpke = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
            info = b"holdfast 1 pack key" + secrets.repository + origin
            key = hpke.decrypt(sealed, MLKEM768X25519PrivateKey(kem, curve), info=info)
        if _derive("origin", secrets.repository + key)[:16] != origin:
            raise Lost("a key of another origin")
        return key

    def _node(self, node_id: bytes, height: int) -> Row:
        node: Row = msgpack.unpackb(self.chunk(METADATA, node_id))
        if node[0] != height:
            raise Lost(f"tree node {node_id.hex()[:16]}: another height")
        return node

    def _entries(self, node_id: bytes, height: int) -> Iterator[tuple[PathOf, Row]]:
        for item in self._node(node_id, height)[1]:
            if height:
                yield from self._entries(item[1], height - 1)
            else:
                yield from (((*item[0], entry[0]), entry) for entry in item[1])


def padme(length: int) -> int:
    """Return the Padmé size for `length` bytes: the mantissa keeps as many bits as the exponent has."""
    exponent = length.bit_length() - 1
    kept = exponent.bit_length()
    step = 1 << max(exponent - kept, 0)
    return -(-length // step) * step


def _derive(label: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context=f"holdfast 1 {label}").digest()
