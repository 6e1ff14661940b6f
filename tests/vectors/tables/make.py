"""Writes small.table and small.json beside this file: a table, the secrets it was made with, and what it says.

All chunks have one length; those of a frame are given by their ids joined.

Run from the root of the project with `PYTHONPATH=.:tests`. The vector is made once and kept: repositories hold such
tables, so whatever changes in the code must still read it. Run it anew only for a vector of another format.
"""

import json
import random
from pathlib import Path

from support.directories import make_directory, random_pack
from support.rings import make_ring

from repo_store.directory import ID_BYTES
from repo_store.frame import FrameName
from repo_store.row_batch import RowBatch
from repo_store.row_sums import Merge, RowSums
from repo_store.sealed import Kind
from repo_store.table import batch_sums, build_table, table_name

HERE = Path(__file__).parent


def main() -> None:
    """Make a merged table of two data packs (one carried frame, one with a base) and a metadata pack."""
    ring, choice = make_ring(readable=False), random.Random(2026)
    packs = [random_pack(choice, frames=3, chunks=343), random_pack(choice, 1, 5, Kind.METADATA_DIRECTORY)]
    based, base = FrameName(choice.randbytes(16), 65_534), packs[0][2].frames[2].name
    ids = [choice.randbytes(32), packs[0][2].chunk_ids(1)[7]]
    packs.append((choice.randbytes(32), 4242, make_directory([(based, base, ids), (base, None, ids[1:])])))
    batch = RowBatch()
    for pack in packs:
        batch.add_pack(*pack)
    batch.sort()
    merge = Merge(7, ((choice.randbytes(32), batch_sums(ring, batch)),), RowSums())
    data = build_table(ring, batch, merge=merge)
    secrets = {
        "repository": ring.repository.hex(),
        "id_key": ring.id_key.hex(),
        "metadata_key": ring.metadata_key(1).hex(),
        "sign_public": next(iter(ring.roster.values())).public.hex(),
    }
    says = {
        "name": table_name(data),
        "packs": {pack.hex(): size for pack, size, _ in packs},
        "frames": [
            [*_name(f.name), pack.hex(), f.offset, f.sealed_length, f.plain_length, f.codec, _name(f.base)]
            for pack, _, directory in packs
            for f in directory.frames
        ],
        "chunks": [
            [
                1 if directory.kind == Kind.DATA_DIRECTORY else 2,
                *_name(f.name),
                directory.chunk_lengths(index).tolist()[0],
                directory.ids[
                    ID_BYTES * directory.starts[index] : ID_BYTES * directory.starts[index + 1]
                ].hex(),
            ]
            for _, _, directory in packs
            for index, f in enumerate(directory.frames)
        ],
    }
    (HERE / "small.table").write_bytes(data)
    (HERE / "small.json").write_text(json.dumps({"secrets": secrets, "says": says}, indent=1) + "\n")


def _name(name: FrameName | None) -> list[object]:
    return [] if name is None else [name.origin.hex(), name.ordinal]


if __name__ == "__main__":
    main()
