"""A git repository made again from a manifest, and proven: for a restore as for a verification.

Packfiles are indexed by git one after the other, which computes the id of every object anew from its bytes; then come
refs, `git fsck`, and the files; at last the refs are read back through git and must have the digest that the manifest
says. What fsck says of the *form* of objects (real histories have malformed dates and modes) is
passed on as a note; what is missing, broken or unreadable fails the repository.
"""

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

from engine.git_tree import RepositoryTree
from engine.problems import printable, printable_path
from engine.progress import Progress
from engine.session import Session
from engine.sources.git_command import Git, GitFailed, end, failed
from engine.sources.git_files import KEPT, is_lfs_object
from engine.sources.git_refs import SYMBOLIC, Refs, read_refs
from repo_store.content import content_pairs
from repo_store.entry import HOLE, Entry, EntryKind, Path
from repo_store.errors import HoldfastError, ObjectDamaged

_CHUNKS_TOGETHER = 16
_FINDING = re.compile(rb"(error|warning) in (commit|tree|tag|blob) [0-9a-f]+: ")
_CHATTER = (b"notice: ", b"hint: ", b"warning: ")
_SAID_MAX = 10
_SHALLOW: Path = (b"shallow",)
_NOT_HERE = ("extensions.refStorage", "extensions.worktreeConfig", "core.worktree")
"""Settings that describe how and where the source kept its parts; what is made here is kept otherwise."""


def rebuild(session: Session, tree: RepositoryTree, gitdir: bytes, progress: Progress) -> list[str]:
    """Make the repository `tree` in the new directory `gitdir`; return what fsck said of the form of objects.

    Raises ObjectDamaged if it does not come out as it was, OSError if it cannot be written, StorageError.
    """
    git = Git(gitdir, progress)
    refs = tree.refs()
    try:
        git.run("init", "--bare", "--quiet", "--template=", f"--object-format={tree.object_format}")
        files = dict(tree.files())
        if _SHALLOW in files:
            write_kept(session, gitdir, _SHALLOW, files.pop(_SHALLOW))
        for path, entry in tree.packfiles:
            _index(session, git, path, entry, progress)
        _write_refs(git, refs)
        findings = _check(git)
        for path, entry in files.items():
            write_kept(session, gitdir, path, entry)
        _fit_config(git)
        if (digest := read_refs(git).digest) != tree.digest:
            raise ObjectDamaged("refs", f"they have the digest {digest.hex()}, not {tree.digest.hex()}")
    except GitFailed as error:
        raise ObjectDamaged("the repository", str(error)) from error
    return findings


def read_entry(session: Session, entry: Entry) -> Iterator[bytes | memoryview]:
    """Yield the bytes of an entry in order, a few MiB in memory. Raises ObjectDamaged, ObjectMissing."""
    gathered: list[tuple[bytes, int]] = []
    for pair in content_pairs(session.reader.get_node, entry):
        gathered.append(pair)
        if len(gathered) == _CHUNKS_TOGETHER:
            yield from _read_together(session, gathered)
            gathered = []
    yield from _read_together(session, gathered)


def _read_together(session: Session, pairs: list[tuple[bytes, int]]) -> Iterator[bytes | memoryview]:
    wanted = list(dict.fromkeys(chunk_id for chunk_id, _ in pairs if chunk_id != HOLE))
    found = {chunk_id: _own(data) for chunk_id, data in session.reader.read_chunks(wanted)}
    for chunk_id, length in pairs:
        data = bytes(length) if chunk_id == HOLE else found[chunk_id]
        if isinstance(data, HoldfastError):
            raise data
        if len(data) != length:
            raise ObjectDamaged(
                f"chunk {chunk_id.hex()[:16]}", f"has {len(data)} bytes where {length} belong"
            )
        yield data


def _own(data: memoryview | HoldfastError) -> bytes | HoldfastError:
    """Return bytes that stay good while others are read."""
    return data if isinstance(data, HoldfastError) else bytes(data)


