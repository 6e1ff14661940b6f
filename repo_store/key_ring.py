"""The key ring: every secret that one holder of one repository has, opened, in memory.

docs/format.md, "Secrets", says which secret serves what. What a role may not know is None here, so code that
needs it says so by name instead of failing in the cipher. This module touches no storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from repo_store.errors import Refused

SIGNER_BYTES = 16


def derive(label: str, material: bytes) -> bytes:
    """Return 32 bytes derived from `material` for the one purpose `label` (BLAKE3 key derivation mode)."""
    return blake3(material, derive_key_context=f"holdfast 1 {label}").digest()


def signer_of(public: bytes) -> bytes:
    """Return the 16 bytes that name the holder of an Ed25519 public key."""
    return derive("signer", public)[:SIGNER_BYTES]


@dataclass(frozen=True)
class EpochKeys:
    """The keys of one epoch. `data_public` is 1,216 bytes; `data_private` is None for roles that cannot read contents."""

    metadata_key: bytes = field(repr=False)
    data_public: bytes = field(repr=False)
    data_private: bytes | None = field(repr=False)


@dataclass(frozen=True)
class RosterLine:
    """One signer and the kinds of object it may sign.

    `until` is None while the slot lives. A removed slot keeps its line, so that what it signed stays readable;
    its signatures then count on objects up to that epoch and on none after it (docs/decisions/0006).
    """

    public: bytes
    slot: str
    role: str
    kinds: frozenset[int]
    until: int | None = None

    def may_sign(self, kind: int, epoch: int) -> bool:
        """Return whether a signature of this holder counts on an object of `kind` in `epoch`."""
        return kind in self.kinds and (self.until is None or epoch <= self.until)

    @cached_property
    def verifier(self) -> Ed25519PublicKey:
        """The public key, ready to verify with."""
        return Ed25519PublicKey.from_public_bytes(self.public)


@dataclass(frozen=True)
class KeyRing:
    """All that opening a repository with one key gave."""

    repository: bytes
    slot: str
    role: str
    id_key: bytes = field(repr=False)
    chunker_key: bytes = field(repr=False)
    owner_public: bytes
    signing_key: Ed25519PrivateKey = field(repr=False)
    roster: Mapping[bytes, RosterLine]
    epochs: Mapping[int, EpochKeys] = field(repr=False)
    owner_private: bytes | None = field(default=None, repr=False)
    newest: int | None = None
    """The newest epoch of the repository, which this holder may not have keys of; None: the highest it has."""

    @cached_property
    def signer(self) -> bytes:
        """The name under which this holder signs."""
        return signer_of(self.signing_key.public_key().public_bytes_raw())

    def may_sign(self, kind: int) -> bool:
        """Return whether anybody would accept an object of `kind` from this holder."""
        line = self.roster.get(self.signer)
        return line is not None and line.may_sign(kind, self.epoch)

    @cached_property
    def epoch(self) -> int:
        """The epoch that new objects are written under: the newest. Raises Refused if this holder has no keys of
        it: nothing new may go under an older one."""
        newest = max(self.epochs) if self.newest is None else self.newest
        self._of(newest)
        return newest

    @cached_property
    def data_chunk_id_key(self) -> bytes:
        """The key of the ids of content chunks."""
        return derive("data chunk id", self.id_key)

    @cached_property
    def metadata_chunk_id_key(self) -> bytes:
        """The key of the ids of tree nodes."""
        return derive("metadata chunk id", self.id_key)

    @cached_property
    def tree_cut_key(self) -> bytes:
        """The key of the hash that decides where tree nodes end."""
        return derive("tree cut", self.id_key)

    @cached_property
    def row_sum_key(self) -> bytes:
        """The key of the sums that prove a merge of tables."""
        return derive("row sum", self.id_key)

    def metadata_key(self, epoch: int) -> bytes:
        """Return the metadata key of `epoch`. Raises Refused if this holder was not given that epoch."""
        return self._of(epoch).metadata_key

    def data_private(self, epoch: int) -> bytes:
        """Return the private half of the data key of `epoch`. Raises Refused for a role that cannot read contents."""
        private = self._of(epoch).data_private
        if private is None:
            raise Refused(f"slot {self.slot} has the role {self.role}, which cannot read contents")
        return private

    def _of(self, epoch: int) -> EpochKeys:
        try:
            return self.epochs[epoch]
        except KeyError:
            raise Refused(f"slot {self.slot} holds no keys of epoch {epoch}") from None
