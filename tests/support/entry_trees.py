"""Lists of entries to build trees of: random, wide, deep; always in the order of their paths."""

import random
from typing import Any

from support.node_store import NodeStore, file_entry

from repo_store.entry import Entry, Path
from repo_store.tree_builder import TreeBuilder
from repo_store.tree_node import TreeRoot

KEY = bytes(range(32))
Pairs = list[tuple[Path, Entry]]

_STEMS = (b"a", b"a-b", b"a.b", b"ab", b"b", b"\x01", b"\xff\xfe", "ü".encode(), b" ", b"\n", b"x" * 255)


def build(pairs: Pairs, store: NodeStore, key: bytes = KEY) -> TreeRoot | None:
    """Build the tree of `pairs`."""
    builder = TreeBuilder(key, store.put)
    for path, entry in pairs:
        builder.add(path[:-1], entry)
    return builder.finish()


def wide(count: int, parent: Path = (b"top",)) -> Pairs:
    """One directory with `count` files in it."""
    return [
        ((*parent, b"file%07d" % number), file_entry(b"file%07d" % number, number)) for number in range(count)
    ]


def deep(depth: int) -> Pairs:
    """A chain of directories, each in the one before."""
    names = [b"d%d" % (level % 7) for level in range(depth)]
    return [(tuple(names[: level + 1]), file_entry(names[level], kind=1)) for level in range(depth)]


def scattered(seed: int, count: int) -> Pairs:
    """A random tree of about `count` entries, with every kind of entry and the names that sort trickily."""
    chance = random.Random(seed)
    directories: list[Path] = [(b"root",)]
    found: dict[Path, Entry] = {(b"root",): file_entry(b"root", kind=1)}
    spread = chance.choice((3, 50, 10_000))
    while len(found) < count:
        parent = chance.choice(directories[-spread:])
        name = chance.choice(_STEMS)
        if chance.random() < 0.8:
            name = name[:200] + b"%d" % chance.randrange(count)
        path = (*parent, name)
        if path not in found:
            found[path] = _entry(chance, name)
            if found[path].kind == 1 and len(path) < 40:
                directories.append(path)
    return sorted(found.items())


def _entry(chance: random.Random, name: bytes) -> Entry:
    number = chance.randrange(2**63)
    changes: dict[str, Any] = chance.choice(
        [
            {"kind": 1, "mode": 0o755},
            {"size": 3, "content": chance.randbytes(32)},
            {"size": 3, "content": chance.randbytes(32)},
            {"size": 300, "content": [chance.randbytes(64), [100, 200]], "extra": {"link": 7}},
            {"size": 10**12, "content": [chance.randbytes(32), 3], "extra": {"unstable": True}},
            {"kind": 2, "extra": {"target": b"../x"}},
            {"kind": 4, "extra": {"rdev": [8, 1]}},
            {"extra": {"xattrs": {b"user.b": b"1", b"user.a": b"\0"}, "from the future": [1, {"a": None}]}},
            {"mtime_ns": -1, "ctime_ns": 2**64 - 1, "inode": 2**64 - 1},
        ]
    )
    return file_entry(name, number)._replace(**changes)
