"""A packfile of what is new in a repository, made and proven before any of it is stored.

What is new is listed first (`git rev-list`), then packed from this list; deltas may refer to objects of the packfiles
before. The proof: git reads the packfile from its first byte to its last, takes every object out of it and computes
its id anew, in a directory of its own; and these ids must be those of the list, no more and no fewer. So what is damaged in
the source, or goes missing while it is read, fails the repository and is not found out at the restore.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from engine.progress import Progress
from engine.sources.git_command import Git
from repo_store.errors import SourceError

_SUM_MODULUS = 2**320
_LISTED, _MADE, _PROOF = b"listed", b"packfile", b"proof.git"


@dataclass(frozen=True)
class Packfile:
    """A packfile in a file, proven, and how many objects are in it."""

    path: bytes
    objects: int


@dataclass(frozen=True)
class _Sum:
    """How many ids a list has and what they add up to: lists of any length and order are compared by it."""

    count: int
    total: int


def make_packfile(
    git: Git,
    folder: bytes,
    tips: Sequence[bytes],
    known: Sequence[bytes],
    object_format: str,
    progress: Progress,
) -> Packfile | None:
    """Pack what `tips` reach and `known` do not, in `folder`; None if that is nothing.

    Raises SourceError if an object is damaged or missing.
    """
    if not tips:
        return None
    listed, made = os.path.join(folder, _LISTED), os.path.join(folder, _MADE)
    excluded = _existing(git, known)
    edges = ("--objects-edge-aggressive",) if excluded else ("--objects",)
    wanted = b"".join(b"%s\n" % tip for tip in tips) + b"".join(b"^%s\n" % tip for tip in excluded)
    with open(listed, "w+b") as ids, tempfile.TemporaryFile() as given:
        given.write(wanted)
        given.seek(0)
        git.run_on_files("rev-list", *edges, "--stdin", stdin=given, stdout=ids)
        expected = _sum_of_list(ids)
        if not expected.count:
            return None
        ids.seek(0)
        with open(made, "wb") as file:
            git.run_on_files("pack-objects", "--stdout", "-q", "--delta-base-offset", stdin=ids, stdout=file)
    if _sum_of_packfile(git, folder, made, object_format, progress, lent=bool(excluded)) != expected:
        raise SourceError("the packfile that git made does not hold the objects that it should")
    return Packfile(made, expected.count)


def _existing(git: Git, tips: Sequence[bytes]) -> list[bytes]:
    """Return those of `tips` that the repository still has."""
    if not tips:
        return []
    answer = git.run("cat-file", "--batch-check=%(objectname)", stdin=b"".join(b"%s\n" % tip for tip in tips))
    return [tip for tip, line in zip(tips, answer.splitlines(), strict=True) if line == tip]


def _sum_of_list(file: IO[bytes]) -> _Sum:
    """Sum up the ids that rev-list has printed; lines with a "-" name what is only referred to."""
    count = total = 0
    file.seek(0)
    for line in file:
        if not line.startswith(b"-"):
            count += 1
            total += int(line.split(None, 1)[0], 16)
    return _Sum(count, total % _SUM_MODULUS)


def _sum_of_packfile(
    git: Git, folder: bytes, path: bytes, object_format: str, progress: Progress, *, lent: bool
) -> _Sum:
    """Let git read the packfile at `path` to its end, and sum up the ids of the objects in it.

    Where deltas refer to objects that are not in it, the source lends them. Raises SourceError if it does not hold.
    """
    proof = os.path.join(folder, _PROOF)
    alternates = [os.path.join(git.gitdir, b"objects")] if lent else []
    reader = Git(proof, progress, alternates=alternates)
    reader.run("init", "--bare", "--quiet", "--template=", f"--object-format={object_format}")
    fix = ("--fix-thin",) if lent else ()
    with open(path, "rb") as file, tempfile.TemporaryFile() as answer:
        reader.run_on_files("index-pack", "--stdin", *fix, stdin=file, stdout=answer)
        answer.seek(0)
        name = answer.read().split()[-1]
    # Objects that were lent are appended to the copy behind those that the packfile has itself.
    end = os.path.getsize(path) - (20 if object_format == "sha1" else 32)
    index = os.path.join(proof, b"objects", b"pack", b"pack-%s.idx" % name)
    count = total = 0
    with open(index, "rb") as file, tempfile.TemporaryFile() as answer:
        reader.run_on_files("show-index", f"--object-format={object_format}", stdin=file, stdout=answer)
        answer.seek(0)
        for line in answer:
            offset, object_id = line.split(None, 2)[:2]
            if int(offset) < end:
                count += 1
                total += int(object_id, 16)
    return _Sum(count, total % _SUM_MODULUS)
