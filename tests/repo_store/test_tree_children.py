"""The entries of one directory, at the cost of that directory."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from support.entry_trees import build, scattered, wide
from support.node_store import NodeStore, file_entry

from repo_store.tree_children import children


@given(seed=st.integers(0, 2**32), count=st.sampled_from((1, 20, 400, 2500)))
@settings(max_examples=settings.default.max_examples // 12)
def test_children_are_the_entries_whose_parent_it_is(seed: int, count: int) -> None:
    pairs = scattered(seed, count)
    store = NodeStore()
    root = build(pairs, store)
    assert root is not None
    known = [path for path, _ in pairs]
    for path in [(), *random.Random(seed).sample(known, min(9, len(known))), (b"no",), (*known[-1], b"no")]:
        expected = [each[-1] for each in known if each[:-1] == path]
        assert [entry.name for entry in children(store.get, root, path)] == expected


def test_what_is_below_the_directories_in_it_is_not_read() -> None:
    pairs = []
    for folder in (b"a", b"b", b"c"):
        pairs.append(((b"top", folder), file_entry(folder, kind=1)))
        pairs += wide(8_000, (b"top", folder))
    pairs = [((b"top",), file_entry(b"top", kind=1)), *pairs, ((b"top", b"d"), file_entry(b"d"))]
    store = NodeStore()
    root = build(pairs, store)
    assert root is not None
    store.reads.clear()
    assert [entry.name for entry in children(store.get, root, (b"top",))] == [b"a", b"b", b"c", b"d"]
    assert len(store.reads) < 20 < len(store.nodes) / 4
    store.reads.clear()
    assert len(list(children(store.get, root, (b"top", b"b")))) == 8_000
    assert len(store.reads) == len(set(store.reads)) < len(store.nodes) / 2
