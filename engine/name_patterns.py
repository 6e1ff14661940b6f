"""Name patterns: what a user writes to find entries.

    *.jpg               names: the pattern has no slash
    uploads/*.jpg       the end of a path, at any depth
    /www/uploads/**     a whole path, from the top of the snapshot

`*`, `?` and `[...]` stay within a name; `**` as a component is any number of names, at the end at least one. Matching
goes by characters; a byte that is not UTF-8 counts as one, and may be written as `ls` shows it. No file is touched.
"""

import re
from fnmatch import translate

from engine.problems import from_printable
from repo_store.entry import Path
from repo_store.errors import UsageError

PATTERN_CHARACTERS_MAX = 4096
_ANY_DEPTH = "**"
_EMPTY_HINT = "`*` matches every name"


def shown_name(name: bytes) -> str:
    """Return a name in the form that patterns match: every byte string has one, and no two the same."""
    return name.decode("utf-8", "surrogateescape")


def name_pattern(text: str, *, ignore_case: bool = False) -> "re.Pattern[str]":
    """Return the expression that the name must match in full. Raises UsageError."""
    if "/" in text:
        raise UsageError(f"{text}: a name has no slash", hint="--path takes patterns of paths")
    if not text:
        raise UsageError("an empty pattern matches nothing", hint=_EMPTY_HINT)
    if len(text) > PATTERN_CHARACTERS_MAX:
        raise UsageError(f"a pattern of {len(text)} characters is too long")
    return re.compile(translate(shown_name(from_printable(text))), re.IGNORECASE if ignore_case else 0)


class PathPattern:
    """A pattern of whole paths or of their ends."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        """Raises UsageError for one that can match nothing."""
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if not parts:
            raise UsageError(f"{text!r}: matches nothing", hint=_EMPTY_HINT)
        if not text.startswith("/"):
            parts.insert(0, _ANY_DEPTH)
        if parts[-1] == _ANY_DEPTH:
            parts.append("*")
        self._parts = [
            None if part == _ANY_DEPTH else name_pattern(part, ignore_case=ignore_case) for part in parts
        ]

    def matches(self, parent: Path, name: str) -> bool:
        """Say whether the path of `name` in the directory `parent` fits."""
        last = self._parts[-1]
        assert last is not None
        if not last.match(name):
            return False  # before the directories are looked at: nearly always
        return self._fits([shown_name(each) for each in parent])

    def _fits(self, names: list[str]) -> bool:
        """Match all parts but the last, going back to the latest "any depth" only: time is at most parts × names."""
        parts = self._parts[:-1]
        at = part = 0
        depth_part, depth_at = -1, 0
        while at < len(names):
            expression = parts[part] if part < len(parts) else None
            if part < len(parts) and expression is None:
                depth_part, depth_at = part, at
                part += 1
            elif expression is not None and expression.match(names[at]):
                at, part = at + 1, part + 1
            elif depth_part >= 0:
                depth_at += 1
                at, part = depth_at, depth_part + 1
            else:
                return False
        return all(each is None for each in parts[part:])
