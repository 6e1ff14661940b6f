"""Paths inside a manifest, as `ls` prints them and restore, cat and ls take them."""

from typing import TYPE_CHECKING

from repo_store.errors import UsageError

if TYPE_CHECKING:
    from repo_store.entry import Path


def parse_path(text: str) -> "Path":
    """Return the path that `ls` prints as `text`; a "/" at its end does no harm. Raises UsageError for an empty one."""
    from engine.problems import from_printable

    # Split first: an escape can never stand for the "/" between two names.
    path = tuple(from_printable(part) for part in text.split("/") if part not in ("", "."))
    if not path:
        raise UsageError(f"{text!r}: not a path in a manifest", hint="`holdfast ls` prints them")
    return path
