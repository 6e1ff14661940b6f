"""Row cache: the folder of runs that the processes of one user share for one repository.

    <random>.run    a run; never changed, removed once no list names it
    <random>.tmp    a run being written
    made/           tables that this machine has put and not loaded yet, so that it need not fetch them
    list            the names of the runs that together hold the rows of all tables loaded, and a hash
    lock            held (flock) while the list is read and exchanged

Theory. The list is exchanged by rename, so a reader sees one whole state; it opens the runs of that state and keeps
them open, so what another process removes stays readable to it. Whoever changes the list holds the lock. One who cannot
get it in time (the holder may be stopped) works on, and keeps its new runs to itself. Nothing is synced: after a power
cut a list or run may be torn, which its hash tells, and what is torn is made again. Removing any file, or all, at any
time costs work and nothing else.
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgpack
from blake3 import blake3

from repo_store.cache_file import write_cache_file
from repo_store.os_errors import cache_failing
from repo_store.run import Run, RunDamaged
from repo_store.run_writer import RUN_SUFFIX, TEMPORARY_SUFFIX, make_private_folder
from repo_store.sealed_cache import SealedCache

LOCK_SECONDS_MAX = 20.0
_LOCK_POLL_SECONDS = 0.05
_LIST, _LOCK = "list", "lock"
_HASH_BYTES = 32


class RowCache:
    """The folder, and the runs of it that this process has open."""

    def __init__(self, cache_dir: str, lineage: bytes) -> None:
        """Make the folder if need be, for this user only. Raises StorageError."""
        self.folder = os.path.join(cache_dir, f"rows-{lineage.hex()[:16]}")
        self._lineage = lineage
        self._open: dict[str, Run] = {}
        make_private_folder(self.folder)
        self.tables = SealedCache(Path(self.folder, "made"), "tables/")

    @contextmanager
    def lock(self, seconds_max: float = LOCK_SECONDS_MAX) -> Iterator[bool]:
        """Hold the lock inside. Gives False if another process kept it for `seconds_max`: the list is then not ours."""
        make_private_folder(self.folder)
        path = os.path.join(self.folder, _LOCK)
        with cache_failing("lock", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _lock_before(fd, time.monotonic() + seconds_max)
        finally:
            os.close(fd)

    def opened(self) -> list[Run]:
        """Return the runs of the list as it was last read or published."""
        return list(self._open.values())

    def load(self) -> list[Run]:
        """Return the runs of the newest list; those that are missing or damaged are left out."""
        runs = []
        for name in self._read_list():
            run = self._open.get(name) or self._open_run(name)
            if run is not None:
                runs.append(run)
        self._open = {run.name: run for run in runs}
        return runs

    def _open_run(self, name: str) -> Run | None:
        try:
            fd = os.open(os.path.join(self.folder, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return Run(fd, name, self._lineage)
        except (RunDamaged, OSError):
            return None

    def _read_list(self) -> list[str]:
        try:
            data = Path(self.folder, _LIST).read_bytes()
        except OSError:
            return []
        if len(data) < _HASH_BYTES or blake3(data[_HASH_BYTES:]).digest() != data[:_HASH_BYTES]:
            return []
        names = msgpack.unpackb(data[_HASH_BYTES:])
        return [name for name in names if name.endswith(RUN_SUFFIX) and "/" not in name]

    def publish(self, runs: Iterable[Run]) -> None:
        """Make `runs` the state that others see, and remove every other run. The lock must be held. Raises StorageError."""
        self._open = {run.name: run for run in runs}
        body = msgpack.packb(list(self._open))
        path = Path(self.folder, _LIST)
        with (
            cache_failing("write", str(path)),
            suppress(FileNotFoundError),
        ):  # someone removed the cache: so be it
            write_cache_file(path, blake3(body).digest() + body)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the runs that no list names, and what a killed process left half written.

        A process without the lock may be writing a run of its own: it needs the open file only, not the name.
        """
        with suppress(OSError):  # too many files in a cache harm nobody
            for name in os.listdir(self.folder):
                if name not in self._open and name.endswith((RUN_SUFFIX, TEMPORARY_SUFFIX)):
                    os.unlink(os.path.join(self.folder, name))


def _lock_before(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return True
