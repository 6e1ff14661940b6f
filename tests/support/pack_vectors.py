"""The golden packs of tests/vectors/packs and the ring that opens them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from repo_store.key_ring import EpochKeys, KeyRing, RosterLine, signer_of
from repo_store.sealed import Kind

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "packs"
RING_FILE = FOLDER / "ring.json"
_SECRETS = ("repository", "id_key", "chunker_key")


def dump_ring(ring: KeyRing) -> dict[str, Any]:
    """Return a ring as JSON can hold it."""
    epochs = {
        number: {
            "metadata_key": keys.metadata_key.hex(),
            "data_public": keys.data_public.hex(),
            "data_private": (keys.data_private or b"").hex(),
        }
        for number, keys in ring.epochs.items()
    }
    secrets = {name: getattr(ring, name).hex() for name in _SECRETS}
    return {**secrets, "signing_key": ring.signing_key.private_bytes_raw().hex(), "epochs": epochs}


def load_ring(*, epochs: Sequence[int] = (1, 2)) -> KeyRing:
    """Return the ring of the vectors with the keys of these epochs."""
    stored = json.loads(RING_FILE.read_text())
    signing = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(stored["signing_key"]))
    public = signing.public_key().public_bytes_raw()
    secrets: dict[str, Any] = {name: bytes.fromhex(stored[name]) for name in _SECRETS}
    return KeyRing(
        **secrets,
        slot="00" * 8,
        role="owner",
        owner_public=public,
        signing_key=signing,
        roster={signer_of(public): RosterLine(public, "00" * 8, "owner", frozenset(Kind))},
        epochs={
            number: EpochKeys(
                **{name: bytes.fromhex(value) for name, value in stored["epochs"][str(number)].items()}
            )
            for number in epochs
        },
    )
