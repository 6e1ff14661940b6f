"""Keys are added, listed, removed and changed without ever losing the way in, wherever the run dies."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support.repositories import NOW, KeyFiles, Made, cheap, make_repository, open_second_epoch
from support.simulated_storage import PowerCut, SimulatedStorage

from repo_store.errors import ObjectDamaged, Refused, StorageError, UsageError, WrongKey
from repo_store.key_file import KeyFile
from repo_store.key_ops import add_slot, change_secret, export_slot, list_slots, remove_slot
from repo_store.passphrase import Passphrase
from repo_store.repository import Repository, open_repository
from repo_store.sealed import Kind, open_object, seal_object


@pytest.fixture
def made() -> Made:
    return make_repository()


def states(made: Made) -> dict[str, str]:
    return {info.slot: info.state for info in list_slots(made.open())}


def dying(made: Made, credential: KeyFile, steps: int) -> Repository:
    """Return the repository over a connection that dies after so many steps."""
    storage = made.storage.again()
    repository = open_repository(storage, credential, None)
    storage.faults.cut_after = steps
    return repository


def die_at_every_step(run: Callable[[Made, int], object], check: Callable[[Made, bool], None]) -> int:
    """Run on a new repository each time, killed one step later; check what each power cut may leave.

    Return the number of steps of the whole run.
    """
    for steps in range(100):
        made = make_repository()
        finished = True
        try:
            run(made, steps)
        except PowerCut:
            finished = False
        for seed in range(3):
            left = SimulatedStorage(made.storage.disk.after_power_cut(seed))
            keys = KeyFiles(list(made.keys.saved))
            check(Made(left, made.repository, made.key_file, keys), finished)
        if finished:
            return steps
    raise AssertionError("the run never ends")


# Adding


def test_an_added_slot_opens_and_is_listed(made: Made) -> None:
    added = add_slot(made.open(), secret=cheap("secret"), role="owner", label="büro", now_ns=NOW + 1)
    assert added.key_file is None
    first, second = list_slots(added.repository)
    assert (first.label, first.role, first.method, first.created_ns) == ("first", "owner", "key file", NOW)
    assert (second.label, second.role, second.method, second.created_ns) == (
        "büro",
        "owner",
        "passphrase",
        NOW + 1,
    )
    assert (first.state, second.state, second.slot) == ("ok", "ok", added.slot)
    assert (first.problems, second.problems) == ((), ())
    opened = made.open(Passphrase("secret"))
    assert opened.ring.slot == added.slot and opened.ring.owner_private == made.owner_private


def test_an_added_slot_reads_every_epoch(made: Made) -> None:
    open_second_epoch(made)
    assert sorted(made.open(made.add("writer")).ring.epochs) == [1, 2]


def test_what_a_new_slot_signs_is_read_by_the_others(made: Made) -> None:
    writer = made.open(made.add("writer"))
    sealed = seal_object(writer.ring, Kind.TABLE, {"a": 1}, subject="")
    assert open_object(made.open().ring, Kind.TABLE, "tables/x", sealed, subject="").body == {"a": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda repository: add_slot(repository, secret=cheap("x"), role="owner", label="", now_ns=NOW),
        lambda repository: remove_slot(repository, repository.ring.slot, now_ns=NOW),
    ],
)
def test_only_an_owner_changes_who_has_keys(made: Made, change: Callable[[Repository], object]) -> None:
    writer = made.open(made.add("writer"))
    before = made.storage.disk.objects()
    with pytest.raises(Refused) as caught:
        change(writer)
    assert (
        str(caught.value)
        == f"slot {writer.ring.slot} has the role writer; only an owner changes who has keys"
    )
    assert made.storage.disk.objects() == before


def test_an_unknown_role_or_flag_stops_it_before_anything_is_written(made: Made) -> None:
    before = made.storage.disk.objects()
    with pytest.raises(Refused, match=r"^the role 'auditor' is not known to this version$"):
        made.add("auditor")
    assert made.storage.disk.objects() == before
    made.put_config(0, made.body(features={"key": ["threshold"]}))
    with pytest.raises(
        Refused, match=r"^to change the keys of this repository needs the feature 'threshold'"
    ):
        made.add("writer")


def test_two_owners_at_once_are_told(made: Made) -> None:
    first, other = made.open(), made.open()
    original = first.storage.put

    def race(name: str, data: Any) -> None:
        if name == "config/1":
            add_slot(other, secret=made.keys.new(), role="writer", label="", now_ns=NOW)
        original(name, data)

    first.storage.put = race  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"^config/1: the keys are being changed by someone else, too$"):
        add_slot(first, secret=made.keys.new(), role="owner", label="", now_ns=NOW)
    loser, winner = made.keys.saved[-2:]
    assert made.open(winner).ring.role == "writer"
    with pytest.raises(WrongKey, match=f"^slot {loser.slot} of the key file is none of this repository$"):
        made.open(loser)


def test_an_addition_killed_at_any_step_added_a_whole_slot_or_none() -> None:
    def run(made: Made, steps: int) -> None:
        repository = dying(made, made.key_file, steps)
        add_slot(repository, secret=made.keys.new(), role="writer", label="", now_ns=NOW)

    def check(made: Made, finished: bool) -> None:
        assert made.open().ring.role == "owner"
        new = made.keys.saved[-1] if made.keys.saved[-1] != made.key_file else None
        counts = new is not None and made.open().config.line_of(new.slot) is not None
        assert counts or not finished
        if counts:
            assert made.open(new).ring.role == "writer"
        assert {info.state for info in list_slots(made.open())} == {"ok"}
        assert made.open(made.add("writer", "again")).ring.role == "writer"

    # The copy of config/0 is put again; four keys, a barrier, the config, a barrier, its copy, a barrier.
    assert die_at_every_step(run, check) == 10


# Listing


def test_the_state_of_each_slot_is_told_by_its_worst_object(made: Made) -> None:
    writer = made.add("writer").slot
    assert states(made) == {made.key_file.slot: "ok", writer: "ok"}
    made.damage(f"keys/{writer}-0.copy")
    made.storage.disk.damage(f"keys/{writer}.1", None)
    info = list_slots(made.open())[1]
    assert (info.state, info.label) == ("one copy damaged", "another")
    assert info.problems == (
        f"keys/{writer}-0.copy: damaged: its signature does not hold",
        f"keys/{writer}.1: damaged: is missing",
    )
    made.damage(f"keys/{writer}-0")
    info = list_slots(made.open())[1]
    assert (info.slot, info.role, info.state) == (writer, "writer", "damaged")
    assert (info.label, info.method, info.created_ns) == (None, None, None)


def test_a_lost_bundle_damages_its_slot(made: Made) -> None:
    writer = made.add("writer").slot
    for name in (f"keys/{writer}.1", f"keys/{writer}.1.copy"):
        made.storage.disk.damage(name, None)
    info = list_slots(made.open())[1]
    assert (info.state, info.label) == ("damaged", "another")
    assert info.problems == (f"keys/{writer}.1: damaged: it and its copy are missing",)


# Removing


def test_a_removed_slot_opens_nothing_and_what_it_signed_stays_readable(made: Made) -> None:
    writer = made.add("writer")
    sealed = seal_object(made.open(writer).ring, Kind.MANIFEST, {"a": 1}, subject="manifests/00")
    after = remove_slot(made.open(), writer.slot, now_ns=NOW)
    assert [info.slot for info in list_slots(after)] == [made.key_file.slot]
    assert not [name for name in made.storage.disk.objects() if writer.slot in name]
    with pytest.raises(WrongKey, match=r"was removed from this repository$"):
        made.open(writer)
    for ring in (after.ring, made.open().ring):
        assert open_object(ring, Kind.MANIFEST, "manifests/00", sealed).body == {"a": 1}


def test_a_removed_slot_signs_nothing_in_a_later_epoch(made: Made) -> None:
    writer = made.add("writer")
    thief = made.open(writer)
    open_second_epoch(made)
    in_second = made.open(writer).ring
    # Removed in epoch 2: what he seals there counts still, in a third it does not.
    remove_slot(made.open(), writer.slot, now_ns=NOW)
    open_second_epoch(made)
    ring = made.open().ring
    assert ring.roster[thief.ring.signer].until == 2
    sealed = seal_object(in_second, Kind.MANIFEST, {}, subject="manifests/00")
    assert open_object(ring, Kind.MANIFEST, "manifests/00", sealed).body == {}
    assert not [name for name in made.storage.disk.objects() if writer.slot in name], "no bundle of epoch 3"


def test_the_last_owner_is_not_removed(made: Made) -> None:
    made.add("writer")
    slot = made.key_file.slot
    with pytest.raises(Refused) as caught:
        remove_slot(made.open(), slot, now_ns=NOW)
    assert str(caught.value) == (
        f"slot {slot} is the last one of an owner that is whole; without it nobody could add keys"
    )
    second = made.add("owner")
    made.damage_both(f"keys/{second.slot}.1")
    with pytest.raises(Refused, match=f"^slot {slot} is the last one of an owner that is whole"):
        remove_slot(made.open(), slot, now_ns=NOW)
    third = made.add("owner")
    remove_slot(made.open(third), slot, now_ns=NOW)
    assert made.open(third).ring.role == "owner"
    with pytest.raises(WrongKey):
        made.open(made.key_file)


def test_a_damaged_slot_can_be_removed(made: Made) -> None:
    writer = made.add("writer")
    made.damage_both(f"keys/{writer.slot}-0")
    remove_slot(made.open(), writer.slot, now_ns=NOW)
    assert states(made) == {made.key_file.slot: "ok"}


def test_an_unknown_slot_cannot_be_removed(made: Made) -> None:
    for slot in ("ab" * 8, "", "../config"):
        with pytest.raises(UsageError) as caught:
            remove_slot(made.open(), slot, now_ns=NOW)
        assert str(caught.value) == f"{slot}: no such slot"


def test_a_removal_killed_at_any_step_is_finished_by_the_next() -> None:
    def run(made: Made, steps: int) -> None:
        writer = made.add("writer")
        remove_slot(dying(made, made.key_file, steps), writer.slot, now_ns=NOW)

    def check(made: Made, finished: bool) -> None:
        writer = made.keys.saved[-1]
        if finished:
            with pytest.raises(WrongKey):
                made.open(writer)
        remove_slot(made.open(), writer.slot, now_ns=NOW)
        assert not [name for name in made.storage.disk.objects() if writer.slot in name]
        numbers = {name for name in made.storage.disk.objects() if name.startswith("config/")}
        assert len(numbers) == 6, "removing twice appends once"

    # The copy before, a config, a barrier, its copy, a barrier, four deletes, a barrier.
    assert die_at_every_step(run, check) == 10


def test_where_nothing_can_be_deleted_the_roster_alone_keeps_it_out(made: Made) -> None:
    key_file = made.add("writer")
    passphrase = cheap("secret")
    slot = add_slot(made.open(), secret=passphrase, role="writer", label="", now_ns=NOW).slot
    for each in (key_file.slot, slot):
        repository = made.open()
        storage: Any = repository.storage
        storage.faults.fail = lambda operation: operation.kind == "delete"
        with pytest.raises(StorageError):
            remove_slot(repository, each, now_ns=NOW)
    with pytest.raises(WrongKey, match=r"was removed"):
        made.open(key_file)
    with pytest.raises(WrongKey, match=r"^simulated: the passphrase opens no slot of this repository$"):
        made.open(passphrase)


# Changing the secret


def test_a_changed_secret_opens_and_the_old_one_does_not(made: Made) -> None:
    before = made.open()
    assert change_secret(made.open(), made.key_file, cheap("new"), now_ns=NOW + 1) is None
    opened = made.open(Passphrase("new"))
    assert (opened.ring.slot, opened.ring.signer) == (before.ring.slot, before.ring.signer)
    assert (opened.config, opened.warnings) == (before.config, ())
    with pytest.raises(WrongKey, match=f"^the key file does not open slot {made.key_file.slot}$"):
        made.open(made.key_file)
    (info,) = list_slots(opened)
    assert (info.label, info.method, info.created_ns) == ("first", "passphrase", NOW + 1)
    back = change_secret(opened, Passphrase("new"), made.keys.new(), now_ns=NOW)
    assert back == made.keys.saved[-1] and back is not None
    assert made.open(back).ring.signer == before.ring.signer
    assert f"keys/{back.slot}-2" in made.storage.disk.objects()


def test_a_writer_changes_his_own_secret(made: Made) -> None:
    writer = made.add("writer")
    new = change_secret(made.open(writer), writer, made.keys.new(), now_ns=NOW)
    assert made.open(new).ring.role == "writer"


def test_a_secret_that_does_not_open_changes_nothing(made: Made) -> None:
    before = made.storage.disk.objects()
    wrong = KeyFile(made.key_file.repository, made.key_file.slot, bytes(32))
    with pytest.raises(WrongKey):
        change_secret(made.open(), wrong, made.keys.new(), now_ns=NOW)
    assert made.storage.disk.objects() == before


def test_a_change_killed_at_any_step_leaves_a_secret_that_opens() -> None:
    def run(made: Made, steps: int) -> None:
        change_secret(dying(made, made.key_file, steps), made.key_file, made.keys.new(), now_ns=NOW)

    def check(made: Made, finished: bool) -> None:
        opening = [key for key in made.keys.saved if opens(made, key)]
        assert opening
        if finished:
            assert opening == [made.keys.saved[-1]]
        last = change_secret(made.open(opening[-1]), opening[-1], made.keys.new(), now_ns=NOW)
        assert [key for key in made.keys.saved if opens(made, key)] == [last]
        assert states(Made(made.storage, made.repository, last, made.keys)) == {made.key_file.slot: "ok"}  # type: ignore[arg-type]

    # A slot, its copy, a barrier, two deletes, a barrier.
    assert die_at_every_step(run, check) == 6


def opens(made: Made, key: KeyFile) -> bool:
    try:
        return made.open(key).ring.role == "owner"
    except WrongKey:
        return False


def test_an_earlier_secret_that_was_not_cleared_away_is_told_of(made: Made) -> None:
    old = {name: data for name, data in made.storage.disk.objects().items() if "-0" in name}
    new = change_secret(made.open(), made.key_file, made.keys.new(), now_ns=NOW)
    for name, data in old.items():
        made.storage.disk.damage(name, data)
    (info,) = list_slots(made.open(new))
    assert (info.state, info.problems) == (
        "ok",
        (f"keys/{made.key_file.slot}-0: an earlier secret still opens it: change it again",),
    )


def test_the_old_secret_stays_until_the_new_one_opens_what_is_stored(made: Made) -> None:
    repository = made.open()
    storage: Any = repository.storage
    storage.faults.read_short = lambda operation: "-1" in operation.name
    with pytest.raises(ObjectDamaged):
        change_secret(repository, made.key_file, made.keys.new(), now_ns=NOW)
    assert made.open(made.key_file).ring.role == "owner"


def test_two_changes_at_once_do_not_both_succeed(made: Made) -> None:
    repository = made.open()
    storage: Any = repository.storage
    change = partial(change_secret, repository, made.key_file, made.keys.new(), now_ns=NOW)
    rival = Made(made.storage, made.repository, made.key_file, made.keys)
    original = storage.put

    def race(name: str, data: Any) -> None:
        storage.put = original
        change_secret(rival.open(), made.key_file, made.keys.new(), now_ns=NOW)
        original(name, data)

    storage.put = race
    with pytest.raises(
        Refused, match=f"^keys/{made.key_file.slot}-1: the slot is being changed by someone else, too$"
    ):
        change()
    assert [opens(made, key) for key in made.keys.saved] == [False, False, True]


# Exporting


def test_an_export_is_what_opens_the_slot(made: Made) -> None:
    exported = export_slot(made.open(), made.key_file)
    assert exported.key_file == made.key_file
    assert made.key_file.line in exported.sheet and made.key_file.slot in exported.sheet
    wrong = KeyFile(made.key_file.repository, made.key_file.slot, bytes(32))
    with pytest.raises(WrongKey):
        export_slot(made.open(), wrong)


def test_an_export_of_a_passphrase_holds_no_secret(made: Made) -> None:
    add_slot(made.open(), secret=cheap("secret"), role="owner", label="", now_ns=NOW)
    exported = export_slot(made.open(), Passphrase("secret"))
    assert exported.key_file is None and "secret" not in exported.sheet
