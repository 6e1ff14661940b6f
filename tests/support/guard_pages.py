"""Memory that ends where it is said to: a page on either side that nobody may touch.

One byte read or written outside ends the process at once, whatever it was built with. `make sanitize` runs the
same tests with the sanitizers watching.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator

_PROT_NONE = 0


class GuardedRoom:
    """Room for `room_bytes`, rounded up to pages, between two forbidden pages. Never given back."""

    def __init__(self, room_bytes: int) -> None:
        page = mmap.PAGESIZE
        self.room_bytes = -(-room_bytes // page) * page
        self._page = page
        self._map = mmap.mmap(-1, self.room_bytes + 2 * page)
        self._view = memoryview(self._map)
        libc = ctypes.CDLL(None, use_errno=True)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for at in (start, start + page + self.room_bytes):
            if libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(page), _PROT_NONE) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def places(self, data: bytes) -> Iterator[memoryview]:
        """Yield `data` laid flush against the front, then flush against the back. Each may be changed in place."""
        for start in (self._page, self._page + self.room_bytes - len(data)):
            view = self._view[start : start + len(data)]
            view[:] = data
            yield view
            view.release()
