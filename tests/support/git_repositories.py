"""Real git repositories for tests, and what a test compares of two of them."""

import os
import subprocess
from pathlib import Path

_CONFIG = (
    "-c",
    "user.name=Test",
    "-c",
    "user.email=test@example.org",
    "-c",
    "init.defaultBranch=main",
    "-c",
    "gc.auto=0",
)


def git(repository: Path, *args: str | bytes, stdin: bytes = b"", check: bool = True) -> bytes:
    """Run git in `repository` and return what it printed, without the last line end."""
    done = subprocess.run(
        ["git", *_CONFIG, "-C", repository, *args],
        input=stdin,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"},
    )
    if check and done.returncode:
        raise AssertionError(f"git {args}: {done.stderr.decode(errors='replace')}")
    return done.stdout.rstrip(b"\n")


def make_bare(path: Path, *, object_format: str = "sha1") -> Path:
    """Make an empty bare repository."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--bare", f"--object-format={object_format}")
    return path


def commit(
    bare: Path, files: dict[str, bytes], *, parents: tuple[str, ...] = (), message: str = "change"
) -> str:
    """Add a commit with exactly these files to a bare repository, without any ref; return its id."""
    lines = []
    for name, data in sorted(files.items()):
        blob = git(bare, "hash-object", "-w", "--stdin", stdin=data)
        lines.append(b"100644 blob %s\t%s\n" % (blob, name.encode()))
    tree = git(bare, "mktree", stdin=b"".join(lines)).decode()
    above = [word for parent in parents for word in ("-p", parent)]
    return git(bare, "commit-tree", tree, "-m", message, *above).decode()


def push(bare: Path, branch: str, files: dict[str, bytes], *, message: str = "change") -> str:
    """Add a commit on top of `branch`, made if need be; return its id."""
    ref = f"refs/heads/{branch}"
    tip = git(bare, "rev-parse", "--verify", "-q", ref, check=False).decode()
    made = commit(bare, files, parents=(tip,) if tip else (), message=message)
    git(bare, "update-ref", ref, made)
    return made


def refs_of(repository: Path) -> bytes:
    """Return all refs with their values, and HEAD."""
    head = git(repository, "symbolic-ref", "-q", "HEAD", check=False) or git(repository, "rev-parse", "HEAD")
    return head + b"\n" + git(repository, "for-each-ref", "--format=%(objectname) %(refname) %(symref)")


def objects_of(repository: Path) -> list[bytes]:
    """Return the ids of everything that refs reach, in order."""
    listed = git(repository, "rev-list", "--all", "--objects").splitlines()
    return sorted(line.split(b" ")[0] for line in listed)


def assert_same(restored: Path, original: Path) -> None:
    """Assert that a restored repository has the refs and objects of the original and is clean."""
    assert refs_of(restored) == refs_of(original)
    assert objects_of(restored) == objects_of(original)
    git(restored, "fsck", "--full")
