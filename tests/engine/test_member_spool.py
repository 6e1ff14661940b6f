"""The spool of an archive's entries: in any order in, a sorted tree out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.entry_trees import KEY, scattered
from support.node_store import NodeStore, file_entry

from engine.member_spool import MemberSpool
from repo_store.entry import Entry, Path
from repo_store.tree_builder import TreeBuilder

NAMES = st.sampled_from((b"a", b"a-b", b"\x01"))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


def slowly(added: list[tuple[Path, int]]) -> tuple[dict[Path, int], list[list[Path]]]:
    """What is there in the end, and what gave way each time."""
    found: dict[Path, int] = {}
    lost = []
    for path, kind in added:
        gone = [path[:n] for n in range(1, len(path)) if found.get(path[:n], 1) != 1]
        found.update({path[:n]: 1 for n in range(1, len(path))})
        if kind != 1 and found.get(path) == 1:
            below = sorted(each for each in found if each != path and each[: len(path)] == path)
            gone += below
            for each in below:
                del found[each]
        found[path] = kind
        lost.append(gone)
    return found, lost


@given(st.lists(st.tuples(PATHS, st.sampled_from((0, 0, 1, 2))), max_size=40))
def test_the_later_counts_and_the_rest_stays_a_tree(added: list[tuple[Path, int]]) -> None:
    expected, expected_lost = slowly(added)
    spool = MemberSpool()
    lost = [spool.add(path, file_entry(path[-1], at, kind=kind)) for at, (path, kind) in enumerate(added)]
    found = list(spool.entries())
    assert lost == expected_lost
    assert [(path, entry.kind) for path, entry in found] == sorted(expected.items())
    tree = TreeBuilder(KEY, NodeStore().put)
    for path, entry in found:
        tree.add(path[:-1], entry)  # raises for what is out of order
        assert spool.get(path) == entry
    last = {path: at for at, (path, _) in enumerate(added)}
    assert all(entry.inode == last[path] for path, entry in found if path in last and expected[path] != 1)
    spool.close()


def test_a_directory_that_gave_way_is_made_again() -> None:
    a, b, c = (b"a",), (b"a", b"b"), (b"a", b"b", b"c")
    assert slowly([(c, 0), (a, 0), ((*b, b"d"), 0)])[1] == [[], [b, c], [a]]
    for again in (b, (*b, b"d"), (*a, b"x")):
        spool = MemberSpool()
        added = [(c, 0), (a, 0), (again, 0)]
        lost = [spool.add(path, file_entry(path[-1], kind=kind)) for path, kind in added]
        assert lost == slowly(added)[1]
        assert [path for path, _ in spool.entries()] == sorted(slowly(added)[0])


def test_every_kind_of_entry_comes_out_as_it_went_in() -> None:
    pairs = scattered(3, 300)
    spool = MemberSpool()
    for path, entry in reversed(pairs):
        spool.add(path, entry)
    assert [(path, entry) for path, entry in spool.entries()] == [
        (path, entry) for path, entry in pairs if spool.get(path) == entry
    ]
    assert len(list(spool.entries())) == len(pairs)
    assert all(type(entry) is Entry for _, entry in spool.entries())


@pytest.mark.full
def test_memory_does_not_grow_with_the_entries() -> None:
    import resource

    spool = MemberSpool()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(400_000):
        name = b"%032d" % (number * 7919 % 400_000)
        spool.add((b"root", name[-6:-3], name), file_entry(name, size=1, content=bytes(32)))
    assert sum(1 for _ in spool.entries()) == 400_401
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB; the entries are 60 MB
