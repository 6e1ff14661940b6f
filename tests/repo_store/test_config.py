"""Configs and their chain: what the owner says counts, newest first, and nobody else can say anything."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.damaging import flips, msgpack_values, truncations
from support.repositories import NOW, Made, make_repository, sign_config
from support.simulated_storage import SimulatedStorage

from repo_store import config as config_module
from repo_store.config import CONFIG_BYTES_MAX, OPERATIONS, Config, first_config, next_config, parse_config
from repo_store.config_chain import append_config, read_chain
from repo_store.errors import HoldfastError, NoRepository, ObjectDamaged, Refused
from repo_store.last_seen import LastSeen, last_seen_path, recall, remember
from repo_store.signed_map import build_signed

MADE = make_repository()
FIRST = MADE.repository.config
OWNER = MADE.owner_private
PARSE = partial(parse_config, "config/0", number=0)
_KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def made() -> Made:
    return make_repository()


def chain(made: Made, count: int) -> list[Config]:
    """Append `count` configs and return the whole chain."""
    configs = [made.repository.config]
    for _ in range(count):
        configs.append(
            append_config(made.storage, configs[-1], made.owner_private, created_ns=NOW, changes={})
        )
    return configs


def refusal(body: dict[str, Any], owner_private: bytes = OWNER) -> str:
    """Return why config 0 with this body, signed by the owner, is not accepted."""
    with pytest.raises((ObjectDamaged, Refused)) as caught:
        PARSE(sign_config(body, owner_private))
    return str(caught.value)


def changed(**changes: Any) -> dict[str, Any]:
    return {**FIRST.body, **changes}


# One config


def test_a_config_reads_back_as_it_was_made() -> None:
    read = PARSE(FIRST.data)
    assert read == FIRST
    assert (read.number, read.previous, read.created_ns, read.dedup, read.epoch) == (0, None, NOW, "all", 1)
    assert [line.role for line in read.roster.values()] == ["owner"]


@pytest.mark.parametrize("damage", [flips, truncations])
def test_no_damaged_config_is_ever_accepted(damage: Any) -> None:
    for damaged in damage(FIRST.data):
        with pytest.raises((ObjectDamaged, Refused)):
            PARSE(damaged)


@given(st.binary(max_size=200) | msgpack_values().map(lambda value: sign_config(value, OWNER)))
def test_any_other_bytes_are_a_damaged_config(data: bytes) -> None:
    with pytest.raises((ObjectDamaged, Refused)):
        PARSE(data)


@given(st.sampled_from(sorted(FIRST.body)), msgpack_values())
def test_a_field_of_another_type_never_passes_for_the_right_one(key: str, value: object) -> None:
    try:
        read = PARSE(sign_config(changed(**{key: value}), OWNER))
    except (ObjectDamaged, Refused):
        return
    assert type(read.body[key]) is type(FIRST.body[key]) or key == "previous"


def test_a_later_format_is_refused_by_its_number() -> None:
    reason = "repository has format 3; this version reads up to 1"
    assert refusal({"format": 3}) == reason  # whatever else that format has or lacks
    assert refusal(changed(format=3)) == reason
    assert refusal(changed(format=0)) == "config/0: damaged: its field 'format' is missing or wrong"
    assert refusal(changed(format=True)) == "config/0: damaged: its field 'format' is missing or wrong"


def test_an_identity_that_is_not_the_owners_is_refused() -> None:
    stranger = bytes(32)
    assert refusal(changed(), stranger) == "config/0: damaged: its owner is not the one its identity names"
    assert refusal(changed(repository=bytes(32))).endswith("its owner is not the one its identity names")


def test_a_forged_signature_is_refused() -> None:
    forged = build_signed("config", FIRST.body, _KEY, FIRST.owner_public)
    with pytest.raises(ObjectDamaged, match=r"^config/0: damaged: its signature does not hold$"):
        PARSE(forged)


def test_what_was_signed_as_something_else_is_no_config() -> None:
    as_bundle = build_signed("bundle", FIRST.body, _KEY)
    with pytest.raises(ObjectDamaged, match=r"^config/0: damaged: is no config of holdfast$"):
        PARSE(as_bundle)


def test_a_config_under_another_number_is_refused() -> None:
    with pytest.raises(ObjectDamaged, match=r"^config/4: damaged: is config 0 under another name$"):
        parse_config("config/4", FIRST.data, number=4)


LINE = FIRST.body["roster"][0]
EPOCH = FIRST.body["epochs"][0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": []}, "config/0: damaged: has no epoch"),
        ({"epochs": [EPOCH, EPOCH]}, "config/0: damaged: has two epochs 1"),
        ({"epochs": [EPOCH | {"suite": 7}]}, "epoch 1 uses the suite 7, which this version does not know"),
        ({"epochs": [EPOCH | {"number": 0}]}, "config/0: damaged: its field 'number' is missing or wrong"),
        (
            {"epochs": [EPOCH | {"data_public": b""}]},
            "config/0: damaged: its field 'data_public' is missing or wrong",
        ),
        ({"roster": [LINE, LINE]}, "config/0: damaged: its roster names a signer twice or wrongly"),
        (
            {"roster": [LINE | {"signer": bytes(16)}]},
            "config/0: damaged: its roster names a signer twice or wrongly",
        ),
        (
            {"roster": [LINE | {"slot": "../../etc/passwd"}]},
            "config/0: damaged: its roster names a slot '../../etc/passwd'",
        ),
        ({"roster": [LINE | {"kinds": [True]}]}, "config/0: damaged: its field 'kinds' is missing or wrong"),
        ({"roster": [LINE | {"until": "1"}]}, "config/0: damaged: its field 'until' is missing or wrong"),
        ({"roster": {}}, "config/0: damaged: its field 'roster' is missing or wrong"),
        ({"features": []}, "config/0: damaged: its field 'features' is missing or wrong"),
        ({"features": {"read": "flag"}}, "config/0: damaged: its field 'read' is missing or wrong"),
        ({"created": -1}, "config/0: damaged: its field 'created' is missing or wrong"),
    ],
)
def test_each_wrong_field_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    assert refusal(changed(**changes)) == reason


def test_two_slots_of_one_name_are_refused() -> None:
    other = make_repository().repository.config.body["roster"][0] | {"slot": LINE["slot"]}
    assert refusal(changed(roster=[LINE, other])) == "config/0: damaged: its roster names a slot twice"


def test_a_config_above_the_limit_is_refused_on_both_sides() -> None:
    with pytest.raises(Refused, match=r"^the config would have \d+ bytes; the limit is 1048576$"):
        next_config(FIRST, OWNER, created_ns=NOW, changes={"later": bytes(CONFIG_BYTES_MAX)})
    assert refusal(changed(later=bytes(CONFIG_BYTES_MAX))) == "config/0: damaged: has more than 1048576 bytes"


def test_unknown_fields_are_ignored_and_repeated_in_the_next_config() -> None:
    body = changed(later={"a": 1}, roster=[LINE | {"colour": "red"}])
    read = PARSE(sign_config(body, OWNER))
    after = next_config(read, OWNER, created_ns=NOW + 1, changes={"dedup": "own"})
    assert after.body["later"] == {"a": 1}
    assert after.body["roster"][0]["colour"] == "red"
    assert (after.number, after.previous, after.dedup) == (1, read.digest, "own")


# Features


def test_nothing_is_refused_by_a_config_without_flags() -> None:
    for operation in OPERATIONS:
        FIRST.require(operation)


@pytest.mark.parametrize(
    ("operation", "doing"),
    [
        ("read", "read"),
        ("write", "write to"),
        ("prune", "prune"),
        ("copy", "copy"),
        ("verify", "verify"),
        ("key", "change the keys of"),
    ],
)
def test_an_unknown_flag_stops_its_operation_by_name_and_no_other(operation: str, doing: str) -> None:
    config = PARSE(sign_config(changed(features={operation: ["cold-packs"], "dream": ["x"]}), OWNER))
    with pytest.raises(Refused) as caught:
        config.require(operation)
    assert str(caught.value) == (
        f"to {doing} this repository needs the feature 'cold-packs', which this version does not know"
    )
    assert caught.value.hint == "use a newer version of holdfast"
    for other in set(OPERATIONS) - {operation}:
        config.require(other)


def test_a_known_flag_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "KNOWN_FLAGS", frozenset({"cold-packs"}))
    PARSE(sign_config(changed(features={"read": ["cold-packs"]}), OWNER)).require("read")


def test_an_unknown_dedup_rule_stops_writing_only() -> None:
    config = PARSE(sign_config(changed(dedup="some"), OWNER))
    config.require("read")
    with pytest.raises(Refused) as caught:
        config.require("write")
    assert str(caught.value) == "this repository has the dedup rule 'some', which this version does not know"


# The chain


def test_an_empty_storage_holds_no_repository() -> None:
    storage = SimulatedStorage()
    storage.put("config/readme.txt", b"")
    storage.put("keys/0000000000000000-0", b"")
    with pytest.raises(NoRepository, match=r"^simulated: there is no repository$") as caught:
        read_chain(storage, None)
    assert caught.value.hint == "`holdfast init` creates one"


def test_the_newest_config_rules(made: Made) -> None:
    configs = chain(made, 11)  # two digits: 10 sorts before 2 as text
    found = read_chain(made.storage, None)
    assert (found.newest, found.warnings) == (configs[11], ())


@pytest.mark.parametrize("name", ["config/2", "config/2.copy"])
def test_one_lost_or_damaged_copy_of_the_newest_is_survived(made: Made, name: str) -> None:
    configs = chain(made, 2)
    made.storage.disk.damage(name, None)
    found = read_chain(made.storage, None)
    assert (found.newest, found.warnings) == (configs[2], (f"{name}: damaged: is missing",))


def test_a_damaged_newest_config_is_read_from_its_copy(made: Made) -> None:
    configs = chain(made, 1)
    made.damage("config/1")
    found = read_chain(made.storage, None)
    assert found.newest == configs[1]
    assert found.warnings == ("config/1: damaged: its signature does not hold",)


def test_a_newest_config_damaged_twice_is_never_replaced_by_an_older_one(made: Made) -> None:
    chain(made, 1)
    made.damage_both("config/1")
    with pytest.raises(ObjectDamaged, match=r"^config/1: damaged: its signature does not hold$"):
        read_chain(made.storage, None)


def test_an_older_config_damaged_twice_costs_nothing_else(made: Made) -> None:
    configs = chain(made, 3)
    made.damage_both("config/1")
    found = read_chain(made.storage, None)
    assert found.newest == configs[3]
    assert found.warnings == ("config/1: damaged: its signature does not hold",)


def test_a_config_that_the_next_does_not_name_is_reported(made: Made) -> None:
    chain(made, 2)
    made.put_config(1, made.body(number=1, previous=bytes(32), created=5))
    assert read_chain(made.storage, None).warnings == (
        "config/1: damaged: is not the one that the next config names",
    )


def test_a_chain_that_ends_in_another_repository_is_reported(made: Made) -> None:
    configs = chain(made, 1)
    other = make_repository()
    for name in ("config/0", "config/0.copy"):
        made.storage.disk.damage(name, other.storage.disk.objects()["config/0"])
    found = read_chain(made.storage, None)
    assert found.newest == configs[1]
    assert found.warnings == ("config/0: damaged: is not the one that the next config names",)


def test_two_who_append_at_once_do_not_both_succeed(made: Made) -> None:
    before = made.repository.config
    append = partial(append_config, made.storage, before, made.owner_private, created_ns=NOW)
    append(changes={"dedup": "own"})
    with pytest.raises(Refused, match=r"^config/1: the keys are being changed by someone else, too$"):
        append(changes={"dedup": "all"})
    assert read_chain(made.storage, None).newest.dedup == "own"


def test_appending_makes_up_for_a_copy_that_was_never_written(made: Made) -> None:
    made.storage.disk.damage("config/0.copy", None)
    chain(made, 1)
    assert made.storage.disk.objects()["config/0.copy"] == made.repository.config.data


def test_a_config_is_durable_before_anyone_is_told(made: Made) -> None:
    configs = chain(made, 1)
    left = made.storage.disk.after_power_cut(0)
    assert read_chain(SimulatedStorage(left), None).newest == configs[1]


# What was seen before


def state_file(made: Made, folder: Path) -> Path:
    return Path(last_seen_path(str(folder), made.repository.config.repository, made.storage.location))


def test_a_rollback_is_refused(made: Made, tmp_path: Path) -> None:
    chain(made, 2)
    read_chain(made.storage, str(tmp_path))
    for name in ("config/2", "config/2.copy"):
        made.storage.disk.damage(name, None)
    with pytest.raises(Refused) as caught:
        read_chain(made.storage, str(tmp_path))
    assert str(caught.value) == "simulated: the newest config is 1, but this machine has seen 2"
    assert caught.value.hint is not None and str(state_file(made, tmp_path)) in caught.value.hint
    assert read_chain(made.storage, None).newest.number == 1


def test_another_config_of_the_same_number_is_refused(made: Made, tmp_path: Path) -> None:
    chain(made, 1)
    read_chain(made.storage, str(tmp_path))
    made.put_config(1, made.body(created=5))
    with pytest.raises(Refused, match=r"^simulated: config 1 is not the one that this machine has seen$"):
        read_chain(made.storage, str(tmp_path))


def test_a_longer_chain_that_leaves_out_what_was_seen_is_refused(made: Made, tmp_path: Path) -> None:
    chain(made, 1)
    read_chain(made.storage, str(tmp_path))
    forked = replace(made.repository.config, number=0)
    other = next_config(forked, made.owner_private, created_ns=9, changes={})
    after = next_config(other, made.owner_private, created_ns=9, changes={})
    for name, data in (("config/1", other.data), ("config/2", after.data)):
        made.storage.disk.damage(name, data)
        made.storage.disk.damage(name + ".copy", data)
    with pytest.raises(Refused, match=r"^simulated: config 1 is not the one that this machine has seen$"):
        read_chain(made.storage, str(tmp_path))


def test_what_was_checked_once_is_not_read_again(made: Made, tmp_path: Path) -> None:
    chain(made, 3)
    read_chain(made.storage, str(tmp_path))
    again = made.storage.again()
    read_chain(again, str(tmp_path))
    assert again.names("get") == ["config/3"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, b"holdfast-seen-1 7 00", None])
def test_a_state_file_that_tells_nothing_is_made_anew(
    made: Made, tmp_path: Path, content: bytes | None
) -> None:
    path = state_file(made, tmp_path)
    if content is not None:
        path.write_bytes(content)
    found = read_chain(made.storage, str(tmp_path))
    assert found.warnings == ()
    assert recall(str(path)) == LastSeen(0, found.newest.digest)


def test_a_state_file_with_one_changed_byte_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    assert remember(str(path), LastSeen(12, bytes(32))) is None
    for damaged in flips(path.read_bytes()):
        path.write_bytes(damaged)
        assert recall(str(path)) is None


def test_a_state_that_cannot_be_kept_is_only_a_warning(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "state"
    (warning,) = read_chain(made.storage, str(folder)).warnings
    assert warning.endswith(
        "cannot remember the newest config, so a rollback would go unnoticed: not a directory"
    )


def test_a_copy_elsewhere_may_be_behind(made: Made, tmp_path: Path) -> None:
    chain(made, 1)
    read_chain(made.storage, str(tmp_path))
    elsewhere = make_copy(made)
    assert read_chain(elsewhere, str(tmp_path)).newest.number == 0
    assert len(list(tmp_path.iterdir())) == 2


def make_copy(made: Made) -> SimulatedStorage:
    """Return a storage at another location that holds config 0 only."""
    copy = SimulatedStorage()
    copy.location = "elsewhere"
    for name, data in made.storage.disk.objects().items():
        if not name.startswith("config/1"):
            copy.put(name, data)
    return copy


def test_a_storage_that_fails_is_not_taken_for_damage(made: Made) -> None:
    made.storage.faults.fail = lambda operation: operation.kind == "get"
    with pytest.raises(HoldfastError) as caught:
        read_chain(made.storage, None)
    assert str(caught.value) == "simulated/config/0: cannot get: failing as asked"


def test_first_config_is_the_lowest_of_a_chain() -> None:
    config = first_config(OWNER, created_ns=1, epochs=list(FIRST.epochs.values()), roster=[])
    assert config.number == 0 and config.repository == FIRST.repository
