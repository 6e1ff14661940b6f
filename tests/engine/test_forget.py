"""Forget hides what it was asked to hide, and nothing else, whatever happens on the way.

Method: manifests without content lie in a repository on a simulated disk. Forget runs on a storage that dies after each of
its steps, fails at each of them, or lets another process do something at each of them. Each time the manifests are read
by a host that has never seen the repository.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.manifests import DAY, manifest, numbers, store, store_note
from support.repositories import KeyFiles
from support.sessions import World, content_of, make_world, storage_of, write_tree
from support.simulated_storage import EVERYTHING, NOTHING_MORE, Faults, Operation, PowerCut, SimulatedDisk

from engine.files_snapshot import snapshot_files
from engine.forget import ForgetPlan, find_forgotten, plan_forget, plan_forget_ids, run_forget
from engine.notes import Change, change_notes
from engine.retention import Policy
from engine.selection import LATEST, select_manifest
from engine.session import Session, session_of
from engine.snapshot_run import SnapshotOptions
from engine.verify import verify_repository
from repo_store.errors import ObjectDamaged, Refused, StorageError, UsageError
from repo_store.key_ops import add_slot
from repo_store.markers import Note
from repo_store.repository import open_repository
from repo_store.sealed import Kind, seal_object

NOW = 1_800_000_000 * 10**9
LAST_3 = Policy(last=3)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A repository with six manifests, a day apart, ending now."""
    world = make_world(tmp_path / "hosts")
    store(world, [manifest(n, end=NOW - (6 - n) * DAY) for n in range(1, 7)])
    return world


def session_on(world: World, disk: SimulatedDisk | None = None, faults: Faults | None = None) -> Session:
    return world.session(disk, faults=faults, operation="prune")


def forget(session: Session, policy: Policy = LAST_3, *, yes: bool = True) -> ForgetPlan:
    plan = plan_forget(session, policy, now_ns=NOW)
    assert run_forget(session, plan, now_ns=NOW, yes=yes) == []
    return plan


def live(world: World, disk: SimulatedDisk | None = None) -> list[int]:
    found = session_on(world, disk).read_manifests()
    assert not found.damaged
    return numbers(found.live)


def test_what_is_forgotten_has_gone_from_every_list_and_from_the_latest(world: World) -> None:
    before = world.disk.objects()
    plan = forget(session_on(world))
    assert numbers(each.manifest for each in plan.retention.forgotten) == [1, 2, 3]
    assert live(world) == [4, 5, 6]
    after = world.disk.objects()
    assert {name for name in after if name not in before} == {f"forgotten/{n:032x}" for n in (1, 2, 3)}
    assert {name: after[name] for name in before} == before, "nothing is changed or deleted"
    assert verify_repository(session_on(world)).status == "ok"
    plan = plan_forget_ids(session_on(world), [f"{6:032x}"], now_ns=NOW)
    run_forget(session_on(world), plan, now_ns=NOW)
    assert numbers([select_manifest(session_on(world).read_manifests(), LATEST)]) == [5]


def test_a_power_cut_after_any_step_forgets_nothing_else_and_the_next_run_completes_it(world: World) -> None:
    finished = False
    cut_after = 0
    while not finished:
        disk = SimulatedDisk(world.disk.objects())
        try:
            forget(session_on(world, disk, Faults(cut_after=cut_after)))
            finished = True
        except PowerCut:
            pass
        for seed in (NOTHING_MORE, EVERYTHING, cut_after + 2):
            found = disk.after_power_cut(seed)
            left = live(world, found)
            assert left == [4, 5, 6] if finished else set(left) >= {4, 5, 6}
            forget(session_on(world, found))
            assert live(world, found) == [4, 5, 6]
        cut_after += 1
    assert cut_after > 4, "three markers and a barrier"


def test_every_storage_error_fails_forget_or_leaves_it_done(world: World) -> None:
    session = session_on(world)
    forget(session_on(world, SimulatedDisk(world.disk.objects())))
    probe = session_on(world, SimulatedDisk(world.disk.objects()))
    opened = len(storage_of(probe).operations)
    forget(probe)
    steps = len(storage_of(probe).operations)
    for number in range(opened + 1, steps + 1):
        for fault in ("fail", "lose_acknowledgement"):
            disk = SimulatedDisk(world.disk.objects())
            faults = Faults()
            session = session_on(world, disk, faults)
            setattr(faults, fault, _numbered(number))
            try:
                forget(session)
                assert live(world, disk) == [4, 5, 6]
            except StorageError:
                assert set(live(world, disk)) >= {4, 5, 6}
            forget(session_on(world, disk))
            assert live(world, disk) == [4, 5, 6]


def _numbered(number: int) -> Callable[[Operation], bool]:
    return lambda operation: (
        operation.number == number and operation.kind in ("put", "barrier", "list", "get")
    )


