"""Pack keys: opened only by who may, only in their repository, only as the key their origin names."""

import os
from dataclasses import replace

import pytest
from support.rings import make_ring

from repo_store import hpke
from repo_store.errors import ObjectDamaged, Refused
from repo_store.key_ring import KeyRing
from repo_store.pack_key import SealedKey, make_pack_key, open_pack_key, origin_of
from repo_store.sealed import Kind

NAME = "packs/aa/bb"
NONCE = bytes(12)
DATA, METADATA = Kind.DATA_DIRECTORY, Kind.METADATA_DIRECTORY


@pytest.fixture(scope="module")
def ring() -> KeyRing:
    return make_ring(epochs=(1, 2))


@pytest.mark.parametrize("kind", [DATA, METADATA])
def test_a_key_opens_to_the_key_that_was_made(ring: KeyRing, kind: Kind) -> None:
    made = make_pack_key(ring, kind)
    opened = open_pack_key(ring, kind, NAME, made.sealed_key)
    assert opened.cipher.decrypt(NONCE, made.cipher.encrypt(NONCE, b"text", None), None) == b"text"
    assert opened.lead == made.lead


def test_the_sealed_forms_have_the_sizes_of_the_format(ring: KeyRing) -> None:
    data, metadata = make_pack_key(ring, DATA).sealed_key, make_pack_key(ring, METADATA).sealed_key
    assert (data.suite, len(data.sealed), data.epoch) == (1, 1168, 2)
    assert (metadata.suite, len(metadata.sealed), metadata.epoch) == (0, 32, 2)
    assert len(data.origin) == len(metadata.origin) == 16


def test_the_lead_of_associated_data_is_repository_frame_kind_and_origin(ring: KeyRing) -> None:
    for kind, frame_kind in ((DATA, 32), (METADATA, 33), (Kind.WAL_HEADER, 34)):
        key = make_pack_key(ring, kind)
        assert key.lead == ring.repository + bytes([frame_kind]) + key.sealed_key.origin


def test_every_key_is_fresh(ring: KeyRing) -> None:
    assert len({make_pack_key(ring, kind).sealed_key.origin for kind in (DATA, METADATA) * 8}) == 16


@pytest.mark.parametrize("kind", [DATA, METADATA])
def test_a_key_of_an_earlier_epoch_opens(ring: KeyRing, kind: Kind) -> None:
    earlier = replace(ring, epochs={1: ring.epochs[1]})
    made = make_pack_key(earlier, kind)
    assert made.sealed_key.epoch == 1
    open_pack_key(ring, kind, NAME, made.sealed_key)


@pytest.mark.parametrize("kind", [DATA, METADATA])
def test_a_key_of_an_epoch_not_held_is_refused(ring: KeyRing, kind: Kind) -> None:
    made = make_pack_key(ring, kind)
    with pytest.raises(Refused, match="holds no keys of epoch 2"):
        open_pack_key(replace(ring, epochs={1: ring.epochs[1]}), kind, NAME, made.sealed_key)


def test_a_writer_can_make_a_data_key_and_not_open_it() -> None:
    writer = make_ring(readable=False)
    made = make_pack_key(writer, DATA)
    with pytest.raises(Refused, match="writer, which cannot read contents"):
        open_pack_key(writer, DATA, NAME, made.sealed_key)
    metadata = make_pack_key(writer, METADATA)
    open_pack_key(writer, METADATA, NAME, metadata.sealed_key)


def test_any_changed_bit_of_a_sealed_key_is_refused(ring: KeyRing) -> None:
    data, metadata = make_pack_key(ring, DATA).sealed_key, make_pack_key(ring, METADATA).sealed_key
    for at in (0, 500, 1119, 1120, 1151, 1152, 1167):
        with pytest.raises(ObjectDamaged, match="does not open with this repository's data key"):
            open_pack_key(ring, DATA, NAME, data._replace(sealed=_flip(data.sealed, at)))
    for at in (0, 31):
        with pytest.raises(ObjectDamaged, match="opens to a key of another origin"):
            open_pack_key(ring, METADATA, NAME, metadata._replace(sealed=_flip(metadata.sealed, at)))


def test_a_key_under_a_false_origin_is_refused(ring: KeyRing) -> None:
    """The commitment: without it one frame could be made to open under two keys."""
    data, metadata = make_pack_key(ring, DATA).sealed_key, make_pack_key(ring, METADATA).sealed_key
    with pytest.raises(
        ObjectDamaged, match=f"its key {_flip(metadata.origin, 3).hex()} opens to a key of another"
    ):
        open_pack_key(ring, METADATA, NAME, metadata._replace(origin=_flip(metadata.origin, 3)))
    with pytest.raises(
        ObjectDamaged, match="does not open"
    ):  # the origin is bound by the info of HPKE already
        open_pack_key(ring, DATA, NAME, data._replace(origin=_flip(data.origin, 3)))


def test_a_key_sealed_on_purpose_under_a_false_origin_is_refused(ring: KeyRing) -> None:
    origin = os.urandom(16)
    info = b"holdfast 1 pack key" + ring.repository + origin
    sealed = hpke.seal_to(ring.epochs[2].data_public, os.urandom(32), info=info)
    with pytest.raises(ObjectDamaged, match="opens to a key of another origin"):
        open_pack_key(ring, DATA, NAME, SealedKey(origin, 2, 1, sealed))


def test_a_sealed_key_of_the_wrong_length_inside_is_refused(ring: KeyRing) -> None:
    key = os.urandom(31)
    origin = origin_of(ring.repository, key)
    info = b"holdfast 1 pack key" + ring.repository + origin
    sealed = hpke.seal_to(ring.epochs[2].data_public, key, info=info)
    with pytest.raises(ObjectDamaged, match="has 1167 bytes sealed"):
        open_pack_key(ring, DATA, NAME, SealedKey(origin, 2, 1, sealed))


def test_a_key_of_another_repository_is_refused(ring: KeyRing) -> None:
    other = replace(ring, repository=os.urandom(32))
    with pytest.raises(ObjectDamaged, match="does not open with this repository's data key"):
        open_pack_key(other, DATA, NAME, make_pack_key(ring, DATA).sealed_key)
    with pytest.raises(ObjectDamaged, match="opens to a key of another origin"):
        open_pack_key(other, METADATA, NAME, make_pack_key(ring, METADATA).sealed_key)


def test_unknown_and_misplaced_suites_are_refused_by_name(ring: KeyRing) -> None:
    data, metadata = make_pack_key(ring, DATA).sealed_key, make_pack_key(ring, METADATA).sealed_key
    with pytest.raises(ObjectDamaged, match="uses suite 2, which this version does not know"):
        open_pack_key(ring, DATA, NAME, data._replace(suite=2))
    with pytest.raises(ObjectDamaged, match="uses suite 0, which keys of its kind never do"):
        open_pack_key(ring, DATA, NAME, metadata)
    with pytest.raises(ObjectDamaged, match="uses suite 1, which keys of its kind never do"):
        open_pack_key(ring, METADATA, NAME, data)


def test_keys_do_not_show_in_messages(ring: KeyRing) -> None:
    assert "cipher" not in repr(make_pack_key(ring, METADATA))


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