def _index(session: Session, git: Git, path: Path, entry: Entry, progress: Progress) -> None:
    """Let git take a packfile in; what its deltas refer to is in those before."""
    args = ("index-pack", "--stdin", "--fix-thin")
    with tempfile.TemporaryFile() as said:
        child = git.start(*args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:  # then git has said why
                for data in read_entry(session, entry):
                    progress.check_stop()
                    progress.bytes += len(data)
                    child.stdin.write(data)
            git.wait(child)
        finally:
            end(child)
        said.seek(0)
        if child.returncode:
            raise ObjectDamaged(printable_path(path), str(failed(args, child.returncode, said.read())))


def _write_refs(git: Git, refs: Refs) -> None:
    """Write all refs at once as git packs them, then those that name others, and HEAD."""
    plain = [ref for ref in refs.refs if not ref.value.startswith(SYMBOLIC)]
    if plain:
        with open(os.path.join(git.gitdir, b"packed-refs"), "xb") as file:
            file.write(b"# pack-refs with: sorted \n")
            file.writelines(b"%s %s\n" % (ref.value, ref.name) for ref in plain)
    for ref in refs.refs:
        if ref.value.startswith(SYMBOLIC):
            git.run("symbolic-ref", ref.name, ref.value.removeprefix(SYMBOLIC))
    if refs.head.startswith(SYMBOLIC):
        git.run("symbolic-ref", "HEAD", refs.head.removeprefix(SYMBOLIC))
    else:
        git.run("update-ref", "--no-deref", "HEAD", refs.head)


def _check(git: Git) -> list[str]:
    """Let git check every object and that none is missing; return what it said of their form. Raises ObjectDamaged."""
    with tempfile.TemporaryFile() as said:
        args = ("fsck", "--full", "--no-dangling", "--no-progress")
        child = git.start(*args, stdin=None, stdout=said, stderr=said)
        git.wait(child)
        said.seek(0)
        lines = said.read().splitlines()
    findings = [line for line in lines if _FINDING.match(line)]
    others = [line for line in lines if not _FINDING.match(line) and not line.startswith(_CHATTER)]
    if child.returncode and (others or not findings):
        text = "; ".join(map(printable, others[:_SAID_MAX]))
        raise ObjectDamaged("the repository", f"git fsck: {text or f'status {child.returncode}'}")
    return [printable(line) for line in findings]


def write_kept(session: Session, gitdir: bytes, path: Path, entry: Entry) -> None:
    """Write a kept file or link. LFS objects must have the SHA-256 that their name says."""
    if path[0] not in KEPT:
        raise ObjectDamaged(printable_path(path), "no snapshot of a repository has that")
    target = os.path.join(gitdir, *path)
    _check_above(gitdir, path)
    if entry.kind == EntryKind.DIRECTORY:
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if entry.kind == EntryKind.SYMLINK:
        os.symlink((entry.extra or {})["target"], target)
        return
    with suppress(FileNotFoundError):
        os.unlink(target)  # the config that git has made
    hashed = sha256()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        for data in read_entry(session, entry):
            hashed.update(data)
            file.write(data)
        file.flush()
        os.fchmod(fd, stat.S_IMODE(entry.mode))
        os.fsync(fd)
    os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
    if is_lfs_object(path) and hashed.hexdigest().encode() != path[-1]:
        raise ObjectDamaged(printable_path(path), "its content is not the one that its name says")


def _check_above(gitdir: bytes, path: Path) -> None:
    """Raise ObjectDamaged if a link leads out of the repository on the way to `path`: no snapshot has made that."""
    for depth in range(1, len(path)):
        above = os.path.join(gitdir, *path[:depth])
        if os.path.lexists(above) and stat.S_ISLNK(os.lstat(above).st_mode):
            raise ObjectDamaged(printable_path(path), "it is below a link")


def _fit_config(git: Git) -> None:
    """Take out of the configuration what says how the source kept its parts."""
    config = os.path.join(git.gitdir, b"config")
    for setting in _NOT_HERE:
        with suppress(GitFailed):  # it is not set
            git.run("config", "--file", config, "--unset-all", setting)
