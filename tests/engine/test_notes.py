"""Tags and holds that came later: what several notes make of a manifest, who may write them, and what a clock can do.

Method: random notes are folded by the product and by a plain reference; the product's own notes are then written on a
simulated disk that loses power, by hosts whose clocks are wrong, and beside notes that are damaged or forged.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manifests import DAY, manifest, numbers, store, store_note
from support.repositories import KeyFiles
from support.sessions import World, make_world, storage_of, write_tree
from support.simulated_storage import EVERYTHING, NOTHING_MORE, Faults, PowerCut, SimulatedDisk

from engine.files_snapshot import snapshot_files
from engine.notes import Change, change_notes
from engine.selection import LATEST, Selection, select_manifest
from engine.series import series_notices
from engine.session import Session
from engine.verify import verify_repository
from repo_store.body import NUMBER_MAX
from repo_store.errors import Refused
from repo_store.key_ops import add_slot
from repo_store.key_ring import KeyRing
from repo_store.manifest import TAGS_MAX, Manifest
from repo_store.markers import Note
from repo_store.note_store import NoteList, SignedNote
from repo_store.repository import open_repository

NOW = 1_800_000_000 * 10**9
ADD = Change(add_tags=("x",))
REMOVE = Change(remove_tags=("x",))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path / "hosts")
    store(world, [manifest(1), manifest(2, tags=("first",)), manifest(3, hold_until=NOW + DAY)])
    return world


def change(session: Session, number: int, what: Change, now: int = NOW) -> Manifest:
    """Change the notes of one manifest; return it as the call says it is."""
    target = [m for m in session.read_manifests().live if numbers([m]) == [number]]
    (changed,) = change_notes(session, target, what, now_ns=now)
    return changed


def state(session: Session, number: int) -> tuple[set[str], int | None]:
    """Return the tags and hold of a manifest as a fresh look finds them."""
    (found,) = (m for m in session.read_manifests().live if numbers([m]) == [number])
    return set(found.tags), found.hold_until


notes = st.builds(
    SignedNote,
    st.integers(0, 9).map(lambda n: f"notes/{manifest(1).id.hex()}.{n:016x}"),
    st.builds(
        Note,
        id=st.just(manifest(1).id),
        time=st.integers(0, 5),
        add_tags=st.lists(st.sampled_from("abc"), max_size=2).map(tuple),
        remove_tags=st.lists(st.sampled_from("abc"), max_size=2).map(tuple),
        sets_hold=st.booleans(),
        hold_until=st.none() | st.integers(1, 4),
    ),
    by_owner=st.booleans(),
)


@given(
    st.lists(notes, max_size=6, unique_by=lambda each: each.name),
    st.randoms(use_true_random=False),
    st.none() | st.integers(1, 4),
)
def test_notes_count_in_the_order_of_time_and_name_however_they_are_listed(
    made: list[SignedNote], shuffle: "st.randoms", hold: int | None
) -> None:
    base = manifest(1, tags=("a", "z"), hold_until=hold)
    tags, until = {"a", "z"}, hold or 0
    for each in sorted(made, key=lambda each: (each.note.time, each.name)):
        tags = (tags - set(each.note.remove_tags)) | set(each.note.add_tags)
        asked = each.note.hold_until or 0
        if each.note.sets_hold and (each.by_owner or asked >= until):
            until = asked
    shuffled = made[:]
    shuffle.shuffle(shuffled)
    found = NoteList(shuffled).noted(base)
    assert (set(found.tags), found.hold_until or 0) == (tags, until)
    assert len(set(found.tags)) == len(found.tags)
    again = NoteList(shuffled).noted(found)
    assert (set(again.tags), again.hold_until) == (tags, found.hold_until), "noted twice is noted once"


def test_tags_and_holds_show_wherever_manifests_are_read(world: World) -> None:
    session = world.session()
    change(session, 1, ADD)
    change(session, 2, Change(remove_tags=("first",), add_tags=("second",)))
    change(session, 2, Change(sets_hold=True, hold_until=NOW + 5))
    other = world.session(operation="read")
    assert [state(other, n) for n in (1, 2, 3)] == [
        ({"x"}, None),
        ({"second"}, NOW + 5),
        (set(), NOW + DAY),
    ]
    found = select_manifest(other.read_manifests(), LATEST, selection=Selection(tags=("x",)))
    assert numbers([found]) == [1]
    assert verify_repository(world.session()).status == "ok"


def test_what_a_person_saw_and_changed_stays_changed_whatever_the_clocks_say(world: World) -> None:
    """The one who adds lives years ahead, the one who takes away years behind."""
    change(world.session(), 1, ADD, now=NOW + 5000 * DAY)
    assert state(world.session(), 1) == ({"x"}, None)
    change(world.session(), 1, REMOVE, now=5)
    assert state(world.session(), 1) == (set(), None)
    change(world.session(), 1, ADD, now=7)
    assert state(world.session(), 1) == ({"x"}, None)


def test_behind_a_note_from_the_end_of_all_time_none_can_follow(world: World) -> None:
    store_note(world, Note(id=manifest(1).id, time=NUMBER_MAX, add_tags=("last",)))
    with pytest.raises(Refused, match="dated at the end of all time"):
        change(world.session(), 1, ADD)


def test_nothing_is_written_where_nothing_changes(world: World) -> None:
    session = world.session()
    change(session, 1, ADD)
    change(session, 1, ADD)
    change(session, 3, Change(sets_hold=True, hold_until=NOW + DAY))
    change(session, 3, REMOVE)
    assert len(storage_of(session).names("put")) == 1


def test_all_or_none_of_several_is_refused(world: World) -> None:
    store_note(world, Note(id=manifest(2).id, time=NUMBER_MAX))
    session = world.session()
    with pytest.raises(Refused):
        change_notes(session, [manifest(1), manifest(2)], ADD, now_ns=NOW)
    assert storage_of(session).names("put") == []


def test_no_manifest_gets_more_tags_than_it_may_have(world: World) -> None:
    many = Change(add_tags=tuple(f"t{n}" for n in range(TAGS_MAX)))
    change(world.session(), 1, many)
    with pytest.raises(Refused, match=f"would have {TAGS_MAX + 1} tags, more than {TAGS_MAX}"):
        change(world.session(), 1, ADD)
    assert change(world.session(), 1, Change(add_tags=("x",), remove_tags=("t0",))).tags


def _as(role: str, ring: KeyRing) -> KeyRing:
    """Return a ring whose holder has another role and may sign what it could."""
    line = ring.roster[ring.signer]
    roster = {**ring.roster, ring.signer: type(line)(line.public, line.slot, role, line.kinds)}
    return type(ring)(**{**_fields(ring), "role": role, "roster": roster})


def _fields(ring: KeyRing) -> dict[str, object]:
    return {name: getattr(ring, name) for name in ring.__dataclass_fields__}


def test_only_an_owner_shortens_a_hold(world: World) -> None:
    """A later role may sign notes; the roster says whose they are."""
    session = world.session()
    owner_ring = session.ring
    object.__setattr__(session.repository, "ring", _as("maintainer", owner_ring))
    for shorter in (None, NOW + 1, NOW + DAY - 1):
        with pytest.raises(Refused, match=r"held until .*, and only an owner may shorten that"):
            change(session, 3, Change(sets_hold=True, hold_until=shorter))
    assert storage_of(session).names("put") == []
    assert change(session, 3, Change(sets_hold=True, hold_until=NOW + 9 * DAY)).hold_until == NOW + 9 * DAY
    assert change(session, 1, Change(sets_hold=True, hold_until=NOW + 1)).hold_until == NOW + 1
    # Written all the same, by a program that does not ask: it counts for nothing.
    store_note(world, Note(id=manifest(3).id, time=NOW + DAY, sets_hold=True), "11" * 8)
    assert state(session, 3) == (set(), NOW + 9 * DAY)
    object.__setattr__(session.repository, "ring", owner_ring)
    assert state(session, 3) == (set(), None), "signed by an owner, as the roster now says"


def test_a_note_signed_by_a_writer_counts_for_nothing_and_is_named(world: World) -> None:
    keys = KeyFiles()
    add_slot(world.session().repository, secret=keys.new(), role="writer", label="", now_ns=1)
    ring = open_repository(world.session().storage, keys.saved[-1], None).ring
    name = store_note(world, Note(id=manifest(3).id, time=NOW, sets_hold=True), ring=ring)
    found = world.session().read_manifests()
    assert list(found.damaged) == [name]
    assert "may not sign this" in found.damaged[name]
    assert state(world.session(), 3) == (set(), NOW + DAY)


def test_a_note_under_the_name_of_another_manifest_is_damaged(world: World) -> None:
    name = store_note(world, Note(id=manifest(1).id, time=NOW, add_tags=("x",)))
    moved = f"notes/{manifest(2).id.hex()}.{'00' * 8}"
    world.disk.damage(moved, world.disk.objects()[name])
    found = world.session().read_manifests()
    assert list(found.damaged) == [moved]
    assert state(world.session(), 2) == ({"first"}, None)


@pytest.mark.parametrize("name", ["notes/x", "notes/" + "0" * 32, "notes/" + "0" * 32 + ".short"])
def test_other_names_are_left_alone(world: World, name: str) -> None:
    world.disk.damage(name, b"rubbish")
    assert world.session().read_manifests().damaged == {}


def test_a_power_cut_after_any_step_leaves_each_manifest_as_it_was_or_as_it_shall_be(world: World) -> None:
    targets = [manifest(1), manifest(2)]
    what = Change(add_tags=("x",), sets_hold=True, hold_until=NOW + DAY)
    finished, cut_after = False, 0
    while not finished:
        disk = SimulatedDisk(world.disk.objects())
        try:
            change_notes(world.session(disk, faults=Faults(cut_after=cut_after)), targets, what, now_ns=NOW)
            finished = True
        except PowerCut:
            pass
        for seed in (NOTHING_MORE, EVERYTHING, cut_after + 2):
            found = world.session(disk.after_power_cut(seed))
            first, second = state(found, 1), state(found, 2)
            assert first in ([({"x"}, NOW + DAY)] if finished else [(set(), None), ({"x"}, NOW + DAY)])
            assert second in (
                [({"first", "x"}, NOW + DAY)]
                if finished
                else [({"first"}, None), ({"first", "x"}, NOW + DAY)]
            )
            assert not found.read_manifests().damaged
        cut_after += 1
    assert cut_after >= 3


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[World], Manifest]:
    folder = write_tree(tmp_path / "tree", {"a": b"a" * 5000})
    return lambda world: snapshot_files(world.session(), [str(folder)]).manifest


def test_a_manifest_keeps_its_hash_so_that_its_series_is_no_fork(
    world: World, tree: Callable[[World], Manifest]
) -> None:
    before = tree(world)
    session = world.session()
    change_notes(session, [before], Change(add_tags=("x",), sets_hold=True, hold_until=NOW + DAY), now_ns=NOW)
    (noted,) = (m for m in session.read_manifests().live if m.id == before.id)
    assert (noted.tags, noted.hash) == (("x",), before.hash)
    after = tree(world)
    assert after.previous == (before.id, before.hash)
    assert series_notices(world.session().read_manifests().live, set()) == []


def test_notes_neither_cost_nor_stop_a_snapshot(world: World, tree: Callable[[World], Manifest]) -> None:
    name = store_note(world, Note(id=manifest(1).id, time=NOW))
    world.disk.damage(name, b"rubbish")
    session = world.session()
    assert session.read_manifests(notes=False).damaged == {}
    assert not [each for each in storage_of(session).names("list") if each.startswith("notes")]
    assert tree(world).status == "complete"
