"""The frame map: every frame that any pack holds, where its copies are, and how much of it is needed.

One number for a frame and flat arrays beside it: 150 bytes for a frame, whatever the number of chunks in it. Nothing
here reads storage; prune_survey.py fills the map and draws the conclusions.
"""

from array import array
from collections.abc import Iterator

from repo_store.frame import FrameName, FramePlace

NOWHERE = -1


class FrameMap:
    """Frames by number. Packs are numbers too, given by the caller."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._names: list[bytes] = []
        self.sealed = array("I")
        """Bytes of the sealed frame."""
        self.plain = array("I")
        self.live = array("I")
        """Bytes of its plaintext that somebody needs; 0: the frame is dead."""
        self.base = array("l")
        self.metadata = bytearray()
        """1 for a frame that holds needed tree nodes."""
        self._first = array("l")
        self._more: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, place: FramePlace, pack: int) -> None:
        """Add a copy of a frame, in the pack of this number."""
        frame = self._number(place.name.pack())
        self.sealed[frame], self.plain[frame] = place.sealed_length, place.plain_length
        if place.base is not None:
            self.base[frame] = self._number(place.base.pack())
        if self._first[frame] == NOWHERE:
            self._first[frame] = pack
        elif pack not in self.packs(frame):
            self._more.setdefault(frame, []).append(pack)

    def find(self, name: bytes) -> int:
        """Return the number of the frame with these 20 bytes of name, NOWHERE if no copy was added."""
        return self._numbers.get(name, NOWHERE)

    def name(self, frame: int) -> bytes:
        """Return the 20 bytes of a frame's name."""
        return self._names[frame]

    def packs(self, frame: int) -> list[int]:
        """Return the packs that hold a copy."""
        first = self._first[frame]
        return [] if first == NOWHERE else [first, *self._more.get(frame, ())]

    def is_usable(self, frame: int) -> bool:
        """Return whether a copy is somewhere, and one of its base if it has one."""
        if self._first[frame] == NOWHERE:
            return False
        base = self.base[frame]
        return base == NOWHERE or self._first[base] != NOWHERE

    def need(self, frame: int, length: int, *, metadata: bool) -> None:
        """Count `length` more bytes of a frame as needed, and all of its base."""
        self.live[frame] = min(self.live[frame] + length, self.plain[frame])
        self.metadata[frame] |= metadata
        base = self.base[frame]
        if base != NOWHERE:
            self.live[base] = self.plain[base]
            self.metadata[base] |= metadata

    def needed(self) -> Iterator[int]:
        """Yield the frames of which something is needed."""
        return (frame for frame, live in enumerate(self.live) if live)

    def _number(self, name: bytes) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
            for column in (self.sealed, self.plain, self.live):
                column.append(0)
            self.base.append(NOWHERE)
            self._first.append(NOWHERE)
            self.metadata.append(0)
        return number


def frame_name(name: bytes) -> FrameName:
    """Return the name that 20 bytes stand for."""
    return FrameName.unpack(name)
