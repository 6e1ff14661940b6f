"""Restore: a manifest, or some of its paths, written into a new directory.

Entries are taken in order, a batch at a time: directories, links and empty files are made at once, the
chunks of the others are fetched in pack order (each frame once a batch) and written wherever they belong. Every
chunk's id is computed again before it is written. What cannot be restored is named; the rest is restored.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from types import TracebackType

from engine.collector import collecting_rarely
from engine.problems import Problem, ProblemKind
from engine.progress import Interrupted, Progress
from engine.reading_back import not_there
from engine.session import Session
from engine.sources.owners import OwnerNames
from engine.target import Target, TargetOptions, Whole
from engine.target_file import TargetFile
from repo_store.chunk_reader import ChunkReader, Found
from repo_store.content import content_pairs
from repo_store.entry import HOLE, Entry, EntryKind, Path
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing
from repo_store.manifest import Manifest
from repo_store.tree_reader import LostNode, lookup, subtree

BATCH_PIECES_MAX = 32_768
"""Chunks asked for together: about 10 MB of bookkeeping, twice: one batch is fetched while the next is gathered."""
BATCH_PIECES_FIRST = 4_096
"""The first batch is small, so that there is something to fetch at once; each next one is twice as large."""

_FILE, _DIRECTORY, _STREAM = int(EntryKind.FILE), int(EntryKind.DIRECTORY), int(EntryKind.STREAM)


@dataclass
class RestoreResult:
    """What a restore came to. Not all is well if `problems` has more than notes."""

    manifest: Manifest
    files: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether something was lost in the repository."""
        return any(problem.kind == ProblemKind.DAMAGED for problem in self.problems)


@dataclass(eq=False, slots=True)
class _File:
    """A file under way: how many of its pieces are missing still, whether all are asked for, whether any is lost."""

    path: Path
    entry: Entry
    missing: int = 0
    complete: bool = False
    target: TargetFile | None = None
    lost: str | None = None
    skipped: bool = False


_Piece = tuple[_File, int, int] | tuple[Path, Entry]
"""Where a chunk belongs: file, offset, length; or a file of this one chunk."""


@collecting_rarely()
def restore_manifest(
    session: Session,
    manifest: Manifest,
    to: bytes | str,
    *,
    paths: Sequence[Path] = (),
    options: TargetOptions | None = None,
    progress: Progress | None = None,
) -> RestoreResult:
    """Restore `paths` of `manifest`, or all of it, into the new directory `to`.

    Raises UsageError if a path is not in the manifest, Refused if `to` is not empty, StorageError if the target or
    the repository's storage fails.
    """
    progress = progress or Progress()
    result = RestoreResult(manifest)
    entries = chosen_entries(session, manifest, paths, result.problems.append)
    progress.bytes_total = manifest.statistics.get("bytes", 0) if not paths else 0
    progress.files_total = manifest.statistics.get("files", 0) if not paths else 0
    with Target(to, options or TargetOptions(), owner_names_of(manifest), result.problems.append) as target:
        with _Restore(session.reader, target, result, progress) as restore:
            restore.run(entries)
        target.finish()
    return result


def owner_names_of(manifest: Manifest) -> OwnerNames:
    """Return the names that the host of the snapshot had for owners."""
    return OwnerNames(dict(manifest.owners.get("users", ())), dict(manifest.owners.get("groups", ())))


def chosen_entries(
    session: Session, manifest: Manifest, paths: Sequence[Path], report: Callable[[Problem], None]
) -> Iterator[tuple[Path, Entry]]:
    """Yield what is to be restored in order; the directories above a chosen path come with it."""

    def lost(node: LostNode) -> None:
        message = f"{node.entries} entries from here on are lost: {node.error}"
        report(Problem(node.first, message, ProblemKind.DAMAGED))

    get, root = session.reader.get_node, manifest.root
    if not paths:
        return iter(()) if root is None else subtree(get, root, (), on_damage=lost)
    wanted = outermost(paths)
    above: dict[Path, Entry] = {}
    for path in wanted:
        found = None if root is None else lookup(get, root, path)
        if found is None or root is None:
            raise not_there(manifest, path)
        for depth in range(1, len(path)):
            if path[:depth] not in above:
                parent = lookup(get, root, path[:depth])
                if parent is not None:
                    above[path[:depth]] = parent
    return _chosen(session, manifest, wanted, above, lost)


