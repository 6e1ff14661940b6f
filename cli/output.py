"""Output: the one voice of holdfast, and the two forms of its answers.

stdout holds the answer: lines for a person, or with --json exactly one document. stderr holds the rest: errors
("holdfast: what happened, where", lower case, no period, then perhaps "hint: …"), warnings, progress; with
--events every line of it is a JSON object. Nothing else in cli/ writes to either.
"""

import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from repo_store.errors import HoldfastError


@dataclass
class Output:
    """How this call of holdfast speaks."""

    json: bool = False
    events: bool = False
    quiet: bool = False
    answered: bool = False
    """Whether stdout holds the document already, or belongs to something else: then no other follows."""

    def line(self, text: str = "") -> None:
        """Print a line of the answer; not with --json, which answers with a document."""
        if not self.json:
            self.write(f"{one_line(text)}\n")

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of the answer."""
        for line in lines:
            self.line(line)

    def remark(self, text: str = "") -> None:
        """Print a line of the answer that --quiet leaves out as well."""
        if not self.quiet:
            self.line(text)

    def document(self, value: object) -> None:
        """Print the document of --json; a list has one item a line. Does nothing without --json."""
        if not self.json or self.answered:
            return
        self.answered = True
        if isinstance(value, list) and value:
            self.write("[\n" + ",\n".join(map(to_json, value)) + "\n]\n")
        else:
            self.write(to_json(value) + "\n")

    def write(self, text: str) -> None:
        """Write to stdout as it is. Raises HoldfastError if that fails, BrokenPipeError if the reader has gone."""
        with _writing():
            sys.stdout.write(text)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write bytes to stdout; see `write`."""
        with _writing():
            sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Write what is still held back; see `write`."""
        with _writing():
            sys.stdout.flush()

    def warn(self, message: str) -> None:
        """Say on stderr what should be known though the work goes on."""
        if self.events:
            self.event("warning", message=message)
        else:
            _to_stderr(f"holdfast: warning: {message}")

    def problem(self, path: str, message: str, kind: str) -> None:
        """Say on stderr what is wrong with one path; notes, which cost nothing, not with --quiet."""
        if self.events:
            self.event("problem", path=path, message=message, kind=kind)
        elif kind != "note" or not self.quiet:
            _to_stderr(f"holdfast: {f'{path}: ' if path else ''}{message}")

    def event(self, event: str, **fields: object) -> None:
        """Write a line of --events. Does nothing without it."""
        if self.events:
            _to_stderr(to_json({"event": event, **fields}))

    def complain(self, message: str, hint: str | None, exit_code: int, **fields: object) -> None:
        """Say on stderr why holdfast ends, and with --json on stdout too, as the one document."""
        error = {"error": message, "hint": hint, "exit_code": exit_code, **fields}
        if self.events:
            self.event("error", **error)
        else:
            _to_stderr(f"holdfast: {message}" + (f"\nhint: {hint}" if hint else ""))
        self.document(error)


def to_json(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        give_up_stdout()
        raise HoldfastError(
            f"standard output: cannot write: {(error.strerror or str(error)).lower()}"
        ) from None


def give_up_stdout() -> None:
    """Let what is still held back go nowhere instead of failing again when the interpreter ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def fill_standard_streams() -> None:
    """Open what was closed of stdin, stdout and stderr on nothing.

    Else the next file that is opened, which may be a pack, would get the number that output is written to.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number free, so this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def _to_stderr(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody is left to tell that stderr is closed
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def use_any_characters() -> None:
    """Let no name end a run because the terminal's encoding lacks its characters: they are shown as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """Return `text` with everything escaped that would break a line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """Return aligned lines under `header`; the columns named in `right` are aligned right, the last is not padded."""
    cells = [list(header), *([one_line(text) for text in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(header, row, widths, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return [line(row) for row in cells]


def size(count: int | float) -> str:
    """Return bytes as text in IEC units: "512 B", "1.5 MiB"."""
    if count < 1024:
        return f"{count:.0f} B"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB")
    value = float(count)
    for unit in units:
        value /= 1024
        if value < 1023.95 or unit == units[-1]:  # what would be shown as 1024.0 is shown as 1.0 of the next
            break
    return f"{value:.1f} {unit}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 file", "1,234 files"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def local_time(time_ns: int) -> str:
    """Return a time for a person: local, to the second."""
    from datetime import datetime

    return datetime.fromtimestamp(time_ns // 1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Return a duration for a person: "2.3 s", "4 min 10 s", "3 h 5 min"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
