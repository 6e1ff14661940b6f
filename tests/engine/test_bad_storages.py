"""Storages that misbehave: a run on one either succeeds, and its manifest is whole, or fails with an error of holdfast's.

Method: a history is made from a seed. On one simulated disk a few runs follow each other (snapshots of a changing
tree, some on one host with its cache, verify, restore), each on a connection that is bad in one or several ways: short
reads, listings of a moment ago, other bytes than were stored, errors that come once or for good, answers that
get lost, slowness. After each run a host that has never seen the repository, on an honest connection, looks at everything.
What was stored is never touched: so nothing may be lost, and nothing may be called damaged then.
"""

import faulthandler
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.processes import Content, random_files
from support.sessions import World, content_of, make_world, tree_content, write_tree
from support.simulated_storage import Faults, Operation, SimulatedDisk, SimulatedStorage

from engine.files_snapshot import snapshot_files
from engine.problems import ProblemKind
from engine.restore import restore_manifest
from engine.session import Places, session_of
from engine.snapshot_run import SnapshotOptions
from engine.verify import verify_repository
from repo_store.errors import HoldfastError
from repo_store.repository import open_repository
from repo_store.storage import Buffer

SEED = 20261127
HANG_SECONDS = 120
OPTIONS = SnapshotOptions(host="host", checkpoint_bytes=300_000)
SIZES = (0, 500, 20_000, 60_000, 200_000)
_READS = ("get", "list", "info")
WAYS = ("short", "stale", "other", "once", "for good", "unanswered", "slow")


@dataclass
class Badness:
    """In which ways a connection is bad, and how often. The same seed does the same to the same calls."""

    seed: int
    ways: tuple[str, ...]
    rate: float
    failed: set[tuple[str, str]] = field(default_factory=set)

    def strikes(self, way: str, operation: Operation) -> bool:
        """Say whether `way` strikes this call."""
        if way not in self.ways:
            return False
        return random.Random(f"{self.seed} {way} {operation.number} {operation.kind}").random() < self.rate

    def fails(self, operation: Operation) -> bool:
        """Say whether the call fails: for good by chance, or only the first of its kind on a name."""
        if self.strikes("once", operation) and (operation.kind, operation.name) not in self.failed:
            self.failed.add((operation.kind, operation.name))
            return True
        return self.strikes("for good", operation)

    def delay(self, operation: Operation) -> None:
        """Be slow now and then."""
        if self.strikes("slow", operation):
            time.sleep(0.003)

    def faults(self) -> Faults:
        """Return the faults of a connection."""
        return Faults(
            fail=self.fails,
            lose_acknowledgement=lambda o: self.strikes("unanswered", o),
            read_short=lambda o: self.strikes("short", o),
            list_stale=lambda o: self.strikes("stale", o),
            stale_changes=1 + self.seed % 7,
            before=self.delay,
        )


class BadStorage(SimulatedStorage):
    """A connection that, beside its faults, may give other bytes than were stored."""

    def __init__(self, disk: SimulatedDisk, badness: Badness) -> None:
        super().__init__(disk, badness.faults())
        self._badness = badness

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        data = super().get(name, offset, length)
        operation = Operation(len(self.operations), "get other", name)
        return _spoilt(data, operation.number) if self._badness.strikes("other", operation) else data


def _spoilt(data: Buffer, seed: int) -> bytes:
    """Return other bytes: one flipped, a stretch of zeros, or those of something else."""
    source = random.Random(seed)
    if not len(data):
        return b"\0"
    spoilt = bytearray(data)
    start = source.randrange(len(spoilt))
    end = min(len(spoilt), start + source.choice((1, 1, 100, 5000)))
    spoilt[start:end] = source.choice((bytes(end - start), source.randbytes(end - start)))
    return bytes(spoilt)


