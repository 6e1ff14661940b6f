"""The tree builder: entries in, in the order of their paths, tree nodes out.

    builder = TreeBuilder(ring.tree_cut_key, writer.put_node)
    for parent, entry in walk:
        builder.add(parent, entry)
    root = builder.finish()

docs/format.md, section 9, says where nodes end: by the names of entries alone, so that a file that changed
moves no cut, and one that is new or gone moves at most a few near it. Each entry is encoded once, on its way
in; a leaf is put together from these pieces. Only the open leaf and one open inner node of each level are in
memory, whatever the number of entries. Nothing here touches storage.
"""

from array import array
from itertools import accumulate, islice
from typing import Any, Final, NoReturn

import msgpack
from blake3 import blake3

from repo_store._entries import pack_rows
from repo_store.chunk_ids import HASH_BYTES, chunk_ids
from repo_store.entry import Entry, Path
from repo_store.errors import SourceError
from repo_store.tree_node import (
    CUT_BYTES,
    NAME_BYTES_MAX,
    NODE_BYTES_MAX,
    PATH_BYTES_MAX,
    PATH_COMPONENTS_MAX,
    Put,
    TreeRoot,
    path_bytes,
    why_no_path,
)
from repo_store.tree_spine import Child, Spine

LEAF_ENTRIES_MIN: Final = 64
LEAF_ENTRIES_MAX: Final = 1024
ENTRY_BYTES_MAX: Final = 4 * 1024 * 1024
"""One entry as encoded; only extended attributes can make it large."""

# A leaf is within its limit even if it ends with the largest entry in the longest run.
assert CUT_BYTES + ENTRY_BYTES_MAX + 2 * PATH_BYTES_MAX + 8 * PATH_COMPONENTS_MAX < NODE_BYTES_MAX

_DOTS = (b".", b"..")


