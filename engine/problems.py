"""Problems: what went wrong with one path while the rest went on, and how raw names are shown.

A name on disk is any bytes but "/" and NUL. Shown to a person or put into JSON it must not break a line,
move a cursor or hide what it is: `printable` escapes it, `from_printable` is the exact way back, so what
`ls` prints can be given to `restore`. This module touches no file.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from repo_store.entry import Path

CHANGED_WHILE_READ = "changed while it was read"
"""The message of the note on a file that never held still."""


class ProblemKind(StrEnum):
    """What a problem means for the run as a whole."""

    NOTE = "note"
    """Worth saying, and nothing is missing: a socket was skipped, ownership is kept as it is."""

    INCOMPLETE = "incomplete"
    """Something could not be read or given back: the snapshot or restore is not complete."""

    DAMAGED = "damaged"
    """The repository says what no snapshot of a file system can have said."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One path, and what is wrong with it; `path` is empty where it is about the whole."""

    path: Path
    message: str
    kind: ProblemKind = ProblemKind.INCOMPLETE

    def __str__(self) -> str:
        return f"{printable_path(self.path)}: {self.message}" if self.path else self.message


OnProblem = Callable[[Problem], None]
"""Takes each problem as it is met, for instance the append of a list; called from any thread."""


def reason(error: Exception) -> str:
    """Return why a system call failed, in the voice of our messages: "permission denied"."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:] if text else type(error).__name__


def printable(name: bytes) -> str:
    """Return `name` as text on one line, escaped so that `from_printable` gives the same bytes back.

    Bytes that are not UTF-8 and ASCII controls become \\xNN, other characters that do not print (bidirectional
    marks, line separators) \\uNNNN or \\UNNNNNNNN, a backslash is doubled.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def printable_path(path: Path) -> str:
    """Return the path with "/" between its escaped components."""
    return "/".join(map(printable, path))


def _escaped(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if character == "\n":
        return "\\n"
    if character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as surrogateescape carries it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(n)|(\\))")


def from_printable(text: str) -> bytes:
    """Return the name that `printable` shows as `text`; what is no escape stands for itself."""

    def raw(match: re.Match[str]) -> str:
        byte, short, long, newline, _ = match.groups()
        if byte is not None:
            code = int(byte, 16)
            return chr(code if code < 0x80 else code + 0xDC00)
        if newline is not None:
            return "\n"
        if short is None and long is None:
            return "\\"
        code = int(short or long, 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else match[0]

    return _ESCAPE.sub(raw, text).encode("utf-8", "surrogateescape")
