"""Chunker: parameters and a key, ready to cut.

A Chunker is immutable: threads may share one, and cutting leaves nothing behind in it. What a
stream has seen so far lives in its Stream, one to a thread. No data is copied or kept but the last
64 bytes of a stream, and buffers above 16 KiB are cut with the interpreter lock released.

The environment variable HOLDFAST_CDC_KERNEL names the phte64 kernel to use, for tests and for
CPUs whose fastest is in doubt. All kernels cut alike; one that this CPU cannot run is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chunker import _cdc, tables
from chunker._cdc import Stream
from chunker.parameters import Algorithm, Parameters

if TYPE_CHECKING:
    from typing_extensions import Buffer

KERNEL_VARIABLE = "HOLDFAST_CDC_KERNEL"
KERNELS = ("vaes512", "aesni", "armv8", "portable")


class Chunker:
    """Cuts streams into chunks. The same parameters, key and bytes give the same cuts for ever."""

    __slots__ = ("_context", "parameters")

    parameters: Parameters

    def __init__(self, parameters: Parameters, key: bytes) -> None:
        """Raises TypeError or ValueError where the key or HOLDFAST_CDC_KERNEL cannot be used."""
        if not isinstance(key, bytes):
            raise TypeError(f"the chunker key is {type(key).__name__}, not bytes")
        if len(key) != tables.KEY_BYTES:
            raise ValueError(f"the chunker key has {len(key)} bytes, not {tables.KEY_BYTES}")
        self.parameters = parameters
        self._context = _make_context(parameters, key, _kernel_wanted())

    @property
    def kernel(self) -> str:
        """The name of the code that runs: one of KERNELS."""
        return self._context.kernel

    def cuts(self, buffer: Buffer) -> list[int]:
        """Return the end of each chunk of `buffer` taken as a whole stream; the last is its length.

        An empty buffer has no chunks. Raises BufferError if the buffer is not contiguous.
        """
        return self._context.cuts(buffer)

    def stream(self) -> Stream:
        """Return a stream with nothing fed yet."""
        return Stream(self._context)

    def __repr__(self) -> str:
        return f"Chunker({self.parameters}, kernel={self.kernel!r})"  # and never the key


def _make_context(parameters: Parameters, key: bytes, kernel: str | None) -> _cdc.Context:
    table = aes_key = b""
    if parameters.algorithm is Algorithm.GEAR64:
        table = tables.gear_table(key)
    elif parameters.algorithm is Algorithm.PHTE64:
        table, aes_key = tables.phte_table(key), tables.phte_aes_key(key)
    return _cdc.Context(
        parameters.algorithm,
        parameters.size_min,
        parameters.size_avg,
        parameters.size_max,
        parameters.phase,
        table,
        aes_key,
        kernel,
    )


def _kernel_wanted() -> str | None:
    name = os.environ.get(KERNEL_VARIABLE)
    if not name:
        return None
    if name not in KERNELS:
        raise ValueError(f"{KERNEL_VARIABLE}={name}: no such kernel; there are {', '.join(KERNELS)}")
    if name not in _cdc.kernels():
        raise ValueError(
            f"{KERNEL_VARIABLE}={name}: this CPU cannot run it; it can run {', '.join(_cdc.kernels())}"
        )
    return name
