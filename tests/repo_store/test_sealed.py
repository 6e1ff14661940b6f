"""Sealed objects open as what they were made for, or not at all."""

import os
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from support.damaging import flips, msgpack_values, truncations
from support.rings import make_ring

from repo_store.errors import ObjectDamaged, Refused
from repo_store.key_ring import KeyRing, RosterLine, signer_of
from repo_store.padme import padme
from repo_store.roles import ROLES
from repo_store.sealed import Kind, make_header, open_any, open_object, seal_object

RING = make_ring(epochs=(1, 2))
BODY = {"format": 1, "text": "häuser", "data": bytes(range(64)), "list": [1, 2, 3]}
NAME = "manifests/00"
SEALED = seal_object(RING, Kind.MANIFEST, BODY, subject=NAME)


def refused(data: bytes, ring: KeyRing = RING, kind: Kind = Kind.MANIFEST, name: str = NAME) -> str:
    """Return why the object is damaged, without the name it stands under."""
    with pytest.raises(ObjectDamaged) as caught:
        open_object(ring, kind, name, data)
    assert str(caught.value) == f"{name}: damaged: {caught.value.reason}"
    return caught.value.reason


def with_signer(line: RosterLine, signing: Ed25519PrivateKey, ring: KeyRing = RING) -> KeyRing:
    """Return the ring of another holder, who is in the roster by `line`."""
    roster = {**ring.roster, signer_of(line.public): line}
    return replace(ring, signing_key=signing, roster=roster, slot=line.slot, role=line.role)


def sealed_plain(plain: bytes, kind: Kind = Kind.MANIFEST) -> bytes:
    """Return an object whose plaintext is anything, rightly sealed."""
    header = make_header(RING, kind)
    return header.data + AESGCM(header.key).encrypt(bytes(12), plain, RING.repository + header.data)


def payload_of(body: bytes) -> bytes:
    """Return a rightly signed payload around any bytes."""
    lead = b"holdfast 1 signature" + RING.repository + bytes([Kind.MANIFEST])
    subject = NAME.encode()
    signed = lead + (2).to_bytes(4, "little") + len(subject).to_bytes(2, "little") + subject + body
    return RING.signing_key.sign(signed) + RING.signer + body


def stored(payload: bytes, codec: int = 0, length: int | None = None, after: bytes = b"") -> bytes:
    size = len(payload) if length is None else length
    return bytes([codec]) + size.to_bytes(4, "little") + payload + after


@given(st.dictionaries(st.text(), msgpack_values()))
def test_what_was_sealed_opens_to_the_same_body(body: dict[str, Any]) -> None:
    sealed = seal_object(RING, Kind.NOTE, body, subject="notes/1.2")
    opened = open_object(RING, Kind.NOTE, "notes/1.2", sealed)
    assert msgpack.packb(opened.body) == msgpack.packb(body)
    assert opened.signer == RING.signer
    assert len(sealed) == padme(len(sealed))


def test_the_newest_epoch_is_written_and_every_epoch_is_read() -> None:
    older = replace(RING, epochs={1: RING.epochs[1]})
    by_older = seal_object(older, Kind.MARK, {"a": 1}, subject="gc/1.mark")
    assert by_older[8:12] == b"\1\0\0\0" and SEALED[8:12] == b"\2\0\0\0"
    assert open_object(RING, Kind.MARK, "gc/1.mark", by_older).body == {"a": 1}
    assert refused(SEALED, older) == "belongs to epoch 2, of which this key holds nothing"


def test_a_holder_without_the_newest_epoch_cannot_write() -> None:
    behind = replace(RING, epochs={1: RING.epochs[1]}, newest=2)
    with pytest.raises(Refused, match=r"^slot 0000000000000000 holds no keys of epoch 2$"):
        seal_object(behind, Kind.MARK, {}, subject="gc/1.mark")


@pytest.mark.parametrize("damage", [flips, truncations])
def test_no_damaged_byte_or_end_is_ever_accepted(damage: Any) -> None:
    for damaged in damage(SEALED):
        refused(damaged)


@given(st.binary(max_size=300))
def test_random_bytes_are_damaged_objects(data: bytes) -> None:
    refused(data)
    refused(SEALED[:64] + data)
    refused(SEALED[:8] + data)


@given(st.binary(max_size=200))
def test_a_signed_body_of_any_bytes_opens_as_a_map_or_is_damaged(body: bytes) -> None:
    sealed = sealed_plain(stored(payload_of(body)))
    try:
        opened = open_object(RING, Kind.MANIFEST, NAME, sealed)
    except ObjectDamaged as error:
        assert error.reason.startswith(("holds no map", "holds no valid map"))
    else:
        assert isinstance(opened.body, dict)


def test_each_moved_object_is_refused() -> None:
    other = replace(RING, repository=os.urandom(32))
    assert refused(SEALED, name="manifests/01") == "its signature does not hold"
    assert refused(SEALED, kind=Kind.TOMBSTONE) == "kind 2 does not belong there"
    assert refused(SEALED, other) == "fails authentication"
    pending = SEALED[:5] + bytes([Kind.PENDING]) + SEALED[6:]
    assert refused(pending, kind=Kind.PENDING) == "was sealed under another key, or its header is damaged"
    foreign = make_ring(epochs=(1, 2))
    assert refused(SEALED, foreign) == "was sealed under another key, or its header is damaged"


