"""Tar streams: the members of a tar archive that comes through a pipe, in the order in which they come.

    stream = TarStream(read)
    for member in stream.members():         # a tarfile.TarInfo: ustar, pax, GNU long names, sparse
        stream.extents()                    # where its bytes belong
        stream.read_into(view)              # its next bytes; 0 at their end

The standard library's tarfile reads the headers. It takes an archive that breaks off, or a header whose checksum is
wrong, for the end of the archive; a backup must not. So here everything counts that can be known: each header must be
whole, the data of each member all there, the end marked by a block of zeros, and nothing but zeros behind it. Whatever
else is met raises SourceError, and the caller stores no manifest. In memory is one header, of HEADER_BYTES_MAX at most.
"""

import tarfile
from collections.abc import Callable, Iterator
from typing import Any, Final

from repo_store.errors import SourceError
from repo_store.tree_node import NUMBER_MAX

BLOCK_BYTES: Final = 512
HEADER_BYTES_MAX: Final = 8 * 1024 * 1024
"""All that a member has before its data: long names, extended attributes, the map of a sparse file."""

_SKIP_BYTES = 64 * 1024
_ZEROS = bytes(BLOCK_BYTES)
_SPARSE_SIZES = ("GNU.sparse.realsize", "GNU.sparse.size")
_DIGITS_MAX = 40  # of a number; one as long is refused as too large
_TAR_HINT = (
    "a compressed one must be unpacked on its way, like `gzip -dc x.tar.gz | holdfast snapshot stdin …`"
)

ReadInto = Callable[[memoryview], int]
"""Fills the start of a buffer and returns how many bytes; 0 only at the end."""


