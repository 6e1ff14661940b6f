"""A repository comes into being whole or not at all, and opens with its keys and with nothing else."""

import json
from base64 import b64decode
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.damaging import flips
from support.repositories import NOW, KeyFiles, Made, cheap, make_repository, open_second_epoch
from support.simulated_storage import Operation, PowerCut, SimulatedDisk, SimulatedStorage

from repo_store import hpke
from repo_store.bundle import Bundle, build_bundle, bundle_name
from repo_store.config_chain import append_config, read_chain
from repo_store.errors import HoldfastError, NoRepository, ObjectDamaged, Refused, WrongKey
from repo_store.key_file import KeyFile, parse_key_file
from repo_store.key_ops import add_slot, remove_slot
from repo_store.passphrase import Passphrase
from repo_store.repository import Repository, create_repository, open_repository
from repo_store.roles import ROLES
from repo_store.sealed import Kind, open_object, seal_object
from repo_store.slot import Holder, slot_name, wrap_slot
from repo_store.two_copies import put_both
from repo_store.unlock import unlock

VECTORS = Path(__file__).parents[1] / "vectors" / "sealed" / "repository-1.json"
STEPS_OF_INIT = 9  # four keys, a barrier, the config, a barrier, its copy, a barrier


@pytest.fixture
def made() -> Made:
    return make_repository()


def refusal(made: Made, credential: KeyFile | Passphrase | None = None, **options: Any) -> HoldfastError:
    with pytest.raises(HoldfastError) as caught:
        made.open(credential, **options)
    return caught.value


def assert_same(ring: Any, other: Any) -> None:
    """Assert that two rings hold the same secrets."""
    for name in (
        "repository",
        "slot",
        "role",
        "id_key",
        "chunker_key",
        "owner_public",
        "signer",
        "roster",
        "epochs",
    ):
        assert getattr(ring, name) == getattr(other, name), name


# Creating


def test_a_new_repository_opens_with_its_key_file(made: Made) -> None:
    opened = made.open()
    assert_same(opened.ring, made.repository.ring)
    assert (opened.warnings, opened.config) == ((), made.repository.config)
    assert opened.ring.owner_private is not None
    sealed = seal_object(made.repository.ring, Kind.MARK, {"a": 1}, subject="x")
    assert open_object(opened.ring, Kind.MARK, "x", sealed).body == {"a": 1}


def test_a_new_repository_opens_with_its_passphrase_and_no_other() -> None:
    storage = SimulatedStorage()
    created = create_repository(storage, secret=cheap("secret"), label="me", now_ns=NOW)
    assert created.key_file is None
    opened = open_repository(storage, Passphrase("secret"), None)
    assert_same(opened.ring, created.repository.ring)
    with pytest.raises(WrongKey) as caught:
        open_repository(storage, Passphrase("Secret"), None)
    assert str(caught.value) == "simulated: the passphrase opens no slot of this repository"


def test_the_config_is_written_last_and_behind_a_barrier(made: Made) -> None:
    steps = [(step.kind, step.name) for step in made.storage.operations if step.kind in ("put", "barrier")]
    slot = f"keys/{made.key_file.slot}"
    assert steps == [
        ("put", f"{slot}-0"),
        ("put", f"{slot}-0.copy"),
        ("put", f"{slot}.1"),
        ("put", f"{slot}.1.copy"),
        ("barrier", ""),
        ("put", "config/0"),
        ("barrier", ""),
        ("put", "config/0.copy"),
        ("barrier", ""),
    ]
    assert len(steps) == STEPS_OF_INIT


@pytest.mark.parametrize("name", ["config/0", "config/0.copy", "config/7"])
def test_where_any_config_is_no_repository_is_made(name: str) -> None:
    storage = SimulatedStorage(SimulatedDisk({name: b"whatever"}))
    keys = KeyFiles()
    with pytest.raises(Refused, match=r"^simulated: a repository exists there already$"):
        create_repository(storage, secret=keys.new(), label="", now_ns=NOW)
    assert (keys.saved, list(storage.disk.objects())) == ([], [name])


