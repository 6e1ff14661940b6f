"""chunker: bytes in, cut offsets out.

    chunker = Chunker(Parameters(), key)         immutable, shared between threads
    chunker.cuts(buffer)                         the ends of all chunks of a whole stream
    stream = chunker.stream()                    for a stream that comes in pieces
    stream.feed(buffer), stream.end()            absolute offsets of the cuts found there
    stream.copy()                                a fork that goes on by itself

Rule 1: cuts depend on the bytes, the parameters and the key, and on nothing else: not on how the
stream was split into feeds, not on the CPU. Repositories stand on it: the same bytes must be cut at
the same places for ever, or nothing deduplicates.

Rule 2: this package knows nothing of repositories. It reads no file and keeps no data.

The layers: reference.py is the definition, in slow plain Python. The C files are the same rule
made fast (cdc.h is their contract), _cdcmodule.c binds them, and the tests hold each kernel to the
reference and to golden vectors. docs/format.md, "Chunking", is the authority for what is stored.
"""

from __future__ import annotations

from chunker._cdc import Stream
from chunker.chunker import KERNEL_VARIABLE, KERNELS, Chunker
from chunker.parameters import (
    SIZE_AVG_FLOOR,
    SIZE_MAX_CEILING,
    SIZE_MIN_FLOOR,
    WINDOW_BYTES,
    Algorithm,
    Parameters,
)
from chunker.tables import KEY_BYTES

__all__ = [
    "KERNELS",
    "KERNEL_VARIABLE",
    "KEY_BYTES",
    "SIZE_AVG_FLOOR",
    "SIZE_MAX_CEILING",
    "SIZE_MIN_FLOOR",
    "WINDOW_BYTES",
    "Algorithm",
    "Chunker",
    "Parameters",
    "Stream",
]
