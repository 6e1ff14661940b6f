"""Content fields and content trees: as the format describes them, read in whole and in part, refused when hostile."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.entry_trees import KEY
from support.mutation import mutate
from support.node_store import NodeStore, file_entry
from support.slow_tree import cut_hash, joined_holes, slow_content

from repo_store.content import (
    CHUNK_BYTES_MAX,
    HOLE_BYTES_MAX,
    LEAF_PAIRS_MAX,
    ContentBuilder,
    content_nodes,
    content_pairs,
    content_range,
    why_no_content,
)
from repo_store.entry import HOLE, Entry
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.tree_node import HEIGHT_MAX

VECTORS = Path(__file__).parents[1] / "vectors" / "trees"
Chunks = list[tuple[bytes, int]]


def chunks(seed: int, count: int, *, holes: float = 0.1, repeats: float = 0.1) -> Chunks:
    chance = random.Random(seed)
    pairs: Chunks = []
    for _ in range(count):
        kind = chance.random()
        if kind < holes:
            pairs.append((HOLE, chance.choice((1, 4096, 2**39, 2**40, 2**41 + 1))))
        elif pairs and kind < holes + repeats:
            pairs.append((b"repeated" * 4, 1000))
        else:
            pairs.append((chance.randbytes(32), chance.randrange(1, CHUNK_BYTES_MAX + 1)))
    return pairs


def built(pairs: Chunks, key: bytes = KEY) -> tuple[NodeStore, Entry]:
    store = NodeStore()
    builder = ContentBuilder(key, store.put)
    for chunk_id, length in pairs:
        builder.add(chunk_id, length)
    content, size = builder.finish()
    store.reads.clear()
    return store, file_entry(b"f", content=content, size=size)


@given(seed=st.integers(0, 2**32), count=st.integers(0, 3000), holes=st.sampled_from((0, 0.1, 0.9, 1)))
@settings(max_examples=settings.default.max_examples // 4)
def test_content_is_what_the_format_describes_and_reads_back(seed: int, count: int, holes: float) -> None:
    pairs = chunks(seed, count, holes=holes)
    store, entry = built(pairs)
    assert (entry.content, entry.size, store.nodes) == slow_content(KEY, pairs)
    assert why_no_content(entry.content, entry.size) is None
    assert list(content_pairs(store.get, entry)) == joined_holes(pairs)
    assert sorted(node for node, _ in content_nodes(store.get, entry)) == sorted(store.nodes)


@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 255, 256, 257, 4097, 9000])
@pytest.mark.parametrize("same", [False, True])
def test_each_length_has_its_one_form(count: int, same: bool) -> None:
    # The same chunk again and again is cut nowhere, or everywhere, as its hash will have it.
    pairs = [(b"s" * 32, 7)] * count if same else chunks(1, count, holes=0, repeats=0)
    store, entry = built(pairs)
    assert (entry.content, entry.size, store.nodes) == slow_content(KEY, pairs)
    assert bool(store.nodes) == (count > 32)


@pytest.mark.parametrize("number", [255, 256, 257])
def test_a_leaf_may_end_from_its_256th_pair_on(number: int) -> None:
    pairs = chunks(1, number + 1, holes=0, repeats=0)
    keys = (key.to_bytes(32, "little") for key in range(2**32))
    key = next(key for key in keys if cut_hash(key, 0x80, pairs[number - 1][0]) < 2**54)
    store, entry = built(pairs, key)
    assert (entry.content, entry.size, store.nodes) == slow_content(key, pairs)
    assert (len(store.nodes) == 3) == (number >= 256)


def test_a_leaf_without_a_cut_ends_after_4096_pairs() -> None:
    store, entry = built([(b"t" * 32, 1)] * (3 * LEAF_PAIRS_MAX))
    leaves = [msgpack.unpackb(data) for data in store.nodes.values() if data[1] == 0]
    assert {len(leaf[2]) for leaf in leaves} == {LEAF_PAIRS_MAX}
    assert sum(1 for _ in content_pairs(store.get, entry)) == 3 * LEAF_PAIRS_MAX


@given(seed=st.integers(0, 2**32), count=st.integers(1, 3000), data=st.data())
@settings(max_examples=settings.default.max_examples // 4)
def test_a_range_gives_the_pairs_that_it_touches(seed: int, count: int, data: st.DataObject) -> None:
    store, entry = built(chunks(seed, count))
    offset = data.draw(st.integers(0, entry.size + 5))
    length = data.draw(st.one_of(st.integers(0, entry.size + 5), st.integers(0, 3)))
    expected, place = [], 0
    for chunk_id, size in content_pairs(store.get, entry):
        if place < offset + length and place + size > offset and length:
            expected.append((place, chunk_id, size))
        place += size
    assert list(content_range(store.get, entry, offset, length)) == expected


@pytest.mark.parametrize("count", [20, 3000])
def test_a_range_that_ends_with_a_pair_has_no_more_of_it(count: int) -> None:
    store, entry = built([(bytes([1]) * 28 + number.to_bytes(4, "little"), 10) for number in range(count)])
    for offset, length, places in (
        (0, 10, [0]),
        (10, 10, [10]),
        (19, 1, [10]),
        (19, 2, [10, 20]),
        (20, 0, []),
    ):
        assert [place for place, _, _ in content_range(store.get, entry, offset, length)] == places


def test_a_range_reads_only_the_nodes_on_its_way() -> None:
    store, entry = built(chunks(3, 60_000, holes=0, repeats=0))
    assert isinstance(entry.content, list)
    height = entry.content[1]
    assert height >= 1 and len(store.nodes) > 40
    assert len(list(content_range(store.get, entry, entry.size // 2, 1))) == 1
    assert len(store.reads) == height + 1
    store.reads.clear()
    list(content_nodes(store.get, entry))
    assert len(store.reads) == sum(1 for data in store.nodes.values() if data[1] > 0)


def test_a_high_tree_is_what_the_format_describes() -> None:
    pairs = chunks(5, 100_000, holes=0, repeats=0)
    store, entry = built(pairs)
    assert (entry.content, entry.size, store.nodes) == slow_content(KEY, pairs)
    assert entry.content[1] == 2  # type: ignore[index]


def test_a_changed_chunk_changes_few_nodes() -> None:
    pairs = chunks(4, 30_000, holes=0, repeats=0)
    store, before = built(pairs)
    changed, after = built([*pairs[:15_000], (b"new!" * 8, 5), *pairs[15_001:]])
    assert isinstance(after.content, list) and before.content != after.content
    assert len(changed.nodes.keys() - store.nodes.keys()) <= 3 * (after.content[1] + 1)


def memory_of(count: int) -> int:
    made = 0

    def put(data: bytes) -> bytes:
        nonlocal made
        made += 1
        return made.to_bytes(32, "big")

    builder = ContentBuilder(KEY, put)
    most = 0
    for number in range(count):
        builder.add((number + 1).to_bytes(32, "little"), 65536)
        if number % 100 == 0:
            levels = builder._spine._levels
            most = max(most, len(builder._ids) + sum(len(node.encoded) for node in levels if node))
    content, size = builder.finish()
    assert size == count * 65536
    assert isinstance(content, list) and content[1] <= HEIGHT_MAX
    return most


def test_memory_does_not_grow_with_the_stream() -> None:
    assert memory_of(300_000) <= LEAF_PAIRS_MAX + 3 * 256


@pytest.mark.full
def test_ten_tebibytes_take_no_more_memory() -> None:
    assert memory_of(10 * 2**40 // 65536) <= LEAF_PAIRS_MAX + 4 * 256


def test_holes_that_meet_are_one_and_long_ones_are_split() -> None:
    assert built([(HOLE, 1), (HOLE, 2)])[1][8:10] == (3, HOLE)
    _, entry = built([(HOLE, HOLE_BYTES_MAX), (HOLE, 1)])
    assert entry.content == [HOLE * 2, [HOLE_BYTES_MAX, 1]]


@pytest.mark.parametrize(
    ("chunk_id", "length"),
    [(b"i" * 32, 0), (b"i" * 32, CHUNK_BYTES_MAX + 1), (b"i" * 31, 1), (HOLE, 0), (HOLE, -1)],
)
def test_pairs_that_cannot_be_are_a_bug(chunk_id: bytes, length: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        ContentBuilder(KEY, NodeStore().put).add(chunk_id, length)


ID = b"i" * 32
HOSTILE: dict[str, tuple[Any, int, int]] = {
    "has height 0, where 1 belongs": ([0, ID, [5]], 1, 5),
    "is no leaf of a content tree": ([0, [[[], []]]], 0, 5),
    "has a content whose ids and lengths do not match": ([0, ID, [5, 5]], 0, 10),
    "has a content with an impossible length": ([0, ID * 2, [5, 0]], 0, 5),
    "has a chunk of 8388609 bytes": ([0, ID * 2, [5, 2**23 + 1]], 0, 2**23 + 6),
    "has a content of 5 bytes, where 6 belong": ([0, ID, [5]], 0, 6),
    "has no list of children": ([1, ID], 1, 5),
    "has a child of the wrong form": ([1, [[ID, 5, 5]]], 1, 5),
    "has a child without an id or size": ([1, [[ID[:5], 5]]], 1, 5),
    "has 257 children, above the limit": ([1, [[ID, 5]] * 257], 1, 257 * 5),
    "holds 10 bytes of content, where 9 belong": ([1, [[ID, 5], [ID, 5]]], 1, 9),
}


@pytest.mark.parametrize("why", HOSTILE)
def test_a_hostile_node_is_refused_in_its_own_words(why: str) -> None:
    node, height, size = HOSTILE[why]
    store = NodeStore()
    entry = file_entry(b"f", content=[store.put_raw(node), height], size=size)
    with pytest.raises(ObjectDamaged) as caught:
        list(content_pairs(store.get, entry))
    assert caught.value.reason == why


@given(data=st.data())
@settings(max_examples=settings.default.max_examples)
def test_a_mutated_tree_gives_its_size_or_damage_and_nothing_else(data: st.DataObject) -> None:
    store, entry = built(MUTATED)
    chosen = data.draw(st.sampled_from(sorted(store.nodes)))
    changed = mutate(data.draw, msgpack.unpackb(store.nodes[chosen], strict_map_key=False))
    try:
        store.nodes[chosen] = msgpack.packb(changed)
    except (ValueError, OverflowError):
        return
    with suppress(ObjectDamaged, ObjectMissing):  # missing: the id of a child was changed
        assert sum(length for _, length in content_pairs(store.get, entry)) == entry.size
    with suppress(ObjectDamaged, ObjectMissing):
        list(content_nodes(store.get, entry))


MUTATED = chunks(9, 700)


def test_every_vector_is_built_as_it_was() -> None:
    vectors = sorted(VECTORS.glob("content-*.json"))
    assert vectors, "tests/vectors/trees/make_vectors.py makes them"
    for path in vectors:
        vector = json.loads(path.read_text())
        store = NodeStore()
        builder = ContentBuilder(bytes.fromhex(vector["tree_cut_key"]), store.put)
        for chunk_id, length in vector["pairs"]:
            builder.add(bytes.fromhex(chunk_id), length)
        content, size = builder.finish()
        assert (_to_json(content), size) == (vector["content"], vector["size"]), path.name
        assert sorted(name.hex() for name in store.nodes) == vector["nodes"], path.name


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [_to_json(item) for item in value] if isinstance(value, list) else value
