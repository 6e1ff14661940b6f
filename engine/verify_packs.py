"""Verify packs: reading packs whole on a few threads, and what came of it.

    with PackReading(…) as reading:      starts
        …                                the caller looks at trees meanwhile
    reading.wait()                       everything read, or the first error raised

What each pack says of itself is held against the index as it is read (repo_store/row_proof.py).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from engine.progress import Progress
from engine.session import Session
from engine.verify_report import VerifyReport
from repo_store.errors import ObjectMissing
from repo_store.frame import FrameName
from repo_store.pack import pack_name
from repo_store.pack_check import PackCheck, verify_pack
from repo_store.row_proof import RowProof
from repo_store.row_stream import RowsChanged

_THREADS = 2


class PackReading:
    """Reads the packs `chosen` (hash and size). Leaving it early reads no more."""

    def __init__(
        self,
        session: Session,
        report: VerifyReport,
        progress: Progress,
        chosen: Sequence[tuple[bytes, int]],
    ) -> None:
        self._session, self._report, self._progress = session, report, progress
        self._lock = Lock()
        self._waiting: Iterator[tuple[bytes, int]] = iter(chosen)
        self._proof = RowProof(session.index)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._stopped = False
        self._rows_changed = False
        progress.bytes_total = sum(size for _, size in chosen)
        self.good_packs: list[bytes] = []
        self.faulty_packs: list[bytes] = []
        """Read, and not whole; `bad_packs` are those of which nothing can be had."""
        self.bad_packs: set[bytes] = set()
        self.bad_frames: dict[FrameName, set[bytes]] = {}
        """Frames that do not open, and the packs in which that is so."""
        self._threads: list[Future[None]] = []

    def __enter__(self) -> "PackReading":
        self._threads = [self._pool.submit(self._work) for _ in range(_THREADS)]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped |= kind is not None
        self._pool.shutdown(wait=True)

    def wait(self) -> None:
        """Raise what reading raised: StorageError, Interrupted."""
        for thread in self._threads:
            thread.result()

    @property
    def whole(self) -> bool:
        """Whether every pack that was read is whole."""
        return not self.faulty_packs

    def rows_agree(self, *, all_packs: bool) -> bool:
        """Return whether the index has what the packs read say, and, if those were `all_packs`, says nothing else."""
        try:
            return (
                not self._rows_changed
                and self._proof.finish()
                and (not all_packs or self._proof.covers_all())
            )
        except RowsChanged:
            return False

    def _work(self) -> None:
        while not self._stopped:
            self._progress.check_stop()
            with self._lock:
                chosen = next(self._waiting, None)
            if chosen is None:
                return
            try:
                self._read(*chosen)
            except BaseException:
                self._stopped = True
                raise

    def _read(self, pack: bytes, size: int) -> None:
        session = self._session
        try:
            check = verify_pack(session.storage, session.ring, pack, session.reader.frame, size=size)
        except ObjectMissing:
            check = None  # removed meanwhile by a prune
        if check is not None and check.whole and check.directory is not None:
            try:
                self._proof.add_pack(pack, size, check.directory)
            except RowsChanged:
                self._rows_changed = True
        with self._lock:
            self._progress.bytes += size
            self._report.read_bytes += size
            if check is not None:
                self._take(pack, check)

    def _take(self, pack: bytes, check: PackCheck) -> None:
        self._report.packs_checked += 1
        if check.whole:
            self.good_packs.append(pack)
            self._report.contents_read &= check.contents
            return
        self.faulty_packs.append(pack)
        if check.problem is not None:
            self._report.add(pack_name(pack), check.problem)
        if not check.frames:
            self.bad_packs.add(pack)
        for frame, reason in check.damaged.items():
            self.bad_frames.setdefault(frame, set()).add(pack)
            self._report.add(pack_name(pack), reason)
