"""The refs of a git repository: read through git, whatever keeps them, and summed up in one digest.

One reading is not atomic: git goes through the refs while others push. Two successive readings that agree are taken
for a moment that was; a repository that never holds still is recorded as moving, and each value in it was true at
some time during the reading.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from engine.sources.git_command import Git, GitFailed
from repo_store.errors import SourceError

READINGS_MAX = 5
NAME_BYTES_MAX = 4096
"""The longest name of a ref; git's own limits are lower where a ref is a file."""
SYMBOLIC = b"ref: "
_HEAD_BYTES_MAX = 8192
_HEAD_ELSEWHERE = b"ref: refs/heads/.invalid"
"""What a file HEAD says where refs are kept in another way."""
_FORMAT = "%(objectname) %(refname) %(symref)"


class Ref(NamedTuple):
    """One ref: its whole name, and what it says: the id of an object in hex, or `ref: ` and the name of another."""

    name: bytes
    value: bytes


@dataclass(frozen=True)
class Refs:
    """All refs of a repository in the order of their names, and HEAD, which may name a branch that is not there yet."""

    head: bytes
    refs: tuple[Ref, ...]
    broken: tuple[bytes, ...] = ()
    """What git said of refs that it cannot read."""
    moving: bool = False

    @property
    def digest(self) -> bytes:
        """The SHA-256 of HEAD and all refs, a line each (docs/git.md)."""
        whole = sha256(b"%s HEAD\n" % self.head)
        for ref in self.refs:
            whole.update(b"%s %s\n" % (ref.value, ref.name))
        return whole.digest()

    @property
    def tips(self) -> list[bytes]:
        """The ids of the objects that refs and a detached HEAD name, each once, in order."""
        values = {ref.value for ref in self.refs} | {self.head}
        return sorted(value for value in values if not value.startswith(SYMBOLIC))


def read_refs(git: Git) -> Refs:
    """Read the refs once. Raises SourceError if there is no HEAD or git cannot say."""
    output, complaints = _for_each_ref(git)
    refs = []
    for line in output.splitlines():
        value, name, target = line.split(b" ", 2)
        if len(name) > NAME_BYTES_MAX:
            raise SourceError(f"a ref with a name of {len(name)} bytes")
        refs.append(Ref(name, SYMBOLIC + target if target else value))
    broken = tuple(line for line in complaints.splitlines() if b"ignoring" in line)
    return Refs(_read_head(git), tuple(sorted(refs)), broken)


def settled_refs(git: Git, known: bytes | None = None) -> Refs:
    """Read the refs until two successive readings agree, or one has the digest `known`: nothing has changed.

    After READINGS_MAX readings the last is returned as moving.
    """
    before = None
    for _ in range(READINGS_MAX):
        refs = read_refs(git)
        if refs == before or refs.digest == known:
            return refs
        before = refs
    return Refs(refs.head, refs.refs, refs.broken, moving=True)


def _for_each_ref(git: Git) -> tuple[bytes, bytes]:
    import tempfile

    with tempfile.TemporaryFile() as answer:
        complaints = git.run_on_files("for-each-ref", f"--format={_FORMAT}", stdin=None, stdout=answer)
        answer.seek(0)
        return answer.read(), complaints


def _read_head(git: Git) -> bytes:
    """Return HEAD as its file has it; git is asked only where that is no plain answer: a process less for each."""
    try:
        fd = os.open(os.path.join(git.gitdir, b"HEAD"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            text = file.read(_HEAD_BYTES_MAX).rstrip()
    except OSError:
        text = b""
    if text.startswith(SYMBOLIC + b"refs/") and text != _HEAD_ELSEWHERE and b"\n" not in text:
        return text
    try:
        return SYMBOLIC + git.run("symbolic-ref", "-q", "HEAD").strip()
    except GitFailed:
        return git.run("rev-parse", "--verify", "-q", "HEAD").strip()
