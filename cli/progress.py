"""Progress of long work, shown on stderr: a bar on a terminal, else a plain line now and then, else events.

A thread looks at the engine's counters; the work never waits for it.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.interruption import stopping
from cli.output import Output, count, duration, size

if TYPE_CHECKING:
    from engine.progress import Progress

_BAR_SECONDS = 0.1
_EVENT_SECONDS = 1.0
_LINE_SECONDS = 30.0
_RATE_SECONDS = 10.0


@contextmanager
def watched(output: Output, doing: str, *, of: str = "file") -> Iterator["Progress"]:
    """Yield the progress of a run, shown while it lasts; signals ask the run to stop.

    `doing` is what a person reads, `of` the noun of what the run counts.
    """
    from engine.progress import Progress

    progress = Progress()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(output, doing, of, progress, done), daemon=True)
    with stopping(progress.stop):
        watcher.start()
        try:
            yield progress
        finally:
            done.set()
            watcher.join()


def _watch(output: Output, doing: str, noun: str, progress: "Progress", done: threading.Event) -> None:
    if output.events:
        _events(output, progress, done)
    elif output.quiet:
        done.wait()
    elif sys.stderr.isatty():
        _bar(doing, noun, progress, done)
    else:
        _lines(doing, noun, progress, done)


def _events(output: Output, progress: "Progress", done: threading.Event) -> None:
    started = time.monotonic()
    finished = False
    while not finished:
        finished = done.wait(_EVENT_SECONDS)
        output.event(
            "progress",
            phase=progress.phase,
            files=progress.files,
            bytes=progress.bytes,
            files_total=progress.files_total or None,
            bytes_total=progress.bytes_total or None,
            seconds=round(time.monotonic() - started, 3),
        )


def _lines(doing: str, noun: str, progress: "Progress", done: threading.Event) -> None:
    rate = _Rate()
    while not done.wait(_LINE_SECONDS):
        print(f"holdfast: {doing}: {_state(progress, noun, rate)}", file=sys.stderr, flush=True)


def _state(progress: "Progress", noun: str, rate: "_Rate") -> str:
    """Return "1,234 files, 5.6 GiB of 9.0 GiB, 120.3 MiB/s, 30.1 s left"."""
    speed = rate.of(progress.bytes)
    total = f" of {size(progress.bytes_total)}" if progress.bytes_total else ""
    state = f"{count(progress.files, noun)}, " if progress.files else ""
    state += f"{size(progress.bytes)}{total}, {size(speed)}/s"
    if progress.bytes_total and speed > 0:
        state += f", {duration(max(0, progress.bytes_total - progress.bytes) / speed)} left"
    return state


class _Rate:
    """Bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._points = [(time.monotonic(), 0)]

    def of(self, bytes_now: int) -> float:
        """Take the count as it is now; return the rate."""
        now = time.monotonic()
        self._points.append((now, bytes_now))
        while len(self._points) > 2 and now - self._points[1][0] > _RATE_SECONDS:
            del self._points[0]
        then, before = self._points[0]
        return (bytes_now - before) / max(now - then, 1e-6)


def _bar(doing: str, noun: str, progress: "Progress", done: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    rate = _Rate()
    with Bar(
        *columns,
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    ) as bar:
        task = bar.add_task(doing, total=None, state="")
        finished = False
        while not finished:
            finished = done.wait(_BAR_SECONDS)
            state = _state(progress, noun, rate)
            total = progress.bytes_total or None
            bar.update(task, completed=progress.bytes, total=total, state=state, refresh=True)
