"""What the trees of a manifest cost: 100,000 entries built, read, walked in step; content of 100,000 chunks.

    pytest benchmarks/bench_tree.py --benchmark-enable

The nodes lie in a dictionary, so this is the encoding, the cut hash and the checks, without storage.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3

from repo_store.content import ContentBuilder, content_pairs
from repo_store.entry import Entry, Path
from repo_store.tree_builder import TreeBuilder
from repo_store.tree_node import TreeRoot
from repo_store.tree_reader import Cursor, nodes, read_tree, runs

ENTRIES = 100_000
KEY = bytes(range(32))
Benchmark = Callable[..., Any]


class Nodes(dict[bytes, bytes]):
    """Nodes by id."""

    def put(self, data: bytes) -> bytes:
        """Store a node."""
        name = blake3(data, key=KEY).digest()
        self[name] = data
        return name


def source(entries: int) -> list[tuple[Path, Entry]]:
    """Like a source tree: directories of about 20 files, five levels deep, half of the files of one chunk."""
    chance = random.Random(1)
    pairs: list[tuple[Path, Entry]] = []
    number = 0
    while len(pairs) < entries:
        parent = (
            b"top",
            b"%d" % (number // 2000),
            b"%03d" % (number // 100 % 20),
            b"%02d" % (number // 10 % 10),
        )
        directory = (*parent, b"directory-%07d" % number)
        number += 1
        pairs.append((directory, Entry(directory[-1], 1, 0o755, 0, 0, 10**18, 10**18, number, 0, None, None)))
        for file in range(19):
            name = b"some_file_%02d.txt" % file
            content: Any = chance.randbytes(32)
            if file % 8 == 0:
                content = [chance.randbytes(96), [1000, 1000, chance.randrange(1, 1000)]]
            size = sum(content[1]) if file % 8 == 0 else 4000
            row = (name, 0, 0o644, 1000, 1000, 10**18 + file, 10**18, 10**6 + number, size, content, None)
            pairs.append(((*directory, name), Entry(*row)))
    return sorted(pairs[:entries], key=lambda pair: pair[0])


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Path, Entry]]:
    """The entries of a walk, in its order, the parent's tuple the same for all entries of a directory."""
    parents: dict[Path, Path] = {}
    return [(parents.setdefault(path[:-1], path[:-1]), entry) for path, entry in source(ENTRIES)]


@pytest.fixture(scope="module")
def built(pairs: list[tuple[Path, Entry]]) -> tuple[Nodes, TreeRoot]:
    store = Nodes()
    return store, build(pairs, store)


def build(pairs: list[tuple[Path, Entry]], store: Nodes) -> TreeRoot:
    """Build the tree."""
    builder = TreeBuilder(KEY, store.put)
    for parent, entry in pairs:
        builder.add(parent, entry)
    root = builder.finish()
    assert root is not None
    return root


def test_build(benchmark: Benchmark, pairs: list[tuple[Path, Entry]]) -> None:
    benchmark(lambda: build(pairs, Nodes()))


def test_read_runs(benchmark: Benchmark, built: tuple[Nodes, TreeRoot]) -> None:
    store, root = built
    assert benchmark(lambda: sum(len(run) for _, run in runs(store.__getitem__, root))) == ENTRIES


def test_read_entries(benchmark: Benchmark, built: tuple[Nodes, TreeRoot]) -> None:
    store, root = built
    assert benchmark(lambda: sum(1 for _ in read_tree(store.__getitem__, root))) == ENTRIES


def test_walk_in_step(
    benchmark: Benchmark, pairs: list[tuple[Path, Entry]], built: tuple[Nodes, TreeRoot]
) -> None:
    """Decoding included; test_read_runs is that part."""
    store, root = built
    paths = [(*parent, entry.name) for parent, entry in pairs]

    def walk() -> int:
        advance = Cursor(store.__getitem__, root).advance
        return sum(1 for path in paths if advance(path) is not None)

    assert benchmark(walk) == ENTRIES


def test_nodes(benchmark: Benchmark, built: tuple[Nodes, TreeRoot]) -> None:
    store, root = built
    assert benchmark(lambda: sum(1 for _ in nodes(store.__getitem__, root))) == len(store)


CHUNKS = [(chunk_id.to_bytes(32, "little"), 65_536) for chunk_id in range(1, ENTRIES + 1)]


def build_content(store: Nodes) -> Entry:
    """Build the content of one large file."""
    builder = ContentBuilder(KEY, store.put)
    for chunk_id, length in CHUNKS:
        builder.add(chunk_id, length)
    content, size = builder.finish()
    return Entry(b"f", 0, 0o600, 0, 0, 0, 0, 0, size, content, None)


def test_build_content(benchmark: Benchmark) -> None:
    benchmark(lambda: build_content(Nodes()))


def test_read_content(benchmark: Benchmark) -> None:
    store = Nodes()
    entry = build_content(store)
    assert benchmark(lambda: sum(1 for _ in content_pairs(store.__getitem__, entry))) == ENTRIES