def test_of_two_inits_at_once_one_is_refused(made: Made) -> None:
    storage, keys = SimulatedStorage(), KeyFiles()

    def meanwhile(operation: Operation) -> None:
        if operation.name == "config/0":
            storage.disk.damage("config/0", made.repository.config.data)

    storage.faults.before = meanwhile
    with pytest.raises(Refused, match=r"^simulated: a repository exists there already$"):
        create_repository(storage, secret=keys.new(), label="", now_ns=NOW)


@pytest.mark.parametrize("steps", range(STEPS_OF_INIT + 1))
@pytest.mark.parametrize("seed", range(5))
def test_an_init_killed_at_any_step_left_a_repository_or_nothing(steps: int, seed: int) -> None:
    storage, keys = SimulatedStorage(), KeyFiles()
    storage.faults.cut_after = steps
    try:
        create_repository(storage, secret=keys.new(), label="first", now_ns=NOW)
    except PowerCut:
        assert steps < STEPS_OF_INIT
    else:
        assert steps == STEPS_OF_INIT
    first = keys.saved[0]  # in the user's hands before anything needed it
    left = SimulatedStorage(storage.disk.after_power_cut(seed))
    try:
        again = create_repository(left, secret=keys.new(), label="second", now_ns=NOW)
    except Refused:
        assert steps >= 6
        assert open_repository(left, first, None).ring.slot == first.slot
    else:
        assert steps < 7, "a config that was durable is gone"
        assert again.key_file is not None
        assert open_repository(left, again.key_file, None).warnings == ()
        with pytest.raises(
            WrongKey, match=r"^the key file is of repository [0-9a-f]{16}, and this is [0-9a-f]{16}$"
        ):
            open_repository(left, first, None)


def test_no_repository_comes_into_being_that_does_not_open() -> None:
    storage = SimulatedStorage()
    storage.faults.read_short = lambda operation: operation.name.startswith("keys/")
    with pytest.raises(ObjectDamaged):
        create_repository(storage, secret=KeyFiles().new(), label="", now_ns=NOW)
    assert not any(name.startswith("config/") for name in storage.disk.objects())


def test_a_key_file_that_cannot_be_saved_stops_init_before_anything_is_written() -> None:
    def fail(key_file: KeyFile) -> None:
        raise Refused("no")

    storage = SimulatedStorage()
    with pytest.raises(Refused, match="no"):
        create_repository(storage, secret=replace(KeyFiles().new(), save=fail), label="", now_ns=NOW)
    assert storage.disk.objects() == {}


# Opening, refused


def test_no_repository(made: Made) -> None:
    with pytest.raises(NoRepository, match=r"^simulated: there is no repository$"):
        open_repository(SimulatedStorage(), made.key_file, None)


def test_a_key_file_of_another_repository(made: Made) -> None:
    other = make_repository()
    error = refusal(made, other.key_file)
    theirs, ours = (each.repository.config.repository.hex()[:16] for each in (other, made))
    assert isinstance(error, WrongKey)
    assert str(error) == f"the key file is of repository {theirs}, and this is {ours}"


def test_a_key_file_with_another_key(made: Made) -> None:
    error = refusal(made, replace(made.key_file, key=bytes(32)))
    assert isinstance(error, WrongKey)
    assert str(error) == f"the key file does not open slot {made.key_file.slot}"
    assert error.hint == "the slot was given another key or a passphrase since"


def test_a_key_file_of_a_slot_that_never_was(made: Made) -> None:
    error = refusal(made, replace(made.key_file, slot="ab" * 8))
    assert isinstance(error, WrongKey)
    assert str(error) == "slot abababababababab of the key file is none of this repository"


@pytest.mark.parametrize("objects_left", [False, True])
def test_a_key_file_of_a_removed_slot(made: Made, objects_left: bool) -> None:
    writer = made.add("writer")
    before = made.storage.disk.objects()
    remove_slot(made.open(), writer.slot, now_ns=NOW)
    if objects_left:
        for name in before:
            made.storage.disk.damage(name, before[name])
    error = refusal(made, writer)
    assert isinstance(error, WrongKey)
    assert str(error) == f"slot {writer.slot} of the key file was removed from this repository"


