"""Pack keys: one fresh AES-256 key for the frames of one pack.

docs/format.md, "Pack key", is the authority. The key of a data pack is random and sealed by HPKE to the epoch's
public data key, so a writer can store contents that it cannot read back once the key has left its memory. The
key of a metadata pack is derived from the epoch's metadata key and a random salt, which every role can do.

A key is named by its *origin*, which is derived from the key and the repository. It is also the key's
commitment: AES-GCM alone lets one ciphertext open under two keys, the origin lets a frame name only one.

Nonces: a frame's nonce is its ordinal, and a key numbers its frames once (`repo_store/pack_writer.py`), so no
nonce is ever used twice under one key. This module touches no storage.
"""

import os
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repo_store import hpke
from repo_store.errors import ObjectDamaged
from repo_store.key_ring import KeyRing, derive
from repo_store.sealed import Kind

KEY_BYTES = 32
ORIGIN_BYTES = 16
SALT_BYTES = 32
HPKE_KEY_BYTES = KEY_BYTES + hpke.OVERHEAD_BYTES
assert HPKE_KEY_BYTES == 1168  # the size docs/format.md gives

FRAME_KIND = {
    Kind.DATA_DIRECTORY: Kind.DATA_FRAME,
    Kind.METADATA_DIRECTORY: Kind.METADATA_FRAME,
    Kind.WAL_HEADER: Kind.WAL_FRAME,
}
"""Which frames lie in a pack with a directory of this kind."""


class KeySuite(IntEnum):
    """How a pack key is kept in a directory. The numbers are part of the format."""

    DERIVED = 0
    HPKE = 1


SEALED_BYTES = {KeySuite.DERIVED: SALT_BYTES, KeySuite.HPKE: HPKE_KEY_BYTES}
"""The size of a sealed key: the salt it is derived from, or the HPKE ciphertext."""

SUITE = {
    Kind.DATA_DIRECTORY: KeySuite.HPKE,
    Kind.METADATA_DIRECTORY: KeySuite.DERIVED,
    Kind.WAL_HEADER: KeySuite.HPKE,
}
"""Which suite seals the keys of a pack of this kind. Contents never lie under a key that a writer can derive."""


class SealedKey(NamedTuple):
    """A pack key as a directory holds it; it moves along when its frames are carried to another pack."""

    origin: bytes
    epoch: int
    suite: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class PackKey:
    """An opened pack key, ready to seal and open frames with.

    `lead` is what the associated data of all its frames starts with: repository || frame kind || origin.
    """

    sealed_key: SealedKey
    lead: bytes
    cipher: AESGCM = field(repr=False)


def make_pack_key(ring: KeyRing, kind: Kind) -> PackKey:
    """Return a fresh key of the newest epoch for a pack whose directory is of `kind`."""
    epoch = ring.epoch
    if SUITE[kind] == KeySuite.DERIVED:
        sealed = os.urandom(SALT_BYTES)
        key = _derived_key(ring, epoch, sealed)
        origin = origin_of(ring.repository, key)
    else:
        key = os.urandom(KEY_BYTES)
        origin = origin_of(ring.repository, key)
        sealed = hpke.seal_to(ring.epochs[epoch].data_public, key, info=_info(ring.repository, origin))
    return _ready(ring, kind, SealedKey(origin, epoch, SUITE[kind], sealed), key)


def open_pack_key(ring: KeyRing, kind: Kind, name: str, sealed_key: SealedKey) -> PackKey:
    """Return the opened key of a pack called `name` whose directory is of `kind`.

    Raises ObjectDamaged if it is not a key of this repository or not the one its origin names, and Refused if
    this holder cannot read contents or holds nothing of the key's epoch.
    """
    origin, epoch, suite, sealed = sealed_key
    shown = origin.hex()
    if suite not in SEALED_BYTES:
        raise ObjectDamaged(name, f"its key {shown} uses suite {suite}, which this version does not know")
    if suite != SUITE[kind]:
        raise ObjectDamaged(name, f"its key {shown} uses suite {suite}, which keys of its kind never do")
    if len(sealed) != SEALED_BYTES[KeySuite(suite)]:
        raise ObjectDamaged(name, f"its key {shown} has {len(sealed)} bytes sealed")
    if suite == KeySuite.DERIVED:
        key: bytes | None = _derived_key(ring, epoch, sealed)
    else:
        key = hpke.open_with(ring.data_private(epoch), sealed, info=_info(ring.repository, origin))
    if key is None:
        raise ObjectDamaged(name, f"its key {shown} does not open with this repository's data key")
    if len(key) != KEY_BYTES or origin_of(ring.repository, key) != origin:
        raise ObjectDamaged(name, f"its key {shown} opens to a key of another origin")
    return _ready(ring, kind, sealed_key, key)


def origin_of(repository: bytes, key: bytes) -> bytes:
    """Return the 16 bytes that name `key` in `repository`."""
    return derive("origin", repository + key)[:ORIGIN_BYTES]


def _ready(ring: KeyRing, kind: Kind, sealed_key: SealedKey, key: bytes) -> PackKey:
    lead = ring.repository + bytes([FRAME_KIND[kind]]) + sealed_key.origin
    return PackKey(sealed_key, lead, AESGCM(key))


def _derived_key(ring: KeyRing, epoch: int, salt: bytes) -> bytes:
    return derive("metadata pack key", ring.metadata_key(epoch) + salt)


def _info(repository: bytes, origin: bytes) -> bytes:
    return b"holdfast 1 pack key" + repository + origin
