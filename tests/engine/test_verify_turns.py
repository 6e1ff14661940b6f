"""Verification spread over many runs: what is damaged is found in its turn, stays reported until it is healed, and heals."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repositories import KeyFiles
from support.sessions import World, content_of, make_world, tree_content, write_tree
from support.simulated_storage import Faults, Operation, SimulatedStorage

from engine.files_snapshot import snapshot_files
from engine.progress import Interrupted, Progress
from engine.reading_back import list_entries
from engine.session import Session, session_of
from engine.snapshot_run import SnapshotOptions, SnapshotResult
from engine.verify import VerifyReport, verify_repository
from engine.verify_selection import budget_of
from repo_store.errors import StorageError
from repo_store.key_ops import add_slot
from repo_store.ledger_store import Ledger, LedgerEntry
from repo_store.pack import pack_name
from repo_store.repository import open_repository
from repo_store.rows import Section

DAY = 86_400 * 10**9
START = 20_000 * DAY
SERIES = 6


class Scene:
    """A repository of a few series, each with packs of its own, and a calendar."""

    def __init__(self, folder: Path) -> None:
        self.world: World = make_world(folder / "hosts")
        self.now = START
        self.world.disk.set_clock(self.now)
        self.trees = [
            write_tree(folder / f"tree-{n}", {"a": b"%d" % n * 40_000, "b": b"x%d" % n * 900})
            for n in range(SERIES)
        ]
        self.results = [self.snapshot(n) for n in range(SERIES)]

    def snapshot(self, number: int, session: Session | None = None) -> SnapshotResult:
        """Take a snapshot of one of the trees, all of it read."""
        options = SnapshotOptions(full_read=True)
        return snapshot_files(session or self.world.session(), [str(self.trees[number])], options=options)

    def verify(
        self, sample: str | None = None, within: float | None = None, data: bool = True
    ) -> VerifyReport:
        """Verify as the owner does, from a host that knows nothing."""
        return verify_repository(
            self.world.session(operation="verify"),
            data=data,
            budget=budget_of(within_days=within, sample=sample),
            now_ns=self.now,
        )

    def next_day(self, days: float = 1) -> None:
        """Let time pass, here and for the storage."""
        self.now += int(days * DAY)
        self.world.disk.set_clock(self.now)

    def packs(self) -> list[str]:
        """Return the names of all packs."""
        return [name for name in self.world.disk.objects() if name.startswith("packs/")]

    def data_pack(self, number: int) -> str:
        """Return the pack with the contents of one tree: what only its own manifest needs, and exists once."""
        session = self.world.session(operation="read")
        entries = list_entries(session, self.results[number].manifest)
        content = next(entry.content for path, entry in entries if path[-1] == b"a")
        assert isinstance(content, bytes)
        (place,) = session.index.find_chunk(Section.DATA, content)
        (where,) = session.index.find_frame(place.frame)
        return pack_name(where.pack)

    def rot(self, name: str) -> None:
        """Flip a bit in the first frame of a pack."""
        data = bytearray(self.world.disk.objects()[name])
        data[7] ^= 1
        self.world.disk.damage(name, bytes(data))

    def ledger(self) -> Iterator[LedgerEntry]:
        """Return the records there are."""
        session = self.world.session(operation="read")
        return Ledger(session.storage, session.ring).entries()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("share", [30, 9])
def test_damage_is_found_within_the_stated_runs_stays_reported_and_heals(scene: Scene, share: int) -> None:
    pack = scene.data_pack(2)
    hurt = {scene.results[2].manifest.id.hex()}
    scene.verify()
    scene.next_day()
    scene.rot(pack)
    found = []
    for _ in range(math.ceil(100 / share)):
        report = scene.verify(sample=f"{share}%")
        assert report.packs_checked + (report.packs_left or 0) == len(scene.packs())
        assert (pack in report.damaged) == (report.status == "damaged")
        found.append(report.status)
        scene.next_day()
    assert "damaged" in found
    first = found.index("damaged")
    assert found == ["ok"] * first + ["damaged"] * (len(found) - first), "once found it is not forgotten"
    for report in (scene.verify(sample="1%"), scene.verify(data=False), scene.verify()):
        assert report.damaged[pack].manifests == hurt
    healed = scene.snapshot(2)
    assert content_of(scene.world.session(operation="read"), healed.manifest) == tree_content(scene.trees[2])
    scene.next_day()
    assert scene.verify(data=False).status == "ok", "nobody needs what is damaged any more"
    assert scene.verify().damaged[pack].manifests == set()


def test_without_any_verification_of_all_every_pack_is_read_in_as_many_runs_as_there_are_shares(
    scene: Scene,
) -> None:
    checked = 0
    for night in range(4):
        report = scene.verify(sample="25%")
        checked += report.packs_checked
        assert report.packs_never_checked == max(0, len(scene.packs()) - checked)
        assert report.oldest_check == START if night < 3 else report.oldest_check is not None
        scene.next_day()
    assert checked >= len(scene.packs()) and report.packs_never_checked == 0


def test_within_reads_what_is_due_and_new_packs_are_due_at_once(scene: Scene) -> None:
    assert scene.verify(within=30).packs_checked == len(scene.packs())
    scene.next_day(29)
    assert scene.verify(within=30).packs_checked == 0
    before = set(scene.packs())
    (scene.trees[0] / "new").write_bytes(b"new" * 30_000)
    scene.snapshot(0)
    report = scene.verify(within=30)
    assert report.packs_checked == len(set(scene.packs()) - before) > 0
    assert (report.packs_left, report.oldest_check) == (0, START)
    scene.next_day(1)
    assert scene.verify(within=30).packs_checked == len(before)


def test_a_pack_that_is_not_whole_takes_its_turn_and_no_more(scene: Scene) -> None:
    pack = scene.data_pack(0)
    scene.rot(pack)
    scene.verify()
    read: set[bytes] = set()
    for _ in range(5):
        scene.next_day()
        before = {entry.name for entry in scene.ledger()}
        scene.verify(sample="20%", within=1)
        for entry in scene.ledger():
            if entry.name not in before:
                read.update(entry.record.packs, entry.record.faulty_packs)
    assert {pack_name(each) for each in read} == set(scene.packs())


def test_a_full_verification_believes_no_record(scene: Scene) -> None:
    scene.verify()
    pack = scene.data_pack(1)
    scene.rot(pack)
    assert scene.verify(within=30).packs_checked == 0
    assert pack in scene.verify().damaged


def test_damage_that_was_none_is_taken_back_by_a_later_look_at_that_pack(scene: Scene) -> None:
    pack = scene.data_pack(3)
    whole = scene.world.disk.objects()[pack]
    scene.rot(pack)
    assert scene.verify().status == "damaged"
    scene.world.disk.damage(pack, whole)  # a bad cable, say
    scene.next_day()
    assert scene.verify(data=False).status == "damaged"
    assert scene.verify(sample="100%").status == "ok"
    assert scene.verify(data=False).status == "ok"


def test_what_an_interrupted_verification_found_good_is_recorded(scene: Scene) -> None:
    progress = Progress()

    reads = 0

    def stop_after_some(operation: Operation) -> None:
        nonlocal reads
        if operation.kind == "get" and operation.name.startswith("packs/"):
            reads += 1
            if reads > 14:
                progress.stop.set()

    session = scene.world.session(faults=Faults(before=stop_after_some), operation="verify")
    with pytest.raises(Interrupted):
        verify_repository(session, data=True, now_ns=scene.now, progress=progress)
    (entry,) = scene.ledger()
    assert 0 < len(entry.record.packs) < len(scene.packs())
    report = scene.verify(within=30)
    assert report.packs_checked == len(scene.packs()) - len(entry.record.packs)


def test_a_verification_that_cannot_be_recorded_says_so_and_is_none_the_worse(scene: Scene) -> None:
    full = Faults(fail=lambda operation: operation.kind == "put")
    session = scene.world.session(faults=full, operation="verify")
    report = verify_repository(session, data=True, now_ns=scene.now)
    assert report.status == "ok" and "could not be recorded" in report.notices[0]
    assert list(scene.ledger()) == []


def test_a_key_that_may_record_nothing_says_so_where_it_matters(scene: Scene) -> None:
    keys = KeyFiles()
    add_slot(scene.world.session().repository, secret=keys.new(), role="writer", label="w", now_ns=1)
    places = scene.world.places()
    opened = open_repository(
        scene.world.session().storage, keys.saved[0], str(places.state_dir), operation="verify"
    )
    writer = session_of(opened, places, operation="verify")
    sampled = verify_repository(writer, data=True, budget=budget_of(within_days=None, sample="10%"))
    assert sampled.notices == ["this key records nothing: the next run begins with the same packs"]
    assert verify_repository(writer, data=True).notices == []


def test_what_was_not_opened_is_no_check_for_one_who_can(scene: Scene) -> None:
    report = scene.verify()
    (entry,) = scene.ledger()
    assert entry.record.contents and report.contents_read


@pytest.mark.parametrize("content", [b"", b"rot", b"HFSO" + bytes(200), b"x" * 100_000])
def test_records_of_a_hostile_storage_count_for_nothing_and_are_named(scene: Scene, content: bytes) -> None:
    scene.verify()
    (entry,) = scene.ledger()
    whole = scene.world.disk.objects()[entry.name]
    other = "ledger/" + "0" * 32
    scene.world.disk.damage(other, whole)  # a true record under another name
    scene.world.disk.damage(entry.name, content)
    scene.world.disk.damage("ledger/readme.txt", b"not ours")
    report = scene.verify(within=30)
    assert set(report.damaged) == {entry.name, other}
    assert report.packs_checked == len(scene.packs()), "none of them exempts anything"
    result = scene.snapshot(0)
    assert result.manifest.status == "complete"
    assert {problem.message.partition(":")[0] for problem in result.problems} == {entry.name, other}
    assert {str(problem.kind) for problem in result.problems} == {"note"}


def test_a_snapshot_fetches_no_record_that_this_machine_has_seen(scene: Scene) -> None:
    for _ in range(3):
        scene.verify()
    places, fetched = scene.world.places(), []
    for _ in range(2):
        storage = SimulatedStorage(scene.world.disk)
        opened = open_repository(storage, scene.world.key_file, str(places.state_dir), operation="write")
        scene.snapshot(0, session_of(opened, places, operation="write"))
        fetched.append(len([name for name in storage.names("get") if name.startswith("ledger/")]))
    assert fetched == [3, 0]


def test_a_storage_that_fails_while_records_are_read_fails_the_snapshot(scene: Scene) -> None:
    scene.verify()
    broken = Faults(fail=lambda each: each.kind == "get" and each.name.startswith("ledger/"))
    with pytest.raises(StorageError):
        scene.snapshot(0, scene.world.session(faults=broken))
