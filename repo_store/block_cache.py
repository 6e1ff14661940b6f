"""Block cache: the blocks of runs that were read last, within a bound of memory.

A repository whose rows fit is answered from here without a system call once each block was read. Blocks are found by
their run, so a run that is dropped takes its blocks out of reach; they leave as others come. Not part of the format.
"""

import threading
from collections import OrderedDict

from repo_store.run import BlockReader, Run

CACHE_BYTES_MAX = 24 * 1024 * 1024
_BLOCK_OVERHEAD_BYTES = 200  # the key, the bytes object, the two links


class BlockCache(BlockReader):
    """The least recently used block goes first. Safe to use from several threads."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._blocks: OrderedDict[tuple[int, int, int], tuple[Run, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, run: Run, section: int, number: int) -> bytes:
        """Return the rows of one block. Raises RunDamaged."""
        key = (id(run), section, number)
        with self._lock:
            kept = self._blocks.get(key)
            if kept is not None:
                self._blocks.move_to_end(key)
                return kept[1]
        rows = run.read_block(section, number)
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = (run, rows)  # the run in it keeps its id from being given to another
                self._bytes += len(rows) + _BLOCK_OVERHEAD_BYTES
            while self._bytes > self._bytes_max:
                _, (_, oldest) = self._blocks.popitem(last=False)
                self._bytes -= len(oldest) + _BLOCK_OVERHEAD_BYTES
        return rows

    def read_all(self, run: Run, section: int, numbers: list[int]) -> list[bytes]:
        """Return the rows of each of these blocks. Raises RunDamaged."""
        known, blocks, move = id(run), self._blocks, self._blocks.move_to_end
        found: list[bytes | None] = []
        with self._lock:
            for number in numbers:
                key = (known, section, number)
                kept = blocks.get(key)
                if kept is not None:
                    move(key)
                found.append(kept and kept[1])
        read = self.read
        return [rows or read(run, section, number) for number, rows in zip(numbers, found, strict=True)]

    def forget(self, run: Run) -> None:
        """Drop all blocks of `run`, so that its memory and its file can go."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == id(run)]:
                _, rows = self._blocks.pop(key)
                self._bytes -= len(rows) + _BLOCK_OVERHEAD_BYTES
