"""Slots open with what they were made for, and damage to one is told apart from a wrong passphrase."""

import os
from functools import partial
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from support.damaging import flips, msgpack_values, truncations
from support.repositories import CHEAP, NOW, cheap, signed_again

from repo_store.errors import ObjectDamaged, Refused, UsageError
from repo_store.key_file import KeyFile
from repo_store.key_ring import derive
from repo_store.passphrase import COSTS_DEFAULT, Costs, Passphrase, check_costs
from repo_store.slot import Holder, Slot, parse_slot, unwrap_slot, wrap_slot

REPOSITORY = bytes(range(32))
NAME = "00112233445566ff"
HOLDER = Holder.generate()
KEY = KeyFile(REPOSITORY, NAME, os.urandom(32))
WRAP = partial(wrap_slot, HOLDER, repository=REPOSITORY, slot=NAME, number=3, label="büro", created_ns=NOW)
DATA = WRAP(KEY)
OBJECT = f"keys/{NAME}-3"


def read(data: bytes) -> Slot:
    return parse_slot(OBJECT, data, slot=NAME, number=3)


def why(data: bytes) -> str:
    with pytest.raises((ObjectDamaged, Refused)) as caught:
        read(data)
    return str(caught.value)


def again(**changes: Any) -> bytes:
    """Return the slot with a changed body, rightly signed by its holder."""
    return signed_again(DATA, "slot", HOLDER.seed, **changes)


def test_a_slot_opens_with_its_key_file_only() -> None:
    slot = read(DATA)
    assert unwrap_slot(slot, KEY) == HOLDER
    assert (slot.label, slot.created_ns, slot.method, slot.costs) == ("büro", NOW, "key file", None)
    assert unwrap_slot(slot, KeyFile(REPOSITORY, NAME, bytes(32))) is None
    assert unwrap_slot(slot, Passphrase("x")) is None


def test_a_slot_opens_with_its_passphrase_however_it_is_composed() -> None:
    data = WRAP(cheap("Zoë"))
    slot = read(data)
    assert (slot.method, slot.costs) == ("passphrase", CHEAP)
    assert unwrap_slot(slot, Passphrase("Zoe\u0308")) == HOLDER
    assert unwrap_slot(slot, cheap("Zoe")) is None
    assert unwrap_slot(slot, KEY) is None
    assert "Zoë".encode() not in data


def test_the_default_costs_are_above_the_floor() -> None:
    assert COSTS_DEFAULT.memory_kib >= 128 * 1024 and COSTS_DEFAULT.iterations >= 3
    check_costs(COSTS_DEFAULT)


@pytest.mark.parametrize(
    ("costs", "what"),
    [
        (Costs(65535, 3, 4), "memory_kib 65535; allowed is 65536 to 4194304"),
        (Costs(4194305, 3, 4), "memory_kib 4194305; allowed is 65536 to 4194304"),
        (Costs(65536, 2, 4), "iterations 2; allowed is 3 to 64"),
        (Costs(65536, 65, 4), "iterations 65; allowed is 3 to 64"),
        (Costs(65536, 3, 0), "lanes 0; allowed is 1 to 64"),
        (Costs(65536, 3, 65), "lanes 65; allowed is 1 to 64"),
    ],
)
def test_costs_below_the_floor_or_above_the_ceiling_are_refused_on_both_sides(
    costs: Costs, what: str
) -> None:
    with pytest.raises(Refused) as caught:
        WRAP(Passphrase("x", costs))
    assert str(caught.value) == f"its key derivation has {what}"
    stored = again(method="passphrase", kdf=costs._asdict())
    assert why(stored) == f"{OBJECT}: its key derivation has {what}"


def test_no_passphrase_is_no_passphrase() -> None:
    with pytest.raises(UsageError, match=r"^the passphrase is empty$"):
        Passphrase("")
    with pytest.raises(UsageError, match=r"^the passphrase is not valid text in UTF-8$"):
        Passphrase("\udcff")


