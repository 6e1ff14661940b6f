"""What a prune costs, and what it leaves.

    python benchmarks/prune.py index [--chunks 1000000] [--manifests 1000]     time, memory and requests of a prune
    python benchmarks/prune.py space [--files 300] [--snapshots 20]            bytes left for each byte that is needed

`index` makes many small chunks, so that what counts is their number; `space` makes files of a megabyte with chunks of
64 KiB, of which each snapshot changes a third. The older half of the manifests is forgotten. Prunes run in a process of
their own, whose peak of resident memory is reported, with a key from which the data key was taken away, but for
`--compact`.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.files_snapshot import snapshot_files  # noqa: E402
from engine.forget import plan_forget_ids, run_forget  # noqa: E402
from engine.prune import plan_prune, run_prune  # noqa: E402
from engine.session import Places, Session, init_repository, open_session  # noqa: E402
from engine.snapshot_run import SnapshotOptions  # noqa: E402
from repo_store.commit import commit_manifest  # noqa: E402
from repo_store.entry import Entry, EntryKind  # noqa: E402
from repo_store.generations import read_generations  # noqa: E402
from repo_store.key_file import KeyFile, NewKeyFile, parse_key_file  # noqa: E402
from repo_store.manifest import Manifest  # noqa: E402
from repo_store.repository_writer import RepositoryWriter  # noqa: E402
from repo_store.storage import ObjectInfo  # noqa: E402
from repo_store.tree_builder import TreeBuilder  # noqa: E402

CHUNK_BYTES = 256
CHUNKS_TO_A_FILE = 25
NOW = 1_700_000_000 * 10**9


class Counted:
    """A storage that counts what is asked of it; a listing counts once for a thousand names, as S3 answers it."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name not in ("put", "get", "info", "delete"):
            return method

        def counted(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return method(*args, **options)

        return counted

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List, and count a request for each thousand."""
        found = list(self._storage.list(prefix))
        self.calls["list"] += 1 + len(found) // 1000
        return iter(found)


def open_at(folder: Path, operation: str) -> Session:
    """Open the repository below `folder`."""
    key = parse_key_file((folder / "key").read_text())
    places = Places(folder / "cache", folder / "state")
    return open_session(str(folder / "repository"), lambda _: key, places, operation=operation)


def make_repository(folder: Path) -> None:
    """Make a repository below `folder`."""
    saved: list[KeyFile] = []
    places = Places(folder / "cache", folder / "state")
    init_repository(str(folder / "repository"), NewKeyFile(saved.append), places, label="benchmark")
    (folder / "key").write_text(saved[0].line)


def fill_with_small_chunks(folder: Path, chunks: int, manifests: int) -> None:
    """Store so many chunks in so many manifests: a tenth in the first, the rest spread over the others."""
    source = random.Random(1)
    files = max(1, chunks // 10 // CHUNKS_TO_A_FILE)
    changed = max(1, (chunks - files * CHUNKS_TO_A_FILE) // CHUNKS_TO_A_FILE // max(1, manifests - 1))
    session = open_at(folder, "write")
    contents: list[bytes] = [b""] * files
    previous: Manifest | None = None
    for number in range(manifests):
        writer = RepositoryWriter(session.storage, session.ring, session.index, session.reader.get_node)
        with writer:
            start = 0 if number == 0 else source.randrange(files)
            for at in range(files if number == 0 else changed):
                ids = [writer.data.put(source.randbytes(CHUNK_BYTES)) for _ in range(CHUNKS_TO_A_FILE)]
                contents[(start + at) % files] = b"".join(ids)
            previous = _commit(session, writer, contents, previous)


def _commit(session: Session, writer: RepositoryWriter, contents: list[bytes], previous: Any) -> Manifest:
    tree = TreeBuilder(session.ring.tree_cut_key, writer.put_node)
    size = CHUNK_BYTES * CHUNKS_TO_A_FILE
    for number, ids in enumerate(contents):
        content = [ids, [CHUNK_BYTES] * CHUNKS_TO_A_FILE]
        name = b"%07d" % number
        tree.add((name,), Entry(name, EntryKind.FILE, 0o644, 0, 0, NOW, NOW, number, size, content, None))
    root = tree.finish()
    writer.settle()
    manifest = Manifest(
        id=os.urandom(16),
        series="files:benchmark",
        sequence=1 if previous is None else previous.sequence + 1,
        previous=None if previous is None else (previous.id, previous.hash),
        start=NOW,
        end=NOW,
        storage_date=None,
        host="benchmark",
        source="files",
        status="complete",
        root=root,
    )
    now = read_generations(session.storage, session.ring)
    return commit_manifest(
        session.storage, session.ring, manifest, seen=now, rescue=lambda _: (), recheck=lambda: None
    )


def fill_with_files(folder: Path, files: int, snapshots: int) -> None:
    """Take snapshots of files of a megabyte; before each a third of them is rewritten, in whole or in part."""
    source, tree = random.Random(2), folder / "tree"
    tree.mkdir()
    for number in range(snapshots):
        for name in range(files) if number == 0 else source.sample(range(files), files // 3):
            path = tree / f"{name:05d}"
            if path.exists() and source.random() < 0.7:
                with path.open("r+b") as file:
                    file.seek(source.randrange(700_000))
                    file.write(source.randbytes(200_000))
            else:
                path.write_bytes(source.randbytes(1_000_000))
        snapshot_files(open_at(folder, "write"), [str(tree)], options=SnapshotOptions(host="h"))


def prune_once(folder: Path, *, compact: bool) -> dict[str, Any]:
    """Run one prune; return what it did and cost."""
    session = open_at(folder, "prune")
    repository = session.repository
    if not compact:
        epochs = {n: replace(keys, data_private=None) for n, keys in repository.ring.epochs.items()}
        repository = replace(repository, ring=replace(repository.ring, epochs=epochs, owner_private=None))
    storage = Counted(session.storage)
    session.repository = replace(repository, storage=storage)
    session.index._storage = storage
    session.reader._storage = session.reader.packs._storage = storage
    started = time.monotonic()
    plan = plan_prune(session, compact=compact)
    planned = time.monotonic()
    result = run_prune(session, plan)
    found = plan.survey
    assert found is not None
    needed = list(found.frames.needed())
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        "plan_seconds": round(planned - started, 1),
        "run_seconds": round(time.monotonic() - planned, 1),
        "peak_mb": int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) // 1024,
        "requests": dict(storage.calls),
        "chunks": session.index.count(),
        "packs_deleted": result.packs_deleted,
        "packs_repacked": result.packs_repacked,
        "frames_compacted": result.frames_compacted,
        "bytes_freed": result.bytes_freed,
        "bytes_left": result.bytes_left,
        "bytes_next": result.bytes_next,
        "live_frame_bytes": sum(found.frames.sealed[frame] for frame in needed),
        "live_chunk_bytes": sum(found.frames.live[frame] for frame in needed),
    }


def _in_a_process(folder: Path, *, compact: bool = False) -> dict[str, Any]:
    command = [sys.executable, __file__, "once", str(folder), *(["--compact"] if compact else [])]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer


def _forget(folder: Path) -> None:
    session = open_at(folder, "prune")
    live = session.read_manifests().live
    half = [manifest.id.hex() for manifest in live[: len(live) // 2]]
    plan = plan_forget_ids(session, half, now_ns=time.time_ns())
    run_forget(session, plan, now_ns=time.time_ns(), yes=True)


def _report(title: str, found: dict[str, Any]) -> None:
    print(f"{title}: " + ", ".join(f"{key} {value}" for key, value in found.items()), flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["index", "space", "once"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--manifests", type=int, default=1000)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--snapshots", type=int, default=20)
    parser.add_argument("--compact", action="store_true")
    given = parser.parse_args()
    if given.what == "once":
        print(json.dumps(prune_once(Path(given.folder), compact=given.compact)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make_repository(folder)
        if given.what == "index":
            fill_with_small_chunks(folder, given.chunks, given.manifests)
        else:
            fill_with_files(folder, given.files, given.snapshots)
        _forget(folder)
        for turn in ("first prune", "second prune", "third prune"):
            _report(turn, _in_a_process(folder))
        if given.what == "space":
            for turn in ("compaction", "after compaction", "at the end"):
                _report(turn, _in_a_process(folder, compact=turn == "compaction"))


if __name__ == "__main__":
    main()
