"""Retries: one loop for every request to S3, ours and not boto's.

boto's own retries are off. They end by a count, not by time; they cannot tell a server that restarts from one that
was never there; they would read nothing back between two tries of a conditional put; and they would wait where
nobody can interrupt them. So: an error that is likely to pass is tried again after a pause that doubles and is drawn
by lot (many clients that were cut off together must not come back together), until the operation has been failing
for a time that is set. The time runs from the first failure, not from the start: an upload over a thin line may last
an hour before something happens to it, and deserves its second try as much as any other.
"""

import random
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from repo_store.errors import ObjectMissing, StorageError
from repo_store.s3_errors import Trouble, Verdict, judge
from repo_store.s3_options import S3Options

Result = TypeVar("Result")

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 10.0
_PASSING = (Verdict.PASSING, Verdict.CONFLICT)


class Told(Exception):
    """The server gave an answer that the caller asked to hear: no failure, but no success either."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.verdict = trouble.verdict


class Retries:
    """Runs requests until they succeed or have failed for too long. For any number of threads."""

    def __init__(
        self,
        location: str,
        options: S3Options,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._location = location
        self._options = options
        self._clock, self._pause = clock, pause
        self._answered = False  # some server has answered, so this is the right place

    def run(
        self,
        verb: str,
        name: str,
        attempt: Callable[[], Result],
        *,
        hear: Collection[Verdict] = (),
        stop: threading.Event | None = None,
    ) -> Result:
        """Return what `attempt` returns, once it does.

        Raises Told for an answer that is among `hear`, ObjectMissing, and StorageError for everything else: at once
        where waiting does not help, else after the deadline. `stop` ends the waiting of a request nobody wants any more.
        """
        failing_since: float | None = None
        tries = 0
        while True:
            try:
                result = attempt()
            except Exception as error:
                trouble = judge(error)
                if trouble is None:
                    raise
                tries += 1
                self._answered = self._answered or trouble.answered
                self._raise_answer(verb, name, trouble, hear, error)
                now = self._clock()
                failing_since = now if failing_since is None else failing_since
                pause = _pause_seconds(tries)
                if now + pause - failing_since > self._patience():
                    raise self._gave_up(verb, name, trouble, tries, now - failing_since) from error
                if stop is None:
                    self._pause(pause)
                elif stop.wait(pause):
                    raise self._failure(verb, name, trouble) from error
            else:
                self._answered = True
                return result

    def _raise_answer(
        self, verb: str, name: str, trouble: Trouble, hear: Collection[Verdict], error: Exception
    ) -> None:
        """Raise what an error means, unless it is likely to pass."""
        if trouble.verdict in hear:
            raise Told(trouble) from error
        if trouble.verdict is Verdict.MISSING:
            raise ObjectMissing(name) from error
        if trouble.verdict not in _PASSING:
            raise self._failure(verb, name, trouble) from error

    def _patience(self) -> float:
        return self._options.deadline_seconds if self._answered else self._options.greeting_seconds

    def _failure(self, verb: str, name: str, trouble: Trouble) -> StorageError:
        return StorageError(f"{self._place(name)}: cannot {verb}: {trouble.reason}", hint=trouble.hint)

    def _gave_up(self, verb: str, name: str, trouble: Trouble, tries: int, seconds: float) -> StorageError:
        after = f"gave up after {tries} tries in {seconds:.0f} s" if tries > 1 else "gave up after one try"
        return StorageError(
            f"{self._place(name)}: cannot {verb}: {after}: {trouble.reason}", hint=trouble.hint
        )

    def _place(self, name: str) -> str:
        return f"{self._location}/{name}".rstrip("/")


def _pause_seconds(tries: int) -> float:
    """Return how long to wait after so many failures: between half and all of a time that doubles."""
    longest = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * (1 << min(tries, 16)))
    return longest * (0.5 + random.random() / 2)
