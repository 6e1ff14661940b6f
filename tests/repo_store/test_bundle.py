"""Bundles open for their holder, their slot, their epoch and role, and only if the owner signed them."""

from functools import partial
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.damaging import flips, msgpack_values, truncations
from support.repositories import signed_again

from repo_store import hpke
from repo_store.bundle import Bundle, build_bundle, bundle_name, open_bundle
from repo_store.errors import ObjectDamaged, Refused
from repo_store.roles import ROLES, role_named
from repo_store.sealed import Kind
from repo_store.slot import Holder

REPOSITORY = bytes(range(32))
SLOT = "00112233445566ff"
NAME = bundle_name(SLOT, 2)
OWNER_PRIVATE = bytes(range(50, 82))
OWNER_PUBLIC = Ed25519PrivateKey.from_private_bytes(OWNER_PRIVATE).public_key().public_bytes_raw()
OWNER, WRITER = ROLES["owner"], ROLES["writer"]
HOLDER = Holder.generate()
SECRETS = Bundle(b"i" * 32, b"c" * 32, b"m" * 32, OWNER_PUBLIC, hpke.generate(), OWNER_PRIVATE)
BUILD = partial(build_bundle, SECRETS, OWNER_PRIVATE, repository=REPOSITORY, slot=SLOT, epoch=2)
DATA = BUILD(HOLDER.public, role=OWNER)
OPEN = partial(open_bundle, repository=REPOSITORY, owner_public=OWNER_PUBLIC, slot=SLOT, epoch=2)


def why(data: bytes, holder: Holder = HOLDER, **other: Any) -> str:
    with pytest.raises((ObjectDamaged, Refused)) as caught:
        OPEN(NAME, data, holder, **{"role": OWNER, **other})
    return str(caught.value)


def with_secrets(**changes: Any) -> bytes:
    """Return a bundle of the owner's around other secrets, one of them changed, or missing if None."""
    secrets = {
        "id_key": b"i" * 32,
        "chunker_key": b"c" * 32,
        "metadata_key": b"m" * 32,
        "owner_public": OWNER_PUBLIC,
        "data_private": SECRETS.data_private,
        "owner_private": OWNER_PRIVATE,
        **changes,
    }
    kept = {key: value for key, value in secrets.items() if value is not None}
    return sealed_again(msgpack.packb(kept))


def sealed_again(plain: bytes) -> bytes:
    info = b"holdfast 1 bundle" + REPOSITORY + SLOT.encode() + b"\2\0\0\0" + b"owner"
    sealed = hpke.seal_to(HOLDER.public, plain, info=info)
    return signed_again(DATA, "bundle", OWNER_PRIVATE, sealed=sealed)


def test_an_owner_gets_everything() -> None:
    assert OPEN(NAME, DATA, HOLDER, role=OWNER) == SECRETS


def test_a_writer_gets_no_private_key() -> None:
    opened = OPEN(NAME, BUILD(HOLDER.public, role=WRITER), HOLDER, role=WRITER)
    assert opened == Bundle(b"i" * 32, b"c" * 32, b"m" * 32, OWNER_PUBLIC)
    assert (opened.data_private, opened.owner_private) == (None, None)


@pytest.mark.parametrize("damage", [flips, truncations])
def test_no_damaged_bundle_is_ever_accepted(damage: Any) -> None:
    for damaged in damage(DATA):
        why(damaged)


@given(st.binary(max_size=300))
def test_random_bytes_are_a_damaged_bundle(data: bytes) -> None:
    assert why(data).startswith(f"{NAME}: damaged: ")


@given(st.binary(max_size=100) | msgpack_values().map(msgpack.packb))
def test_secrets_of_any_other_form_are_damage(plain: bytes) -> None:
    assert why(sealed_again(plain)).startswith(f"{NAME}: damaged: ")


