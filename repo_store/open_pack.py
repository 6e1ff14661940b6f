"""An open pack: memory being filled with sealed frames, before it is a pack.

Frames are sealed straight into the place from which they will be put. Ordinal and place are given at one
moment (`OpenPack.reserve`, under the lock of the pack writer); sealing into the place then needs no lock.

Law: no lock, no thread and no storage in here.
"""

import mmap
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from repo_store.frame import FRAMES_TO_A_KEY_MAX, FrameName, FramePlace, Squeezed
from repo_store.pack import FrameChunks
from repo_store.pack_key import PackKey

CHUNKS_TO_A_PACK = 65_536  # of 36 bytes: bounds the directory of a pack that compresses extremely well


@dataclass(slots=True)
class WaitingFrame:
    """A frame on its way: its plaintext and chunks, and the buffers that go back when it is sealed."""

    plain: memoryview
    ids: list[bytes]
    lengths: Sequence[int]
    buffers: list[bytearray]


@dataclass(slots=True, eq=False)
class OpenPack:
    """A pack being filled. `pending` frames have their place and are being sealed into it."""

    key: PackKey
    buffer: memoryview
    used: int = 0
    pending: int = 0
    chunk_count: int = 0
    places: list[FramePlace] = field(default_factory=list)
    chunks: list[FrameChunks] = field(default_factory=list)

    def has_room(self, sealed_length: int, chunk_count: int) -> bool:
        """Return whether a frame still belongs into this pack; an empty pack takes any."""
        return not self.places or (
            self.used + sealed_length <= len(self.buffer)
            and self.chunk_count + chunk_count <= CHUNKS_TO_A_PACK
            and len(self.places) < FRAMES_TO_A_KEY_MAX
        )

    def reserve(self, squeezed: Squeezed, frame: WaitingFrame) -> FramePlace:
        """Give the frame the next ordinal and the next bytes."""
        name = FrameName(self.key.sealed_key.origin, len(self.places))
        sealed_length = squeezed.sealed_length
        place = FramePlace(name, self.used, sealed_length, len(frame.plain), squeezed.codec, squeezed.base)
        self.places.append(place)
        self.chunks.append(FrameChunks(b"".join(frame.ids), array("I", frame.lengths)))
        self.chunk_count += len(frame.ids)
        self.used += sealed_length
        self.pending += 1
        return place


def lazy_memory(length: int) -> memoryview:
    """Return memory that costs nothing until it is written to: a small run never touches most of a pack buffer."""
    return memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
