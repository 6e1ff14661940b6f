"""Restore: a manifest, or some of its paths, written into a new directory.

Entries are taken in order, a batch at a time: directories, links and empty files are made at once, the
chunks of the others are fetched in pack order (each frame once a batch) and written wherever they belong. Every
chunk's id is computed again before it is written. What cannot be restored is named; the rest is restored.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from engine.collector import collecting_rarely
from engine.problems import Problem, ProblemKind
from engine.progress import Progress
from engine.reading_back import not_there
from engine.session import Session
from engine.sources.owners import OwnerNames
from engine.target import Target, TargetOptions
from engine.target_file import TargetFile
from repo_store.chunk_reader import ChunkReader
from repo_store.content import content_pairs
from repo_store.entry import HOLE, Entry, EntryKind, Path
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.manifest import Manifest
from repo_store.tree_reader import LostNode, lookup, subtree

BATCH_PIECES_MAX = 50_000
"""Chunks asked for together: about 20 MB of bookkeeping, and 3 GB of content at 64 KiB."""

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
    """A file under way: how many of its pieces are missing still, whether any is lost, whether it was written whole."""

    path: Path
    entry: Entry
    missing: int = 0
    complete: bool = False
    target: TargetFile | None = None
    lost: str | None = None
    skipped: bool = False
    written: bool = False


_Piece = tuple[_File, int, int]  # file, offset, length


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
    entries = _entries(session, manifest, paths, result.problems.append)
    progress.bytes_total = manifest.statistics.get("bytes", 0) if not paths else 0
    progress.files_total = manifest.statistics.get("files", 0) if not paths else 0
    names = OwnerNames(dict(manifest.owners.get("users", ())), dict(manifest.owners.get("groups", ())))
    with Target(to, options or TargetOptions(), names, result.problems.append) as target:
        restore = _Restore(session.reader, target, result, progress)
        restore.run(entries)
        target.finish()
    return result


def _entries(
    session: Session, manifest: Manifest, paths: Sequence[Path], report: Callable[[Problem], None]
) -> Iterator[tuple[Path, Entry]]:
    """Yield what is to be restored in order; the directories above a chosen path come with it."""

    def lost(node: LostNode) -> None:
        message = f"{node.entries} entries from here on are lost: {node.error}"
        report(Problem(node.first, message, ProblemKind.DAMAGED))

    get, root = session.reader.get_node, manifest.root
    if not paths:
        return iter(()) if root is None else subtree(get, root, (), on_damage=lost)
    wanted = _outermost(paths)
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


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths in order, without those below another of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not kept or path[: len(kept[-1])] != kept[-1]:
            kept.append(path)
    return kept


class _Restore:
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
        self._deferred: list[tuple[Path, Entry]] = []

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
        if entry.content is None:
            if self._target.write_file(path, entry, b""):
                self._done(entry)
            return
        file = _File(path, entry)
        offset = 0
        try:
            for chunk_id, length in content_pairs(self._reader.get_node, entry):
                if chunk_id != HOLE:
                    self._pieces.setdefault(chunk_id, []).append((file, offset, length))
                    file.missing += 1
                    self._count += 1
                offset += length
                if self._count >= BATCH_PIECES_MAX:
                    self._fetch()
        except HoldfastError as error:
            file.lost = str(error)
        file.complete = True
        if not file.missing and not file.written:
            self._finish(file)

    def _fetch(self) -> None:
        """Fetch the chunks asked for and write them where they belong."""
        pieces, self._pieces, self._count = self._pieces, {}, 0
        for chunk_id, data in self._reader.read_chunks(list(pieces)):
            self._progress.check_stop()
            for file, offset, length in pieces[chunk_id]:
                self._write(file, offset, length, data)

    def _write(self, file: _File, offset: int, length: int, data: memoryview | HoldfastError) -> None:
        file.missing -= 1
        if isinstance(data, HoldfastError):
            file.lost = file.lost or str(data)
        elif len(data) != length:
            file.lost = f"a chunk has {len(data)} bytes where {length} belong"
        elif length == file.entry.size:
            file.written = True
            if self._target.write_file(file.path, file.entry, data):
                self._done(file.entry)
            return
        elif file.lost is None and not file.skipped:
            if file.target is None:
                file.target = self._target.make_file(file.path, file.entry)
                file.skipped = file.target is None
            if file.target is not None:
                try:
                    file.target.write_at(offset, data)
                except ObjectDamaged as error:
                    file.lost = str(error)
        if not file.missing and file.complete:
            self._finish(file)

    def _finish(self, file: _File) -> None:
        if file.lost is not None:
            if file.target is not None:
                file.target.discard()
            self._result.problems.append(Problem(file.path, f"lost: {file.lost}", ProblemKind.DAMAGED))
            return
        if file.target is None and not file.skipped:  # nothing but holes
            file.target = self._target.make_file(file.path, file.entry)
        if file.target is not None:
            file.target.finish()
            self._done(file.entry)

    def _done(self, entry: Entry) -> None:
        self._result.files += 1
        self._result.bytes += entry.size
        self._progress.files += 1
        self._progress.bytes += entry.size
