"""A copy of a tree through the walk and the Target, without a repository: what snapshot and restore do in between.

Contents are kept in memory, restored in a shuffled order and in pieces, as a restore in pack order does.
"""

import os
import random
from dataclasses import dataclass, field

from engine.problems import Problem
from engine.sources.files import FileTree, WalkOptions
from engine.sources.owners import OwnerNames
from engine.sources.reading import data_extents, has_changed, open_file, read_into
from engine.sources.roots import plan_roots
from engine.target import Target, TargetOptions
from repo_store.entry import Entry, EntryKind, Path

PIECE_BYTES = 64 * 1024


@dataclass
class Read:
    """What a snapshot would hold: entries in order, contents as {offset: bytes} by path."""

    entries: list[tuple[Path, Entry]] = field(default_factory=list)
    contents: dict[Path, dict[int, bytes]] = field(default_factory=dict)
    owners: OwnerNames = field(default_factory=lambda: OwnerNames({}, {}))
    problems: list[Problem] = field(default_factory=list)


def read_tree(
    paths: list[bytes | str],
    options: WalkOptions | None = None,
    names: dict[bytes | str, bytes | str] | None = None,
) -> Read:
    """Walk and read everything."""
    read = Read()
    tree = FileTree(plan_roots(paths, names), options or WalkOptions(), read.problems.append)
    buffer = memoryview(bytearray(PIECE_BYTES))
    for directory, entries in tree.batches():
        for entry in entries:
            path = (*directory.path, entry.name)
            if entry.kind != EntryKind.FILE:
                read.entries.append((path, tree.read_extra(directory, entry)))
                continue
            try:
                fd, entry, sparse = open_file(directory, entry)
            except OSError as error:
                read.problems.append(Problem(path, f"cannot be read: {error}"))
                continue
            pieces = read.contents[path] = {}
            for start, end in data_extents(fd, entry.size) if sparse else [(0, entry.size)]:
                for offset in range(start, end, PIECE_BYTES):
                    count = read_into(fd, buffer[: min(PIECE_BYTES, end - offset)], offset)
                    pieces[offset] = bytes(buffer[:count])
            assert not has_changed(fd, entry)
            read.entries.append((path, tree.read_extra(directory, entry, fd)))
            os.close(fd)
    read.owners = tree.owner_names()
    return read


def restore_tree(
    read: Read, location: bytes | str, options: TargetOptions | None = None, *, seed: int = 0
) -> list[Problem]:
    """Write what was read into a new directory, file contents in random order. Returns the problems."""
    problems: list[Problem] = []
    options = options or TargetOptions(durable=False)
    with Target(location, options, read.owners, problems.append) as target:
        first: dict[int, Path] = {}
        work = []
        for path, entry in read.entries:
            link = (entry.extra or {}).get("link")
            if link in first and target.make_link(path, first[link]):
                continue
            if link is not None:
                first[link] = path
            pieces = read.contents.get(path, {})
            if entry.kind == EntryKind.DIRECTORY:
                target.make_directory(path, entry)
            elif entry.kind != EntryKind.FILE:
                target.make_special(path, entry)
            elif list(pieces) in ([], [0]) and entry.size == len(pieces.get(0, b"")):
                target.write_file(path, entry, pieces.get(0, b""))
            else:
                file = target.make_file(path, entry)
                assert file is not None
                work += [(file, offset, data) for offset, data in pieces.items()] or [(file, 0, b"")]
        random.Random(seed).shuffle(work)
        left: dict[Path, int] = {}
        for file, _, _ in work:
            left[file.path] = left.get(file.path, 0) + 1
        for file, offset, data in work:
            file.write_at(offset, data)
            left[file.path] -= 1
            if not left[file.path]:
                file.finish()
        target.finish()
    return problems