def test_a_passphrase_where_only_key_files_open(made: Made) -> None:
    error = refusal(made, Passphrase("x"))
    assert isinstance(error, WrongKey)
    assert str(error) == "simulated: the passphrase opens no slot of this repository"


def test_a_later_format(made: Made) -> None:
    made.put_config(1, {"format": 3})
    error = refusal(made)
    assert isinstance(error, Refused)
    assert str(error) == "repository has format 3; this version reads up to 1"


def test_an_unknown_feature_stops_the_operation_that_needs_it(made: Made) -> None:
    append_config(
        made.storage,
        made.repository.config,
        made.owner_private,
        created_ns=NOW,
        changes={"features": {"write": ["erasure"]}},
    )
    assert made.open().config.number == 1
    assert str(refusal(made, operation="write")) == (
        "to write to this repository needs the feature 'erasure', which this version does not know"
    )


def test_an_unknown_role_is_refused_by_name(made: Made) -> None:
    roster = [line | {"role": "auditor"} for line in made.body()["roster"]]
    append_config(
        made.storage, made.repository.config, made.owner_private, created_ns=NOW, changes={"roster": roster}
    )
    error = refusal(made)
    assert isinstance(error, Refused)
    assert str(error) == f"slot {made.key_file.slot}: the role 'auditor' is not known to this version"


def test_a_rollback_is_refused(made: Made, tmp_path: Path) -> None:
    made.add("writer")
    open_repository(made.storage, made.key_file, tmp_path)
    for name in ("config/1", "config/1.copy"):
        made.storage.disk.damage(name, None)
    with pytest.raises(Refused, match=r"^simulated: the newest config is 0, but this machine has seen 1$"):
        open_repository(made.storage, made.key_file, tmp_path)


# Damage


@pytest.mark.parametrize("kind", ["-0", ".1"])
@pytest.mark.parametrize("harm", ["damage", "remove"])
def test_one_damaged_copy_is_survived_and_reported(made: Made, kind: str, harm: str) -> None:
    name = f"keys/{made.key_file.slot}{kind}"
    if harm == "damage":
        made.damage(name)
    else:
        made.storage.disk.damage(name, None)
    opened = made.open()
    assert_same(opened.ring, made.repository.ring)
    (warning,) = opened.warnings
    assert warning.startswith(f"{name}: damaged: ")


def test_a_missing_copy_of_the_opened_slot_is_reported(made: Made) -> None:
    name = f"keys/{made.key_file.slot}-0.copy"
    made.storage.disk.damage(name, None)
    assert made.open().warnings == (f"{name}: damaged: is missing",)


@pytest.mark.parametrize("kind", ["-0", ".1"])
def test_two_damaged_copies_are_named(made: Made, kind: str) -> None:
    name = f"keys/{made.key_file.slot}{kind}"
    made.damage_both(name)
    error = refusal(made)
    assert isinstance(error, ObjectDamaged)
    assert error.name == name


@pytest.mark.parametrize("kind", ["-0", ".1"])
def test_two_missing_copies_are_named(made: Made, kind: str) -> None:
    name = f"keys/{made.key_file.slot}{kind}"
    for each in (name, name + ".copy"):
        made.storage.disk.damage(each, None)
    error = refusal(made)
    assert isinstance(error, ObjectDamaged)
    assert str(error) == f"{name}: damaged: it and its copy are missing"


def test_a_damaged_slot_disturbs_no_other(made: Made) -> None:
    writer = made.add("writer")
    made.damage_both(f"keys/{writer.slot}-0")
    assert made.open().warnings == ()
    error = refusal(made, writer)
    assert isinstance(error, ObjectDamaged)
    assert str(error) == f"keys/{writer.slot}-0: damaged: its signature does not hold"