@pytest.mark.parametrize("damage", [flips, truncations])
def test_no_damaged_slot_is_ever_accepted(damage: Any) -> None:
    for damaged in damage(DATA):
        why(damaged)


@given(st.binary(max_size=300))
def test_random_bytes_are_a_damaged_slot(data: bytes) -> None:
    assert why(data).startswith(f"{OBJECT}: damaged: ")


@given(st.sampled_from(sorted(msgpack.unpackb(msgpack.unpackb(DATA)[1]))), msgpack_values())
def test_a_field_of_any_value_opens_the_same_keys_or_nothing(key: str, value: object) -> None:
    try:
        holder = unwrap_slot(read(again(**{key: value})), KEY)
    except (ObjectDamaged, Refused):
        return
    assert holder is None or holder == HOLDER


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "has format 2; this version reads up to 1"),
        ({"method": "seance"}, "opens with 'seance', which this version does not know"),
    ],
)
def test_what_a_later_version_made_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    assert why(again(**changes)) == f"{OBJECT} {reason}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slot": "ff" * 8}, "was made under another name"),
        ({"number": 2}, "was made under another name"),
        ({"salt": bytes(31)}, "its field 'salt' is missing or wrong"),
        ({"method": "passphrase"}, "its field 'kdf' is missing or wrong"),
        ({"label": b"x"}, "its field 'label' is missing or wrong"),
        ({"sign_public": bytes(32)}, "its signature does not hold"),
    ],
)
def test_each_wrong_field_is_damage(changes: dict[str, Any], reason: str) -> None:
    assert why(again(**changes)) == f"{OBJECT}: damaged: {reason}"


def test_a_public_key_put_in_by_someone_else_is_refused() -> None:
    stranger = Holder.generate()
    swapped = signed_again(DATA, "slot", stranger.seed, public=stranger.public)
    assert why(swapped) == f"{OBJECT}: damaged: its signature does not hold"


@pytest.mark.parametrize("key", ["public", "sign_public"])
def test_public_keys_that_do_not_belong_to_what_is_wrapped_are_refused(key: str) -> None:
    """A program with a bug could sign this; bundles sealed to such a key would open for nobody."""
    stranger = Holder.generate()
    seed = stranger.seed if key == "sign_public" else HOLDER.seed
    mixed = signed_again(DATA, "slot", seed, **{key: getattr(stranger, key)})
    with pytest.raises(ObjectDamaged) as caught:
        unwrap_slot(read(mixed), KEY)
    assert str(caught.value) == f"{OBJECT}: damaged: what it wraps does not belong to its public keys"


def test_a_wrapping_moved_from_another_repository_or_slot_does_not_open() -> None:
    moved = read(again(repository=bytes(32)))
    with pytest.raises(ObjectDamaged) as caught:
        unwrap_slot(moved, KEY)
    assert str(caught.value) == f"{OBJECT}: damaged: the key fits, yet what it wraps does not open"


def test_every_wrapping_has_a_salt_of_its_own() -> None:
    assert read(WRAP(KEY)).salt != read(DATA).salt


def test_the_wrapped_keys_lie_as_the_format_says() -> None:
    slot = read(DATA)
    kek = derive("slot key file", KEY.key + slot.salt)
    bound = b"holdfast 1 slot" + REPOSITORY + NAME.encode()
    assert AESGCM(kek).decrypt(bytes(12), slot.wrapped, bound) == HOLDER.private + HOLDER.seed
    assert slot.check == derive("slot check", kek)[:16]


def test_a_label_that_is_too_long_is_refused() -> None:
    with pytest.raises(Refused, match=r"^the label has more than 200 characters$"):
        wrap_slot(HOLDER, KEY, repository=REPOSITORY, slot=NAME, number=0, label="x" * 201, created_ns=NOW)


def test_unknown_fields_are_ignored() -> None:
    assert unwrap_slot(read(again(later=1)), KEY) == HOLDER


def test_secrets_do_not_show() -> None:
    assert repr(Passphrase("hunter2")) == f"Passphrase(costs={COSTS_DEFAULT})"
    assert repr(HOLDER) == "Holder()"
