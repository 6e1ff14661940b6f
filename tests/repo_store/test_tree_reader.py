"""Reading a tree of entries: all of it, a part of it, in step with a walk, and when it is hostile or damaged."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.entry_trees import Pairs, build, deep, scattered, wide
from support.mutation import mutate
from support.node_store import NodeStore, file_entry

from repo_store.entry import Entry, Path
from repo_store.entry_node import NodeRef, read_inner
from repo_store.entry_rules import rows_fit, why_no_entry
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing
from repo_store.tree_node import TreeRoot
from repo_store.tree_reader import Cursor, LostNode, lookup, nodes, read_tree, runs, subtree


def built(pairs: Pairs) -> tuple[NodeStore, TreeRoot]:
    store = NodeStore()
    root = build(pairs, store)
    assert root is not None
    store.reads.clear()
    return store, root


def below(pairs: Pairs, path: Path) -> Pairs:
    return [pair for pair in pairs if pair[0][: len(path)] == path]


@given(seed=st.integers(0, 2**32), count=st.integers(1, 3000))
@settings(max_examples=settings.default.max_examples // 4)
def test_what_was_built_reads_back(seed: int, count: int) -> None:
    pairs = scattered(seed, count)
    store, root = built(pairs)
    assert list(read_tree(store.get, root)) == pairs
    assert [(*parent, entry.name) for parent, run in runs(store.get, root) for entry in run] == [
        p for p, _ in pairs
    ]
    assert all(type(entry) is Entry for _, entry in read_tree(store.get, root))


@given(seed=st.integers(0, 2**32), count=st.integers(1, 3000))
@settings(max_examples=settings.default.max_examples // 10)
def test_any_subtree_and_entry_is_found(seed: int, count: int) -> None:
    pairs = scattered(seed, count)
    store, root = built(pairs)
    chance = random.Random(seed)
    entries = dict(pairs)
    for path in [chance.choice(pairs)[0] for _ in range(8)]:
        for asked in (path, path[:-1], (*path, b"no"), (*path[:-1], path[-1] + b"\0"), (b"r",), (b"s",)):
            assert list(subtree(store.get, root, asked)) == below(pairs, asked)
            assert lookup(store.get, root, asked) == entries.get(asked)


def test_a_subtree_is_found_without_reading_the_rest() -> None:
    pairs = [pair for number in range(400) for pair in wide(100, (b"%05d" % number,))]
    store, root = built(pairs)
    assert len(list(subtree(store.get, root, (b"00200",)))) == 100
    assert len(store.reads) <= root.height * 2 + 3
    store.reads.clear()
    assert lookup(store.get, root, (b"00300", b"file0000050")) is not None
    assert len(store.reads) == root.height + 1
    store.reads.clear()
    next(read_tree(store.get, root))
    assert len(store.reads) == root.height + 1, "the rest is read when it is asked for"


def test_nodes_that_are_known_are_skipped_unread() -> None:
    pairs = wide(20_000)
    store, before = built(pairs)
    known = {node for node, _ in nodes(store.get, before)}
    pairs[9_000] = pairs[9_000][0], file_entry(pairs[9_000][0][-1], 1)
    after = build(pairs, store)
    assert after is not None
    new = list(nodes(store.get, after, skip=known.__contains__))
    assert len(new) == after.height + 1
    store.reads.clear()
    found = [entry for _, run in runs(store.get, after, skip=known.__contains__) for entry in run]
    assert len(store.reads) == after.height + 1
    assert pairs[9_000][1] in found


@given(seed=st.integers(0, 2**32), count=st.integers(1, 2500), kept=st.floats(0, 1))
@settings(max_examples=settings.default.max_examples // 4)
def test_a_cursor_gives_each_path_what_it_was(seed: int, count: int, kept: float) -> None:
    pairs = scattered(seed, count)
    chance = random.Random(seed)
    before = [pair for pair in pairs if chance.random() < kept] or pairs[:1]
    store, root = built(before)
    entries = dict(before)
    cursor = Cursor(store.get, root)
    walked = [path for path, _ in pairs if chance.random() < 0.8]
    for path in [*walked, (b"\xff" * 9,), (b"\xff" * 10,)]:
        assert cursor.advance(path) == entries.get(path)
        assert cursor.advance(path) == entries.get(path), "asking again is no harm"


def test_a_cursor_reads_each_node_once_and_skips_removed_directories_unread() -> None:
    pairs = [pair for number in range(200) for pair in wide(500, (b"%05d" % number,))]
    store, root = built(pairs)
    cursor = Cursor(store.get, root)
    assert all(cursor.advance(path) for path, _ in pairs)
    assert len(store.reads) == len(set(store.reads)) == len(store.nodes)
    store.reads.clear()
    cursor = Cursor(store.get, root)
    assert cursor.advance(pairs[0][0]) == pairs[0][1]
    assert cursor.advance(pairs[-1][0]) == pairs[-1][1]
    assert len(store.reads) <= 2 * (root.height + 1)


def test_a_cursor_leaves_out_all_leaves_that_end_before_its_path() -> None:
    store, root = built(wide(3000))
    leaves = read_inner(store.get, NodeRef(*root, (), None))
    cursor = Cursor(store.get, root)
    assert root.height == 1 and cursor.advance(leaves[0].first) is not None
    store.reads.clear()
    assert cursor.advance(leaves[5].first) is not None
    assert store.reads == [leaves[5].id]


@pytest.mark.parametrize(
    "error", [ObjectMissing("pack"), ObjectDamaged("pack", "torn")], ids=["missing", "damaged"]
)
def test_a_lost_node_costs_its_entries_and_no_others(error: HoldfastError) -> None:
    pairs = wide(20_000)
    store, root = built(pairs)
    chosen = [name for name, height in nodes(store.get, root) if height == 0][7]

    def get(name: bytes) -> bytes:
        if name == chosen:
            raise error
        return store.get(name)

    lost: list[LostNode] = []
    found = list(read_tree(get, root, on_damage=lost.append))
    (node,) = lost
    assert node.end is not None and node.error is error and node.id == chosen and node.height == 0
    assert found == [pair for pair in pairs if not node.first <= pair[0] < node.end]
    assert len(found) + node.entries == len(pairs)
    with pytest.raises(type(error)):
        list(read_tree(get, root))
    cursor = Cursor(get, root, on_damage=lost.append)
    entries = dict(found)
    assert all(cursor.advance(path) == entries.get(path) for path, _ in pairs)
    assert len(lost) == 2


def test_a_lost_inner_node_is_reported_by_all_who_read_it() -> None:
    pairs = wide(20_000)
    store, root = built(pairs)
    del store.nodes[root.id]
    lost: list[LostNode] = []
    assert list(read_tree(store.get, root, on_damage=lost.append)) == []
    assert list(nodes(store.get, root, on_damage=lost.append)) == [(root.id, root.height)]
    assert [(node.first, node.end, node.entries) for node in lost] == [((), None, 20_000)] * 2


# What a hostile node says, and what is said of it. Each is stored as a root, with the height and entries given.
ROW: list[Any] = [b"a", 0, 0, 0, 0, 0, 0, 0, 0, None, None]


def row(**changes: Any) -> list[Any]:
    return list(Entry(*ROW)._replace(**changes))


def leaf(*rows: list[Any], parent: Any = ()) -> list[Any]:
    return [0, [[list(parent), list(rows)]]]


ID = b"i" * 32
HOSTILE_ROWS: dict[str, list[Any]] = {
    "the name b''": row(name=b""),
    "the name b'.'": row(name=b"."),
    "the name b'..'": row(name=b".."),
    "the name b'a/b', with a slash or NUL": row(name=b"a/b"),
    "the name b'a\\x00', with a slash or NUL": row(name=b"a\0"),
    "a name that is no byte string": row(name="a"),
    "a name of 4097 bytes": row(name=b"a" * 4097),
    "entry b'a' with a kind of 7": row(kind=7),
    "entry b'a' with a kind that is no number": row(kind=True),
    "entry b'a' with a mode of 4096": row(mode=0o10000),
    "entry b'a' with a mode of -1": row(mode=-1),
    "entry b'a' with a uid of 4294967296": row(uid=2**32),
    "entry b'a' with a gid that is no number": row(gid=1.0),
    "entry b'a' with a mtime_ns that is no number": row(mtime_ns=None),
    "entry b'a' with a ctime_ns that is no number": row(ctime_ns=b""),
    "entry b'a' with a inode of -5": row(inode=-5),
    "entry b'a' with a size of 9223372036854775808": row(size=2**63, content=ID),
    "entry b'a' with no content for its 1 bytes": row(size=1),
    "entry b'a' with content, which its kind 1 has not": row(kind=1, content=ID, size=1),
    "entry b'a' with a content whose ids and lengths do not match": row(content=b"i" * 31, size=1),
    "entry b'a' with a content with an impossible length": row(content=ID, size=0),
    "entry b'a' with a chunk of 8388609 bytes": row(content=ID, size=2**23 + 1),
    "entry b'a' with a hole of 1099511627777 bytes": row(content=bytes(32), size=2**40 + 1),
    "entry b'a' with a content of 3 bytes, where 4 belong": row(content=[ID * 2, [1, 2]], size=4),
    "entry b'a' with a content of 33 pairs outside a tree": row(content=[ID * 33, [1] * 33], size=33),
    "entry b'a' with a content tree that cannot be": row(content=[ID, 9], size=33),
    "entry b'a' with a content of no known form": row(content="x", size=33),
    "entry b'a' with an extra that is no map": row(extra=[]),
    "entry b'a' with a key in extra that is no text": row(extra={b"link": 1}),
    "entry b'a' with a wrong 'link' in extra": row(extra={"link": -1}),
    "entry b'a' with a wrong 'rdev' in extra": row(extra={"rdev": [1, 2**32]}),
    "entry b'a' with a wrong 'target' in extra": row(extra={"target": b"a\0"}),
    "entry b'a' with a wrong 'unstable' in extra": row(extra={"unstable": 1}),
    "entry b'a' with a wrong 'xattrs' in extra": row(extra={"xattrs": {"user.a": b""}}),
    "an entry that is no list of its fields": ROW[:-1],
}
CHILD = [[b"a"], ID, 1]
HOSTILE_NODES: dict[str, tuple[Any, int]] = {
    "is no node of a tree": ({"a": 1}, 0),
    "has height 1, where 0 belongs": ([1, []], 0),
    "has height 0, where 1 belongs": (leaf(ROW), 1),
    "is no leaf of an entry tree": ([0, ID, [1]], 0),
    "has a run that is no list of entries": ([0, [[[], []]]], 0),
    "has 2 entries, where 1 belong": (leaf(ROW, row(name=b"b")), 0),
    "has a path that is no list": ([0, [[b"p", [ROW]]]], 0),
    "has the name b'..'": (leaf(ROW, parent=[b".."]), 0),
    "has a path of 65537 bytes": (leaf(ROW, parent=[b"p" * 4096] * 15 + [b"p" * 4097]), 0),
    "has no list of children": ([1, []], 1),
    "has 257 children, above the limit": ([1, [CHILD] * 257], 1),
    "has a child of the wrong form": ([1, [CHILD[:2]]], 1),
    "has a child without an id or number of entries": ([1, [[[b"a"], ID, 0]]], 1),
    "has 2 entries below it, where 1 belong": ([1, [CHILD, [[b"b"], ID, 1]]], 1),
    "has a child with an empty path": ([1, [[[], ID, 1]]], 1),
    "has height 9, above the limit": ([9, [CHILD]], 9),
}


def reading(node: Any, height: int = 0, entries: int = 1) -> ObjectDamaged:
    store = NodeStore()
    root = TreeRoot(store.put_raw(node), height, entries)
    with pytest.raises(ObjectDamaged) as caught:
        list(read_tree(store.get, root))
    assert caught.value.name == f"tree node {root.id.hex()[:16]}"
    return caught.value


@pytest.mark.parametrize("why", HOSTILE_ROWS)
def test_a_hostile_entry_is_refused_in_its_own_words(why: str) -> None:
    bad = HOSTILE_ROWS[why]
    assert reading(leaf(bad)).reason == f"has {why}"
    assert reading(leaf(row(name=b"\x01"), bad), entries=2).reason == f"has {why}"


@pytest.mark.parametrize("why", HOSTILE_NODES)
def test_a_hostile_node_is_refused_in_its_own_words(why: str) -> None:
    node, height = HOSTILE_NODES[why]
    expected = "has a name of 4097 bytes" if "65537" in why else why
    assert reading(node, height).reason == expected


def test_a_long_path_is_refused() -> None:
    assert reading(leaf(ROW, parent=[b"p" * 4096] * 16)).reason == "has a path of 65551 bytes"
    assert reading(leaf(ROW, parent=[b"p"] * 4097)).reason.startswith("is not encoded")


def test_a_leaf_above_its_limit_is_refused() -> None:
    names = [b"%05d" % number for number in range(1025)]
    assert "above the limit" in reading(leaf(*[row(name=n) for n in names]), entries=1025).reason
    store = NodeStore()
    root = TreeRoot(store.put(bytes(8 * 2**20 + 1)), 0, 1)
    with pytest.raises(ObjectDamaged, match="above the limit"):
        list(read_tree(store.get, root))


A, B, C = row(name=b"a"), row(name=b"b"), row(name=b"c")


@pytest.mark.parametrize(
    "node",
    [leaf(B, A), leaf(A, A), [0, [[[], [B]], [[b"a"], [A]]]], [0, [[[b"a"], [A]], [[], [A]]]]],
    ids=["backwards", "twice", "runs backwards", "a child before its directory"],
)
def test_entries_out_of_order_in_a_leaf_are_refused(node: Any) -> None:
    assert reading(node, entries=2).reason == "has entries out of order"


def two_leaves(first: Any, second: Any, at: list[list[bytes]]) -> Callable[[], Iterator[Any]]:
    store = NodeStore()
    children = [[path, store.put_raw(node), 1] for path, node in zip(at, (first, second), strict=True)]
    root = TreeRoot(store.put_raw([1, children]), 1, 2)
    return lambda: read_tree(store.get, root)


@pytest.mark.parametrize(
    ("first", "second", "at", "why"),
    [
        (leaf(A), leaf(B), [[b"a"], [b"a"]], "has children out of order"),
        (leaf(A), leaf(B), [[b"b"], [b"a"]], "has children out of order"),
        (leaf(A), leaf(C), [[b"a"], [b"b"]], "has entries that do not belong in its place"),
        (leaf(C), leaf(B), [[b"a"], [b"b"]], "has entries that do not belong in its place"),
    ],
)
def test_order_is_checked_across_nodes(first: Any, second: Any, at: list[list[bytes]], why: str) -> None:
    with pytest.raises(ObjectDamaged) as caught:
        list(two_leaves(first, second, at)())
    assert caught.value.reason == why


def test_a_leaf_that_reaches_into_the_next_is_refused() -> None:
    store = NodeStore()
    children = [[[b"a"], store.put_raw(leaf(A, C)), 2], [[b"b"], store.put_raw(leaf(B)), 1]]
    root = TreeRoot(store.put_raw([1, children]), 1, 3)
    with pytest.raises(ObjectDamaged, match="do not belong in its place"):
        list(read_tree(store.get, root))


def test_an_inner_node_out_of_its_place_is_refused() -> None:
    store = NodeStore()
    inner = [store.put_raw([1, [[[name], store.put_raw(leaf(row(name=name))), 1]]]) for name in (b"a", b"c")]
    for firsts in ([[b"a"], [b"b"]], [[b"0"], [b"c"]]):
        children = [[first, child, 1] for first, child in zip(firsts, inner, strict=True)]
        root = TreeRoot(store.put_raw([2, children]), 2, 2)
        with pytest.raises(ObjectDamaged, match="children out of order"):
            list(read_tree(store.get, root))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x00",
        b"\x92\x00\x90\x90",
        b"\x91" * 5000,
        b"\x81\x90\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xa1\xff",
    ],
)
def test_bytes_that_are_no_node_are_refused(data: bytes) -> None:
    store = NodeStore()
    with pytest.raises(ObjectDamaged):
        list(read_tree(store.get, TreeRoot(store.put(data), 0, 1)))


@given(data=st.data())
@settings(max_examples=settings.default.max_examples * 2)
def test_a_mutated_tree_gives_entries_or_damage_and_nothing_else(data: st.DataObject) -> None:
    store = NodeStore(dict(MUTATED_STORE.nodes))
    root = MUTATED_ROOT
    chosen = data.draw(st.sampled_from(sorted(store.nodes)))
    changed = mutate(data.draw, msgpack.unpackb(store.nodes[chosen], strict_map_key=False))
    try:
        store.nodes[chosen] = msgpack.packb(changed)
    except (ValueError, OverflowError):
        return
    lost: list[LostNode] = []
    found = [path for path, _ in read_tree(store.get, root, on_damage=lost.append)]
    assert found == sorted(set(found)), "whatever is read is in order"
    assert len(found) + sum(node.entries for node in lost) == root.entries, "and all of it is accounted for"
    cursor = Cursor(store.get, root, on_damage=lost.append)
    assert [path for path, _ in MUTATED if cursor.advance(path)] == [p for p in found if p in dict(MUTATED)]


MUTATED = scattered(11, 300)
MUTATED_STORE, MUTATED_ROOT = built(MUTATED)


@given(st.binary(max_size=200))
@settings(max_examples=settings.default.max_examples)
def test_random_bytes_give_damage_and_nothing_else(data: bytes) -> None:
    store = NodeStore()
    for height in (0, 1):
        with pytest.raises(ObjectDamaged):
            list(read_tree(store.get, TreeRoot(store.put(data), height, 1)))


@given(data=st.data())
@settings(max_examples=settings.default.max_examples * 2)
def test_the_quick_check_and_the_one_with_words_agree(data: st.DataObject) -> None:
    rows = [[*entry] for _, entry in data.draw(st.sampled_from([scattered(seed, 12) for seed in range(5)]))]
    rows = msgpack.unpackb(msgpack.packb(rows), strict_map_key=False)
    changed = mutate(data.draw, rows)
    if type(changed) is list and changed:
        assert rows_fit(changed) == (not any(map(why_no_entry, changed)))


def test_unknown_keys_of_extra_are_kept() -> None:
    extra = {"link": 3, "new": {"a": [1, b"x"]}}
    store, root = built([((b"f",), file_entry(b"f", extra=extra))])
    assert next(read_tree(store.get, root))[1].extra == extra


def test_the_deepest_tree_reads_back() -> None:
    pairs = deep(1200)
    store, root = built(pairs)
    assert list(read_tree(store.get, root)) == pairs
    assert [path for path, _ in subtree(store.get, root, pairs[600][0])] == [path for path, _ in pairs[600:]]
