"""Two trees read in step: the same answer as comparing everything, at the cost of what differs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.entry_trees import Pairs, build, scattered, wide
from support.node_store import NodeStore, file_entry

from repo_store.entry import Path
from repo_store.errors import ObjectMissing
from repo_store.tree_node import TreeRoot
from repo_store.tree_pairs import Pair, differing


def slowly(before: Pairs, after: Pairs, path: Path = ()) -> list[Pair]:
    """What differs, by looking at everything."""
    one, other = dict(before), dict(after)
    return [
        (each, one.get(each), other.get(each))
        for each in sorted(one.keys() | other.keys())
        if each[: len(path)] == path and one.get(each) != other.get(each)
    ]


def changed(pairs: Pairs, seed: int, changes: int) -> Pairs:
    """The same entries with some added, removed and changed, all over or in one place."""
    chance = random.Random(seed)
    found = dict(pairs)
    near = chance.choice((None, chance.randrange(len(pairs))))
    for _ in range(changes):
        at = chance.randrange(len(pairs)) if near is None else min(near + chance.randrange(9), len(pairs) - 1)
        path, entry = pairs[at]
        what = chance.randrange(3)
        if what == 0:
            found.pop(path, None)
        elif what == 1:
            found[path] = entry._replace(mtime_ns=chance.randrange(2**60))
        else:
            new = (*path[:-1], path[-1][:200] + b"%d" % chance.randrange(99))
            found[new] = file_entry(new[-1], chance.randrange(99))
    return sorted(found.items())


@given(
    seed=st.integers(0, 2**32),
    count=st.sampled_from((1, 3, 70, 400, 3000)),
    changes=st.sampled_from((0, 1, 3, 50)),
)
@settings(max_examples=settings.default.max_examples // 8)
def test_what_differs_is_what_a_full_comparison_finds(seed: int, count: int, changes: int) -> None:
    before = scattered(seed, count)
    after = changed(before, seed, changes)
    store = NodeStore()
    one, other = build(before, store), build(after, store)
    assert list(differing(store.get, one, other)) == slowly(before, after)
    path = random.Random(seed).choice(before)[0]
    for wanted in (path, path[:1], path[:-1], (*path, b"no")):
        assert list(differing(store.get, one, other, wanted)) == slowly(before, after, wanted)


@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), counts=st.tuples(*[st.integers(1, 900)] * 2))
@settings(max_examples=settings.default.max_examples // 12)
def test_trees_with_little_in_common_are_compared_too(
    seeds: tuple[int, int], counts: tuple[int, int]
) -> None:
    before, after = (scattered(seed, count) for seed, count in zip(seeds, counts, strict=True))
    store = NodeStore()
    assert list(differing(store.get, build(before, store), build(after, store))) == slowly(before, after)


def test_a_tree_and_none_differ_in_everything() -> None:
    pairs = scattered(1, 500)
    store = NodeStore()
    root = build(pairs, store)
    assert [each[0] for each in differing(store.get, root, None)] == [path for path, _ in pairs]
    assert [each[0] for each in differing(store.get, None, root)] == [path for path, _ in pairs]
    assert list(differing(store.get, None, None)) == []


def test_nothing_is_read_of_trees_that_are_the_same() -> None:
    store = NodeStore()
    root = build(wide(20_000), store)
    assert list(differing(store.get, root, root)) == []
    assert store.reads == []


@pytest.mark.parametrize("number", [0, 10_000, 39_999])
def test_one_change_among_many_entries_costs_the_nodes_on_its_way(number: int) -> None:
    pairs = wide(40_000)
    store = NodeStore()
    before = build(pairs, store)
    path, entry = pairs[number]
    for after_pairs in (
        [*pairs[:number], (path, entry._replace(mtime_ns=1)), *pairs[number + 1 :]],
        [*pairs[:number], *pairs[number + 1 :]],
    ):
        after = build(after_pairs, store)
        store.reads.clear()
        assert [each[0] for each in differing(store.get, before, after)] == [path]
        assert before is not None and before.height >= 2
        # Down both sides, and one leaf more at most on each level where a cut went with what was removed.
        assert len(store.reads) <= 2 * (before.height + 1) + 4 < len(store.nodes) / 10


def test_a_new_directory_before_everything_costs_its_own_nodes() -> None:
    pairs = wide(20_000, (b"m",))
    store = NodeStore()
    before = build(pairs, store)
    after = build([*wide(300, (b"a",)), *pairs], store)
    assert len(list(differing(store.get, before, after))) == 300
    assert len(set(store.reads)) < 40
    assert len(store.reads) == len(set(store.reads))


def test_a_lost_node_is_said_to_be_lost() -> None:
    store = NodeStore()
    before = build(wide(5000), store)
    after = build(wide(5000)[:-1], store)
    assert before is not None and after is not None
    del store.nodes[after.id]
    with pytest.raises(ObjectMissing):
        list(differing(store.get, before, TreeRoot(*after)))
