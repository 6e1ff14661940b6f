"""Cutting: the bytes of one file or stream become chunks, and the list of them its content.

Bytes are read into the frame being filled and cut there (repo_store/chunk_writer.py says how). Where a file
has holes, the cutting starts anew behind each: a hole is written down as such and costs nothing.
"""

from collections.abc import Callable, Iterable
from itertools import chain, pairwise

from chunker import Chunker
from repo_store.chunk_writer import ChunkWriter
from repo_store.content import ContentBuilder
from repo_store.entry import HOLE

READ_BYTES_MIN = 128 * 1024
READ_BYTES_MAX = 512 * 1024
"""One read: what was read is still in the second-level cache when it is cut, hashed and copied."""

ReadInto = Callable[[memoryview], int]
"""Fills the start of a buffer and returns how many bytes; 0 only at the end."""

Tick = Callable[[], bool]
"""Called between reads; True asks for a checkpoint. May raise to stop the run."""


def cut_stream(
    chunks: ChunkWriter,
    chunker: Chunker,
    content: ContentBuilder,
    read: ReadInto,
    *,
    tick: Tick,
    checkpoint: Callable[[], None],
) -> int:
    """Cut everything that `read` gives, add it to `content`, and return how many bytes it was."""
    stream = chunker.stream()
    at = end = chunks.used
    start = total = 0
    while True:
        if tick():
            at, end = _keep_uncut(chunks.finish_frame(at, end), at, end)
            checkpoint()
        at, end = _keep_uncut(chunks.make_room(at, end, READ_BYTES_MIN), at, end)
        count = read(chunks.view[end : min(end + READ_BYTES_MAX, chunks.capacity)])
        if count == 0:
            break
        cuts = stream.feed(chunks.view[end : end + count])
        end += count
        total += count
        at, start = _settle(chunks, content, at, start, cuts)
    _settle(chunks, content, at, start, stream.end())
    return total


def cut_sparse(
    chunks: ChunkWriter,
    chunker: Chunker,
    content: ContentBuilder,
    read_at: Callable[[memoryview, int], int],
    extents: Iterable[tuple[int, int]],
    size: int,
    *,
    tick: Tick,
    checkpoint: Callable[[], None],
) -> int:
    """Cut the (start, end) ranges of a sparse file that were written, and return its size as read.

    A file that was cut short meanwhile ends where the bytes do.
    """
    place = 0
    for start, end in extents:
        if start > place:
            content.add(HOLE, start - place)
        reader = _ExtentReader(read_at, start, end)
        place = start + cut_stream(chunks, chunker, content, reader.read, tick=tick, checkpoint=checkpoint)
        if place < end:
            return place
    if size > place:
        content.add(HOLE, size - place)
    return max(size, place)


class _ExtentReader:
    def __init__(self, read_at: Callable[[memoryview, int], int], start: int, end: int) -> None:
        self._read_at = read_at
        self._place = start
        self._end = end

    def read(self, view: memoryview) -> int:
        count = self._read_at(view[: min(len(view), self._end - self._place)], self._place)
        self._place += count
        return count


def _keep_uncut(moved: int, at: int, end: int) -> tuple[int, int]:
    return moved, moved + end - at


def _settle(
    chunks: ChunkWriter, content: ContentBuilder, at: int, start: int, cuts: Iterable[int]
) -> tuple[int, int]:
    """Give the chunks that end at the stream offsets `cuts` their ids; the first begins at view[at], offset `start`."""
    lengths = [cut - before for before, cut in pairwise(chain((start,), cuts))]
    for chunk_id, length in zip(chunks.settle_all(at, lengths), lengths, strict=True):
        content.add(chunk_id, length)
    total = sum(lengths)
    return at + total, start + total
