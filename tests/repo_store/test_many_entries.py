"""Entries handled many at a time come out as if each had been handled alone: encoded, in the tree, from the tree."""

import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.entry_trees import KEY
from support.node_store import NodeStore

from repo_store._entries import pack_rows, unchanged
from repo_store.entry import Entry, Path
from repo_store.errors import SourceError
from repo_store.tree_builder import LEAF_ENTRIES_MAX, TreeBuilder
from repo_store.tree_reader import Cursor

BORDERS = [0, 31, 32, 33, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
NUMBERS = st.one_of(st.sampled_from(BORDERS), st.integers(0, 2**63 - 1))
TIMES = st.one_of(NUMBERS, NUMBERS.map(lambda n: -n), st.sampled_from([-(2**63), -129, -128, -33]))
NAMES = st.binary(min_size=1, max_size=300).filter(lambda n: not {0, 47} & {*n} and n not in (b".", b".."))
ENTRIES = st.builds(
    Entry,
    name=NAMES,
    kind=st.integers(0, 6),
    mode=st.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    mtime_ns=TIMES,
    ctime_ns=TIMES,
    inode=st.one_of(NUMBERS, st.just(2**64 - 1)),
    size=NUMBERS,
    content=st.one_of(st.none(), st.binary(min_size=32, max_size=32)),
    extra=st.none(),
)


def plain(name: bytes, content: bytes | None = b"i" * 32) -> Entry:
    return Entry(
        name, 0, 0o644, 1000, 1000, 1_700_000_000_000_000_000, 1_700_000_000_000_000_001, 77, 9, content, None
    )


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.name, max_size=8))
def test_an_entry_is_encoded_as_msgpack_does_it(entries: list[Entry]) -> None:
    entries.sort()
    assert pack_rows(entries, None, 0, b"", 4096) == [msgpack.packb(entry) for entry in entries]


def test_contents_stand_for_those_in_the_entries() -> None:
    entries, contents = [plain(b"a"), plain(b"b"), plain(b"c", None)], [b"", b"2" * 32, b"3" * 32]
    wanted = [e._replace(content=c or None) for e, c in zip(entries, contents, strict=True)]
    assert pack_rows(entries, contents, 0, b"", 4096) == [msgpack.packb(entry) for entry in wanted]
    assert pack_rows(entries, contents, 1, b"a", 4096) == [msgpack.packb(entry) for entry in wanted[1:]]


@pytest.mark.parametrize(
    "strange",
    [
        plain(b"m")._replace(extra={"link": 1}),
        plain(b"m")._replace(content=[b"i" * 64, [4, 5]]),
        plain(b"m")._replace(content=b"short"),
        plain(b"m")._replace(mtime_ns=2**64),
        plain(b"m")._replace(ctime_ns=2**63),
        plain(b"m")._replace(inode=-1),
        plain(b"m")._replace(size=2**64),
        plain(b"m")._replace(mode=None),  # type: ignore[arg-type]
        plain(b"a"),
        plain(b"b"),
        plain(b""),
        plain(b"."),
        plain(b".."),
        plain(b"m/n"),
        plain(b"m\0n"),
        plain(b"m" * 100),
        plain("m"),  # type: ignore[arg-type]
        None,
    ],
)
def test_it_stops_at_what_is_not_ordinary(strange: Entry) -> None:
    entries = [plain(b"a"), plain(b"b"), strange, plain(b"z")]
    assert pack_rows(entries, None, 0, b"", 99) == [msgpack.packb(entry) for entry in entries[:2]]
    assert pack_rows(entries, None, 3, b"b", 99) == [msgpack.packb(entries[3])]


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one content to each"):
        pack_rows([plain(b"a")], [], 0, b"", 4096)
    for start, longest in ((-1, 4096), (0, 4097)):
        with pytest.raises(ValueError, match="bound"):
            pack_rows([], None, start, b"", longest)
    with pytest.raises(ValueError, match="different lengths"):
        unchanged([None], [], 0)


