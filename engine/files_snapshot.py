"""Snapshot of file trees: the walk and the previous manifest in step, changed content read and stored.

Both come in the same order (docs/format.md, section 9), so one pass over both decides for each file whether
its content can be taken over unread; engine/sources/unchanged.py says when. What cannot be read is named and
makes the snapshot incomplete; the rest is stored all the same.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import accumulate, groupby, islice, takewhile
from typing import Any, cast

from engine.collector import collecting_rarely
from engine.cutting import cut_sparse, cut_stream
from engine.problems import CHANGED_WHILE_READ, Problem, ProblemKind, printable, printable_path, reason
from engine.progress import Interrupted, Progress
from engine.session import Session
from engine.snapshot_run import SnapshotOptions, SnapshotResult, SnapshotRun
from engine.sources.directory import Directory
from engine.sources.files import BATCH_ENTRIES_MAX, FileTree, WalkOptions
from engine.sources.reading import NotAFile, data_extents, has_changed, open_file, read_into, unstable
from engine.sources.roots import Root, plan_roots
from engine.sources.unchanged import carried, trusted_before, unchanged
from repo_store._entries import unchanged as unchanged_entries
from repo_store.chunk_writer import FRAME_BYTES
from repo_store.content import ContentBuilder
from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import SourceError
from repo_store.tree_reader import Cursor, LostNode

_FILE = int(EntryKind.FILE)
_READ_TRIES = 3
_LINKS_REMEMBERED_MAX = 100_000


@collecting_rarely()
def snapshot_files(
    session: Session,
    paths: Iterable[bytes | str],
    *,
    names: Mapping[bytes | str, bytes | str] | None = None,
    walk: WalkOptions | None = None,
    options: SnapshotOptions | None = None,
    progress: Progress | None = None,
) -> SnapshotResult:
    """Back up the trees at `paths` (and those named by `--as`), and return the committed manifest.

    Raises SourceError if a root is missing, Interrupted (with the checkpoint it kept) if asked to stop.
    """
    roots = plan_roots(paths, names)
    progress = progress or Progress()
    name = ",".join(sorted(printable(root.path) for root in roots))
    run = SnapshotRun(
        session, source="files", name=name, options=options or SnapshotOptions(), progress=progress
    )
    with run:
        run.details["roots"] = [(root.name, root.path) for root in roots]
        files = _FilesRun(run, roots, walk or WalkOptions())
        try:
            files.store()
        except Interrupted as interrupted:
            kept = run.checkpoint()
            interrupted.manifest = None if kept is None else kept.id.hex()
            raise
        run.details["owners"] = files.owners()
        return run.finish()


class _Treatment(Enum):
    """What becomes of an entry: taken over as it was, read together with its neighbours, or dealt with alone."""

    KNOWN, PLAIN, SINGLE = range(3)


class _FilesRun:
    """The walk of one snapshot, with what it must remember on the way."""

    def __init__(self, run: SnapshotRun, roots: list[Root], walk: WalkOptions) -> None:
        self._run = run
        self._tree = FileTree(roots, walk, run.report)
        self._chunks = run.writer.data
        self._small_max = run.options.parameters.size_min
        self._cut_key = run.session.ring.tree_cut_key
        self._linked: dict[int, Entry] = {}
        self._together = BATCH_ENTRIES_MAX
        run.walk_parameters["xattrs"] = int(walk.xattrs)
        base = None if run.options.full_read else run.base
        if base is not None and base.parameters.get("xattrs") != int(walk.xattrs):
            base = None  # what it did not look at cannot be taken over
        self._cursor = None
        if base is not None and base.root is not None:
            # What the previous tree has lost is not taken over but read from the source: so a snapshot heals.
            self._cursor = Cursor(run.session.reader.get_node, base.root, on_damage=_pass_over)
            self._trusted = trusted_before(base.start)

    def owners(self) -> dict[str, Any]:
        """Return the names of the owners met, as the manifest keeps them."""
        names = self._tree.owner_names()
        return {"users": sorted(names.users.items()), "groups": sorted(names.groups.items())}

    def store(self) -> None:
        """Walk everything and hand each entry to the tree."""
        run = self._run
        for directory, entries in self._tree.batches():
            if run.tick():
                self._chunks.finish_frame()
                run.checkpoint()
            self._store_batch(directory, entries)

    def _store_batch(self, directory: Directory, entries: list[Entry]) -> None:
        """Store consecutive entries of one directory: what is known as it was, small files together, the rest singly."""
        known = self._taken_over(directory.path, entries)
        if None not in known:
            self._add_all(directory.path, cast(list[Entry], known))
            return

        def treatment(at: int) -> _Treatment:
            entry = entries[at]
            if known[at] is not None:
                return _Treatment.KNOWN
            is_plain = entry[1] == _FILE and entry[8] <= self._small_max and entry[10] is None
            return _Treatment.PLAIN if is_plain and directory.path else _Treatment.SINGLE

        for kind, group in groupby(range(len(entries)), treatment):
            places = list(group)
            part = slice(places[0], places[-1] + 1)
            if kind == _Treatment.KNOWN:
                self._add_all(directory.path, cast(list[Entry], known[part]))
            elif kind == _Treatment.PLAIN:
                self._store_plain(directory, entries[part])
            else:
                for entry in entries[part]:
                    self._store_single(directory, entry)

    def _taken_over(self, path: Path, entries: list[Entry]) -> Sequence[Entry | None]:
        """Return for each entry what it becomes if it is unchanged, None if it must be looked at."""
        if self._cursor is None:
            return [None] * len(entries)
        previous = self._cursor.advance_all(path, [entry[0] for entry in entries])
        quickly = previous if self._run.writer.all_intact else [None] * len(entries)
        known = unchanged_entries(quickly, entries, self._trusted)
        return [
            self._reuse(before, entry) if same is None and before is not None else same
            for before, entry, same in zip(previous, entries, known, strict=True)
        ]

    def _add_all(self, path: Path, entries: list[Entry], contents: list[bytes] | None = None) -> None:
        """Hand entries to the tree; `contents`, if given, are the ids (or empty) that belong into them."""
        done, count = 0, len(entries)
        progress = self._run.progress
        while done < count:
            end = self._run.tree.add_all(path, entries, contents, done)
            files = [entry[8] for entry in islice(entries, done, end) if entry[1] == _FILE]
            progress.files += len(files)
            progress.bytes += sum(files)
            if end < count:
                entry = entries[end]
                if contents is not None:
                    entry = entry._replace(content=contents[end] or None)
                self._add(path, entry)
                end += 1
            done = end

    def _add(self, path: Path, stored: Entry) -> None:
        try:
            self._run.tree.add(path, stored)
        except SourceError as error:
            self._run.report(Problem((*path, stored.name), str(error)))
            return
        if stored[1] == _FILE:
            progress = self._run.progress
            progress.files += 1
            progress.bytes += stored[8]

    def _store_single(self, directory: Directory, entry: Entry) -> None:
        read = self._store_file if entry[1] == _FILE else self._tree.read_extra
        stored = read(directory, entry)
        if stored is not None:
            self._add(directory.path, stored)

    def _store_plain(self, directory: Directory, entries: list[Entry]) -> None:
        """Read small files of one directory, as many at once as the frame has room for.

        One that turns out to be special (engine.sources.reading.read_plain) is stored in the usual way.
        """
        chunks, start = self._chunks, 0
        while start < len(entries):
            at = chunks.make_room(chunks.used, chunks.used, entries[start][8])
            room = min(chunks.capacity - at, max(FRAME_BYTES - at, entries[start][8]))
            sizes = [entry[8] for entry in entries[start : start + self._together]]
            ends = list(takewhile(room.__ge__, accumulate(sizes)))
            group = entries[start : start + len(ends)]
            count = self._tree.read_plain(directory, tuple(group), chunks.view[at : at + ends[-1]])
            ids = chunks.settle_all(at, sizes[:count])
            self._add_all(directory.path, group[:count], ids)
            start += count
            self._together = min(2 * self._together, BATCH_ENTRIES_MAX)
            if count < len(group):
                # Where all files are special, as with labels on each, no effort is spent on the ones behind it.
                self._together = max(1, count)
                self._store_single(directory, entries[start])
                start += 1

    def _reuse(self, previous: Entry, entry: Entry) -> Entry | None:
        """Return the entry with what is known of it from before, None if it must be looked at again."""
        if not unchanged(previous, entry, self._trusted):
            return None
        if previous[9] is not None and not self._run.writer.is_intact(previous):
            return None
        return carried(previous, entry)

    def _store_file(self, directory: Directory, entry: Entry) -> Entry | None:
        """Return the entry with its content stored, None if there is nothing to store."""
        link = entry.extra.get("link") if entry.extra else None
        if link is not None:
            first = self._linked.get(link)
            if first is not None and first.ctime_ns == entry.ctime_ns and first.size == entry.size:
                return first._replace(name=entry.name)
        try:
            stored = self._read(directory, entry)
        except FileNotFoundError:
            return None
        except NotAFile as error:
            self._unreadable(directory, entry, reason(error))
            return None
        except OSError as error:
            self._unreadable(directory, entry, f"cannot be read: {reason(error)}")
            return None
        if link is not None and len(self._linked) < _LINKS_REMEMBERED_MAX:
            self._linked[link] = stored
        return stored

    def _unreadable(self, directory: Directory, entry: Entry, message: str) -> None:
        self._run.report(Problem((*directory.path, entry.name), message))

    def _read(self, directory: Directory, entry: Entry) -> Entry:
        """Read the file until it held still, or a few times: then it is marked unstable."""
        for _ in range(_READ_TRIES):
            opened = open_file(directory, entry)
            try:
                stored = self._tree.read_extra(directory, opened.entry, opened.fd)
                if stored.size <= self._small_max and not opened.sparse:
                    stored, count = self._read_small(opened.fd, stored)
                else:
                    stored, count = self._read_large(opened.fd, stored, sparse=opened.sparse)
                if count == opened.entry.size and not has_changed(opened.fd, opened.entry):
                    return stored
            finally:
                os.close(opened.fd)
        path = (*directory.path, entry.name)
        self._run.report(Problem(path, CHANGED_WHILE_READ, ProblemKind.NOTE))
        return unstable(stored, count)

    def _read_small(self, fd: int, entry: Entry) -> tuple[Entry, int]:
        if entry.size == 0:
            return entry, 0
        chunks = self._chunks
        at = chunks.make_room(chunks.used, chunks.used, entry.size)
        count = read_into(fd, chunks.view[at : at + entry.size], 0)
        if count == 0:
            return entry, 0
        return entry._replace(content=chunks.settle(at, count)), count

    def _read_large(self, fd: int, entry: Entry, *, sparse: bool) -> tuple[Entry, int]:
        run = self._run
        run.progress.current = printable_path((entry.name,))
        content = ContentBuilder(self._cut_key, run.writer.put_node)
        place = 0

        def read(view: memoryview) -> int:
            nonlocal place
            count = read_into(fd, view, place)
            place += count
            return count

        def checkpoint() -> None:
            run.checkpoint()

        if sparse:
            count = cut_sparse(
                self._chunks,
                run.chunker,
                content,
                lambda view, offset: read_into(fd, view, offset),
                data_extents(fd, entry.size),
                entry.size,
                tick=run.tick,
                checkpoint=checkpoint,
            )
        else:
            count = cut_stream(self._chunks, run.chunker, content, read, tick=run.tick, checkpoint=checkpoint)
        built, size = content.finish()
        return entry._replace(content=built, size=size), count


def _pass_over(lost: LostNode) -> None:
    """Take no notice: `verify` is for that."""
