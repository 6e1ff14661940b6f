"""Make tests/repositories/format-1/: one small repository with everything that format 1 knows.

    PYTHONPATH=.:tests python tests/repositories/make_format_1.py

It is made once and kept for ever: every later version reads it (tests/engine/test_format_1.py). Running this again makes
another one with other keys; the one in the tree is replaced only while format 1 is not released. What the product
cannot write yet (a second epoch, records of garbage collection, frames with a base) is made by hand from its parts.

    repository/          the objects, as a local repository
    owner.key            the key file of the owner
    passphrase           the passphrase of the second owner
    writer.key           the key file of a writer
    expected.json        every manifest: its fields, and of every entry its fields and the hash of its content
"""

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3
from support.packs import frames_of, make_frame, make_pack
from support.repositories import Made, cheap, make_repository, open_second_epoch
from support.sessions import World
from support.slow_repository import SlowRepository, secrets_of

from chunker import Algorithm, Parameters
from engine.files_snapshot import snapshot_files
from engine.progress import Interrupted, Progress
from engine.session import Session
from engine.snapshot_run import SnapshotOptions
from engine.stream_snapshot import snapshot_stdin
from repo_store import table
from repo_store.directory import Directory
from repo_store.frame import Base
from repo_store.generation import Done, Mark, Sweep
from repo_store.key_file import write_key_file
from repo_store.key_ops import add_slot
from repo_store.ledger import LedgerRecord
from repo_store.local_storage import LocalStorage
from repo_store.manifest import Manifest
from repo_store.markers import ForgetMarker, Note, Tombstone
from repo_store.pack import Pack, carry, pack_name
from repo_store.pack_key import make_pack_key
from repo_store.sealed import Kind, seal_object

HERE = Path(__file__).parent / "format-1"
NOW = 1_795_000_000 * 10**9
PASSPHRASE = "an old Gr\u00fc\u00dfe from 2026"
SMALL = Parameters(Algorithm.PHTE64, 64, 256, 1024)
"""Tiny chunks, so that a stream of 40 kB has a content tree."""


class Making:
    """The repository while it is made, in memory."""

    def __init__(self, folder: Path) -> None:
        self.made: Made = make_repository()
        self.world = World(self.made.storage.disk, self.made.key_file, folder / "hosts")
        self.folder = folder
        self.random = random.Random(1)

    def session(self) -> Session:
        return self.world.session(self.made.storage.disk)

    def snapshot(self, tree: str, series: str, **more: Any) -> Manifest:
        options = SnapshotOptions(series=series, host="host", tags=("golden",), **more)
        return snapshot_files(self.session(), [str(self.folder / tree)], options=options).manifest

    def put(self, kind: Kind, name: str, body: dict[str, Any]) -> None:
        ring = self.made.open().ring
        self.made.storage.put(name, seal_object(ring, kind, body, subject=name))

    def put_pack(self, pack: Pack) -> tuple[bytes, int, Directory]:
        self.made.storage.put(pack_name(pack.hash), pack.buffers)
        return pack.hash, pack.size, pack.directory

    def put_table(self, *packs: tuple[bytes, int, Directory]) -> None:
        session = self.session()
        for pack in packs:
            session.index.add_pack(*pack)
        data = session.index.take_table()
        assert data is not None
        self.made.storage.put(table.table_name(data), data)


def make_tree(folder: Path) -> None:
    """Write what a file system can hold, as far as any user may make it."""
    tree = folder / "tree"
    (tree / "empty").mkdir(parents=True)
    for name, data in (("a-b", b"1"), ("a.txt", b"two" * 100), ("large", random.Random(2).randbytes(70_000))):
        (tree / name).write_bytes(data)
    (tree / "a").mkdir()
    (tree / "a" / "b").write_bytes(b"below")
    with open(os.fsencode(tree) + b"/\xff not \xc3 utf-8", "wb") as file:
        file.write(b"raw name")
    os.link(tree / "a.txt", tree / "a" / "linked")
    os.symlink("a.txt", tree / "symlink")
    os.symlink(b"\xfe", os.fsencode(tree) + b"/symlink to bytes")
    os.mkfifo(tree / "fifo", 0o640)
    (tree / "empty-file").touch(0o600)
    with (tree / "sparse").open("wb") as file:
        file.seek(200_000)
        file.write(b"behind the hole")
        file.truncate(300_000)
    os.setxattr(tree / "a.txt", "user.golden", b"\0value\xff")
    os.chmod(tree / "a", 0o2750)
    os.utime(tree / "a.txt", ns=(0, -1_500_000_001))


