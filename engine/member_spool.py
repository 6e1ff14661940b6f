"""Member spool: entries that come in any order wait here, and go out in the order of their paths.

A tree takes entries sorted (docs/format.md, section 9), an archive has them as they come. So they wait in a private
database without a name, which the operating system takes away with the process; of it a bounded part is in
memory, whatever the number of entries. Components joined by NUL sort as tuples of components do.

What lies at one path twice: the later one counts, as in an extracted archive. The entries stay a tree: what is above an
entry is a directory, and what is no directory has nothing below it; what has to give way for that is returned, to be named.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgpack

from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import SourceError

_CACHE_KIB = 16 * 1024
_SCHEMA = "CREATE TABLE entries (path BLOB PRIMARY KEY, kind INTEGER, row BLOB) WITHOUT ROWID"
_PUT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"
_DIRECTORY = int(EntryKind.DIRECTORY)
_TOGETHER = 1000


class MemberSpool:
    """The entries of one archive. For one thread only."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        execute = self._execute
        execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        execute("PRAGMA journal_mode = OFF")
        execute("PRAGMA synchronous = OFF")
        execute(_SCHEMA)
        execute("BEGIN")
        self._directory: Path = ()  # of the entry added last: it is there, and all above it

    def close(self) -> None:
        """Give everything back."""
        self._database.close()

    def add(self, path: Path, entry: Entry) -> list[Path]:
        """Take an entry in place of one of the same path. Return the paths of entries that had to give way for good:
        what is no directory and lay above it, and all that lay below where it is none itself. Raises SourceError."""
        lost = self._make_directories(path[:-1], entry.mtime_ns) if path[:-1] != self._directory else []
        key = b"\0".join(path)
        if entry.kind != _DIRECTORY and self._kind(key) == _DIRECTORY:
            lost += self._remove_below(key)
        self._execute(_PUT, (key, entry.kind, msgpack.packb(entry)))
        return lost

    def get(self, path: Path) -> Entry | None:
        """Return the entry at `path`, as it is now."""
        found = self._execute("SELECT row FROM entries WHERE path = ?", (b"\0".join(path),)).fetchone()
        return None if found is None else _entry(found[0])

    def entries(self) -> Iterator[tuple[Path, Entry]]:
        """Yield what there is, in order."""
        cursor = self._execute("SELECT path, row FROM entries ORDER BY path")
        while rows := cursor.fetchmany(_TOGETHER):
            for key, row in rows:
                yield tuple(key.split(b"\0")), _entry(row)

    def _make_directories(self, path: Path, mtime_ns: int) -> list[Path]:
        """Put directories where there are none, from the top down to `path`."""
        lost: list[Path] = []
        for depth in range(1, len(path) + 1):
            key = b"\0".join(path[:depth])
            kind = self._kind(key)
            if kind == _DIRECTORY:
                continue
            if kind is not None:
                lost.append(path[:depth])
            made = Entry(path[depth - 1], _DIRECTORY, 0o755, 0, 0, mtime_ns, 0, 0, 0, None, None)
            self._execute(_PUT, (key, _DIRECTORY, msgpack.packb(made)))
        self._directory = path
        return lost

    def _kind(self, key: bytes) -> int | None:
        found = self._execute("SELECT kind FROM entries WHERE path = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def _remove_below(self, key: bytes) -> list[Path]:
        bounds = key + b"\0", key + b"\1"
        below = self._execute("SELECT path FROM entries WHERE path >= ? AND path < ?", bounds).fetchall()
        self._execute("DELETE FROM entries WHERE path >= ? AND path < ?", bounds)
        return [tuple(found.split(b"\0")) for (found,) in below]

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise SourceError(f"the temporary file with the members of the archive: {error}") from error


def _entry(row: bytes) -> Entry:
    return Entry(*msgpack.unpackb(row, strict_map_key=False))