def test_a_bundle_of_another_owner_is_refused() -> None:
    stranger = signed_again(DATA, "bundle", bytes(32), owner_public=OWNER_PUBLIC)
    assert why(stranger) == f"{NAME}: damaged: its signature does not hold"


@pytest.mark.parametrize(
    "other", [{"repository": bytes(32)}, {"slot": "ff" * 8}, {"epoch": 1}, {"role": WRITER}], ids=str
)
def test_a_bundle_moved_to_another_place_is_refused(other: dict[str, Any]) -> None:
    reason = f"{NAME}: damaged: was made for another slot, epoch, role or repository"
    assert why(DATA, **other) == reason


@pytest.mark.parametrize(
    "claim", [{"repository": bytes(32)}, {"slot": "ff" * 8}, {"epoch": 1}, {"role": "writer"}], ids=str
)
def test_what_is_sealed_does_not_open_under_another_claim(claim: dict[str, Any]) -> None:
    data = signed_again(DATA, "bundle", OWNER_PRIVATE, **claim)
    expected: dict[str, Any] = {key: ROLES[value] if key == "role" else value for key, value in claim.items()}
    assert why(data, **expected) == f"{NAME}: damaged: is not sealed to the keys of its slot"


def test_a_bundle_for_another_holder_does_not_open() -> None:
    assert why(DATA, Holder.generate()) == f"{NAME}: damaged: is not sealed to the keys of its slot"


@pytest.mark.parametrize("key", ["id_key", "chunker_key", "metadata_key", "data_private", "owner_private"])
@pytest.mark.parametrize("value", [None, b"short", "text"])
def test_each_secret_is_required_in_its_size(key: str, value: object) -> None:
    assert why(with_secrets(**{key: value})) == f"{NAME}: damaged: its field {key!r} is missing or wrong"


def test_the_owner_inside_counts() -> None:
    assert why(with_secrets(owner_public=bytes(32))) == f"{NAME}: damaged: names another owner"


def test_a_later_format_is_refused_by_its_number() -> None:
    later = signed_again(DATA, "bundle", OWNER_PRIVATE, format=2)
    assert why(later) == f"{NAME} has format 2; this version reads up to 1"


def test_unknown_fields_are_ignored() -> None:
    assert OPEN(NAME, with_secrets(later=1), HOLDER, role=OWNER) == SECRETS
    assert OPEN(NAME, signed_again(DATA, "bundle", OWNER_PRIVATE, later=1), HOLDER, role=OWNER) == SECRETS


def test_what_is_no_public_key_cannot_be_sealed_to() -> None:
    for public in (b"", bytes(1215), b"\xff" * 1216):
        with pytest.raises(Refused, match=r"^these bytes are no public key to seal to$"):
            BUILD(public, role=WRITER)


def test_roles_are_known_by_name() -> None:
    assert role_named("writer") is WRITER
    with pytest.raises(Refused, match=r"^the role 'auditor' is not known to this version$"):
        role_named("auditor")


def test_an_owner_signs_every_kind_that_carries_a_signature() -> None:
    assert OWNER.kinds == set(Kind) - {Kind.DATA_FRAME, Kind.METADATA_FRAME, Kind.WAL_FRAME}
    assert WRITER.kinds < OWNER.kinds


def test_hpke_sizes_are_those_of_the_format() -> None:
    sealed = hpke.seal_to(HOLDER.public, bytes(32), info=b"")
    assert (len(HOLDER.private), len(HOLDER.public), len(sealed)) == (96, 1216, 1168)
    assert hpke.OVERHEAD_BYTES == 1136
    assert hpke.open_with(HOLDER.private, sealed, info=b"") == bytes(32)
    assert hpke.open_with(HOLDER.private, sealed, info=b"other") is None
    assert hpke.open_with(HOLDER.private, b"", info=b"") is None


def test_secrets_do_not_show() -> None:
    assert repr(SECRETS) == f"Bundle(owner_public={OWNER_PUBLIC!r})"