def test_a_plan_forgets_nothing_that_was_stored_after_it(world: World) -> None:
    session = session_on(world)
    plan = plan_forget(session, LAST_3, now_ns=NOW)
    store(world, [manifest(7, end=NOW), manifest(8, "partial", end=NOW)])
    run_forget(session, plan, now_ns=NOW, yes=True)
    assert live(world) == [4, 5, 6, 7, 8]


def test_two_who_forget_at_once_are_both_done(world: World) -> None:
    first, second = session_on(world), session_on(world)
    plans = [plan_forget(each, LAST_3, now_ns=NOW) for each in (first, second)]
    run_forget(first, plans[0], now_ns=NOW, yes=True)
    markers = {name: data for name, data in world.disk.objects().items() if name.startswith("forgotten/")}
    run_forget(second, plans[1], now_ns=NOW + 5, yes=True)
    now = {name: data for name, data in world.disk.objects().items() if name.startswith("forgotten/")}
    assert now == markers
    assert live(world) == [4, 5, 6]


def test_the_marker_of_another_is_durable_before_it_is_relied_on(world: World) -> None:
    """The first host loses power after its puts; the second found them there and said that it was done."""
    disk = SimulatedDisk(world.disk.objects())
    second = session_on(world, disk)
    plan = plan_forget(second, LAST_3, now_ns=NOW)
    with pytest.raises(PowerCut):
        forget(session_on(world, disk, Faults(cut_after=3)))
    run_forget(second, plan, now_ns=NOW, yes=True)
    assert live(world, disk.after_power_cut(NOTHING_MORE)) == [4, 5, 6]


@pytest.mark.parametrize(
    "body", [None, {"format": 1}, {"format": 1, "time": 1, "id": bytes(16), "reason": ""}]
)
def test_a_marker_that_cannot_be_opened_is_not_taken_for_one(
    world: World, body: dict[str, Any] | None
) -> None:
    session = session_on(world)
    plan = plan_forget(session, LAST_3, now_ns=NOW)
    name = f"forgotten/{1:032x}"
    sealed = b"rubbish" if body is None else seal_object(session.ring, Kind.FORGET, body, subject=name)
    world.disk.damage(name, sealed)
    with pytest.raises(ObjectDamaged, match=f"{name}: damaged"):
        run_forget(session, plan, now_ns=NOW, yes=True)
    assert set(live(world)) >= {4, 5, 6}


def test_of_one_who_holds_and_one_who_forgets_at_least_one_is_told(world: World) -> None:
    """Somebody holds manifest 1 at any moment of a forget, and forgets it at any moment of a hold."""
    until = Change(sets_hold=True, hold_until=NOW + DAY)
    told = set()

    def hold(session: Session) -> bool:
        target = [manifest(1, end=NOW - 5 * DAY)]
        try:
            change_notes(session, target, until, now_ns=NOW)
        except Refused:
            return True
        return False

    def give_up(session: Session) -> bool:
        plan = plan_forget(session, LAST_3, now_ns=NOW)
        if 1 not in numbers(each.manifest for each in plan.retention.forgotten):
            return True
        return numbers(run_forget(session, plan, now_ns=NOW, yes=True)) == [1]

    for first, second in ((hold, give_up), (give_up, hold)):
        for moment in range(1, 40):
            disk = SimulatedDisk(world.disk.objects())
            faults, other_told = Faults(), []
            session, other = session_on(world, disk, faults), session_on(world, disk)
            begun = len(storage_of(session).operations)

            def interrupt(operation: Operation, at: int = begun + moment) -> None:
                if operation.number == at:
                    other_told.append(second(other))  # noqa: B023 # called within this round

            faults.before = interrupt
            own_told = first(session)
            if not other_told:
                break
            assert own_told or other_told[0], f"{first.__name__}, at its step {moment}"
            told.add((first.__name__, own_told, other_told[0]))
        else:
            pytest.fail("the runs have more steps than were tried")
    assert len(told) > 3, "both ways of telling happen"


def test_nothing_is_written_when_a_policy_needs_a_yes(world: World) -> None:
    session = session_on(world)
    plan = plan_forget(session, Policy(last=2), now_ns=NOW)
    with pytest.raises(Refused, match="4 of 6 complete manifests would be forgotten, more than 50 %"):
        run_forget(session, plan, now_ns=NOW)
    assert storage_of(session).names("put") == []
    run_forget(session, plan_forget(session, Policy(last=2), now_ns=NOW, share_max=80), now_ns=NOW)
    assert live(world) == [5, 6]
    with pytest.raises(Refused, match="its newest complete manifest"):
        run_forget(session, plan_forget(session, Policy(tags=("x",)), now_ns=NOW, share_max=100), now_ns=NOW)
    with pytest.raises(UsageError, match="nothing says what to keep"):
        plan_forget(session, Policy(), now_ns=NOW)
    assert live(world) == [5, 6]


