"""The threads that compress and seal, shared by all pack writers of a run.

Compression, encryption and hashing let go of the interpreter lock, so two threads keep two cores busy. Each
thread owns a `FrameCodec`: working memory is made once and stays with its core.

Law: the pool knows no packs and no storage; jobs handle their own errors.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

from repo_store.frame import FrameCodec

Job = Callable[[FrameCodec], None]


class WorkerPool:
    """`threads` threads that run jobs in the order they were submitted."""

    def __init__(self, threads: int = 2, *, level: int = 3) -> None:
        assert threads > 0
        self.threads = threads
        # A SimpleQueue is written in C: a SIGINT between two instructions of Python cannot leave it half changed.
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._run, args=(FrameCodec(level=level),), name=f"seal-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Let the next free thread run `job`, which must not raise. Never blocks."""
        self._jobs.put(job)

    def close(self) -> None:
        """Run what was submitted, then end the threads and wait for them."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, codec: FrameCodec) -> None:
        while (job := self._jobs.get()) is not None:
            job(codec)
