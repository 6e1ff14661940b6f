"""Key rings for tests that need keys but no repository."""

import os
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from repo_store.key_ring import EpochKeys, KeyRing, RosterLine, signer_of
from repo_store.sealed import Kind


def make_ring(*, epochs: Sequence[int] = (1,), readable: bool = True) -> KeyRing:
    """Return a fresh ring of an owner (or, not `readable`, of a writer) who may sign every kind."""
    signing = Ed25519PrivateKey.generate()
    public = signing.public_key().public_bytes_raw()
    role = "owner" if readable else "writer"
    return KeyRing(
        repository=os.urandom(32),
        slot="00" * 8,
        role=role,
        id_key=os.urandom(32),
        chunker_key=os.urandom(32),
        owner_public=public,
        signing_key=signing,
        roster={signer_of(public): RosterLine(public, "00" * 8, role, frozenset(Kind))},
        epochs={number: _epoch(readable) for number in epochs},
    )


def _epoch(readable: bool) -> EpochKeys:
    kem, curve = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    return EpochKeys(
        metadata_key=os.urandom(32),
        data_public=kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw(),
        data_private=kem.private_bytes_raw() + curve.private_bytes_raw() if readable else None,
    )
