"""The bodies of marks, sweeps, dones, markers, notes and ledger records: they read back or are refused by name."""

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mutation import mutate

from repo_store.errors import ObjectDamaged
from repo_store.generation import Done, Mark, Sweep
from repo_store.ledger import Depth, LedgerRecord
from repo_store.markers import ForgetMarker, Note, Tombstone

ID = bytes(range(16))
HASHES = (b"a" * 32, b"b" * 32)
WAL = ("wal/7000000000000000000/1/000000010000000000000001",)

BODIES: dict[str, Any] = {
    "gc/0000000012.mark": Mark(
        generation=12, time=5, packs=HASHES, tables=HASHES[:1], frames=(b"f" * 20,), wal=WAL
    ),
    "gc/0000000013.mark": Mark(generation=13, time=0),
    "gc/0000000012.sweep": Sweep(
        generation=12, time=5, packs=HASHES, tables=HASHES, wal=WAL, manifests=(ID,), pendings=(ID, b"x" * 16)
    ),
    "gc/9999999999.done": Done(generation=9999999999, time=5, unreferenced=HASHES),
    f"manifests/{ID.hex()}": Tombstone(id=ID, time=5, reason="older than its grace"),
    f"forgotten/{ID.hex()}": ForgetMarker(id=ID, time=5, reason=""),
    f"notes/{ID.hex()}.0011223344556677": Note(
        id=ID, time=5, add_tags=("a",), remove_tags=("b",), sets_hold=True, hold_until=9
    ),
    f"notes/{ID.hex()}.00112233445566aa": Note(id=ID, time=5),
    f"notes/{ID.hex()}.00112233445566bb": Note(id=ID, time=5, sets_hold=True),
    f"ledger/{ID.hex()}": LedgerRecord(
        id=ID, time=5, depth=Depth.DATA, packs=HASHES, damaged_packs=HASHES[1:], damaged_frames=(b"f" * 20,)
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_reads_back(name: str) -> None:
    made = BODIES[name]
    body = msgpack.unpackb(msgpack.packb(made.to_body()))
    assert type(made).from_body(name, body) == made
    assert type(made).from_body(name, {**body, "from the future": 1}) == made


@pytest.mark.parametrize("name", BODIES)
def test_a_body_under_another_name_is_refused(name: str) -> None:
    made = BODIES[name]
    for other in (
        "gc/0000000011.mark",
        f"forgotten/{'00' * 16}",
        name[:-1],
        name.replace("1", "7", 1),
        "x" + name,
    ):
        if other != name and not other.startswith(f"notes/{ID.hex()}."):
            with pytest.raises(ObjectDamaged, match="says that it is"):
                type(made).from_body(other, made.to_body())


@pytest.mark.parametrize("name", BODIES)
def test_a_newer_format_and_a_missing_key_are_refused(name: str) -> None:
    made = BODIES[name]
    with pytest.raises(ObjectDamaged, match="has format 2; this version reads up to 1"):
        type(made).from_body(name, {**made.to_body(), "format": 2})
    for key in set(made.to_body()) - {"add_tags", "remove_tags", "hold_until"}:
        body = {name: value for name, value in made.to_body().items() if name != key}
        with pytest.raises(ObjectDamaged, match=f"has no `{key}`"):
            type(made).from_body(name, body)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("gc/0000000012.mark", {"packs": b"a" * 33}, "its `packs` is not made of 32 bytes each"),
    ("gc/0000000012.mark", {"tables": [b"a" * 32]}, "its `tables` is not made of 32 bytes each"),
    ("gc/0000000012.mark", {"frames": b"a" * 32}, "its `frames` is not made of 20 bytes each"),
    (
        "gc/0000000012.mark",
        {"wal": ["packs/aa"]},
        "its `wal` has 'packs/aa', which is no name of a WAL object",
    ),
    (
        "gc/0000000012.mark",
        {"wal": ["wal/../x"]},
        "its `wal` has 'wal/../x', which is no name of a WAL object",
    ),
    ("gc/0000000012.mark", {"generation": 0}, "`generation` is 0, which cannot be"),
    ("gc/0000000012.mark", {"generation": 10**10}, "`generation` is 10000000000, which cannot be"),
    ("gc/0000000012.mark", {"time": -1}, "`time` is -1, which cannot be"),
    ("gc/0000000012.sweep", {"manifests": b"a" * 17}, "its `manifests` is not made of 16 bytes each"),
    ("gc/0000000012.sweep", {"pendings": None}, "its `pendings` is not made of 16 bytes each"),
    ("gc/9999999999.done", {"unreferenced": b"a"}, "its `unreferenced` is not made of 32 bytes each"),
    (f"ledger/{ID.hex()}", {"depth": "deep"}, "its `depth` is 'deep', which this version does not know"),
    (
        f"ledger/{ID.hex()}",
        {"damaged_frames": b"a" * 21},
        "its `damaged_frames` is not made of 20 bytes each",
    ),
    (f"manifests/{ID.hex()}", {"reason": 3}, "`reason` is no text"),
    (f"notes/{ID.hex()}.00112233445566aa", {"add_tags": "a"}, "its `add_tags` is no list"),
    (f"notes/{ID.hex()}.00112233445566aa", {"hold_until": "x"}, "`hold_until` is no number"),
]


@pytest.mark.parametrize(("name", "changes", "why"), WRONG, ids=[case[2] for case in WRONG])
def test_what_cannot_be_is_refused_in_its_own_words(name: str, changes: dict[str, Any], why: str) -> None:
    made = BODIES[name]
    with pytest.raises(ObjectDamaged) as caught:
        type(made).from_body(name, {**made.to_body(), **changes})
    assert (caught.value.name, caught.value.reason) == (name, why)


@given(data=st.data(), name=st.sampled_from(sorted(BODIES)))
@settings(max_examples=settings.default.max_examples * 2)
def test_a_mutated_body_reads_or_is_damage_and_nothing_else(data: st.DataObject, name: str) -> None:
    made = BODIES[name]
    changed = mutate(data.draw, msgpack.unpackb(msgpack.packb(made.to_body())))
    if isinstance(changed, dict):
        try:
            read = type(made).from_body(name, changed)
        except ObjectDamaged:
            return
        assert type(made).from_body(name, read.to_body()) == read
