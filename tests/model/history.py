"""A history: the real code of writers, prunes, forgets and readers on one unreliable storage, all of it from one seed.

A history begins with a repository that has a past (`World`): snapshots, one of them forgotten, and perhaps a prune that
has already found what it left. Then processes come and go for some phases; between two of them the power may fail, and
all begin again with what that left on the disk. After every change the disk is judged (watched_disk.py). At the end
the trouble stops: every live manifest is read back, byte for byte, and in some histories quiet prunes must
free everything that nobody needs.

What a process may fail with is a StorageError or a refusal, as anything may go wrong around it. That something is
damaged nobody may ever say, for nothing is.
"""

import hashlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from model.inline import Surroundings, inline
from model.schedule import Process, Schedule
from model.unreliable_storage import UnreliableStorage
from model.watched_disk import InvariantBroken, Library, WatchedDisk
from support.repositories import make_repository
from support.sessions import content_of
from support.simulated_storage import SimulatedDisk, SimulatedStorage

from engine.forget import plan_forget_ids, run_forget
from engine.progress import Progress
from engine.prune import plan_prune, run_prune
from engine.reading_back import list_entries
from engine.session import Places, Session, session_of
from engine.snapshot_run import SnapshotOptions, SnapshotRun
from repo_store.content import ContentBuilder
from repo_store.entry import Entry, EntryKind
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing, Refused, StorageError, UsageError
from repo_store.manifest import Manifest
from repo_store.repository import Repository
from repo_store.repository_writer import RepositoryWriter
from repo_store.storage import Storage

VERSIONS, FILES, CHUNKS = 8, 4, 10
KINDS = ("write", "write", "write", "prune", "prune", "prune", "prune", "forget", "forget", "read")
TROUBLES = (0.0, 0.01, 0.05)
TURNS_MAX = 20_000
QUIET_PRUNES = 6
NOW = 1_700_000_000 * 10**9

Files = dict[str, tuple[bytes, ...]]


@dataclass
class Outcome:
    """What a history came to. `digest` is of every request in its order: the same seed gives the same."""

    seed: int
    failure: str | None
    digest: str
    requests: int
    commits: int
    deleted_packs: int
    cuts: int
    ended: list[str] = field(default_factory=list)
    """How each process ended."""


class World:
    """What all histories share: a repository in some states, the versions of what is backed up, a place for caches."""

    def __init__(self, folder: Path, surroundings: Surroundings) -> None:
        surroundings.random = random.Random(4711)
        made = make_repository()
        self.folder, self.surroundings = folder, surroundings
        self.repository: Repository = made.repository
        self.library = Library(made.repository.ring)
        choice = random.Random(815)
        pool = [choice.randbytes(choice.randint(50, 900)) for _ in range(CHUNKS)]
        self.versions: list[Files] = [
            {f"f{n}": tuple(choice.choices(pool, k=choice.randint(1, 3))) for n in range(FILES)}
            for _ in range(VERSIONS)
        ]
        self.pasts = list(self._make_pasts(made.storage.disk.objects()))

    def _make_pasts(self, objects: dict[str, bytes]) -> Iterator[dict[str, bytes]]:
        """Yield repositories: with two snapshots; one of them forgotten; found unneeded by one prune; by a second."""
        disk = SimulatedDisk(objects)
        places = Places(self.folder / "past", self.folder / "past")
        with self.nodes_kept():
            first = back_up(self.session(SimulatedStorage(disk), places), "a", self.versions[0], 0)
            back_up(self.session(SimulatedStorage(disk), places), "b", self.versions[1], 1)
            yield disk.objects()
            session = self.session(SimulatedStorage(disk), places, operation="prune")
            run_forget(session, plan_forget_ids(session, [first.id.hex()], now_ns=NOW), now_ns=NOW, yes=True)
            yield disk.objects()
            for _ in range(2):
                session = self.session(SimulatedStorage(disk), places, operation="prune")
                run_prune(session, plan_prune(session))
                yield disk.objects()

    def session(self, storage: Storage, places: Places, *, operation: str = "write") -> Session:
        """Open the repository over another connection."""
        return session_of(replace(self.repository, storage=storage), places, operation=operation)

    @contextmanager
    def nodes_kept(self) -> Iterator[None]:
        """Let the judge know every tree node that is stored."""
        put_node, nodes = RepositoryWriter.put_node, self.library.nodes

        def put_and_keep(writer: RepositoryWriter, node: bytes) -> bytes:
            node_id = put_node(writer, node)
            nodes[node_id] = bytes(node)
            return node_id

        with patch.object(RepositoryWriter, "put_node", put_and_keep):
            yield

    def content(self, manifest: Manifest) -> dict[str, bytes]:
        """Return what a manifest was made of; its version is its tag."""
        return {name: b"".join(chunks) for name, chunks in self.versions[int(manifest.tags[0])].items()}