def test_a_passphrase_finds_its_slot_among_damaged_ones(made: Made) -> None:
    add_slot(made.open(), secret=cheap("secret"), role="writer", label="", now_ns=NOW)
    name = f"keys/{made.key_file.slot}-0"
    made.damage_both(name)
    opened = made.open(Passphrase("secret"))
    assert opened.ring.role == "writer"
    assert opened.warnings == (f"{name}: damaged: its signature does not hold",)
    error = refusal(made, Passphrase("wrong"))
    assert isinstance(error, ObjectDamaged)
    assert str(error) == f"{name}: damaged: its signature does not hold"
    assert error.hint is not None and error.hint.startswith(
        "no intact slot opens with this key or passphrase"
    )


def test_any_flip_in_slot_or_bundle_is_survived_by_the_copy_and_fatal_in_both(made: Made) -> None:
    """The copies are identical, so a flip in one proves the other is read; in both, that nothing else is."""
    for kind in ("-0", ".1"):
        name = f"keys/{made.key_file.slot}{kind}"
        good = made.storage.disk.objects()[name]
        for number, damaged in enumerate(flips(good)):
            if number % 31:
                continue
            made.storage.disk.damage(name, damaged)
            assert_same(made.open().ring, made.repository.ring)
            made.storage.disk.damage(name + ".copy", damaged)
            assert isinstance(refusal(made), ObjectDamaged | Refused)
            made.storage.disk.damage(name + ".copy", good)
        made.storage.disk.damage(name, good)


def test_swapped_slots_and_bundles_are_refused(made: Made) -> None:
    writer = made.add("writer")
    ours, theirs = made.key_file.slot, writer.slot
    objects = made.storage.disk.objects()
    for kind, reason in (
        ("-0", "was made under another name"),
        (".1", "was made for another slot, epoch, role or repository"),
    ):
        for end in ("", ".copy"):
            made.storage.disk.damage(f"keys/{ours}{kind}{end}", objects[f"keys/{theirs}{kind}"])
        assert str(refusal(made)) == f"keys/{ours}{kind}: damaged: {reason}"
        for end in ("", ".copy"):
            made.storage.disk.damage(f"keys/{ours}{kind}{end}", objects[f"keys/{ours}{kind}"])
    made.open()


# An attacker who can write to the storage


def test_a_slot_of_another_holder_under_the_same_name_is_refused(made: Made) -> None:
    """He knows no secret, but makes a slot of his own under the name in the roster, with the user's own key."""
    config, key = made.repository.config, made.key_file
    forged = wrap_slot(
        Holder.generate(),
        key,
        repository=config.repository,
        slot=key.slot,
        number=0,
        label="first",
        created_ns=NOW,
    )
    for name in (f"keys/{key.slot}-0", f"keys/{key.slot}-0.copy"):
        made.storage.disk.damage(name, forged)
    error = refusal(made)
    assert isinstance(error, ObjectDamaged)
    assert error.reason == "is not of the holder that the roster names"


def test_another_owner_cannot_take_the_repository_over(made: Made) -> None:
    """His chain, under our identity, with bundles sealed to our slot: all that needs no secret of ours."""
    stranger = bytes(range(32))
    made.put_config(0, made.body(), owner_private=stranger)
    assert str(refusal(made)) == "config/0: damaged: its owner is not the one its identity names"
    theirs = make_repository()
    for name, data in theirs.storage.disk.objects().items():
        made.storage.disk.damage(name, data)
    assert isinstance(refusal(made), WrongKey)


def test_a_bundle_that_the_owner_did_not_sign_is_refused(made: Made) -> None:
    ring = made.repository.ring
    slot = unlock(made.storage, made.repository.config, made.key_file)
    hostile = Bundle(bytes(32), bytes(32), bytes(32), ring.owner_public, hpke.generate(), bytes(32))
    sealed = build_bundle(
        hostile,
        bytes(32),
        slot.holder.public,
        repository=ring.repository,
        slot=ring.slot,
        epoch=1,
        role=ROLES["owner"],
    )
    for name in (bundle_name(ring.slot, 1), bundle_name(ring.slot, 1) + ".copy"):
        made.storage.disk.damage(name, sealed)
    assert str(refusal(made)) == f"{bundle_name(ring.slot, 1)}: damaged: its signature does not hold"


