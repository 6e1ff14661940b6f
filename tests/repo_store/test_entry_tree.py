"""The tree of entries as it is built: held to the slow tree of tests/support/slow_tree.py, node by node.

What it must give beyond the format: a changed time moves no cut, a new name moves few, memory stays flat.
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.entry_trees import KEY, Pairs, build, deep, scattered, wide
from support.node_store import NodeStore, file_entry
from support.slow_tree import Built, SlowTree, cut_hash, slow_entry_tree, slow_stack

from repo_store.entry import Entry, Path
from repo_store.errors import SourceError
from repo_store.tree_builder import ENTRY_BYTES_MAX, LEAF_ENTRIES_MAX, TreeBuilder
from repo_store.tree_node import HEIGHT_MAX, NODE_BYTES_MAX, PATH_BYTES_MAX
from repo_store.tree_reader import nodes, read_tree
from repo_store.tree_spine import Child, Spine

VECTORS = FilePath(__file__).parents[1] / "vectors" / "trees"


def assert_is_the_slow_tree(pairs: Pairs, key: bytes = KEY) -> SlowTree:
    store = NodeStore()
    root = build(pairs, store, key)
    slow = slow_entry_tree(key, pairs)
    assert root == slow.root
    assert store.nodes == slow.nodes
    return slow


@given(seed=st.integers(0, 2**32), count=st.integers(1, 1500))
@settings(max_examples=settings.default.max_examples // 4)
def test_the_tree_is_the_one_that_the_format_describes(seed: int, count: int) -> None:
    assert_is_the_slow_tree(scattered(seed, count))


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 2500])
def test_a_wide_directory_is_cut_as_the_format_says(count: int) -> None:
    slow = assert_is_the_slow_tree(wide(count))
    assert (slow.root is None) == (count == 0)


def test_a_deep_directory_is_cut_as_the_format_says() -> None:
    slow = assert_is_the_slow_tree(deep(400))
    assert slow.root is not None and slow.root[1] > 0


@pytest.mark.parametrize("number", [63, 64, 65])
def test_a_leaf_may_end_from_its_64th_entry_on(number: int) -> None:
    pairs = wide(number + 1)
    key = key_that_cuts(0, b"\0".join(pairs[number - 1][0]), 2**56)
    slow = assert_is_the_slow_tree(pairs, key)
    assert (len(slow.nodes) == 3) == (number >= 64)


@pytest.mark.parametrize("number", [15, 16, 17])
@pytest.mark.parametrize(("label", "height"), [(0, 1), (0, 3), (0x80, 1), (0x80, 2)])
def test_an_inner_node_may_end_from_its_16th_child_on(number: int, label: int, height: int) -> None:
    store = NodeStore()
    key = key_that_cuts(label + height, b"%d" % number, 2**58)
    spine = numbered_spine(key, store, label)
    for child in range(1, number + 1):
        spine.push(Child(bytes(32), 1, (b"%d" % child,)), height)
    assert store.puts == (number >= 16)


def test_an_inner_node_ends_at_one_mebibyte_of_children() -> None:
    store = NodeStore()
    spine = numbered_spine(KEY, store)
    children = [Child(bytes(32), 1, (b"%03d" % n, *[b"x" * 4000] * 10)) for n in range(60)]
    for child in children:
        spine.push(child)
    assert spine.root(None) is not None
    sizes = [len(msgpack.unpackb(data)[1]) for data in store.nodes.values()]
    assert max(sizes) == 27, "27 children of 40,000 bytes are the first to reach it"


def key_that_cuts(label: int, name: bytes, below: int) -> bytes:
    keys = (number.to_bytes(32, "little") for number in range(2**32))
    return next(key for key in keys if cut_hash(key, label, name) < below)


def numbered_spine(key: bytes, store: NodeStore, label: int = 0) -> Spine:
    return Spine(
        key,
        store.put,
        label=label,
        encode=lambda child: msgpack.packb([child.first, child.id, child.weight]),
        cut_name=lambda child: child.first[0],
    )


def uncut_names(count: int, key: bytes) -> Iterable[bytes]:
    """Names in one directory after which no leaf may end."""
    number = 0
    while count:
        name = b"%06d" % number
        number += 1
        if cut_hash(key, 0, b"top\0" + name) >= 2**56:
            count -= 1
            yield name


def test_a_leaf_without_a_cut_ends_after_1024_entries() -> None:
    pairs: Pairs = [((b"top", name), file_entry(name)) for name in uncut_names(2100, KEY)]
    slow = assert_is_the_slow_tree(pairs)
    assert len(slow.nodes) == 4


def test_a_leaf_ends_at_one_mebibyte_of_entries() -> None:
    xattrs = {b"user.%d" % number: b"v" * 60_000 for number in range(9, -1, -1)}
    pairs = [(path, entry._replace(extra={"xattrs": xattrs})) for path, entry in wide(30)]
    slow = assert_is_the_slow_tree(pairs)
    assert len(slow.nodes) == 16, "two entries to a leaf, and the root"


def test_a_leaf_ends_at_one_mebibyte_of_directories_too() -> None:
    chain = [b"c%03d" % number + b"x" * 250 for number in range(250)]
    pairs: Pairs = []
    for number in range(40):
        parent = (*chain, b"%03d" % number)
        pairs += [(parent, file_entry(parent[-1], kind=1)), ((*parent, b"f"), file_entry(b"f"))]
    slow = assert_is_the_slow_tree(pairs)
    assert slow.root is not None and slow.root[1] > 0
    assert max(map(len, slow.nodes.values())) < NODE_BYTES_MAX


def test_the_largest_leaf_and_inner_node_keep_within_the_limit() -> None:
    parent = tuple(b"%04d" % number + b"x" * 251 for number in range(PATH_BYTES_MAX // 256 - 1))
    xattrs = {b"user.%d" % number: b"v" * 65_000 for number in range(60)}
    store = NodeStore()
    builder = TreeBuilder(KEY, store.put)
    for number in range(400):
        extra: dict[str, Any] | None = {"xattrs": xattrs} if number % 40 == 15 else None
        builder.add((*parent, b"%07d" % number), file_entry(b"f", extra=extra))
    root = builder.finish()
    assert root is not None and root.entries == 400 == sum(1 for _ in read_tree(store.get, root))
    assert 3_900_000 < max(map(len, store.nodes.values())) < NODE_BYTES_MAX


@given(seed=st.integers(0, 2**32), count=st.integers(1, 800), at=st.lists(st.integers(0, 799), max_size=3))
@settings(max_examples=settings.default.max_examples // 6)
def test_a_checkpoint_is_the_tree_so_far_and_disturbs_nothing(seed: int, count: int, at: list[int]) -> None:
    pairs = scattered(seed, count)
    store = NodeStore()
    builder = TreeBuilder(KEY, store.put)
    for number, (path, entry) in enumerate(pairs):
        if number in at:
            root = builder.checkpoint()
            assert root == slow_entry_tree(KEY, pairs[:number]).root
            assert (root is None) == (number == 0)
        builder.add(path[:-1], entry)
    assert builder.checkpoint() == builder.finish() == slow_entry_tree(KEY, pairs).root


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12_000), stops=st.integers(0, 3), last=st.booleans())
@settings(max_examples=settings.default.max_examples // 12)
def test_high_spines_are_those_of_the_format(seed: int, count: int, stops: int, last: bool) -> None:
    chance = random.Random(seed)
    children = [Child(chance.randbytes(32), chance.randrange(1, 999), (b"%09d" % n,)) for n in range(count)]
    store = NodeStore()
    spine = numbered_spine(KEY, store)

    def slow(number: int) -> tuple[tuple[bytes, int, int] | None, dict[bytes, bytes]]:
        return slow_stack(
            KEY,
            {},
            [Built(*child) for child in children[:number]],
            label=0,
            cut_name=lambda child: child.first[0],
            encode=lambda child: [list(child.first), child.id, child.weight],
        )

    asked = {chance.randrange(count) for _ in range(stops)}
    for number, child in enumerate(children[: count - last]):
        if number in asked:
            found = spine.root(child)
            assert found is not None and (found[0].id, found[1], found[0].weight) == slow(number + 1)[0]
        spine.push(child)
    found = spine.root(children[-1] if last else None)
    root, made = slow(count)
    assert found is not None and (found[0].id, found[1], found[0].weight) == root
    assert made.items() <= store.nodes.items()


def test_a_changed_time_moves_no_cut_and_changes_one_path_of_nodes() -> None:
    pairs = wide(30_000)
    store = NodeStore()
    before = build(pairs, store)
    assert before is not None and before.height >= 1
    path, entry = pairs[17_777]
    pairs[17_777] = path, entry._replace(mtime_ns=1, size=5, content=b"i" * 32)
    known = set(store.nodes)
    after = build(pairs, store)
    assert after is not None and after != before
    assert len(set(store.nodes) - known) == after.height + 1
    assert after.height == before.height


@pytest.mark.parametrize("seed", range(5))
def test_a_new_or_removed_entry_changes_few_nodes(seed: int) -> None:
    pairs = wide(30_000)
    store = NodeStore()
    build(pairs, store)
    chance = random.Random(seed)
    at = chance.randrange(len(pairs))
    name = pairs[at][0][-1] + b"-new"
    for changed in (
        pairs[:at] + pairs[at + 1 :],
        [*pairs[: at + 1], ((b"top", name), file_entry(name)), *pairs[at + 1 :]],
    ):
        known = set(store.nodes)
        after = build(changed, store)
        assert after is not None
        assert len(set(store.nodes) - known) <= 3 * (after.height + 1), "one leaf or two at each level"


def check_memory(count: int) -> int:
    """Build `count` entries and return how many objects the builder held at the most."""
    stored = 0

    def put(data: bytes) -> bytes:
        nonlocal stored
        stored += 1
        return stored.to_bytes(32, "big")

    builder = TreeBuilder(KEY, put)
    most = 0
    for directory in range(count // 1000):
        parent = (b"top", b"d%06d" % directory)
        for number in range(1000):
            builder.add(parent, file_entry(b"%04d" % number))
        levels = builder._spine._levels
        held = len(builder._rows) + len(builder._runs) + sum(len(node.encoded) for node in levels if node)
        most = max(most, held)
    root = builder.finish()
    assert root is not None and root.entries == count
    assert root.height <= HEIGHT_MAX
    return most


def test_memory_does_not_grow_with_the_number_of_entries() -> None:
    assert check_memory(200_000) <= LEAF_ENTRIES_MAX + 256 * 3


@pytest.mark.full
def test_ten_million_entries_take_no_more_memory() -> None:
    assert check_memory(10_000_000) <= LEAF_ENTRIES_MAX + 256 * 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((b"a",), (b"a",)),
        ((b"b",), (b"a",)),
        ((b"a", b"b"), (b"a",)),
        ((b"a-b",), (b"a", b"b")),
        ((b"a", b"b"), (b"a", b"b")),
        ((b"a", b"b", b"c"), (b"a", b"b")),
        ((b"b", b"a"), (b"a", b"z")),
    ],
)
def test_paths_out_of_order_are_a_bug(before: Path, after: Path) -> None:
    builder = TreeBuilder(KEY, NodeStore().put)
    builder.add(before[:-1], file_entry(before[-1]))
    with pytest.raises(ValueError, match="was added after"):
        builder.add(after[:-1], file_entry(after[-1]))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0"])
@pytest.mark.parametrize("first", [True, False])
def test_names_that_cannot_be_are_a_bug(name: bytes, first: bool) -> None:
    builder = TreeBuilder(KEY, NodeStore().put)
    if not first:
        builder.add((), file_entry(b"\x01"))
    with pytest.raises(ValueError):
        builder.add((), file_entry(name))
    with pytest.raises(ValueError):
        builder.add((b"zz", name), file_entry(b"a"))


BEYOND: list[tuple[str, Path, Entry]] = [
    ("4097 bytes", (b"p",), file_entry(b"x" * 4097)),
    ("4097 components", tuple([b"p"] * 4096), file_entry(b"x")),
    ("65537 bytes", tuple([b"p" * 4095] * 16), file_entry(b"x" * 1)),
    ("above the limit", (b"p",), file_entry(b"x", extra={"xattrs": {b"a": bytes(ENTRY_BYTES_MAX)}})),
    ("beyond 64 bits", (b"p",), file_entry(b"x", mtime_ns=2**64)),
]


@pytest.mark.parametrize("same_run", [True, False])
@pytest.mark.parametrize(("why", "parent", "entry"), BEYOND, ids=[case[0] for case in BEYOND])
def test_what_is_beyond_the_limits_is_left_out_and_building_goes_on(
    why: str, parent: Path, entry: Entry, same_run: bool
) -> None:
    pairs: Pairs = [((*parent[:15], b"a"), file_entry(b"a")), ((b"z",), file_entry(b"z"))]
    builder = TreeBuilder(KEY, NodeStore().put)
    first = (parent[:15] if same_run else (b"a",), file_entry(b"a"))
    builder.add(*first)
    with pytest.raises(SourceError, match=why):
        builder.add(parent, entry)
    builder.add((), file_entry(b"z"))
    pairs[0] = ((*first[0], b"a"), first[1])
    assert builder.finish() == slow_entry_tree(KEY, pairs).root


def test_extra_is_stored_in_one_order() -> None:
    stores = [NodeStore(), NodeStore()]
    roots = []
    for store, turn in zip(stores, (1, -1), strict=True):
        xattrs = dict([(b"user.a", b"1"), (b"user.b", b"2")][::turn])
        extra = dict([("link", 1), ("xattrs", xattrs)][::turn])
        roots.append(build([((b"f",), file_entry(b"f", extra=extra))], store))
    assert roots[0] == roots[1]


def test_nodes_name_all_that_was_stored() -> None:
    store = NodeStore()
    root = build(scattered(5, 4000), store)
    assert root is not None
    store.reads.clear()
    found = list(nodes(store.get, root))
    assert sorted(name for name, _ in found) == sorted(store.nodes)
    assert found[0] == (root.id, root.height)
    leaves = sum(1 for _, height in found if height == 0)
    assert len(store.reads) == len(found) - leaves, "leaves are named, not read"


def test_every_vector_is_built_as_it_was() -> None:
    vectors = sorted(VECTORS.glob("entries-*.json"))
    assert vectors, "tests/vectors/trees/make_vectors.py makes them"
    for path in vectors:
        vector = json.loads(path.read_text())
        store = NodeStore()
        builder = TreeBuilder(bytes.fromhex(vector["tree_cut_key"]), store.put)
        for parent, row in vector["entries"]:
            builder.add(tuple(map(bytes.fromhex, parent)), Entry(*_from_json(row)))
        root = builder.finish()
        assert root is not None
        assert [root.id.hex(), root.height, root.entries] == vector["root"], path.name
        assert sorted(name.hex() for name in store.nodes) == vector["nodes"], path.name


def _from_json(value: Any) -> Any:
    """Byte strings are {"hex": …} there, maps lists of pairs under "map"."""
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        if "hex" in value:
            return bytes.fromhex(value["hex"])
        return {_from_json(key): _from_json(item) for key, item in value["map"]}
    return value
