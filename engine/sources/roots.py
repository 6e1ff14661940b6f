"""Roots: the paths a snapshot starts from, and the names they are stored under.

Every root is stored under the last component of its path, so a restore gives OUT/<name>/…; two roots with
one name are refused unless `--as NAME=PATH` says which is which. A root that is a symbolic link is followed:
who backs up `/srv/current` wants the files, and a lone link would be noticed only at the restore. Links
below a root are stored as links.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.problems import printable, reason
from repo_store.errors import SourceError, UsageError


@dataclass(frozen=True, slots=True)
class Root:
    """A path to back up and the name of its entry. The path is absolute, its links not yet followed."""

    name: bytes
    path: bytes


def plan_roots(
    paths: Iterable[bytes | str], names: Mapping[bytes | str, bytes | str] | None = None
) -> list[Root]:
    """Return the roots for `paths` and for `names` (`--as NAME=PATH`), sorted by name as the walk needs them.

    A path in `names` is stored under that name whether or not it is among `paths` too; a path given twice
    counts once. Raises UsageError for a name that is taken, missing or impossible, SourceError for a path
    that cannot be reached.
    """
    roots: dict[bytes, bytes] = {}
    named = {os.fsencode(name): _absolute(path) for name, path in (names or {}).items()}
    for name, path in named.items():
        _add(roots, _checked(name), path)
    for path in map(_absolute, paths):
        if path in named.values():
            continue
        name = os.path.basename(path)
        if not name:
            raise UsageError(
                f"{printable(path)}: has no name of its own", hint="give one with --as NAME=PATH"
            )
        _add(roots, name, path)
    for path in roots.values():
        try:
            os.stat(path)
        except OSError as error:
            raise SourceError(f"{printable(path)}: {reason(error)}") from error
    return [Root(name, path) for name, path in sorted(roots.items())]


def _absolute(path: bytes | str) -> bytes:
    raw = os.fsencode(path)
    if not raw or b"\0" in raw:
        raise UsageError("a path to back up is empty or holds a NUL byte")
    # The name of "." is that of the directory, so dots are resolved; links are not, they may be a root's name.
    absolute = os.path.abspath(raw)
    return b"/" if absolute == b"//" else absolute


def _checked(name: bytes) -> bytes:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise UsageError(f"{printable(name) or 'an empty name'}: cannot be the name of a root")
    return name


def _add(roots: dict[bytes, bytes], name: bytes, path: bytes) -> None:
    taken = roots.get(name)
    if taken is not None and taken != path:
        raise UsageError(
            f"{printable(taken)} and {printable(path)} would both be stored as {printable(name)}",
            hint="name one of them with --as NAME=PATH",
        )
    roots[name] = path