class TreeBuilder:
    """Builds one tree of entries. For one thread only."""

    def __init__(self, tree_cut_key: bytes, put: Put) -> None:
        packer = msgpack.Packer()
        self._pack = packer.pack
        self._header = packer.pack_array_header
        self._cut_key = tree_cut_key
        self._put = put
        self._spine = Spine(
            tree_cut_key,
            put,
            label=0,
            encode=lambda child: packer.pack((child.first, child.id, child.weight)),
            cut_name=lambda child: b"\0".join(child.first),
        )
        self._parent: Path | None = None
        self._last_name = b""
        self._name_bytes_max = 0
        self._cut_prefix = b""
        self._parent_row = b""
        self._rows: list[bytes] = []
        self._runs: list[bytes] = []
        self._leaf_first: Path = ()
        self._leaf_entries = 0
        self._leaf_bytes = 0

    def add(self, parent: Path, entry: Entry) -> None:
        """Take the next entry, found in the directory `parent`.

        Raises ValueError if its path does not come after all before or its name cannot be one: a bug. Raises
        SourceError if it is beyond the limits of a manifest; the tree goes on without it.
        """
        name = entry[0]
        row = self._encode(entry)
        if parent is not self._parent and parent != self._parent:
            self._open_run(parent, name)
        elif name <= self._last_name:
            raise ValueError(f"{name!r} was added after {self._last_name!r}")
        elif b"/" in name or b"\0" in name or len(name) > self._name_bytes_max or name in _DOTS:
            _refuse((*parent, name))
        if not self._rows:
            self._begin_run(parent, name)
        self._rows.append(row)
        self._last_name = name
        self._leaf_bytes += len(row)
        count = self._leaf_entries = self._leaf_entries + 1
        if (
            self._leaf_bytes >= CUT_BYTES
            or count == LEAF_ENTRIES_MAX
            or (count >= LEAF_ENTRIES_MIN and self._cuts_after(name))
        ):
            self._end_leaf()

    def add_all(
        self, parent: Path, entries: list[Entry], contents: list[bytes] | None = None, start: int = 0
    ) -> int:
        """Take ordinary entries from `start` on, as `add` would one by one; return where it stopped.

        What it stops at is for `add` to take or to refuse: an entry with something in extra or a long content, one
        that does not belong here, the first one of a directory. `contents`, one for each entry, stand for those
        in them: an id, or empty.
        """
        if parent is not self._parent and parent != self._parent:
            return start
        rows = pack_rows(entries, contents, start, self._last_name, self._name_bytes_max)
        names = [entry[0] for entry in islice(entries, start, start + len(rows))]
        cuts = self._cut_bytes(names)
        at = 0
        while at < len(rows):
            end, ends_leaf = self._leaf_end(rows, cuts, at)
            if not self._rows:
                self._begin_run(parent, names[at])
            taken = rows[at:end]
            self._rows += taken
            self._leaf_bytes += sum(map(len, taken))
            self._leaf_entries += len(taken)
            self._last_name = names[end - 1]
            if ends_leaf:
                self._end_leaf()
            at = end
        return start + len(rows)

    def _cut_bytes(self, names: list[bytes]) -> bytes:
        """Return for each name the byte that `_cuts_after` compares with zero."""
        prefix = self._cut_prefix
        lengths = array("I", [len(prefix) + len(name) for name in names])
        return chunk_ids(self._cut_key, prefix.join((b"", *names)), lengths)[7::HASH_BYTES]

    def _leaf_end(self, rows: list[bytes], cuts: bytes, at: int) -> tuple[int, bool]:
        """Return how far the open leaf goes in `rows`, taken from `at` on, and whether it ends there."""
        end = min(len(rows), at + LEAF_ENTRIES_MAX - self._leaf_entries)
        ends_leaf = end - at == LEAF_ENTRIES_MAX - self._leaf_entries
        cut = cuts.find(0, at + max(0, LEAF_ENTRIES_MIN - 1 - self._leaf_entries), end)
        if cut >= 0:
            end, ends_leaf = cut + 1, True
        size = self._leaf_bytes + (0 if self._rows else len(self._parent_row))
        if size + sum(map(len, islice(rows, at, end))) < CUT_BYTES:
            return end, ends_leaf
        sizes = accumulate(map(len, islice(rows, at, end)), initial=size)
        return next(at + taken for taken, size in enumerate(sizes) if taken and size >= CUT_BYTES), True

    def checkpoint(self) -> TreeRoot | None:
        """Return a whole tree of what has been added so far, None if that is nothing; building goes on after it."""
        last = (
            Child(self._put(self._leaf()), self._leaf_entries, self._leaf_first)
            if self._leaf_entries
            else None
        )
        top = self._spine.root(last)
        return None if top is None else TreeRoot(top[0].id, top[1], top[0].weight)

    def finish(self) -> TreeRoot | None:
        """Store what is open and return the root of the tree, None if there was no entry."""
        return self.checkpoint()

    def _encode(self, entry: Entry) -> bytes:
        """Return the entry in its one canonical form. Raises SourceError if it is beyond the limits."""
        extra = entry.extra
        if extra is not None:
            entry = entry._replace(extra=_in_order(extra) or None)
        try:
            row: bytes = self._pack(entry)
        except OverflowError:
            raise SourceError("its metadata has a number beyond 64 bits") from None
        if len(row) > ENTRY_BYTES_MAX:
            raise SourceError(f"its metadata takes {len(row)} bytes, above the limit of {ENTRY_BYTES_MAX}")
        return row

    def _open_run(self, parent: Path, name: bytes) -> None:
        """Go on in another directory."""
        path = (*parent, name)
        if why_no_path(path) is not None:
            _refuse(path)
        if self._parent is not None and path <= (*self._parent, self._last_name):
            raise ValueError(f"{path!r} was added after {(*self._parent, self._last_name)!r}")
        self._close_run()
        self._parent = parent
        self._parent_row = self._pack(parent)
        self._cut_prefix = b"".join((b"\0", *(component + b"\0" for component in parent)))
        self._name_bytes_max = min(NAME_BYTES_MAX, PATH_BYTES_MAX - len(self._cut_prefix) + 1)

    def _cuts_after(self, name: bytes) -> bool:
        # The highest byte is zero: the hash, as a number of 64 bits, is below 2**56.
        return blake3(self._cut_prefix + name, key=self._cut_key).digest(8)[7] == 0

    def _begin_run(self, parent: Path, name: bytes) -> None:
        self._leaf_bytes += len(self._parent_row)
        if not self._leaf_entries:
            self._leaf_first = (*parent, name)

    def _close_run(self) -> None:
        if self._rows:
            self._runs.append(self._run())
            self._rows = []

    def _end_leaf(self) -> None:
        leaf = Child(self._put(self._leaf()), self._leaf_entries, self._leaf_first)
        self._rows, self._runs = [], []
        self._leaf_entries = self._leaf_bytes = 0
        self._spine.push(leaf)

    def _run(self) -> bytes:
        header = self._header
        return b"".join((header(2), self._parent_row, header(len(self._rows)), *self._rows))

    def _leaf(self) -> bytes:
        """Return the open leaf as a node."""
        runs = [*self._runs, self._run()] if self._rows else self._runs
        return b"".join((self._header(2), b"\0", self._header(len(runs)), *runs))


def _in_order(value: dict[Any, Any]) -> dict[Any, Any]:
    """Return the map with its keys, and those of maps in it, in order: the same metadata, the same bytes."""
    return {key: _in_order(item) if isinstance(item, dict) else item for key, item in sorted(value.items())}


def _refuse(path: Path) -> NoReturn:
    why = why_no_path(path)
    if (
        len(path) > PATH_COMPONENTS_MAX
        or max(map(len, path)) > NAME_BYTES_MAX
        or path_bytes(path) > PATH_BYTES_MAX
    ):
        raise SourceError(f"it has {why}, above the limit")
    raise ValueError(f"an entry has {why}")