def test_a_writers_key_forgets_nothing(world: World) -> None:
    keys = KeyFiles()
    add_slot(world.session().repository, secret=keys.new(), role="writer", label="", now_ns=1)
    repository = open_repository(world.session().storage, keys.saved[-1], None, operation="prune")
    session = session_of(repository, world.places(), operation="prune")
    plan = plan_forget(session, LAST_3, now_ns=NOW)
    with pytest.raises(Refused, match="has the role writer, which may not forget manifests"):
        run_forget(session, plan, now_ns=NOW, yes=True)
    with pytest.raises(Refused, match="has the role writer, which may not change tags and holds"):
        change_notes(session, [manifest(1)], Change(add_tags=("x",)), now_ns=NOW)
    assert storage_of(session).names("put") == []


class TestById:
    """`forget ID`: what was named goes, and only that."""

    def plan(self, world: World, *ids: str) -> ForgetPlan:
        return plan_forget_ids(session_on(world), ids, now_ns=NOW)

    def test_even_the_last_of_its_series(self, world: World) -> None:
        ids = [f"{n:032x}" for n in (1, 2, 3, 4, 5, 6, 6)]
        run_forget(session_on(world), self.plan(world, *ids), now_ns=NOW)
        assert live(world) == []

    @pytest.mark.parametrize("which", ["", "0", "000", "latest", "ffff", "0" * 31, "zzzz"])
    def test_what_names_no_single_manifest_is_refused(self, world: World, which: str) -> None:
        with pytest.raises(UsageError):
            self.plan(world, which)

    def test_an_empty_id_is_refused_where_there_is_but_one(self, tmp_path: Path) -> None:
        alone = make_world(tmp_path / "alone")
        store(alone, [manifest(1)])
        with pytest.raises(UsageError, match="too short"):
            self.plan(alone, "")

    def test_what_is_held_is_refused_with_all_that_was_named(self, world: World) -> None:
        store_note(world, Note(id=manifest(2).id, time=1, sets_hold=True, hold_until=NOW + 1))
        with pytest.raises(Refused, match=r"manifest 000000000000 is held until"):
            self.plan(world, f"{1:032x}", f"{2:032x}")

    def test_what_is_forgotten_already_is_said_to_be(self, world: World) -> None:
        run_forget(session_on(world), self.plan(world, f"{1:032x}"), now_ns=NOW)
        with pytest.raises(UsageError, match="is forgotten already"):
            self.plan(world, f"{1:032x}")

    def test_one_that_cannot_be_read_needs_its_whole_id_and_a_yes(self, world: World) -> None:
        world.disk.damage(f"manifests/{1:032x}", b"rubbish")
        with pytest.raises(UsageError, match="no such manifest"):
            self.plan(world, f"{1:032x}"[:-1] + "0")
        plan = self.plan(world, f"{1:032x}")
        with pytest.raises(Refused, match="cannot be read, so it may be held"):
            run_forget(session_on(world), plan, now_ns=NOW)
        run_forget(session_on(world), plan, now_ns=NOW, yes=True)
        assert live(world) == [2, 3, 4, 5, 6]

    def test_one_with_a_note_that_cannot_be_read_needs_a_yes_and_no_policy_takes_it(
        self, world: World
    ) -> None:
        note = store_note(world, Note(id=manifest(1).id, time=1))
        world.disk.damage(note, b"rubbish")
        plan = plan_forget(session_on(world), LAST_3, now_ns=NOW)
        assert numbers(each.manifest for each in plan.retention.forgotten) == [2, 3]
        with pytest.raises(Refused, match="a note of manifest 000000000000 cannot be read"):
            run_forget(session_on(world), self.plan(world, f"{1:032x}"), now_ns=NOW)
        run_forget(session_on(world), self.plan(world, f"{1:032x}"), now_ns=NOW, yes=True)
        assert 1 not in numbers(session_on(world).read_manifests().live)


def test_until_a_prune_a_forgotten_manifest_is_restored_by_its_whole_id(world: World, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"a" * 5000})
    options = SnapshotOptions(host="host", series="tree")
    made = snapshot_files(world.session(), [str(tree)], options=options).manifest
    shown = made.id.hex()
    session = session_on(world)
    assert find_forgotten(session, shown) is None
    run_forget(session, plan_forget_ids(session, [shown], now_ns=NOW), now_ns=NOW)
    found = find_forgotten(world.session(operation="read"), shown)
    assert found is not None
    assert content_of(world.session(operation="read"), found) == {"tree/a": b"a" * 5000}
    others: list[Any] = [shown[:-1], "latest", "", "../../etc"]
    assert [find_forgotten(session, each) for each in others] == [None] * 4
    world.disk.damage(f"manifests/{shown}", None)
    assert find_forgotten(session, shown) is None


def test_the_next_snapshot_of_a_forgotten_series_is_whole(world: World, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"a" * 5000})
    options = SnapshotOptions(host="host", series="tree")
    made = snapshot_files(world.session(), [str(tree)], options=options).manifest
    session = session_on(world)
    run_forget(session, plan_forget_ids(session, [made.id.hex()], now_ns=NOW), now_ns=NOW)
    again = snapshot_files(world.session(), [str(tree)], options=options).manifest
    assert content_of(world.session(), again) == {"tree/a": b"a" * 5000}
    assert verify_repository(world.session(), data=True).status == "ok"
