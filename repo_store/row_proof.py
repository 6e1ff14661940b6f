"""Row proof: whether the rows of an index say of packs what their directories say, and know what is asked for.

    directories of packs ──> rows as they should be ──┐ sorted, side by side
    rows of the index    ─────────────────────────────┴─> every one of these is there · all of those are true
    ids of chunks        ──────────────────────────────> each has a row, in a frame that is present

A reader finds a chunk through a row and computes its id again, so a row that is untrue loses a chunk that is there. What
is gathered is compared half a million rows at a time, so that memory does not grow with the repository; up to there every
row is read once. The answer is yes or no: where it is no, engine/verify_trees.py looks chunk by chunk and says
what is hurt. This module touches no storage.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator
from threading import Lock

from repo_store._rows import lower_bound, sort_rows
from repo_store.directory import Directory
from repo_store.frame import FrameName
from repo_store.row_batch import ROW_BYTES
from repo_store.row_stream import DROP, RowStream, beside, renumber
from repo_store.row_view import RowView
from repo_store.rows import CHUNK_ID_BYTES, FrameLocation, Section, section_of

ROWS_MAX = 500_000
"""Rows or ids gathered before they are compared: 22 or 16 MB."""
_SPARSE = 8
"""With fewer keys than every so manieth row, each key is looked for instead of each row looked at."""
_ROW = struct.Struct("<IQ")  # what follows the id: number of the origin, place
_CHUNK_ROW_BYTES = ROW_BYTES[Section.DATA]
assert _ROW.size + CHUNK_ID_BYTES == _CHUNK_ROW_BYTES == ROW_BYTES[Section.METADATA]


class RowProof:
    """Holds directories of packs that were read against the rows of an index. Any thread may add."""

    def __init__(self, index: RowView, *, rows_max: int = ROWS_MAX) -> None:
        self._index = index
        self._rows_max = rows_max
        self._lock = Lock()
        self._gathered = {section: bytearray() for section in (Section.DATA, Section.METADATA)}
        self._origins: dict[bytes, int] = {}
        self._proven = 0
        self._agrees = True

    def add_pack(self, pack: bytes, size: int, directory: Directory) -> None:
        """Take the directory of a pack found whole: its hash and size. Raises RowsChanged, StorageError."""
        for index, place in enumerate(directory.frames):
            locations = self._index.find_frame(place.name)
            if FrameLocation(pack, size, place) not in locations:
                self._agrees = False
            # A frame in several packs has one row for each of its chunks all the same: the first pack stands for all.
            elif pack == min(location.pack for location in locations):
                with self._lock:
                    self._add_frame(directory, index)
        with self._lock:
            if sum(map(len, self._gathered.values())) >= self._rows_max * _CHUNK_ROW_BYTES:
                self._compare()

    def finish(self) -> bool:
        """Compare what is left; return whether every row that a directory asks for was there."""
        with self._lock:
            self._compare()
            return self._agrees

    def covers_all(self) -> bool:
        """Return, after `finish`, whether every chunk row of the index is what a directory says. Raises RowsChanged."""
        live = sum(
            len(rows) // _CHUNK_ROW_BYTES
            for section in self._gathered
            for stream in self._index.row_streams(section)
            for rows in _live_pieces(stream)
        )
        return live == self._proven

    def _add_frame(self, directory: Directory, index: int) -> None:
        origin, ordinal = directory.frames[index].name
        number = self._origins.setdefault(origin, len(self._origins))
        lead = ordinal << 48
        self._gathered[section_of(directory.kind)] += b"".join(
            [
                chunk_id + _ROW.pack(number, lead | offset << 24 | length)
                for chunk_id, offset, length in directory.chunks(index)
            ]
        )

    def _compare(self) -> None:
        for section, rows in self._gathered.items():
            if rows:
                sort_rows(rows, _CHUNK_ROW_BYTES)
                found = bytearray(len(rows) // _CHUNK_ROW_BYTES)
                for stream in self._index.row_streams(section):
                    self._proven += _match(rows, found, stream, self._origins)
                self._agrees &= 0 not in found
                rows.clear()
        self._origins.clear()


def _match(wanted: bytearray, found: bytearray, stream: RowStream, origins: dict[bytes, int]) -> int:
    """Set `found` for each of the sorted rows `wanted` that is in the stream; return how many rows of it are wanted."""
    numbers = array("I", [DROP if o is None else origins.get(o, DROP) for o in stream.origins]).tobytes()
    size, count = _CHUNK_ROW_BYTES, 0
    pieces = (renumber(piece, numbers, size) for piece in stream.pieces())
    for first, last, rows in beside(wanted, size, pieces, size):
        theirs = [rows[at : at + size] for at in range(0, len(rows), size)]
        ours = [bytes(wanted[at : at + size]) for at in range(first * size, last * size, size)]
        count += sum(map(set(ours).__contains__, theirs))
        _mark(found, first, last, map(set(theirs).__contains__, ours))
    return count


def _mark(found: bytearray, first: int, last: int, flags: Iterable[bool]) -> None:
    before, more = int.from_bytes(found[first:last], "little"), int.from_bytes(bytes(flags), "little")
    found[first:last] = (before | more).to_bytes(last - first, "little")


class ChunkSearch:
    """Asks for very many chunks whether the index has them, in batches. For one thread."""

    def __init__(self, index: RowView, *, ids_max: int = ROWS_MAX) -> None:
        self._index = index
        self._bytes_max = ids_max * CHUNK_ID_BYTES
        self._gathered = {section: bytearray() for section in (Section.DATA, Section.METADATA)}
        self._found_all = True

    def add(self, section: Section, ids: bytes) -> None:
        """Ask for chunks, their ids joined. Raises RowsChanged."""
        gathered = self._gathered[section]
        gathered += ids
        if len(gathered) >= self._bytes_max:
            self._compare(section)

    def finish(self) -> bool:
        """Return whether every chunk asked for has a row that counts, in a frame that is present. Raises RowsChanged."""
        for section in self._gathered:
            self._compare(section)
        return self._found_all

    def _compare(self, section: Section) -> None:
        wanted = self._gathered[section]
        if wanted:
            sort_rows(wanted, CHUNK_ID_BYTES)
            found = bytearray(len(wanted) // CHUNK_ID_BYTES)
            for stream in self._index.row_streams(section):
                self._find(wanted, found, stream)
            self._found_all &= 0 not in found
            wanted.clear()

    def _find(self, wanted: bytearray, found: bytearray, stream: RowStream) -> None:
        size, width = _CHUNK_ROW_BYTES, CHUNK_ID_BYTES
        present: dict[bytes, bool] = {}
        for first, last, rows in beside(wanted, width, _live_pieces(stream), size):
            ours = [bytes(wanted[at : at + width]) for at in range(first * width, last * width, width)]
            if len(ours) * _SPARSE < len(rows) // size:
                rows = _rows_of(ours, rows)
            frames = {rows[at + 32 : at + 36] + rows[at + 42 : at + 44] for at in range(0, len(rows), size)}
            for frame in frames - present.keys():
                present[frame] = self._has_frame(stream, frame)
            ids = {
                rows[at : at + width]
                for at in range(0, len(rows), size)
                if present[rows[at + 32 : at + 36] + rows[at + 42 : at + 44]]
            }
            _mark(found, first, last, map(ids.__contains__, ours))

    def _has_frame(self, stream: RowStream, frame: bytes) -> bool:
        origin = stream.origins[int.from_bytes(frame[:4], "little")]
        return origin is not None and self._index.has_frame(
            FrameName(origin, int.from_bytes(frame[4:], "little"))
        )


def _rows_of(ids: Iterable[bytes], rows: bytes) -> bytes:
    """Return those of the sorted `rows` that have one of the sorted `ids`."""
    size, found = _CHUNK_ROW_BYTES, []
    for chunk_id in dict.fromkeys(ids):
        at = lower_bound(rows, size, chunk_id) * size
        while rows.startswith(chunk_id, at):
            found.append(rows[at : at + size])
            at += size
    return b"".join(found)


def _live_pieces(stream: RowStream) -> Iterator[bytes]:
    """Return the rows of a stream without those of tables that do not count."""
    if None not in stream.origins:
        return stream.pieces()
    kept = [DROP if origin is None else number for number, origin in enumerate(stream.origins)]
    numbers = array("I", kept).tobytes()
    return (renumber(piece, numbers, _CHUNK_ROW_BYTES) for piece in stream.pieces())
