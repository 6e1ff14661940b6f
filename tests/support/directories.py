"""Directories of packs that were never made: what an index is filled with in tests."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from repo_store.directory import Directory
from repo_store.frame import FrameName, FramePlace
from repo_store.key_ring import KeyRing, RosterLine, signer_of
from repo_store.row_batch import RowBatch
from repo_store.sealed import Kind
from repo_store.storage import Storage
from repo_store.table import build_table, table_name

CHUNK_BYTES = 1000
PACK_BYTES = 1 << 20


def make_directory(
    frames: Sequence[tuple[FrameName, FrameName | None, Sequence[bytes]]], kind: Kind = Kind.DATA_DIRECTORY
) -> Directory:
    """Return the directory of a pack of `frames`: name, base and chunk ids of each; chunks have 1,000 bytes."""
    places, offset = [], 0
    for name, base, ids in frames:
        places.append(
            FramePlace(name, offset, 500 + len(ids), CHUNK_BYTES * len(ids), 2 if base else 1, base)
        )
        offset += places[-1].sealed_length
    ids = [chunk_id for _, _, of_frame in frames for chunk_id in of_frame]
    starts = list(accumulate((len(of_frame) for _, _, of_frame in frames), initial=0))
    lengths = array("I", [CHUNK_BYTES] * len(ids))
    return Directory(kind, [], places, [0] * len(places), starts, b"".join(ids), lengths, bytes(16))


def random_pack(
    choice: random.Random, frames: int = 4, chunks: int = 8, kind: Kind = Kind.DATA_DIRECTORY
) -> tuple[bytes, int, Directory]:
    """Return hash, size and directory of a pack of fresh frames, as `add_pack` takes them."""
    origin = choice.randbytes(16)
    rows = [
        (FrameName(origin, number), None, [choice.randbytes(32) for _ in range(chunks)])
        for number in range(frames)
    ]
    return choice.randbytes(32), PACK_BYTES + choice.randrange(1000), make_directory(rows, kind)


def make_table(ring: KeyRing, *packs: tuple[bytes, int, Directory]) -> bytes:
    """Return the table of some packs."""
    batch = RowBatch()
    for pack in packs:
        batch.add_pack(*pack)
    batch.sort()
    return build_table(ring, batch)


def put_table(storage: Storage, data: bytes) -> str:
    """Put a table; return its name."""
    storage.put(table_name(data), data)
    return table_name(data)


def two_signers(ring: KeyRing) -> tuple[KeyRing, KeyRing]:
    """Return the rings of two writers of one repository, who know each other."""
    other = Ed25519PrivateKey.generate()
    public = other.public_key().public_bytes_raw()
    line = RosterLine(public, "11" * 8, "writer", frozenset(Kind))
    roster = {**ring.roster, signer_of(public): line}
    return replace(ring, roster=roster), replace(ring, roster=roster, signing_key=other)