def _chosen(
    session: Session,
    manifest: Manifest,
    wanted: Sequence[Path],
    above: dict[Path, Entry],
    lost: Callable[[LostNode], None],
) -> Iterator[tuple[Path, Entry]]:
    assert manifest.root is not None
    for path in sorted([*wanted, *above]):
        if path in above:
            yield path, above[path]
        else:
            yield from subtree(session.reader.get_node, manifest.root, path, on_damage=lost)


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths in order, without those below another of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not kept or path[: len(kept[-1])] != kept[-1]:
            kept.append(path)
    return kept


class _Restore:
    """One restore. The main thread walks through the entries; what it gathers, a sweep fetches behind it."""

    def __init__(
        self, reader: ChunkReader, target: Target, result: RestoreResult, progress: Progress
    ) -> None:
        self._reader = reader
        self._target = target
        self._result = result
        self._progress = progress
        self._first_links: dict[int, tuple[Path, Entry]] = {}
        self._pieces: dict[bytes, list[_Piece]] = {}
        self._count = 0
        self._batch = min(BATCH_PIECES_FIRST, BATCH_PIECES_MAX)
        self._deferred: list[tuple[Path, Entry]] = []
        self._lock = Lock()  # held while files under way or counts are changed
        self._sweeps = ThreadPoolExecutor(1, "sweep")
        self._sweep: Future[None] | None = None
        self._failed = False

    def __enter__(self) -> "_Restore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failed = error is not None
        self._sweeps.shutdown()

    def run(self, entries: Iterable[tuple[Path, Entry]]) -> None:
        """Restore all entries."""
        for path, entry in entries:
            self._progress.check_stop()
            if entry.kind == _DIRECTORY:
                self._target.make_directory(path, entry)
            elif entry.kind in (_FILE, _STREAM):
                self._take_file(path, entry)
            elif not self._is_later_link(path, entry):
                self._target.make_special(path, entry)
        self._fetch()
        for path, entry in self._deferred:
            self._link(path, entry)
        self._fetch()

    def _is_later_link(self, path: Path, entry: Entry) -> bool:
        """Note the first of a group of hard links; put the others off until it is there."""
        group = entry.extra.get("link") if entry.extra else None
        if group is None:
            return False
        _, first = self._first_links.setdefault(group, (path, entry))
        if first is entry:
            return False
        self._deferred.append((path, entry))
        return True

    def _link(self, path: Path, entry: Entry) -> None:
        first_path, first = self._first_links[(entry.extra or {})["link"]]
        # An inode number may have been used again while the tree was walked: one content is what makes a link.
        same = (first.kind, first.size, first.content) == (entry.kind, entry.size, entry.content)
        if same and self._target.make_link(path, first_path):
            self._result.files += 1
        elif entry.kind == _FILE:
            self._add_file(path, entry)
        else:
            self._target.make_special(path, entry)

    def _take_file(self, path: Path, entry: Entry) -> None:
        if not self._is_later_link(path, entry):
            self._add_file(path, entry)

    def _add_file(self, path: Path, entry: Entry) -> None:
        content = entry.content
        if content is None:
            if self._target.write_file(path, entry, b""):
                self._done([entry])
        elif isinstance(content, bytes) and content != HOLE:
            self._want(content, (path, entry))
        else:
            self._add_pieces(_File(path, entry))

    def _want(self, chunk_id: bytes, piece: _Piece) -> None:
        self._pieces.setdefault(chunk_id, []).append(piece)
        self._count += 1
        if self._count >= self._batch:
            self._start_fetching()

    def _add_pieces(self, file: _File) -> None:
        offset, error = 0, None
        try:
            for chunk_id, length in content_pairs(self._reader.get_node, file.entry):
                if chunk_id != HOLE:
                    with self._lock:
                        file.missing += 1
                    self._want(chunk_id, (file, offset, length))
                offset += length
        except (ObjectDamaged, ObjectMissing) as damage:
            error = damage
        with self._lock:
            file.lost = file.lost or (str(error) if error else None)
            file.complete = True
            ready = not file.missing
        if ready:
            self._finish(file)

    def _start_fetching(self) -> None:
        """Fetch the chunks asked for behind the walk, once those asked for before are there."""
        self._await_sweep()
        pieces, self._pieces, self._count = self._pieces, {}, 0
        self._batch = min(2 * self._batch, BATCH_PIECES_MAX)
        if pieces:
            self._sweep = self._sweeps.submit(self._reader.sweep, pieces, partial(self._take, pieces))

    def _await_sweep(self) -> None:
        sweep, self._sweep = self._sweep, None
        if sweep is not None:
            sweep.result()

    def _fetch(self) -> None:
        """Fetch the chunks asked for and write them where they belong."""
        self._start_fetching()
        self._await_sweep()

    def _take(self, pieces: dict[bytes, list[_Piece]], found: Sequence[Found]) -> None:
        """Write chunks where they belong; in any thread, several at once."""
        self._progress.check_stop()
        if self._failed:
            raise Interrupted("interrupted")
        whole: list[Whole] = []
        for chunk_id, data in found:
            for piece in pieces[chunk_id]:
                if len(piece) == 3:
                    self._write(*piece, data)
                elif isinstance(data, HoldfastError):
                    self._lose(piece[0], str(data))
                elif len(data) != piece[1].size:
                    self._lose(piece[0], _wrong_length(data, piece[1].size))
                else:
                    whole.append((*piece, data))
        if whole:
            self._done(self._target.write_files(whole))

    def _write(self, file: _File, offset: int, length: int, data: memoryview | HoldfastError) -> None:
        lost = None
        if isinstance(data, HoldfastError):
            lost = str(data)
        elif len(data) != length:
            lost = _wrong_length(data, length)
        elif (target := self._open(file)) is not None:
            try:
                target.write_at(offset, data)
            except ObjectDamaged as error:
                lost = str(error)
        with self._lock:
            file.lost = file.lost or lost
            file.missing -= 1
            ready = not file.missing and file.complete
        if ready:
            self._finish(file)

    def _open(self, file: _File) -> TargetFile | None:
        """Return the file to write to, made by whoever comes first; None if it is lost or was a Problem."""
        with self._lock:
            if file.lost is not None or file.skipped:
                return None
            if file.target is None:
                file.target = self._target.make_file(file.path, file.entry)
                file.skipped = file.target is None
            return file.target

    def _finish(self, file: _File) -> None:
        """Give the file its metadata, or take it away if it is not whole. By one thread, when nothing is missing."""
        if file.lost is not None:
            if file.target is not None:
                file.target.discard()
            self._lose(file.path, file.lost)
            return
        target = self._open(file)  # made only now if it has nothing but holes
        if target is not None:
            target.finish()
            self._done([file.entry])

    def _lose(self, path: Path, why: str) -> None:
        self._result.problems.append(Problem(path, f"lost: {why}", ProblemKind.DAMAGED))

    def _done(self, entries: Sequence[Entry]) -> None:
        size = sum(entry.size for entry in entries)
        with self._lock:
            self._result.files += len(entries)
            self._result.bytes += size
            self._progress.files += len(entries)
            self._progress.bytes += size


def _wrong_length(data: memoryview, length: int) -> str:
    return f"a chunk has {len(data)} bytes where {length} belong"
