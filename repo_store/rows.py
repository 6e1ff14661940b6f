"""Rows: what the index answers about chunks and frames, as small values.

A frame's name is origin (16) || ordinal (u32, little-endian) wherever it stands as 20 bytes; only the location rows
inside a table write the ordinal big-endian, so that the frames of one origin sort in their order (docs/format.md,
sections 6 and 7). This module touches no storage.
"""

from enum import IntEnum
from typing import NamedTuple

from repo_store.frame import FrameName, FramePlace
from repo_store.sealed import Kind

CHUNK_ID_BYTES = 32
PACK_NAME_BYTES = 32


class Section(IntEnum):
    """The parts of a table. A chunk lookup names DATA or METADATA: the two never meet."""

    LOCATIONS = 0
    DATA = 1
    METADATA = 2


def section_of(kind: Kind) -> Section:
    """Return the section that the chunks of a pack belong to; `kind` is that of its directory."""
    return Section.METADATA if kind == Kind.METADATA_DIRECTORY else Section.DATA


class ChunkPlace(NamedTuple):
    """Where one copy of a chunk is: `length` bytes from `offset` of the plaintext of a frame."""

    origin: bytes
    ordinal: int
    offset: int
    length: int

    @property
    def frame(self) -> FrameName:
        """The name of the frame."""
        return FrameName(self.origin, self.ordinal)


class FrameLocation(NamedTuple):
    """Where one copy of a sealed frame is: the hash and the size (bytes) of a pack, and the place in it."""

    pack: bytes
    pack_size: int
    place: FramePlace