@contextmanager
def simulated_world() -> Iterator[World]:
    """Make a world, and run the product inline as long as it is open."""
    folder = tempfile.mkdtemp(prefix="holdfast-histories-")
    try:
        with inline() as surroundings:
            yield World(Path(folder), surroundings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def back_up(
    session: Session, series: str, files: Files, version: int, choice: random.Random | None = None
) -> Manifest:
    """Take a snapshot as a source does: entries that did not change are taken over, others are read.

    `choice` makes checkpoints. Files that did not change have the same mtime, which is their content here.
    """
    options = SnapshotOptions(host="host", series=series, tags=(str(version),))
    with SnapshotRun(session, source="files", name=series, options=options, progress=Progress()) as run:
        before: dict[bytes, Entry] = {}
        if run.base is not None:
            before = {path[-1]: entry for path, entry in list_entries(session, run.base)}
        for name, chunks in sorted(files.items()):
            mtime = int.from_bytes(hashlib.sha256(b"".join(chunks)).digest()[:7], "big")
            old = before.get(name.encode())
            if old is None or old.mtime_ns != mtime or not run.writer.is_intact(old):
                content = ContentBuilder(session.ring.tree_cut_key, run.writer.put_node)
                for chunk in chunks:
                    content.add(run.writer.data.put(chunk), len(chunk))
                built, size = content.finish()
                old = Entry(name.encode(), EntryKind.FILE, 0o600, 0, 0, mtime, 0, 0, size, built, None)
            run.tree.add((), old)
            if choice is not None and choice.random() < 0.1:
                run.checkpoint()
        return run.finish().manifest


class History:
    """One history, from its seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed = world, seed
        world.surroundings.now_ns = NOW
        self.schedule = Schedule(seed, world.surroundings)
        self.choice = self.schedule.random
        self.trouble = self.choice.choice(TROUBLES)
        self.disk = WatchedDisk(self.choice.choice(world.pasts), world.library)
        self.folder = world.folder / f"history-{seed}"
        self.hosts = 0
        self.free_hosts: list[Path] = []
        self.log = hashlib.blake2b(digest_size=16)
        self.requests = self.commits = self.deleted = self.cuts = 0
        self.ended: list[str] = []

    def run(self) -> Outcome:
        """Let it happen."""
        failure = None
        try:
            with self.world.nodes_kept():
                for _ in range(self.choice.choice((1, 1, 2, 3))):
                    self._phase()
                self._after_all()
        except InvariantBroken as broken:
            failure = str(broken)
        finally:
            for process in self.schedule.kill_all():
                self.ended.append(f"{process.name}: cut")
            shutil.rmtree(self.folder, ignore_errors=True)
        self._count()
        digest = self.log.hexdigest()
        return Outcome(
            self.seed, failure, digest, self.requests, self.commits, self.deleted, self.cuts, self.ended
        )

    def _phase(self) -> None:
        """Let processes come and go; then, perhaps, the power fails."""
        left = self.choice.randint(4, 9)
        cut_at = self.requests + self.choice.randint(1, 800) if self.choice.random() < 0.35 else None
        while left or self.schedule.running:
            if (
                left
                and len(self.schedule.awake) < 3
                and (not self.schedule.awake or self.choice.random() < 0.1)
            ):
                left -= 1
                kind = self.choice.choice(KINDS)
                self.schedule.start(f"{kind}-{len(self.ended)}-{left}", getattr(self, f"_{kind}"))
            for process in self.schedule.turn():
                self._judge_end(process)
            if self.schedule.turns > TURNS_MAX:
                raise InvariantBroken("the history does not come to an end")
            if cut_at is not None and self.requests > cut_at:
                self._cut()
                return

    def _cut(self) -> None:
        for process in self.schedule.kill_all():
            self.ended.append(f"{process.name}: cut")
        self._count()
        self.cuts += 1
        self.free_hosts.clear()
        self.disk = self.disk.after_cut(self.choice.getrandbits(32))

    def _count(self) -> None:
        self.commits += self.disk.commits
        self.deleted += self.disk.deleted_packs

    def _judge_end(self, process: Process) -> None:
        error = process.error
        if isinstance(error, InvariantBroken):
            raise InvariantBroken(f"{process.name}: {error}") from error
        how = "killed" if process.killed else "done" if error is None else f"{type(error).__name__}: {error}"
        self.ended.append(f"{process.name}: {how}")
        missing = isinstance(error, ObjectMissing) and process.name.startswith("prune")
        if error is not None and (missing or not isinstance(error, StorageError | Refused | UsageError)):
            raise InvariantBroken(f"{process.name} ended with {type(error).__name__}: {error}") from error

    def _session(self, process: Process, operation: str) -> Session:
        """Open the repository as a host that no other process uses now; often one that has a cache."""
        storage = UnreliableStorage(self.disk, process, self.trouble)
        pause = storage.faults.before

        def logged(operation: Any) -> None:
            pause(operation)
            self.requests += 1
            self.log.update(f"{process.name} {operation.kind} {operation.name}\n".encode())

        storage.faults.before = logged
        if not self.free_hosts or process.random.random() < 0.3:
            self.hosts += 1
            self.free_hosts.append(self.folder / str(self.hosts))
        host = self.free_hosts.pop(process.random.randrange(len(self.free_hosts)))
        process.host = host
        return self.world.session(storage, Places(host, host), operation=operation)

    def _give_back(self, process: Process) -> None:
        if process.host is not None:
            self.free_hosts.append(process.host)

    # What processes do.

    def _write(self, process: Process) -> None:
        try:
            session = self._session(process, "write")
            for _ in range(process.random.choice((1, 1, 2))):
                version = process.random.randrange(VERSIONS)
                series = process.random.choice("ab")
                back_up(session, series, self.world.versions[version], version, process.random)
        finally:
            self._give_back(process)

    def _prune(self, process: Process) -> None:
        try:
            session = self._session(process, "prune")
            for _ in range(process.random.choice((1, 2, 3))):
                run_prune(session, plan_prune(session))
        finally:
            self._give_back(process)

    def _forget(self, process: Process) -> None:
        try:
            session = self._session(process, "prune")
            live = session.read_manifests().live
            chosen = process.random.sample(live, min(len(live), process.random.randint(1, 3)))
            plan = plan_forget_ids(session, [manifest.id.hex() for manifest in chosen], now_ns=NOW)
            run_forget(session, plan, now_ns=NOW, yes=True)
        finally:
            self._give_back(process)

    def _read(self, process: Process) -> None:
        try:
            session = self._session(process, "read")
            for manifest in session.read_manifests().live[-2:]:
                self._read_one(session, manifest)
        finally:
            self._give_back(process)

    def _read_one(self, session: Session, manifest: Manifest) -> None:
        """Read a manifest back; what is forgotten meanwhile may be gone."""
        try:
            self._compare(session, manifest)
        except (ObjectDamaged, ObjectMissing):
            if f"forgotten/{manifest.id.hex()}" not in self.disk.objects():
                raise

    def _compare(self, session: Session, manifest: Manifest) -> None:
        found, expected = content_of(session, manifest), self.world.content(manifest)
        if manifest.status == "partial":
            expected = {name: expected[name] for name in found}
        if found != expected:
            raise InvariantBroken(f"manifest {manifest.id.hex()[:12]} restores something else")

    # How it ends.

    def _after_all(self) -> None:
        """Without any trouble: read everything back; now and then see that all garbage goes."""
        self.world.surroundings.random, self.world.surroundings.clock_error_ns = random.Random(self.seed), 0
        host = self.folder / "last"
        try:
            if self.choice.random() < 0.1:
                self._free_all(host)
            session = self.world.session(SimulatedStorage(self.disk), Places(host, host), operation="read")
            for manifest in session.read_manifests().live:
                self._compare(session, manifest)
        except HoldfastError as error:
            raise InvariantBroken(f"in the end: {type(error).__name__}: {error}") from error

    def _free_all(self, host: Path) -> None:
        for _ in range(QUIET_PRUNES):
            session = self.world.session(SimulatedStorage(self.disk), Places(host, host), operation="prune")
            run_prune(session, plan_prune(session))
        useless = self.disk.useless_packs()
        if useless:
            raise InvariantBroken(
                f"{len(useless)} packs that nobody needs are not freed by {QUIET_PRUNES} prunes"
            )
