"""Rewriting: the new form of a file, from the pieces of the old one that are right and the repository for the others.

A piece is right if what the old file has in its place hashes to the id of the chunk that belongs there; it is hashed from
the very bytes that are then written, so it does not matter who writes to the old file meanwhile. What is missing is gathered
and fetched together. A file of which anything is lost is discarded and named, and the old one stays.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from blake3 import blake3

from engine.existing_target import ExistingTarget, NewFile
from engine.problems import OnProblem, Problem, ProblemKind
from engine.progress import Progress
from engine.restore import BATCH_PIECES_MAX
from engine.target import ENTRY_FAILED
from repo_store.chunk_reader import ChunkReader, Found
from repo_store.content import content_pairs
from repo_store.entry import HOLE, Entry, Path
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing


@dataclass(eq=False, slots=True)
class _File:
    """A file being rewritten: its new form, pieces missing still, whether all are asked for, why it is lost."""

    path: Path
    entry: Entry
    new: NewFile
    missing: int = 0
    complete: bool = False
    lost: str | None = None


_Piece = tuple[_File, int, int]


class Rewriter:
    """Compares and rewrites the contents of files. `on_done` hears of each file that is in its place."""

    def __init__(
        self,
        reader: ChunkReader,
        id_key: bytes,
        target: ExistingTarget,
        progress: Progress,
        on_problem: OnProblem,
        on_done: Callable[[Entry], None],
    ) -> None:
        self._reader, self._key, self._target = reader, id_key, target
        self._progress, self._on_problem, self._on_done = progress, on_problem, on_done
        self._pieces: dict[bytes, list[_Piece]] = {}
        self._count = 0
        self._lock = Lock()

    def has_content(self, path: Path, entry: Entry) -> bool:
        """Say whether the file at `path` has the content of `entry`; one that cannot be read has not."""
        fd, offset = self._open_old(path), 0
        if fd is None:
            return False
        try:
            for chunk_id, length in content_pairs(self._reader.get_node, entry):
                self._progress.check_stop()
                if self._old_piece(fd, chunk_id, offset, length) is None:
                    return False
                offset += length
            return True
        except (ObjectDamaged, ObjectMissing):
            return False
        finally:
            os.close(fd)

    def _open_old(self, path: Path) -> int | None:
        try:
            return self._target.open_old(path)
        except OSError:
            return None

    def _old_piece(self, fd: int, chunk_id: bytes, offset: int, length: int) -> bytes | None:
        """Return the bytes of the open file if they are those of the chunk; of a hole no bytes, if it reads as zeros."""
        try:
            if chunk_id == HOLE:
                return b"" if _is_zero(fd, offset, length) else None
            data = os.pread(fd, length, offset)
        except OSError:  # what cannot be read is read from the repository
            return None
        return data if blake3(data, key=self._key).digest() == chunk_id and len(data) == length else None

    def rewrite(self, path: Path, entry: Entry, found: os.stat_result | None) -> None:
        """Begin the new form of a file, with what the old one has of it, and ask for the rest."""
        file = _File(path, entry, self._target.begin(path, entry))
        old = self._open_old(path) if found is not None and stat.S_ISREG(found.st_mode) else None
        offset = 0
        try:
            for chunk_id, length in content_pairs(self._reader.get_node, entry):
                data = (
                    None
                    if old is None or chunk_id == HOLE
                    else self._old_piece(old, chunk_id, offset, length)
                )
                if data is not None:
                    self._target.write_at(file.new, offset, data)
                elif chunk_id != HOLE:
                    file.missing += 1
                    self._pieces.setdefault(chunk_id, []).append((file, offset, length))
                    self._count += 1
                offset += length
                if self._count >= BATCH_PIECES_MAX:
                    self.fetch()
        except (ObjectDamaged, ObjectMissing) as error:
            file.lost = str(error)
        except BaseException:
            file.lost = file.lost or "it was given up"
            raise
        finally:
            if old is not None:
                os.close(old)
        file.complete = True
        if not file.missing:
            self._finish(file)

    def fetch(self) -> None:
        """Fetch the pieces asked for and write them where they belong."""
        pieces, self._pieces, self._count = self._pieces, {}, 0

        def take(found: Sequence[Found]) -> None:
            with self._lock:
                self._progress.check_stop()
                for chunk_id, data in found:
                    for piece in pieces[chunk_id]:
                        self._write(*piece, data)

        if pieces:
            self._reader.sweep(pieces, take)

    def _write(self, file: _File, offset: int, length: int, data: memoryview | HoldfastError) -> None:
        file.missing -= 1
        if isinstance(data, HoldfastError):
            file.lost = file.lost or str(data)
        elif len(data) != length:
            file.lost = f"a chunk has {len(data)} bytes where {length} belong"
        elif file.lost is None:
            try:
                self._target.write_at(file.new, offset, data)
            except ObjectDamaged as error:
                file.lost = str(error)
            except ENTRY_FAILED as error:
                self._target.failed(file.path, error)
                file.lost = ""
        if not file.missing and file.complete:
            self._finish(file)

    def _finish(self, file: _File) -> None:
        try:
            if file.lost is not None:
                self._target.discard(file.new)
                if file.lost:
                    self._on_problem(Problem(file.path, f"lost: {file.lost}", ProblemKind.DAMAGED))
                return
            self._target.stage(file.new)
        except ENTRY_FAILED as error:
            self._target.failed(file.path, error)
            return
        if self._target.is_full:
            self.commit()

    def commit(self) -> None:
        """Put everything that is whole in its place."""
        for new in self._target.commit():
            self._on_done(new.entry)


def _is_zero(fd: int, offset: int, length: int) -> bool:
    end = offset + length
    while offset < end:
        data = os.pread(fd, min(1 << 20, end - offset), offset)
        if not data or data.count(0) != len(data):
            return False
        offset += len(data)
    return True