def test_another_format_and_magic_are_refused_by_name() -> None:
    assert refused(SEALED[:4] + b"\3" + SEALED[5:]) == "has format 3; this version reads up to 1"
    assert refused(b"HFPK" + SEALED[4:]) == "does not start like an object of holdfast"
    assert refused(SEALED[:63]) == "too short for its header"
    assert refused(SEALED[:6] + b"\1" + SEALED[7:]) == "kind 2 does not belong there"


def test_one_of_several_kinds_is_told_apart() -> None:
    kind, opened = open_any(RING, (Kind.MANIFEST, Kind.TOMBSTONE), NAME, SEALED)
    assert (kind, opened.body) == (Kind.MANIFEST, BODY)


def test_signatures_of_strangers_do_not_count() -> None:
    stranger = Ed25519PrivateKey.generate()
    forged = seal_object(replace(RING, signing_key=stranger), Kind.MANIFEST, BODY, subject=NAME)
    name = signer_of(stranger.public_key().public_bytes_raw()).hex()
    assert refused(forged) == f"is signed by {name}, which is not in the roster"


def test_a_signature_under_the_name_of_another_does_not_hold() -> None:
    payload = bytearray(payload_of(msgpack.packb(BODY)))
    payload[:64] = Ed25519PrivateKey.generate().sign(b"anything")
    assert refused(sealed_plain(stored(bytes(payload)))) == "its signature does not hold"


@pytest.mark.parametrize("kind", sorted(ROLES["owner"].kinds))
def test_a_writer_signs_what_a_snapshot_consists_of_and_nothing_else(kind: int) -> None:
    signing = Ed25519PrivateKey.generate()
    public = signing.public_key().public_bytes_raw()
    writer = with_signer(RosterLine(public, "11" * 8, "writer", ROLES["writer"].kinds), signing)
    sealed = seal_object(writer, Kind(kind), {}, subject="x")
    if kind in {
        Kind.PENDING,
        Kind.MANIFEST,
        Kind.DATA_DIRECTORY,
        Kind.METADATA_DIRECTORY,
        Kind.WAL_HEADER,
        Kind.TABLE,
    }:
        assert open_object(writer, Kind(kind), "x", sealed).body == {}
    else:
        assert kind in {
            Kind.TOMBSTONE,
            Kind.FORGET,
            Kind.MARK,
            Kind.SWEEP,
            Kind.DONE,
            Kind.LEDGER,
            Kind.NOTE,
            Kind.OVERLAY,
        }
        reason = refused(sealed, writer, Kind(kind), "x")
        assert reason == "is signed by slot 1111111111111111, a writer, which may not sign this"


def test_a_removed_slot_signed_validly_up_to_its_epoch_and_not_after() -> None:
    signing = Ed25519PrivateKey.generate()
    public = signing.public_key().public_bytes_raw()
    removed = RosterLine(public, "22" * 8, "writer", ROLES["writer"].kinds, until=1)
    both = with_signer(removed, signing)
    before = seal_object(replace(both, epochs={1: RING.epochs[1]}), Kind.MANIFEST, BODY, subject=NAME)
    after = seal_object(both, Kind.MANIFEST, BODY, subject=NAME)
    assert open_object(both, Kind.MANIFEST, NAME, before).body == BODY
    reason = "is signed by slot 2222222222222222, a writer, removed in epoch 1, which may not sign this"
    assert refused(after, both) == reason


SQUEEZED = zstandard.ZstdCompressor().compress(payload_of(msgpack.packb(BODY)))
SIZELESS = zstandard.ZstdCompressor(write_content_size=False).compress(payload_of(b"\x80"))


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (b"", "is empty"),
        (stored(b"x" * 99, length=100), "its padding or length is wrong"),
        (stored(payload_of(b"\x80"), after=b"\0\1"), "its padding or length is wrong"),
        (stored(payload_of(b"\x80"), codec=2), "uses codec 2, which this version does not know"),
        (stored(b"x" * 79), "is too short to be signed"),
        (stored(payload_of(b"\x90")), "holds no map"),
        (stored(payload_of(b"\x81\x90\x01")), "holds no valid map: unhashable type: 'list'"),
        (stored(SIZELESS, codec=1), "its content size is unknown or above the limit"),
    ],
)
def test_a_plaintext_of_the_wrong_form_is_refused_with_its_reason(plain: bytes, reason: str) -> None:
    assert refused(sealed_plain(plain)) == reason


def test_compressed_payloads_open_and_broken_ones_do_not() -> None:
    opened = open_object(RING, Kind.MANIFEST, NAME, sealed_plain(stored(SQUEEZED, codec=1)))
    assert opened.body == BODY
    assert refused(sealed_plain(stored(SQUEEZED[:-3], codec=1))).startswith("does not decompress: ")


def test_unknown_keys_are_kept_for_who_knows_them() -> None:
    sealed = seal_object(RING, Kind.MANIFEST, BODY | {"later": [1]}, subject=NAME)
    assert open_object(RING, Kind.MANIFEST, NAME, sealed).body == BODY | {"later": [1]}


def test_no_two_objects_share_a_key() -> None:
    again = seal_object(RING, Kind.MANIFEST, BODY, subject=NAME)
    assert again[16:64] != SEALED[16:64] and again[64:] != SEALED[64:]


def test_secrets_do_not_show() -> None:
    shown = repr(RING)
    assert RING.id_key.hex() not in shown and repr(RING.id_key) not in shown
    assert "metadata_key" not in shown and "signing_key" not in shown
