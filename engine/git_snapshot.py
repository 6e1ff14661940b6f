"""Snapshot of git repositories through git: refs first, then what they reach and the previous snapshot has not got.

A repository whose refs have the digest of the previous snapshot costs one `git for-each-ref` and a look at its few
small files; its packfiles are entered again, unread. One that has changed adds a packfile (engine/sources/git_packfile.py),
and is packed anew as a whole once what was added has grown to half of the first. One that fails is named and kept as
it was in the previous snapshot, the others go on. All of a repository goes into the tree at once: a checkpoint
never has half of one.
"""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace

from chunker import Parameters
from engine.git_manifest import PreviousRepositories
from engine.git_store import GitFiles
from engine.git_tree import (
    RepositoryTree,
    as_stale,
    directory,
    packfile_path,
    ref_entries,
    repository_entry,
    with_directories,
)
from engine.problems import Problem, ProblemKind, printable, printable_path, reason
from engine.progress import Interrupted, Progress
from engine.session import Session
from engine.snapshot_run import SnapshotOptions, SnapshotRun
from engine.sources.git_command import Git, git_program
from engine.sources.git_files import shallow_digest
from engine.sources.git_find import DEPTH, Found, find_repositories
from engine.sources.git_packfile import Packfile, make_packfile
from engine.sources.git_refs import Refs, settled_refs
from engine.sources.owners import owner_names
from repo_store.entry import Entry, Path
from repo_store.errors import SourceError
from repo_store.manifest import Manifest

GIT_PARAMETERS = Parameters.fixed(1024 * 1024)
"""Packfiles are compressed and never the same twice: cuts inside would find nothing, so a chunk fills a frame."""
REBASE_SHARE = 0.5
REBASE_BYTES_MIN = 1024 * 1024
REBASE_PACKFILES = 256
_TRIES = 3
_SHALLOW = "a shallow clone: of its history it has the newest part only"


@dataclass(frozen=True)
class RepositoryResult:
    """What a snapshot came to for one repository: status `new`, `changed`, `unchanged` or `failed`."""

    name: Path
    status: str
    refs_digest: bytes | None = None
    moving: bool = False
    new_objects: int = 0


@dataclass(frozen=True)
class GitSnapshotResult:
    """The committed manifest, every problem met, and what each repository came to, in order."""

    manifest: Manifest
    problems: list[Problem]
    repositories: list[RepositoryResult]


def snapshot_git(
    session: Session,
    paths: Iterable[bytes | str] = (),
    *,
    under: bytes | str | None = None,
    depth: int = DEPTH,
    options: SnapshotOptions | None = None,
    progress: Progress | None = None,
) -> GitSnapshotResult:
    """Back up the repositories at `paths` and all that are found `under` a directory.

    Raises SourceError if there is none, UsageError if two would have one name, Interrupted with its checkpoint.
    """
    git_program()
    progress = progress or Progress()
    given = [os.fsencode(path) for path in paths]
    problems: list[Problem] = []
    found = find_repositories(given, under, depth, problems.append)
    tops = given if under is None else [*given, os.fsencode(under)]
    name = ",".join(sorted(printable(os.path.abspath(top)) for top in tops))
    options = replace(options or SnapshotOptions(), parameters=GIT_PARAMETERS)
    run = SnapshotRun(session, source="git", name=name, options=options, progress=progress)
    with run:
        run.problems += problems
        run.details["roots"] = sorted({each.name[0]: each.root for each in found}.items())
        repositories = _GitRun(run)
        try:
            for each in found:
                repositories.store(each)
        except Interrupted as interrupted:
            kept = run.checkpoint()
            interrupted.manifest = None if kept is None else kept.id.hex()
            raise
        run.details["owners"] = repositories.owners()
        result = run.finish()
    return GitSnapshotResult(result.manifest, result.problems, repositories.results)