def make_manifests(making: Making) -> None:
    """Two series of files with several manifests, one of them partial, one incomplete; a stream with a content tree."""
    make_tree(making.folder)
    making.snapshot("tree", "files")
    (making.folder / "tree" / "later").write_bytes(b"came later")
    making.snapshot("tree", "files", hold_until=NOW + 10**18)
    _interrupted(making)
    _incomplete(making)
    stream = making.random.randbytes(20_000) * 2
    options = SnapshotOptions(series="stream", host="host", parameters=SMALL)
    read, write = os.pipe()
    with os.fdopen(write, "wb") as target:
        target.write(stream)
    snapshot_stdin(making.session(), b"dump.sql", read, options=options)
    os.close(read)


def _interrupted(making: Making) -> None:
    """Stop a run after its first checkpoint was due: what it keeps is a partial manifest."""
    progress = Progress()
    for n in range(3):
        (making.folder / "tree" / f"z{n}").write_bytes(making.random.randbytes(500))
    options = SnapshotOptions(series="files", host="host", checkpoint_seconds=0)
    session = making.session()
    storage, put = session.storage, session.storage.put

    def put_and_stop(name: str, data: Any) -> None:
        put(name, data)
        if name.startswith("manifests/"):
            progress.stop.set()

    storage.put = put_and_stop  # type: ignore[method-assign]
    with suppress(Interrupted):
        snapshot_files(session, [str(making.folder / "tree")], options=options, progress=progress)


def _incomplete(making: Making) -> None:
    """A manifest of status incomplete, made from a complete one: root reads every file, so none can be refused to it."""
    before = making.session().read_manifests().newest("files")
    assert before is not None
    body = before.to_body() | {
        "id": b"incomplete......",
        "series": "incomplete",
        "sequence": 1,
        "previous": None,
        "status": "incomplete",
        "problems": [["tree/secret", "cannot be read: permission denied"]],
        "a key of a later version": {"nested": [1, 2]},
    }
    making.put(Kind.MANIFEST, f"manifests/{body['id'].hex()}", body)


def make_frames(making: Making) -> None:
    """Files whose chunks lie in frames with a base, and in frames that were carried to another pack."""
    ring = making.made.open().ring
    old = making.random.randbytes(9_000)
    new = old[:4_000] + b"changed in the middle" + old[4_000:]
    keys = [make_pack_key(ring, Kind.DATA_DIRECTORY) for _ in range(2)]
    base = make_frame(ring, keys[0], 0, [old[:5_000], old[5_000:]])
    delta = make_frame(ring, keys[1], 7, [new], base=Base(base.place.name, old))
    assert delta.place.codec == 2
    moved = make_pack(ring, [[b"carried " * 40], [making.random.randbytes(700)]])
    carried = carry(ring, Kind.DATA_DIRECTORY, [delta, *frames_of(moved)])
    packs = [making.put_pack(pack) for pack in (carry(ring, Kind.DATA_DIRECTORY, [base]), carried)]
    making.put_table(*packs)
    folder = making.folder / "frames"
    folder.mkdir()
    (folder / "delta").write_bytes(new)
    (folder / "carried").write_bytes(b"carried " * 40)
    before = set(making.made.storage.disk.objects())
    making.snapshot("frames", "frames")
    new_packs = [n for n in set(making.made.storage.disk.objects()) - before if n.startswith("packs/")]
    assert len(new_packs) == 2, "two copies of metadata: the contents were found where they lie"