@given(ENTRIES, st.sampled_from(Entry._fields[:9]), st.integers(-2, 2))
def test_an_entry_counts_as_unchanged_where_all_is_the_same_and_past(
    entry: Entry, field: str, margin: int
) -> None:
    entry = entry._replace(mtime_ns=min(entry.mtime_ns, 2**62), ctime_ns=min(entry.ctime_ns, 2**62))
    newest = max(entry.mtime_ns, entry.ctime_ns)
    seen = entry._replace(content=None)
    trusted = max(newest + margin, -(2**63))
    assert unchanged([entry], [seen], trusted) == [entry if newest < trusted else None]
    value = getattr(seen, field)
    other = seen._replace(**{field: value + b"x" if field == "name" else value ^ 1})
    assert unchanged([entry, None], [other, seen], 2**63 - 1) == [None, None]
    for marked in ({"link": 1}, {"unstable": True}, {}):
        assert unchanged([entry._replace(extra=marked)], [seen], 2**63 - 1) == [None]
        assert unchanged([entry], [seen._replace(extra=marked)], 2**63 - 1) == [None]


def build_together(
    directories: list[tuple[Path, list[Entry]]], pieces: random.Random
) -> tuple[object, NodeStore]:
    store = NodeStore()
    builder = TreeBuilder(KEY, store.put)
    for parent, entries in directories:
        start = 0
        while start < len(entries):
            part = entries[start : start + pieces.choice((1, 2, 60, 1000, 5000))]
            done = 0
            while done < len(part):
                done = builder.add_all(parent, part, None, done)
                if done < len(part):
                    builder.add(parent, part[done])
                    done += 1
            start += len(part)
    return builder.finish(), store


@given(st.integers(0, 2**32))
def test_the_tree_is_the_same_however_many_entries_come_at_once(seed: int) -> None:
    choice = random.Random(seed)
    directories: list[tuple[Path, list[Entry]]] = []
    for number in range(choice.randrange(1, 4)):
        names = sorted({b"%x" % choice.getrandbits(40) for _ in range(choice.choice((1, 70, 700, 3000)))})
        entries = [plain(name, choice.choice((None, b"i" * 32))) for name in names]
        for at in range(0, len(entries), choice.choice((7, 50, 10_000))):
            entries[at] = entries[at]._replace(extra={"target": b"t"})
        directories.append(((b"root", b"%d" % number), entries))
    store = NodeStore()
    builder = TreeBuilder(KEY, store.put)
    for parent, entries in directories:
        for entry in entries:
            builder.add(parent, entry)
    root = builder.finish()
    together, others = build_together(directories, choice)
    assert together == root and others.nodes == store.nodes


def test_a_leaf_that_is_full_of_bytes_ends_alike() -> None:
    entries = [plain(b"%04d" % number + b"n" * 4000) for number in range(900)]
    store = NodeStore()
    builder = TreeBuilder(KEY, store.put)
    builder.add((b"d",), entries[0])
    assert builder.add_all((b"d",), entries, None, 1) == 900 < LEAF_ENTRIES_MAX
    root = builder.finish()
    one_by_one = TreeBuilder(KEY, NodeStore().put)
    for entry in entries:
        one_by_one.add((b"d",), entry)
    assert one_by_one.finish() == root and len(store.nodes) > 3


def test_what_the_limits_refuse_is_left_to_add() -> None:
    builder = TreeBuilder(KEY, NodeStore().put)
    builder.add((b"d",), plain(b"a"))
    assert builder.add_all((b"d",), [plain(b"n" * 4097)]) == 0
    with pytest.raises(SourceError):
        builder.add((b"d",), plain(b"n" * 4097))
    assert builder.add_all((b"d",), [plain(b"a")]) == 0, "it does not come after what there is"
    assert builder.add_all((b"e",), [plain(b"b")]) == 0, "another directory begins with add"


@given(st.integers(0, 2**32))
def test_a_cursor_finds_many_names_as_it_finds_each(seed: int) -> None:
    choice = random.Random(seed)
    letters = [b"%c" % letter for letter in b"abcdefghij"]

    def paths() -> list[Path]:
        found = {
            tuple(choice.choices(letters, k=choice.randrange(1, 4)))
            for _ in range(choice.choice((0, 3, 100, 2000)))
        }
        return sorted(found)

    store = NodeStore()
    builder = TreeBuilder(KEY, store.put)
    for path in paths():
        builder.add(path[:-1], plain(path[-1]))
    root = builder.finish()
    if root is None:
        return
    alone, together = Cursor(store.get, root), Cursor(store.get, root)
    walk, at = paths(), 0
    while at < len(walk):
        parent, names = walk[at][:-1], [walk[at][-1]]
        while at + len(names) < len(walk) and walk[at + len(names)][:-1] == parent and choice.random() < 0.95:
            names.append(walk[at + len(names)][-1])
        expected = [alone.advance((*parent, name)) for name in names]
        assert together.advance_all(parent, names) == expected
        at += len(names)