class _GitRun:
    """The repositories of one snapshot, one after the other, in the order of their names."""

    def __init__(self, run: SnapshotRun) -> None:
        self._run = run
        base = None if run.options.full_read else run.base
        root = None if base is None else base.root
        # What the previous tree has lost is stored anew as a whole: so a snapshot heals.
        self._before = PreviousRepositories(run.session.reader.get_node, root)
        self._files = GitFiles(run)
        self._above: set[Path] = set()
        self._uids: set[int] = set()
        self._gids: set[int] = set()
        self.results: list[RepositoryResult] = []

    def owners(self) -> dict[str, object]:
        """Return the names of the owners met, as the manifest keeps them."""
        names = owner_names(self._uids, self._gids)
        return {"users": sorted(names.users.items()), "groups": sorted(names.groups.items())}

    def store(self, found: Found) -> None:
        """Store one repository; if it fails it is named, and kept as it was before."""
        run = self._run
        if run.tick():
            run.writer.data.finish_frame()
            run.checkpoint()
        run.progress.current = printable_path(found.name)
        before = self._previous(found.name)
        try:
            tree, result = self._read(found, before)
            self._add(found.name, tree)
        except (SourceError, OSError) as error:
            message = reason(error)
            if before is not None:
                message += "; it is kept as it was in the previous snapshot"
                self._add(found.name, RepositoryTree(as_stale(before.entry), before.entries))
            run.report(Problem(found.name, message))
            result = RepositoryResult(found.name, "failed")
        self.results.append(result)

    def _previous(self, name: Path) -> RepositoryTree | None:
        """Return the repository as the previous snapshot has it, None if not all of that can be relied on."""
        before = self._before.advance(name)
        if before is None or self._run.writer.all_intact:
            return before
        return before if all(map(self._run.writer.is_intact, before.entries.values())) else None

    def _read(self, found: Found, before: RepositoryTree | None) -> tuple[RepositoryTree, RepositoryResult]:
        """Read one repository. Raises SourceError, OSError."""
        git = Git(found.gitdir, self._run.progress)
        refs = settled_refs(git, None if before is None else before.digest)
        shallow = shallow_digest(found.gitdir)
        # Where history is cut off in another place, what the packfiles reach is not what the source reaches.
        packed = before if before is not None and before.shallow == shallow else None
        if packed is not None and refs.digest == packed.digest:
            status, objects = "unchanged", 0
            object_format, packfiles = packed.object_format, dict(packed.packfiles)
            refs = replace(refs, moving=False)
        else:
            status = "new" if before is None else "changed"
            refs, object_format, packfiles, objects = self._read_changed(git, refs, packed)
        entries = packfiles | ref_entries(refs) | self._files.store(found, before)
        whole = dict(with_directories(entries))
        self._report_refs(found.name, refs)
        if shallow:
            self._run.report(Problem(found.name, _SHALLOW, ProblemKind.NOTE))
        owner = os.stat(found.gitdir)
        self._uids.add(owner.st_uid)
        self._gids.add(owner.st_gid)
        top = repository_entry(
            found.name[-1],
            owner.st_mode & 0o7777,
            owner.st_uid,
            owner.st_gid,
            object_format=object_format,
            refs=refs,
            shallow=shallow,
        )
        result = RepositoryResult(found.name, status, refs.digest, refs.moving, objects)
        return RepositoryTree(top, whole), result

    def _read_changed(
        self, git: Git, refs: Refs, before: RepositoryTree | None
    ) -> tuple[Refs, str, dict[Path, Entry], int]:
        """Return the refs, the object format, the packfiles and how many objects are new.

        Objects can go while they are packed (a branch is pushed over, then `git gc`): then all is read again, at last
        without relying on what was there before.
        """
        object_format = git.run("rev-parse", "--show-object-format").decode().strip()
        _refuse_partial(git)
        kept = before if before is not None and not self._is_rebase_due(before) else None
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            if attempt:
                refs = settled_refs(git)
                kept = None if last else kept
            try:
                packfiles, objects = self._pack(git, refs, kept, object_format)
                return refs, object_format, packfiles, objects
            except SourceError:
                if last:
                    raise
        raise AssertionError("the last try returns or raises")

    def _pack(
        self, git: Git, refs: Refs, kept: RepositoryTree | None, object_format: str
    ) -> tuple[dict[Path, Entry], int]:
        """Store what is new as a packfile behind those that are `kept`."""
        packfiles: dict[Path, Entry] = {} if kept is None else dict(kept.packfiles)
        known = [] if kept is None else kept.refs().tips
        with tempfile.TemporaryDirectory(prefix="holdfast-git-") as folder:
            made: Packfile | None = make_packfile(
                git, os.fsencode(folder), refs.tips, known, object_format, self._run.progress
            )
            if made is None:
                return packfiles, 0
            path = packfile_path(int(max(packfiles)[-1]) + 1 if packfiles else 1)
            packfiles[path] = self._files.store_packfile(path[-1], made.path)
            return packfiles, made.objects

    def _is_rebase_due(self, before: RepositoryTree) -> bool:
        """Say whether the packfiles that were added have grown so that one of the whole is better."""
        sizes = [entry.size for _, entry in before.packfiles]
        added = sum(sizes[1:])
        return len(sizes) >= REBASE_PACKFILES or (
            added >= REBASE_BYTES_MIN and added >= REBASE_SHARE * sizes[0]
        )

    def _report_refs(self, name: Path, refs: Refs) -> None:
        if refs.moving:
            message = "its refs changed while they were read, every time: they are not those of one moment"
            self._run.report(Problem(name, message, ProblemKind.NOTE))
        for complaint in refs.broken:
            kind = ProblemKind.NOTE if b"dangling symref" in complaint else ProblemKind.INCOMPLETE
            self._run.report(Problem(name, f"git for-each-ref: {printable(complaint)}", kind))

    def _add(self, name: Path, tree: RepositoryTree) -> None:
        """Hand all entries of a repository to the manifest's tree, with the directories above it."""
        add = self._run.tree.add
        for depth in range(1, len(name)):
            above = name[:depth]
            if above not in self._above:
                self._above.add(above)
                add(above[:-1], directory(above[-1]))
        add(name[:-1], tree.entry)
        for path, entry in sorted(tree.entries.items()):
            whole = (*name, *path)
            add(whole[:-1], entry)
        self._run.progress.files += 1


def _refuse_partial(git: Git) -> None:
    """Raise SourceError for a partial clone: what it has not fetched is at its remote alone."""
    folder = os.path.join(git.gitdir, b"objects", b"pack")
    if os.path.isdir(folder) and any(name.endswith(b".promisor") for name in os.listdir(folder)):
        raise SourceError("a partial clone, which has not all of its objects")