def test_a_data_key_that_the_config_does_not_name_is_refused(made: Made) -> None:
    epochs = [each | {"data_public": hpke.public_of(hpke.generate())} for each in made.body()["epochs"]]
    made.put_config(0, made.body(epochs=epochs))
    error = refusal(made)
    assert isinstance(error, ObjectDamaged)
    assert error.reason == "its data key is not the one that the config names"


def test_slots_that_no_roster_names_are_not_even_read(made: Made) -> None:
    stray = make_repository()
    for name, data in stray.storage.disk.objects().items():
        if name.startswith("keys/"):
            made.storage.put(name, data)
    storage = made.storage.again()
    with pytest.raises(WrongKey):
        open_repository(storage, Passphrase("x"), None)
    assert not any(stray.key_file.slot in name for name in storage.names("get"))


# Writers


def test_a_writer_reads_no_contents_and_changes_no_keys(made: Made) -> None:
    writer = made.open(made.add("writer"), operation="write")
    assert writer.ring.role == "writer" and writer.ring.owner_private is None
    with pytest.raises(Refused, match=r"^slot [0-9a-f]{16} has the role writer, which cannot read contents$"):
        writer.ring.data_private(1)
    for kind, name in ((Kind.TOMBSTONE, "manifests/00"), (Kind.MARK, "gc/0000000001.mark")):
        sealed = seal_object(writer.ring, kind, {}, subject=name)
        with pytest.raises(ObjectDamaged) as caught:
            open_object(made.open().ring, kind, name, sealed)
        assert (
            caught.value.reason == f"is signed by slot {writer.ring.slot}, a writer, which may not sign this"
        )
    sealed = seal_object(writer.ring, Kind.MANIFEST, {"a": 1}, subject="manifests/00")
    assert open_object(made.open().ring, Kind.MANIFEST, "manifests/00", sealed).body == {"a": 1}


# Epochs


def test_objects_of_both_epochs_are_read(made: Made) -> None:
    writer = made.add("writer")
    by_first = seal_object(made.open(writer).ring, Kind.MANIFEST, {"epoch": 1}, subject="manifests/00")
    open_second_epoch(made)
    by_second = seal_object(made.open(writer).ring, Kind.MANIFEST, {"epoch": 2}, subject="manifests/01")
    for credential in (made.key_file, writer):
        opened = made.open(credential)
        assert (opened.ring.epoch, sorted(opened.ring.epochs), opened.warnings) == (2, [1, 2], ())
        assert open_object(opened.ring, Kind.MANIFEST, "manifests/00", by_first).body == {"epoch": 1}
        assert open_object(opened.ring, Kind.MANIFEST, "manifests/01", by_second).body == {"epoch": 2}
    assert made.open().ring.data_private(1) != made.open().ring.data_private(2)


def test_a_slot_left_out_of_an_epoch_reads_the_old_and_writes_nothing(made: Made) -> None:
    writer = made.add("writer")
    by_first = seal_object(made.open(writer).ring, Kind.MANIFEST, {"epoch": 1}, subject="manifests/00")
    open_second_epoch(made, without=(writer.slot,))
    opened = made.open(writer)
    assert opened.warnings == (f"keys/{writer.slot}.2: damaged: it and its copy are missing",)
    assert open_object(opened.ring, Kind.MANIFEST, "manifests/00", by_first).body == {"epoch": 1}
    with pytest.raises(Refused, match=f"^slot {writer.slot} holds no keys of epoch 2$"):
        seal_object(opened.ring, Kind.MANIFEST, {}, subject="manifests/01")


def test_a_lost_bundle_of_the_old_epoch_costs_that_epoch_only(made: Made) -> None:
    open_second_epoch(made)
    name = bundle_name(made.key_file.slot, 1)
    made.damage_both(name)
    opened = made.open()
    assert (opened.ring.epoch, sorted(opened.ring.epochs)) == (2, [2])
    assert opened.warnings == (f"{name}: damaged: its signature does not hold",)