class History:
    """Some runs on bad connections, from one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.source = random.Random(seed)
        self.folder = folder
        self.world: World = make_world(folder / "hosts")
        self.tree = write_tree(folder / "tree", random_files(seed, 6, SIZES))
        self.states: list[Content] = [tree_content(self.tree)]
        self.done = 0
        self.places = self.world.places()
        snapshot_files(self.world.session(), [str(self.tree)], options=OPTIONS)

    def _badness(self) -> Badness:
        ways = self.source.sample(WAYS, self.source.choice((1, 1, 2, 3)))
        return Badness(self.source.randrange(2**32), tuple(ways), self.source.choice((0.01, 0.05, 0.3)))

    def step(self) -> str:
        """Do one run; return what came of it. Raises AssertionError, or what is no HoldfastError."""
        badness, places = self._badness(), self.source.choice((self.places, self.world.places()))
        run = self.source.choice(
            (self._snapshot, self._snapshot, self._snapshot, self._restore, self._verify)
        )
        if self.source.random() < 0.7:
            write_tree(
                self.tree, random_files(self.source.randrange(2**32), self.source.randrange(1, 9), SIZES)
            )
            self.states.append(tree_content(self.tree))
        try:
            run(badness, places)
            outcome = "done"
        except HoldfastError as error:
            outcome = f"{type(error).__name__}: {error}"
            assert str(error), "an error says what happened"
        self.look()
        return f"{run.__name__} on {badness.ways} at {badness.rate}: {outcome}"

    def look(self) -> None:
        """Check, as a host that has never seen the repository, that everything is there and nothing lies."""
        session = self.world.session(operation="verify")
        manifests = session.read_manifests()
        assert not manifests.damaged
        assert manifests.live
        for manifest in manifests.live:
            content = content_of(session, manifest)
            whole = manifest.status == "complete"
            assert any(
                content == state if whole else content.items() <= state.items() for state in self.states
            ), f"{manifest.status} manifest {manifest.id.hex()} holds something that never was"
        report = verify_repository(session, data=True)
        assert report.status == "ok", report.damaged

    def _connect(self, badness: Badness, places: Places, operation: str):  # type: ignore[no-untyped-def]
        storage = BadStorage(self.world.disk, badness)
        repository = open_repository(storage, self.world.key_file, str(places.state_dir), operation=operation)
        return session_of(repository, places)

    def _snapshot(self, badness: Badness, places: Places) -> None:
        result = snapshot_files(self._connect(badness, places, "write"), [str(self.tree)], options=OPTIONS)
        assert result.manifest.status == "complete"
        honest = self.world.session(operation="read")
        assert result.manifest.id in {manifest.id for manifest in honest.read_manifests().live}
        assert content_of(honest, result.manifest) == self.states[-1]
        self.done += 1

    def _verify(self, badness: Badness, places: Places) -> None:
        """What it finds may be wrong on such a storage; what it writes down must not hurt anybody."""
        verify_repository(self._connect(badness, places, "verify"), data=self.source.random() < 0.5)

    def _restore(self, badness: Badness, places: Places) -> None:
        session = self._connect(badness, places, "read")
        live = session.read_manifests().live
        if not live:
            return
        out = self.folder / f"out-{self.source.randrange(2**32)}"
        result = restore_manifest(session, self.source.choice(live), str(out))
        lost = {b"/".join(p.path).decode() for p in result.problems if p.kind == ProblemKind.DAMAGED}
        restored = {
            str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
        }
        complete = result.manifest.status == "complete"
        assert any(
            restored.items() <= state.items() and (not complete or lost or restored == state)
            for state in self.states
        ), "a restore gives the right bytes, or names what it lost"


def _without_hanging(job: Callable[[], None]) -> None:
    """Run `job`; a hang shows all stacks and fails the test, and so does a thread that is left behind."""
    before = set(threading.enumerate())
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="history", daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    if thread.is_alive():
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        pytest.fail("a run hangs")
    if errors:
        raise errors[0]
    left = [each.name for each in threading.enumerate() if each not in before]
    assert left == [], "every thread of a run ends with it"


@pytest.mark.parametrize(
    "number", [*range(40), *(pytest.param(n, marks=pytest.mark.full) for n in range(40, 2000))]
)
def test_a_run_on_a_bad_storage_is_whole_or_fails(tmp_path: Path, number: int) -> None:
    history = History(tmp_path, SEED + number)

    def run() -> None:
        for _ in range(4):
            print(f"seed {SEED + number}: {history.step()}")

    _without_hanging(run)


def test_after_any_badness_an_honest_run_succeeds_and_the_series_counts_on(tmp_path: Path) -> None:
    history = History(tmp_path, SEED)

    def run() -> None:
        for _ in range(12):
            print(f"seed {SEED}: {history.step()}")

    _without_hanging(run)
    session = history.world.session()
    before = max(m.sequence for m in session.read_manifests().live)
    result = snapshot_files(session, [str(history.tree)], options=OPTIONS)
    assert content_of(history.world.session(), result.manifest) == tree_content(history.tree)
    assert result.manifest.sequence > before, "`latest` means this one"


def test_a_manifest_misread_once_costs_its_series_nothing(tmp_path: Path) -> None:
    world, tree = make_world(tmp_path / "hosts"), write_tree(tmp_path / "tree", {"file": b"1"})
    for number in range(3):
        write_tree(tree, {"file": bytes(number)})
        snapshot_files(world.session(), [str(tree)], options=OPTIONS)
    seen: set[str] = set()

    def first_of_a_manifest(operation: Operation) -> bool:
        fresh = operation.name.startswith("manifests/") and operation.name not in seen
        seen.add(operation.name)
        return fresh

    session = world.session(faults=Faults(read_short=first_of_a_manifest))
    assert snapshot_files(session, [str(tree)], options=OPTIONS).manifest.sequence == 4


@pytest.mark.parametrize("kind", ["get", "put", "list", "barrier"])
def test_a_very_slow_storage_changes_nothing(tmp_path: Path, kind: str) -> None:
    history = History(tmp_path, SEED)

    def slow(operation: Operation) -> None:
        if operation.kind == kind:
            time.sleep(0.1)

    def run() -> None:
        session = history.world.session(faults=Faults(before=slow))
        result = snapshot_files(session, [str(history.tree)], options=OPTIONS)
        assert content_of(session, result.manifest) == history.states[-1]

    _without_hanging(run)
    history.look()
