"""Interruption of a long run: the first signal asks it to stop at a safe point, the second ends it at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPING = b"\nholdfast: stopping; once more ends it at once\n"


@contextmanager
def stopping(stop: Event) -> Iterator[None]:
    """While inside, let SIGINT and SIGTERM set `stop`, and raise KeyboardInterrupt if it is set already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        if sys.stderr.isatty():
            with suppress(OSError):
                os.write(2, _STOPPING)  # print may be under way in the very moment

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