def test_epochs_whose_eternal_keys_differ_are_refused(made: Made) -> None:
    open_second_epoch(made)
    ring, config = made.open().ring, made.open().config
    holder = unlock(made.storage, config, made.key_file).holder
    odd = Bundle(
        bytes(32), ring.chunker_key, bytes(32), ring.owner_public, ring.data_private(2), made.owner_private
    )
    sealed = build_bundle(
        odd,
        made.owner_private,
        holder.public,
        repository=config.repository,
        slot=ring.slot,
        epoch=2,
        role=ROLES["owner"],
    )
    for name in (bundle_name(ring.slot, 2), bundle_name(ring.slot, 2) + ".copy"):
        made.storage.disk.damage(name, sealed)
    assert str(refusal(made)) == f"keys/{ring.slot}.1: damaged: its keys differ from those of a later epoch"


# What changes while a run goes on


def test_refresh_follows_the_roster(made: Made) -> None:
    opened = made.open()
    writer = made.add("writer")
    after = opened.refresh("write")
    assert after.config.number == 1 and any(line.slot == writer.slot for line in after.ring.roster.values())


def test_refresh_refuses_what_must_not_go_on(made: Made) -> None:
    writer = made.add("writer")
    opened, by_writer = made.open(), made.open(writer)
    remove_slot(opened, writer.slot, now_ns=NOW)
    refresh = partial(Repository.refresh, by_writer)
    with pytest.raises(Refused, match=f"^slot {writer.slot} was removed from this repository meanwhile$"):
        refresh("write")
    open_second_epoch(made)
    with pytest.raises(Refused, match=r"^the keys of the repository were rotated meanwhile$"):
        opened.refresh("write")
    config = read_chain(made.storage, None).newest
    append_config(
        made.storage, config, made.owner_private, created_ns=NOW, changes={"features": {"write": ["x"]}}
    )
    with pytest.raises(Refused, match="needs the feature 'x'"):
        opened.refresh("write")


def test_refresh_notices_that_another_repository_stands_there(made: Made) -> None:
    opened = made.open()
    for name, data in make_repository().storage.disk.objects().items():
        made.storage.disk.damage(name, data)
    with pytest.raises(Refused, match="another repository, or an older state of it, appeared there"):
        replace(opened, storage=made.storage).refresh("write")


# For ever


@pytest.mark.parametrize("who", ["owner", "writer", "passphrase"])
def test_the_golden_repository_opens(who: str) -> None:
    vectors = json.loads(VECTORS.read_text())
    storage = SimulatedStorage()
    for name, data in vectors["objects"].items():
        put_both(storage, name, b64decode(data))
    credential = (
        Passphrase(vectors["passphrase"])
        if who == "passphrase"
        else parse_key_file(vectors["key_files"][who])
    )
    opened = open_repository(storage, credential, None)
    assert (opened.ring.epoch, opened.warnings) == (2, ())
    assert len(vectors["sealed"]) == 4
    for each in vectors["sealed"]:
        found = open_object(
            opened.ring, Kind(each["kind"]), each["name"], b64decode(each["data"]), subject=each["subject"]
        )
        assert (found.body, found.signer.hex()) == (each["body"], each["signer"])
    for kind in ("removed_key_file", "changed_key_file"):
        with pytest.raises(WrongKey):
            open_repository(storage, parse_key_file(vectors[kind]), None)


def test_secrets_show_in_no_repr(made: Made) -> None:
    shown = repr(made.open()) + repr(made.key_file)
    ring = made.repository.ring
    for secret in (
        ring.id_key,
        ring.chunker_key,
        ring.metadata_key(1),
        ring.data_private(1),
        made.owner_private,
    ):
        assert secret.hex() not in shown and repr(secret)[2:-1] not in shown
    assert repr(made.key_file.key)[2:-1] not in shown


def test_names_in_the_storage_are_those_of_the_format(made: Made) -> None:
    slot = made.key_file.slot
    assert (slot_name(slot, 0), bundle_name(slot, 1)) == (f"keys/{slot}-0", f"keys/{slot}.1")
