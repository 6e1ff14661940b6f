"""Excludes: which paths below a root a snapshot leaves out, in the syntax and with the meaning of gitignore.

A path is judged relative to its root, as raw bytes, and a directory that is excluded is not entered, so
nothing below it can be taken back with "!" — the rule of git. The roots themselves are never excluded: they
were asked for by name.

`pathspec` translates the patterns. Its expressions also match everything below what they name; as excluded
directories are pruned, the walk needs the match of the path itself and nothing else, and then the last
pattern that matches decides, exactly as in git (the tests compare with `git check-ignore`). `_exact` rewrites
the end of the expression accordingly.
"""

import os
import re
from collections.abc import Iterable

from engine.problems import printable, reason
from repo_store.errors import UsageError

PATTERN_FILE_BYTES_MAX = 16 * 1024 * 1024
CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""What a CACHEDIR.TAG file starts with (bford.info/cachedir); other files of that name mean nothing."""

_THIS_OR_BELOW = b"(?:(?P<ps_d>/)|$)"
_DIRECTORY_OR_BELOW = b"(?P<ps_d>/)"


class Excludes:
    """Gitignore patterns, ready to judge paths. False where there is no pattern at all."""

    def __init__(self, patterns: Iterable[bytes | str]) -> None:
        """Compile the patterns, last one strongest. Raises UsageError naming one that is none."""
        lines = [os.fsencode(pattern) for pattern in patterns]
        self._rules = _compiled(lines) if lines else []
        self._rules.reverse()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excluded(self, path: bytes) -> bool:
        """Say whether to leave out `path`, relative to the root and ending in "/" if it is a directory."""
        for expression, excludes in self._rules:
            if expression.search(path) is not None:
                return excludes
        return False


def _compiled(lines: Iterable[bytes]) -> list[tuple[re.Pattern[bytes], bool]]:
    # Only here: pathspec takes as long to load as the walk of thousands of files, and most snapshots exclude nothing.
    from pathspec.patterns.gitignore import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    rules = []
    for line in lines:
        try:
            expression, excludes = GitIgnoreSpecPattern.pattern_to_regex(_spelled_out(line))
        except GitIgnorePatternError as error:
            raise UsageError(f"{printable(line)}: is not a gitignore pattern") from error
        if expression is not None and excludes is not None:
            rules.append((re.compile(_exact(expression), re.DOTALL), excludes))
    return rules


def _spelled_out(line: bytes) -> bytes:
    """Return the pattern in the form that pathspec reads as git does: to it "a/**/" would name `a` itself."""
    pattern = line.rstrip()
    return pattern + b"*/" if pattern.endswith(b"/**/") else line


def _exact(expression: bytes) -> bytes:
    """Return pathspec's expression narrowed to the path itself, for use with DOTALL: names hold newlines."""
    if expression.endswith(_THIS_OR_BELOW):
        return expression.removesuffix(_THIS_OR_BELOW) + rb"/?\Z"
    if expression.endswith(_DIRECTORY_OR_BELOW):
        return expression.removesuffix(_DIRECTORY_OR_BELOW) + rb"/\Z"
    if expression.endswith(b"/"):  # from a trailing "/**": what is inside, not the directory
        return expression + b"."
    assert expression == b".", f"pathspec made an expression of a new shape: {expression!r}"
    return expression


def read_patterns(path: bytes | str) -> list[bytes]:
    """Return the lines of a pattern file. Raises UsageError if it cannot be read or is too large for one."""
    shown = printable(os.fsencode(path))
    try:
        with open(path, "rb") as file:
            content = file.read(PATTERN_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{shown}: pattern file cannot be read: {reason(error)}") from error
    if len(content) > PATTERN_FILE_BYTES_MAX:
        raise UsageError(f"{shown}: pattern file is larger than {PATTERN_FILE_BYTES_MAX} bytes")
    return [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]


def tags_present(directory_fd: int, names: Iterable[bytes], *, caches: bool) -> list[bytes]:
    """Return, sorted, which of `names` lie in the directory, and CACHEDIR.TAG if `caches` and it is a real one."""
    tags = {name for name in names if _exists(directory_fd, name)}
    if caches and _is_cache_tag(directory_fd):
        tags.add(CACHE_TAG)
    return sorted(tags)


def _exists(directory_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except OSError:
        return False  # what cannot be seen marks nothing; if the directory is unreadable, its listing says so
    return True


def _is_cache_tag(directory_fd: int) -> bool:
    try:
        # O_NONBLOCK: a fifo of this name must not hang the walk.
        fd = os.open(CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory_fd)
    except OSError:
        return False
    try:
        return os.read(fd, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)