def make_records(making: Making) -> None:
    """A tombstone, a forgotten manifest, pendings, notes, a ledger record, two generations of garbage collection."""
    (making.folder / "tree" / "forgotten").write_bytes(b"of a forgotten manifest")
    forgotten = making.snapshot("tree", "forgotten")
    dead, open_pending = b"dead............", b"pending........."
    marker = ForgetMarker(id=forgotten.id, time=NOW, reason="keep 0")
    making.put(Kind.FORGET, f"forgotten/{forgotten.id.hex()}", marker.to_body())
    tombstone = Tombstone(id=dead, time=NOW, reason="no sign of life for three days")
    making.put(Kind.TOMBSTONE, f"manifests/{dead.hex()}", tombstone.to_body())
    pending = forgotten.to_body() | {"id": open_pending, "storage_date": None}
    making.put(Kind.PENDING, f"pending/{open_pending.hex()}", pending)
    note = Note(id=forgotten.id, time=NOW, add_tags=("kept",), remove_tags=("golden",), sets_hold=True)
    making.put(Kind.NOTE, f"notes/{forgotten.id.hex()}.0123456789abcdef", note.to_body())
    record = LedgerRecord(
        id=b"ledger..........", time=NOW, depth="data", damaged_frames=(b"a lost frame name...",)
    )
    making.put(Kind.LEDGER, f"ledger/{record.id.hex()}", record.to_body())
    gone = (blake3(b"a pack that was removed").digest(),)
    records = (
        ("mark", Kind.MARK, Mark(generation=1, time=NOW, packs=gone, tables=gone).to_body()),
        (
            "sweep",
            Kind.SWEEP,
            Sweep(generation=1, time=NOW, packs=gone, tables=gone, pendings=(dead,)).to_body(),
        ),
        ("done", Kind.DONE, Done(generation=1, time=NOW, unreferenced=gone).to_body()),
    )
    for stage, kind, body in records:
        making.put(kind, f"gc/0000000001.{stage}", body)
    still_open = Mark(
        generation=2, time=NOW, packs=(blake3(b"condemned").digest(),), frames=(b"sparse frame name...",)
    )
    making.put(Kind.MARK, "gc/0000000002.mark", still_open.to_body())


def make_keys(making: Making) -> str:
    """Add a passphrase slot of an owner and a writer's key file; return the writer's key line."""
    add_slot(making.made.open(), secret=cheap(PASSPHRASE), role="owner", label="second owner", now_ns=NOW)
    return making.made.add("writer", "a writer").line


def describe(slow: SlowRepository, *, contents: bool = True) -> dict[str, Any]:
    """Return what expected.json holds of every live manifest."""
    return {
        manifest: {
            "fields": {
                key: body[key] for key in ("series", "sequence", "status", "host", "source", "start", "tags")
            },
            "roots": [[name.hex(), path.hex()] for name, path in body["roots"]],
            "problems": body["problems"],
            "entries": list(_entries(slow, body)),
        }
        for manifest, body in sorted(slow.manifests().items())
    }


def _entries(slow: SlowRepository, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, row in slow.entries(body):
        extra = row[10] or {}
        yield {
            "path": [component.hex() for component in path],
            "fields": row[1:9],
            "extra": {key: repr(extra[key]) for key in sorted(extra)},
            "content": blake3(slow.content(row)).hexdigest(),
        }


def main() -> None:
    """Make everything anew."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        making = Making(Path(folder))
        make_manifests(making)
        make_frames(making)
        writer = make_keys(making)
        open_second_epoch(making.made)
        (making.folder / "tree" / "epoch 2").write_bytes(b"sealed in the second epoch")
        making.snapshot("tree", "files")
        make_records(making)
        storage = LocalStorage.create(str(HERE / "repository"))
        objects = making.made.storage.disk.objects()
        for name, data in objects.items():
            storage.put(name, data)
        storage.barrier()
        write_key_file(HERE / "owner.key", making.made.key_file)
        (HERE / "writer.key").write_text(writer + "\n")
        (HERE / "passphrase").write_text(PASSPHRASE + "\n")
        expected = describe(SlowRepository(objects, secrets_of(making.made.open().ring)))
        (HERE / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"{len(objects)} objects, {size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
