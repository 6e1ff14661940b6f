"""Git repositories out of a manifest: restored into a directory, or made in a temporary place to prove that they can be.

A repository is made under a temporary name beside its place, proven there (engine/git_rebuild.py), and only then
renamed. One that is there already is moved aside first and never deleted; if a restore fails, it has not been
touched. One that fails is named and the others go on.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.git_manifest import stored_repositories
from engine.git_rebuild import rebuild
from engine.git_tree import RepositoryTree
from engine.problems import Problem, ProblemKind, printable_path, reason
from engine.progress import Progress
from engine.reading_back import not_there
from engine.restore import owner_names_of
from engine.session import Session
from engine.sources.git_command import git_program
from engine.sources.owners import local_gid, local_uid
from repo_store.entry import Entry, Path
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing, UsageError
from repo_store.manifest import Manifest
from repo_store.tree_reader import LostNode


@dataclass(frozen=True)
class RepositoryCheck:
    """What became of one repository: status `ok`, `stale` (an earlier state) or `damaged`."""

    name: Path
    status: str
    refs_digest: bytes = b""
    findings: tuple[str, ...] = ()
    aside: bytes | None = None
    """Where one that was there before is now."""


@dataclass
class GitRestoreResult:
    """What a restore or a verification came to."""

    manifest: Manifest
    repositories: list[RepositoryCheck] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def status(self) -> str:
        """`damaged` if anything was lost, `incomplete` if anything could not be written or is stale, else `complete`."""
        kinds = {problem.kind for problem in self.problems}
        if ProblemKind.DAMAGED in kinds:
            return "damaged"
        return "incomplete" if ProblemKind.INCOMPLETE in kinds else "complete"


def restore_repositories(
    session: Session,
    manifest: Manifest,
    to: bytes | str,
    *,
    names: Sequence[Path] = (),
    progress: Progress | None = None,
) -> GitRestoreResult:
    """Restore the repositories of `manifest`, or those at and below `names`, into the directory `to`.

    Raises UsageError if a name is none of a repository, OSError if `to` cannot be made, StorageError.
    """
    progress = progress or Progress()
    result = GitRestoreResult(manifest)
    top = os.path.abspath(os.fsencode(to))
    os.makedirs(top, exist_ok=True)
    for name, tree in _chosen(session, manifest, names, result):
        progress.current = printable_path(name)
        place = os.path.join(top, *name)
        folder, last = os.path.split(place)
        making = os.path.join(folder, b".%s.restore-%s" % (last, secrets.token_hex(4).encode()))
        try:
            _make_folders(top, name[:-1])
            os.mkdir(making, 0o700)
            findings = rebuild(session, tree, making, progress)
            _give_owner(making, manifest, tree.entry)
            os.sync()  # before the name appears: what it names survives a power cut
            aside = _put_in_place(making, place)
            _sync(folder)
        except (ObjectDamaged, ObjectMissing, OSError) as error:
            _fail(result, name, error)
        else:
            _succeed(result, name, tree, findings, aside)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        progress.files += 1
    return result


def verify_repositories(
    session: Session, manifest: Manifest, *, names: Sequence[Path] = (), progress: Progress | None = None
) -> GitRestoreResult:
    """Make each repository of `manifest` (or those at and below `names`) in a temporary place and prove it.

    Raises UsageError if a name is none of a repository, StorageError.
    """
    progress = progress or Progress()
    result = GitRestoreResult(manifest)
    for name, tree in _chosen(session, manifest, names, result):
        progress.current = printable_path(name)
        with tempfile.TemporaryDirectory(prefix="holdfast-git-") as folder:
            try:
                findings = rebuild(session, tree, os.path.join(os.fsencode(folder), b"proof.git"), progress)
            except (ObjectDamaged, ObjectMissing, OSError) as error:
                _fail(result, name, error)
            else:
                _succeed(result, name, tree, findings, None)
        progress.files += 1
    return result


def _fail(result: GitRestoreResult, name: Path, error: HoldfastError | OSError) -> None:
    """Name a repository that did not come out: lost in the repository, or not written here."""
    environment = isinstance(error, OSError)
    kind = ProblemKind.INCOMPLETE if environment else ProblemKind.DAMAGED
    message = f"cannot be written: {reason(error)}" if environment else f"lost: {error}"
    result.problems.append(Problem(name, message, kind))
    result.repositories.append(RepositoryCheck(name, "failed" if environment else "damaged"))


def _succeed(
    result: GitRestoreResult, name: Path, tree: RepositoryTree, findings: list[str], aside: bytes | None
) -> None:
    for finding in findings:
        result.problems.append(Problem(name, f"git fsck: {finding}", ProblemKind.NOTE))
    if tree.is_stale:
        message = "could not be read by this snapshot; this is how an earlier one has it"
        result.problems.append(Problem(name, message, ProblemKind.INCOMPLETE))
    status = "stale" if tree.is_stale else "ok"
    check = RepositoryCheck(name, status, tree.digest, tuple(findings), aside)
    result.repositories.append(check)


def _chosen(
    session: Session, manifest: Manifest, names: Sequence[Path], result: GitRestoreResult
) -> Iterator[tuple[Path, RepositoryTree]]:
    """Yield the repositories of a manifest that are wanted, in order; what is lost of the tree is named."""
    if manifest.source != "git":
        raise UsageError(
            f"manifest {manifest.id.hex()[:12]} is of source {manifest.source}, not of git repositories",
            hint="`holdfast manifests` lists what there is",
        )
    git_program()
    wanted = [name for name in dict.fromkeys(names) if not any(_is_below(name, other) for other in names)]
    for name in wanted or ((),):
        found = False
        for each in _repositories(session, manifest, name, result):
            found = True
            yield each
        if not found and name:
            raise not_there(manifest, name)


def _is_below(name: Path, other: Path) -> bool:
    return len(name) > len(other) and name[: len(other)] == other


def _repositories(
    session: Session, manifest: Manifest, below: Path, result: GitRestoreResult
) -> Iterator[tuple[Path, RepositoryTree]]:
    """Yield the repositories at and below a path, each with all of its entries. One that lost any is named instead."""
    lost: list[LostNode] = []
    for stored in stored_repositories(session.reader.get_node, manifest.root, below, lost):
        if not stored.lost:
            yield stored.name, stored.tree
            continue
        result.repositories.append(RepositoryCheck(stored.name, "damaged"))
        message = "lost: not all of its entries can be read"
        result.problems.append(Problem(stored.name, message, ProblemKind.DAMAGED))
    for node in lost:
        message = f"{node.entries} entries from here on are lost: {node.error}"
        result.problems.append(Problem(node.first, message, ProblemKind.DAMAGED))


def _make_folders(top: bytes, folders: Path) -> None:
    """Make the directories above a repository and make them durable."""
    path = top
    for each in folders:
        path = os.path.join(path, each)
        if not os.path.isdir(path):
            os.mkdir(path)
            _sync(os.path.dirname(path))


def _give_owner(gitdir: bytes, manifest: Manifest, entry: Entry) -> None:
    """Give a repository the mode it had, and its owner if we may: by name where this host knows it."""
    os.chmod(gitdir, entry.mode)
    if os.geteuid() != 0:
        return
    users, groups = owner_names_of(manifest)
    uid = local_uid(users[entry.uid]) if entry.uid in users else None
    gid = local_gid(groups[entry.gid]) if entry.gid in groups else None
    owner = (entry.uid if uid is None else uid, entry.gid if gid is None else gid)
    os.chown(gitdir, *owner)
    for folder, directories, files in os.walk(gitdir):
        for each in (*directories, *files):
            os.lchown(os.path.join(folder, each), *owner)


def _put_in_place(making: bytes, place: bytes) -> bytes | None:
    """Rename a finished repository to its place; return where the one that was there before is now, if any."""
    aside = None
    if os.path.lexists(place):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()).encode()
        aside = b"%s.before-restore-%s-%s" % (place, stamp, secrets.token_hex(2).encode())
        os.rename(place, aside)  # noqa: PTH104 # bytes
    try:
        os.rename(making, place)  # noqa: PTH104
    except OSError:
        if aside is not None:
            os.rename(aside, place)  # noqa: PTH104
        raise
    return aside


def _sync(folder: bytes) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