class TarStream:
    """One tar archive, read forward."""

    def __init__(self, read: ReadInto, *, end_marked: bool = True) -> None:
        """`end_marked` false takes an archive without the zeros at its end, as some programs leave them out."""
        self._pipe = _Pipe(read)
        self._end_marked = end_marked
        self._runs: list[tuple[int, int]] = []
        self._left = 0  # bytes of the member's data that were not read yet
        self._next_header = 0

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield each member. What is left of the data of the one before is passed over. Raises SourceError."""
        headers = _Headers(self._pipe)
        while True:
            self._pipe.skip_to(self._next_header)
            member = self._header(headers)
            if member is None:
                self._end()
                return
            self._place(member, headers.offset)
            yield member

    def extents(self) -> list[tuple[int, int]]:
        """Return (start, end) of each part of the member that is not a hole; what is no file has none."""
        return [(start, start + length) for start, length in self._runs]

    def read_into(self, view: memoryview) -> int:
        """Read the member's next bytes; 0 at their end. Raises SourceError if the stream ends before."""
        if not self._left or not view:
            return 0
        count = self._pipe.read_into(view[: min(len(view), self._left)])
        if not count:
            raise _ends_early("a member")
        self._left -= count
        return count

    def _header(self, headers: "_Headers") -> tarfile.TarInfo | None:
        """Return the next member, None at the end of the archive."""
        pipe = self._pipe
        start = pipe.place
        block = pipe.begin_header()
        if block == _ZEROS:
            return None
        if not block:
            if start and not self._end_marked:
                return None
            what = "ends without the mark of its end" if start else "is empty"
            raise SourceError(f"the tar stream {what}; no snapshot was made")
        try:
            return headers.read()
        except (tarfile.TarError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            # Besides tarfile's own, what its parsing says to a header that cannot be.
            if not start:
                raise SourceError(
                    f"this is no tar stream: {error}; no snapshot was made", hint=_TAR_HINT
                ) from None
            raise SourceError(
                f"the tar stream is damaged at byte {start}: {error}; no snapshot was made"
            ) from error
        except RecursionError:
            raise SourceError(f"the tar stream is damaged at byte {start}: headers without end") from None

    def _place(self, member: tarfile.TarInfo, next_header: int) -> None:
        """Take down where the member's data is and where the next header begins."""
        sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
        if sparse is not None:
            # Where a pax header has both sizes, that with holes and that of the data, tarfile takes the later one.
            whole = [member.pax_headers[key] for key in _SPARSE_SIZES if key in member.pax_headers]
            if whole and not whole[0].isdecimal():
                raise _damaged(member, "its size cannot be")
            member.size = int(whole[0][:_DIGITS_MAX]) if whole else member.size
        runs = [(0, member.size)] if sparse is None else [run for run in sparse if run[1]]
        end = 0
        for start, length in runs:
            if start < end or length < 0:
                raise _damaged(member, "its parts overlap")
            end = start + length
        if not 0 <= member.size <= NUMBER_MAX or end > member.size:
            raise _damaged(member, "its size cannot be")
        if not member.isreg():
            runs = []
        self._runs = [run for run in runs if run[1]]
        self._left = sum(length for _, length in self._runs)
        if sparse is not None:  # what tarfile takes for the end differs between the forms of sparse files
            next_header = member.offset_data + -(-self._left // BLOCK_BYTES) * BLOCK_BYTES
        if next_header < self._pipe.place:
            raise _damaged(member, "its size cannot be")
        self._next_header = next_header

    def _end(self) -> None:
        """Read the rest, so that who writes is not cut off; it must be zeros, or a header was lost."""
        buffer = bytearray(_SKIP_BYTES)
        view = memoryview(buffer)
        zeros = bytes(_SKIP_BYTES)
        while count := self._pipe.read_into(view):
            if buffer[:count] != zeros[:count]:
                raise SourceError("data follows the end of the tar stream; no snapshot was made")


def _damaged(member: tarfile.TarInfo, why: str) -> SourceError:
    return SourceError(
        f"the tar stream is damaged: member {member.name[:200]!r}: {why}; no snapshot was made"
    )


def _ends_early(where: str) -> SourceError:
    return SourceError(f"the tar stream ends in the middle of {where}; no snapshot was made")


class _Headers(tarfile.TarFile):
    """tarfile's parser of headers over a pipe. It remembers no members, and never takes damage for the end."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(fileobj=pipe, mode="r", encoding="utf-8", errors="surrogateescape")

    def next(self) -> tarfile.TarInfo | None:
        """Do nothing: called by the constructor, which would read the first header."""
        return None

    def read(self) -> tarfile.TarInfo:
        """Return the next header. Raises tarfile.HeaderError and more, see the caller."""
        return self.tarinfo.fromtarfile(self)


class _Pipe:
    """What can be read once, as the file object that tarfile wants: it only reads and asks for the place."""

    def __init__(self, read: ReadInto) -> None:
        self._read = read
        self.place = 0
        self._header_left = 0
        self._block = b""  # the first of a header, looked at already

    def tell(self) -> int:
        return self.place

    def begin_header(self) -> bytes:
        """Return the first block of a header, which the next `read` gives again; nothing where the stream ends."""
        self._header_left = HEADER_BYTES_MAX
        self._block = b""
        self._block = self._take(BLOCK_BYTES)
        if 0 < len(self._block) < BLOCK_BYTES:
            raise _ends_early("a header")
        self.place -= len(self._block)
        return self._block

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes of a header."""
        if self._block:
            assert size == BLOCK_BYTES
            block, self._block = self._block, b""
            self.place += BLOCK_BYTES
            return block
        if not 0 <= size <= self._header_left:
            raise SourceError(
                f"a header of the tar stream is larger than {HEADER_BYTES_MAX} bytes; no snapshot was made"
            )
        self._header_left -= size
        data = self._take(size)
        if len(data) < size:
            raise _ends_early("a header")
        return data

    def _take(self, size: int) -> bytes:
        data = bytearray(size)
        view, count = memoryview(data), 0
        while count < size and (more := self.read_into(view[count:])):
            count += more
        return bytes(view[:count])

    def read_into(self, view: memoryview) -> int:
        count = self._read(view)
        self.place += count
        return count

    def skip_to(self, place: int) -> None:
        """Pass over everything before `place`. Raises SourceError if the stream ends before."""
        view = memoryview(bytearray(max(0, min(_SKIP_BYTES, place - self.place))))
        while self.place < place:
            if not self.read_into(view[: min(len(view), place - self.place)]):
                raise _ends_early("a member")
