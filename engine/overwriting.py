"""Overwriting: a manifest restored over what is there, only what differs rewritten.

Each entry is judged by what is in its place, and done: left as it is, given its metadata, or replaced whole
(existing_target.py). `never` looks at nothing that is there; `changed` takes a file of the same size and time for the same;
`always` trusts only content. Where a file is not taken for the same, its pieces are hashed, those that have the id of
the chunk that belongs there are taken from it, and only the others are read from the repository.

Deleting comes last, after everything is restored (deleting.py). It needs to know all that the manifest has, so nothing
is deleted if any of that is lost, or if the manifest is not complete. A directory where something else belongs gives way
when that is whole, and only if all of it may go.

With `dry_run` the same judgements are made and nothing is changed. So no judgement may rest on what the run itself has
done so far: a file counts as one with several names if it had them when first seen, however many were exchanged since,
and a link to a file that is exchanged is made anew.
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.collector import collecting_rarely
from engine.deleting import delete_extras
from engine.existing_directories import Tops
from engine.existing_target import NOT_EMPTY, ExistingTarget
from engine.overwrite import Change, OnChange, Overwrite, OverwriteOptions, OverwriteResult
from engine.problems import Problem, ProblemKind
from engine.progress import Progress
from engine.removal import Identity, Removal, identity, is_directory, is_empty
from engine.restore import chosen_entries, outermost, owner_names_of
from engine.rewriting import Rewriter
from engine.session import Session
from engine.target import ENTRY_FAILED, TargetOptions
from engine.target_directories import Unrestorable
from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import Refused
from repo_store.manifest import Manifest

_FILE, _DIRECTORY, _STREAM = int(EntryKind.FILE), int(EntryKind.DIRECTORY), int(EntryKind.STREAM)
_TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.STREAM: stat.S_IFREG,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
}


@collecting_rarely()
def overwrite_tree(
    session: Session,
    manifest: Manifest,
    tops: Tops,
    *,
    paths: Sequence[Path] = (),
    options: OverwriteOptions | None = None,
    progress: Progress | None = None,
    on_change: OnChange = lambda change, path: None,
) -> OverwriteResult:
    """Restore `paths` of `manifest`, or all of it, to where `tops` says, over what is there.

    Raises UsageError if a path is not in the manifest, Refused if something is to be deleted by a manifest that
    does not have all of its source, StorageError if the target or the repository's storage fails.
    """
    options = options or OverwriteOptions()
    if options.delete and manifest.status != "complete":
        raise Refused(
            f"manifest {manifest.id.hex()[:12]} is {manifest.status}: what it has not got may still have been there",
            hint="restore without --delete",
        )
    result = OverwriteResult(manifest)
    entries = chosen_entries(session, manifest, paths, result.problems.append)
    names = owner_names_of(manifest)
    changed = _teller(result, on_change)
    removal = Removal(
        result.problems.append,
        lambda path, _: changed(Change.DELETE, path),
        frozenset(identity(os.stat(path)) for path in options.protected if os.path.exists(path)),
        options.dry_run,
    )
    target = ExistingTarget(
        tops,
        _target_options(options, manifest),
        names,
        result.problems.append,
        create=not options.dry_run,
        clear=removal.remove if options.delete else None,
    )
    try:
        run = _Overwriting(session, target, removal, result, options, progress or Progress(), changed)
        run.run(entries, {path[:depth] for path in outermost(paths) for depth in range(1, len(path))})
        if options.delete:
            run.delete(outermost(paths))
        if not options.dry_run:
            target.finish()
    finally:
        target.close()
    return result


def _teller(result: OverwriteResult, on_change: OnChange) -> OnChange:
    def changed(change: Change, path: Path) -> None:
        result.changes[change] = result.changes.get(change, 0) + 1
        result.deleted += change == Change.DELETE
        on_change(change, path)

    return changed


def _target_options(options: OverwriteOptions, manifest: Manifest) -> TargetOptions:
    """Leave attributes alone if the snapshot has not read them: that it has none says nothing."""
    target = options.target
    read = target.xattrs and manifest.parameters.get("xattrs", 1) != 0
    return TargetOptions(numeric_ids=target.numeric_ids, xattrs=read, durable=target.durable)


class _Overwriting:
    def __init__(
        self,
        session: Session,
        target: ExistingTarget,
        removal: Removal,
        result: OverwriteResult,
        options: OverwriteOptions,
        progress: Progress,
        changed: OnChange,
    ) -> None:
        self._session = session
        self._target, self._removal, self._result, self._options = target, removal, result, options
        self._progress, self._changed = progress, changed
        self._rewriter = Rewriter(
            session.reader,
            session.ring.data_chunk_id_key,
            target,
            progress,
            result.problems.append,
            self._done,
        )
        self._first_links: dict[int, tuple[Path, Entry]] = {}
        self._deferred: list[tuple[Path, Entry]] = []
        self._links_kept: dict[int, bool] = {}  # of groups whose first name is restored: whether it was there
        self._claimed: dict[Identity, int | None] = {}  # files with several names: the group that has them
        self._passed: Path | None = None  # nothing is restored below it
        self._new: set[Path] = set()  # directories that a dry run has not made

    def run(self, entries: Iterable[tuple[Path, Entry]], above: set[Path]) -> None:
        """Restore all entries; those of `above` are directories that only lead to them."""
        for path, entry in entries:
            self._progress.check_stop()
            if self._passed is not None and path[: len(self._passed)] == self._passed:
                self._result.skipped += entry.kind != _DIRECTORY
                continue
            self._one(path, entry, above)
        self._rewriter.fetch()
        self._rewriter.commit()
        for path, entry in self._deferred:
            self._attempt(path, entry, self._link)
        self._rewriter.fetch()
        self._rewriter.commit()

    def _one(self, path: Path, entry: Entry, above: set[Path]) -> None:
        if entry.kind == _DIRECTORY:
            if not self._attempt(
                path, entry, lambda *_: self._directory(path, entry, only_way=path in above)
            ):
                self._passed = path
        elif self._is_later_link(path, entry):
            self._deferred.append((path, entry))
        else:
            self._attempt(path, entry, self._file_or_special)

    def _attempt(self, path: Path, entry: Entry, work: Callable[[Path, Entry], None]) -> bool:
        try:
            work(path, entry)
            return True
        except ENTRY_FAILED as error:
            return self._target.failed(path, error)

    def _status(self, path: Path) -> os.stat_result | None:
        if self._is_below_new(path):
            return None
        found = self._target.directories.status(path)
        if found is not None:
            self._note_names(found)
        return found

    def _is_below_new(self, path: Path) -> bool:
        return bool(self._new) and any(path[:depth] in self._new for depth in range(1, len(path)))

    def _note_names(self, found: os.stat_result) -> None:
        """Remember a file with several names, before one of them is taken away."""
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            self._claimed.setdefault(identity(found), None)

    def _left(self, path: Path, found: os.stat_result) -> bool:
        """Say whether what is there stays whatever the manifest has in its place."""
        if identity(found) in self._removal.protected:
            self._result.problems.append(Problem(path, _PROTECTED, ProblemKind.NOTE))
        elif self._options.overwrite != Overwrite.NEVER:
            return False
        self._result.skipped += 1
        return True

    def _directory(self, path: Path, entry: Entry, *, only_way: bool) -> None:
        found, dry = self._status(path), self._options.dry_run
        if found is not None and identity(found) in self._removal.protected:
            self._result.problems.append(Problem(path, _PROTECTED, ProblemKind.NOTE))
            self._passed = path
        elif found is not None and stat.S_ISDIR(found.st_mode):
            keeps = only_way or self._options.overwrite == Overwrite.NEVER
            if not keeps and not self._target.fits(path, found, entry):
                self._changed(Change.METADATA, path)
            if not dry:
                self._target.keep_directory(path, None if keeps else entry, found)
        elif found is not None and self._options.overwrite == Overwrite.NEVER:
            self._result.skipped += 1
            self._passed = path
        elif found is not None and only_way:
            raise Unrestorable(
                "something else is where the directory on the way should be, and is left alone"
            )
        else:
            self._changed(Change.CREATE if found is None else Change.REWRITE, path)
            if not dry:
                self._target.make_directory(path, entry, replace=found is not None)
            elif not self._is_below_new(path):
                self._new.add(path)

    def _file_or_special(self, path: Path, entry: Entry) -> None:
        found = self._status(path)
        if found is not None and self._left(path, found):
            return
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._check_directory_may_go(path)
        elif found is not None and self._is_same(path, entry, found) and self._keep(path, entry, found):
            return
        self._changed(Change.CREATE if found is None else Change.REWRITE, path)
        if self._options.dry_run:
            self._done(entry)
        elif entry.kind in (_FILE, _STREAM):
            self._rewriter.rewrite(path, entry, found)
        else:
            self._target.make_special(path, entry)
            self._done(entry)

    def _check_directory_may_go(self, path: Path) -> None:
        """Raise Unrestorable if the directory where something else belongs has to stay, or anything in it.

        It goes when what takes its place is whole (ExistingTarget); what a dry run would delete is told here.
        """
        parent_fd, leaf = self._target.directories.place(path)
        if not self._options.delete:
            if not is_empty(parent_fd, leaf):
                raise Unrestorable(NOT_EMPTY)
            return
        if not is_directory(parent_fd, leaf):
            return  # a root that is a link to one: only the link goes
        going: list[Path] = []

        def goes(inner: Path, found: os.stat_result) -> None:
            self._note_names(found)
            going.append(inner)

        if not replace(self._removal, on_removed=goes, dry_run=True).remove(parent_fd, path, leaf):
            raise Unrestorable(NOT_EMPTY)
        if self._options.dry_run:
            for inner in going:
                self._changed(Change.DELETE, inner)

    def _splits(self, found: os.stat_result, group: int | None) -> bool:
        """Say whether the file has other names that the snapshot does not know it by."""
        if identity(found) not in self._claimed:
            return False
        if self._claimed[identity(found)] is None:
            self._claimed[identity(found)] = group
        return group is None or self._claimed[identity(found)] != group

    def _keep(self, path: Path, entry: Entry, found: os.stat_result) -> bool:
        """Leave a file with the right content; False if it has names or metadata that it cannot keep."""
        if self._splits(found, _group(entry)):
            return False
        if not self._target.fits(path, found, entry):
            if identity(found) in self._claimed:
                return False
            self._changed(Change.METADATA, path)
            if not self._options.dry_run:
                self._target.correct(path, entry)
        self._result.unchanged += 1
        self._note_link(entry, kept=True)
        return True

    def _is_same(self, path: Path, entry: Entry, found: os.stat_result) -> bool:
        """Say whether what is there has the kind and content of `entry`."""
        if stat.S_IFMT(found.st_mode) != _TYPES[EntryKind(entry.kind)]:
            return False
        extra = entry.extra or {}
        if entry.kind in (_FILE, _STREAM):
            if found.st_size != entry.size:
                return False
            if self._options.overwrite == Overwrite.CHANGED and found.st_mtime_ns == entry.mtime_ns:
                return True
            return self._rewriter.has_content(path, entry)
        if entry.kind == EntryKind.SYMLINK:
            parent_fd, leaf = self._target.directories.place(path)
            return bool(os.readlink(leaf, dir_fd=parent_fd) == extra["target"])
        return entry.kind == EntryKind.FIFO or found.st_rdev == os.makedev(*extra["rdev"])

    def _done(self, entry: Entry) -> None:
        self._note_link(entry, kept=False)
        self._result.files += 1
        self._result.bytes += entry.size
        self._progress.files += 1
        self._progress.bytes += entry.size

    def _note_link(self, entry: Entry, *, kept: bool) -> None:
        group = _group(entry)
        if group is not None:
            self._links_kept.setdefault(group, kept)

    def _is_later_link(self, path: Path, entry: Entry) -> bool:
        group = _group(entry)
        return group is not None and self._first_links.setdefault(group, (path, entry))[1] is not entry

    def _link(self, path: Path, entry: Entry) -> None:
        """Restore a further name of a file: that of its first, if that has the same content and was restored."""
        group = _group(entry)
        assert group is not None
        first_path, first = self._first_links[group]
        same = (first.kind, first.size, first.content) == (entry.kind, entry.size, entry.content)
        if not same or group not in self._links_kept:
            self._file_or_special(path, entry._replace(extra=_without_link(entry)))
            return
        found = self._status(path)
        at = self._status(first_path) if self._links_kept[group] else None
        if found is not None and at is not None and identity(found) == identity(at):
            self._result.unchanged += 1
            return
        if found is not None and self._left(path, found):
            return
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._check_directory_may_go(path)
        if self._options.dry_run or self._target.make_link(path, first_path):
            self._changed(Change.CREATE if found is None else Change.REWRITE, path)
            self._done(entry)
        else:
            self._file_or_special(path, entry._replace(extra=_without_link(entry)))

    def delete(self, paths: Sequence[Path]) -> None:
        """Delete what is below the restored paths and not in the manifest, unless part of that is lost."""
        if self._result.damaged:
            message = "nothing is deleted: part of the manifest is lost"
            self._result.problems.append(Problem((), message))
            return
        manifest = self._result.manifest
        delete_extras(self._session, manifest, paths, self._target.directories, self._removal, self._progress)


_PROTECTED = "left as it is: the repository, or what belongs to it"


def _group(entry: Entry) -> int | None:
    group: int | None = entry.extra.get("link") if entry.extra else None
    return group


def _without_link(entry: Entry) -> dict[str, object]:
    return {key: value for key, value in (entry.extra or {}).items() if key != "link"}
