"""A program run as a process of its own, and what it took.

CPU time and memory are those of the process and of all that it waited for (`wait4`), so a program in any language is
measured alike. Whoever calls this must be small: on Linux a new process counts the memory of the one that started it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ERROR_CHARACTERS = 2_000
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""As a user has it: Python compiles every module at every start where this is set."""


class Usage(NamedTuple):
    """Wall-clock and CPU seconds (user and system, all threads), and peak resident memory in bytes."""

    seconds: float
    cpu: float
    peak: int


class Failed(Exception):
    """The program ended with another code than 0."""


def run_measured(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[Usage, str]:
    """Run a program to its end; return what it took and what it printed. Raises Failed, with what it said."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            cwd=folder,
            env={**_ENVIRONMENT, **(environment or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-ERROR_CHARACTERS:]
            raise Failed(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
        out.seek(0)
        usage = Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
        return usage, out.read().decode(errors="replace")


def together(parts: Sequence[Usage]) -> Usage:
    """Return what programs run one after the other took: sums, and the highest peak."""
    return Usage(
        sum(part.seconds for part in parts),
        sum(part.cpu for part in parts),
        max((part.peak for part in parts), default=0),
    )


def least(rounds: Sequence[Usage]) -> Usage:
    """Return the least of several rounds, each figure for itself: what disturbs a run only ever adds."""
    return Usage(*(min(values) for values in zip(*rounds, strict=True)))


def stored_bytes(folder: Path) -> int:
    """Return the sum of the lengths of all files below `folder`."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.stat(os.path.join(parent, name)).st_size for name in names)
    return total


def files_and_bytes(folder: Path) -> tuple[int, int]:
    """Return how many plain files there are below `folder`, and the sum of their lengths."""
    lengths = [
        os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names
    ]
    return len(lengths), sum(lengths)
