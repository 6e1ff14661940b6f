"""Chunk ids: the keyed BLAKE3 of many pieces that lie one behind the other.

The blake3 package is what decides. It hashes one piece in a call, though, under the interpreter lock, and without the
vectors of the processor where a piece has no more than 1 KiB; 100,000 small files spent more time there than anywhere
else. So short pieces are hashed side by side in C (many_hashes.c), and long ones, where the package is at its
best, by the package. Before the C is used for the first time it is held to the package on this very machine; a kernel
that differs in one bit is not used, and where none is left the package does all of it.
"""

from array import array
from collections.abc import Iterable, Sequence
from functools import cache

from blake3 import blake3

from repo_store._hashes import hashes, kernels
from repo_store.storage import Buffer

HASH_BYTES = 32
LONG_BYTES = 32 * 1024
"""Pieces of this length on average are hashed by the package: in four runs it was the faster one from about there."""

_TRIED_LENGTHS = (*range(0, 200, 7), 64, 128, *range(1000, 1050, 8), 1024, *range(1900, 9000, 650), 4096)
"""Blocks, leaves and pairs of them in all their forms, and enough pieces to fill every lane and refill it."""


def chunk_ids(key: bytes, data: Buffer, lengths: Sequence[int]) -> bytes:
    """Return the keyed hashes, 32 bytes each, of the pieces of these lengths (bytes) that `data` consists of.

    Raises ValueError if the lengths do not add up to `data`.
    """
    kernel = _kernel()
    if kernel is None or len(data) >= LONG_BYTES * len(lengths):
        return b"".join(_by_package(key, data, lengths))
    return hashes(key, data, lengths if isinstance(lengths, array) else array("I", lengths), kernel)


def hash_kernel() -> int | None:
    """Return the fastest kernel of _hashes that this machine runs rightly, None if there is none."""
    return _kernel()


@cache
def _kernel() -> int | None:
    lengths = array("I", _TRIED_LENGTHS)
    assert lengths.itemsize == 4
    key, data = bytes(range(HASH_BYTES)), (bytes(range(251)) * 300)[: sum(lengths)]
    assert len(data) == sum(lengths)
    wanted = b"".join(_by_package(key, data, lengths))
    return next((k for k in reversed(range(kernels())) if hashes(key, data, lengths, k) == wanted), None)


def _by_package(key: bytes, data: Buffer, lengths: Iterable[int]) -> list[bytes]:
    view, at, found = memoryview(data), 0, []
    for length in lengths:
        found.append(blake3(view[at : at + length], key=key).digest())
        at += length
    if at != len(view):
        raise ValueError("the lengths do not add up to the bytes")
    return found
