"""Many trees read as one: every version of every path, each node once."""

import random
from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st
from support.entry_trees import Pairs, build, scattered, wide
from support.node_store import NodeStore

from repo_store.entry import Entry, Path
from repo_store.tree_reader import read_tree
from repo_store.tree_union import LostNodes, Version, union, version_key


def everything(parent: Path, entry: Entry) -> bool:
    return True


def none_lost(lost: LostNodes) -> None:
    raise AssertionError(lost)


def slowly(trees: list[Pairs]) -> list[tuple[Path, list[Version]]]:
    """The same by looking at each entry of each tree."""
    found: dict[Path, dict[bytes, Version]] = {}
    for number, pairs in enumerate(trees):
        for path, entry in pairs:
            versions = found.setdefault(path, {})
            first, bits = versions.get(version_key(entry), (entry, 0))
            versions[version_key(entry)] = first, bits | 1 << number
    return [(path, list(found[path].values())) for path in sorted(found)]


def history(seed: int, count: int, manifests: int) -> list[Pairs]:
    """Trees that each follow from the one before by a few changes; some come back, one is of something else."""
    chance = random.Random(seed)
    trees = [scattered(seed, count)]
    while len(trees) < manifests:
        pairs = dict(trees[-1])
        for path in chance.sample(sorted(pairs), min(len(pairs) - 1, chance.randrange(4))):
            if chance.random() < 0.5:
                del pairs[path]
            else:
                pairs[path] = pairs[path]._replace(
                    mtime_ns=chance.randrange(9), inode=chance.randrange(9), ctime_ns=chance.randrange(9)
                )
        trees.append(
            chance.choice((sorted(pairs.items()),) * 5 + (trees[0], scattered(seed + 1, count // 2 + 1)))
        )
    return trees


def seen(pairs: list[tuple[Path, list[Version]]]) -> list[tuple[Path, list[tuple[bytes, int]]]]:
    return [(path, [(version_key(entry), trees) for entry, trees in versions]) for path, versions in pairs]


@given(seed=st.integers(0, 2**32), count=st.sampled_from((1, 5, 90, 600, 2000)), manifests=st.integers(1, 7))
@settings(max_examples=settings.default.max_examples // 10)
def test_every_version_of_every_path_is_found_with_the_trees_that_have_it(
    seed: int, count: int, manifests: int
) -> None:
    trees = history(seed, count, manifests)
    store = NodeStore()
    roots = [build(pairs, store) for pairs in trees]
    trees = [list(read_tree(store.get, root)) for root in roots if root]  # maps sorted, as they are stored
    store.reads.clear()
    assert seen(list(union(store.get, roots, everything, none_lost))) == seen(slowly(trees))
    assert len(store.reads) <= len(set(store.reads)) + len({root.id for root in roots if root})


def test_a_node_that_a_hundred_trees_share_is_read_once() -> None:
    store = NodeStore()
    pairs = wide(2000)
    trees = []
    for number in range(100):
        path, entry = pairs[20 * number]
        pairs[20 * number] = path, entry._replace(mtime_ns=number)
        trees.append(list(pairs))
    roots = [build(each, store) for each in trees]
    nodes = len(store.nodes)
    found = list(union(store.get, roots, lambda parent, entry: entry.name.endswith(b"7"), none_lost))
    assert len(found) == 200
    assert all(trees == 2**100 - 1 for _, versions in found for _, trees in versions)
    assert len(store.reads) == len(set(store.reads)) == nodes


def test_no_trees_and_empty_ones_have_nothing() -> None:
    store = NodeStore()
    assert list(union(store.get, [], everything, none_lost)) == []
    assert list(union(store.get, [None, None], everything, none_lost)) == []


def test_a_lost_node_costs_its_entries_in_the_trees_that_have_it() -> None:
    store = NodeStore()
    pairs = wide(3000)
    roots = [build(pairs, store), build(pairs[:-1], store), build(scattered(5, 40), store)]
    whole = list(union(store.get, roots, everything, none_lost))
    leaf = store.reads[len(store.reads) // 2]
    del store.nodes[leaf]
    lost: list[LostNodes] = []
    left = list(union(store.get, roots, everything, lost.append))
    assert sum(each.node.entries for each in lost) == len(whole) - len(left) > 0
    assert reduce(lambda bits, each: bits | each.trees, lost, 0) == 0b011
    assert [each for each in whole if each in left] == left


def test_what_differs_in_ctime_and_inode_alone_is_one_version() -> None:
    store = NodeStore()
    (path, entry) = wide(1)[0]
    changes: list[dict[str, object]] = [
        {},
        {"inode": 5},
        {"ctime_ns": 5},
        {"mtime_ns": 5},
        {"extra": {"link": 1}},
        {"extra": {"link": 2}},
    ]
    roots = [build([(path, entry._replace(**change))], store) for change in changes]  # type: ignore[arg-type]
    ((_, versions),) = union(store.get, roots, everything, none_lost)
    assert [trees for _, trees in versions] == [0b000111, 0b001000, 0b110000]
