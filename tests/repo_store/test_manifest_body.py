"""The body of a manifest: it reads back, its hash is that of the bytes, and what cannot be is refused by name."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mutation import mutate
from support.rings import make_ring

from repo_store.errors import ObjectDamaged
from repo_store.manifest import PROBLEMS_MAX, Manifest, Status, TreeRoot
from repo_store.sealed import Kind, open_object, seal_object

ID = bytes(range(16))
NAME = f"manifests/{ID.hex()}"


def manifest(**changes: Any) -> Manifest:
    return replace(
        Manifest(
            id=ID,
            series="files:host:/srv",
            sequence=2,
            previous=(b"p" * 16, b"h" * 32),
            start=10**18,
            end=10**18 + 5,
            storage_date=10**18 + 3,
            host="host",
            source="files",
            status="complete",
            root=TreeRoot(b"r" * 32, 2, 1234),
            roots=[(b"srv", b"/srv")],
            owners={"users": [(0, b"root"), (1000, b"j\xff")], "groups": []},
            parameters={"algorithm": 2, "size_min": 32768, "size_avg": 65536, "size_max": 262144},
            statistics={"files": 3, "bytes": 2**63},
            problems=[("srv/a", "permission denied")],
            tags=["weekly"],
            hold_until=10**19 // 2,
            command=["pg_dump", "-Fc"],
            exit_status=-9,
            tools={"holdfast": "0.1.0"},
            wal=[(7_000_000_000_000_000_000, 1, "000000010000000000000001", "000000010000000000000002")],
            generation=4,
        ),
        **changes,
    )


def bare() -> Manifest:
    return Manifest(
        id=ID, series="s", sequence=1, previous=None, start=0, end=0, storage_date=None,
        host="", source="stdin", status=Status.PARTIAL, root=None,
    )  # fmt: skip


@pytest.mark.parametrize("made", [manifest(), bare()], ids=["all", "least"])
def test_a_manifest_reads_back_through_sealing(made: Manifest) -> None:
    ring = make_ring()
    sealed = seal_object(ring, Kind.MANIFEST, made.to_body(), subject=NAME)
    read = Manifest.from_body(NAME, open_object(ring, Kind.MANIFEST, NAME, sealed).body)
    assert read.to_body() == made.to_body()
    assert read.hash == made.hash == blake3(msgpack.packb(made.to_body())).digest()
    if made.command is not None:
        assert read == made
    assert read.root is None or isinstance(read.root, TreeRoot)


def test_the_hash_changes_with_every_change_and_survives_newer_keys() -> None:
    made = manifest()
    assert replace(made, generation=5).hash != made.hash
    newer = {**made.to_body(), "from the future": {"a": 1}}
    read = Manifest.from_body(NAME, newer)
    assert read == made
    assert read.hash == blake3(msgpack.packb(newer)).digest() != made.hash
    assert replace(read, generation=5).hash == replace(made, generation=5).hash, (
        "a changed copy is hashed anew"
    )


def test_keys_are_written_in_the_order_of_the_format() -> None:
    assert list(manifest().to_body()) == [
        "format", "id", "series", "sequence", "previous", "start", "end", "storage_date", "host", "source", "status",
        "root", "roots", "owners", "parameters", "statistics", "problems", "tags", "hold_until", "command",
        "exit_status", "tools", "wal", "generation",
    ]  # fmt: skip


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(ObjectDamaged) as caught:
        Manifest.from_body(NAME, {**manifest().to_body(), "format": 3})
    assert str(caught.value) == f"{NAME}: damaged: has format 3; this version reads up to 1"


WRONG: dict[str, dict[str, Any]] = {
    "`format` is no number": {"format": "1"},
    "`format` is 0, which cannot be": {"format": 0},
    "`id` is no byte string of 16 bytes": {"id": b"x" * 15},
    f"says that it is manifests/{'78' * 16}": {"id": b"x" * 16},
    "`series` is empty": {"series": ""},
    "`series` is no text": {"series": b"x"},
    "`series` has 65537 characters, above the limit": {"series": "x" * 65537},
    "`sequence` is 0, which cannot be": {"sequence": 0},
    "`sequence` is no number": {"sequence": True},
    "its `previous` has a row of the wrong form": {"previous": [b"x" * 16]},
    "its `previous` is not an id and a hash": {"previous": [b"x" * 16, b"h" * 31]},
    "`start` is -1, which cannot be": {"start": -1},
    "`end` is no number": {"end": 1.5},
    "`storage_date` is no number": {"storage_date": "now"},
    "`source` is empty": {"source": ""},
    "its `status` is 'fine', which this version does not know": {"status": "fine"},
    "its `root` has a row of the wrong form": {"root": [b"r" * 32, 1]},
    "its `root` cannot be that of a tree": {"root": [b"r" * 32, 9, 1]},
    "its `roots` have a name that cannot be one": {"roots": [[b"..", b"/"]]},
    "its `roots` is no list": {"roots": {}},
    "its `owners` is no map": {"owners": []},
    "its `owners` has a row of the wrong form": {"owners": {"users": [["0", b"root"]], "groups": []}},
    "its `owners` is no list": {"owners": {"users": []}},
    "its `parameters` has a wrong 'size_min'": {"parameters": {"size_min": None}},
    "'files' in `statistics` is -1, which cannot be": {"statistics": {"files": -1}},
    "a key of `statistics` is no text": {"statistics": {1: 1}},
    "its `problems` has 1001 items, above the limit of 1000": {"problems": [["p", "m"]] * (PROBLEMS_MAX + 1)},
    "an item of `tags` is no text": {"tags": [1]},
    "`hold_until` is -5, which cannot be": {"hold_until": -5},
    "its `command` is no list": {"command": "ls"},
    "`exit_status` is no number": {"exit_status": "0"},
    "its `tools` has a wrong 'git'": {"tools": {"git": 2}},
    "its `wal` has a row of the wrong form": {"wal": [[1, 1, "a"]]},
    "`generation` is -1, which cannot be": {"generation": -1},
}


@pytest.mark.parametrize("why", WRONG)
def test_what_cannot_be_is_refused_in_its_own_words(why: str) -> None:
    with pytest.raises(ObjectDamaged) as caught:
        Manifest.from_body(NAME, {**manifest().to_body(), **WRONG[why]})
    assert caught.value.reason == why
    assert caught.value.name == NAME


@pytest.mark.parametrize("key", list(manifest().to_body()))
def test_a_missing_key_is_refused(key: str) -> None:
    body = manifest().to_body()
    del body[key]
    with pytest.raises(ObjectDamaged, match=f"has no `{key}`"):
        Manifest.from_body(NAME, body)


@pytest.mark.parametrize(
    "changes",
    [
        {"problems": [("p", "m")] * 1001},
        {"status": "fine"},
        {"sequence": 0},
        {"tags": ["t"] * 1001},
        {"root": TreeRoot(b"", 0, 1)},
    ],
)
def test_what_no_reader_takes_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(ObjectDamaged):
        manifest(**changes).to_body()


@given(data=st.data())
@settings(max_examples=settings.default.max_examples * 3)
def test_a_mutated_body_gives_a_manifest_or_damage_and_nothing_else(data: st.DataObject) -> None:
    body = msgpack.unpackb(msgpack.packb(manifest().to_body()))
    changed = mutate(data.draw, body)
    if isinstance(changed, dict):
        try:
            read = Manifest.from_body(NAME, changed)
        except ObjectDamaged:
            return
        assert Manifest.from_body(NAME, read.to_body()) == read
