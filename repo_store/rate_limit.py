"""A limit on bytes per second, shared by all threads that send or receive through it.

Each taker is told to wait until what was taken before it would have passed at the given rate. So the rate holds over
all threads together, those who came first go first, and there is no thread that hands out tokens.
"""

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.25
"""Time not used does not count for longer than this: a pause earns no flood."""


class RateLimit:
    """At most `bytes_per_second`; None is no limit."""

    def __init__(
        self,
        bytes_per_second: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._passed_at = 0.0  # when all that was taken will have passed

    @property
    def piece_bytes(self) -> int | None:
        """How much to take at a time so that the flow is steady, a tenth of a second's worth; None is any amount."""
        return None if self._rate is None else max(1, self._rate // 10)

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may pass."""
        if self._rate is None or not count:
            return
        with self._lock:
            now = self._clock()
            self._passed_at = max(self._passed_at, now - BURST_SECONDS) + count / self._rate
            wait = self._passed_at - now
        if wait > 0:
            self._sleep(wait)
