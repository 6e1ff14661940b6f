"""The directory of a pack: which frames lie where, under which keys, and which chunks they hold.

docs/format.md, "Directory body", is the authority. A directory is signed, so what stands in it was meant by
someone who may write; it is refused all the same unless every number in it fits every other, because that someone
may have had failing memory or a stolen key.

Law: a map in, a `Directory` out; this module touches no storage and no key.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from repo_store.errors import ObjectDamaged
from repo_store.frame import (
    FRAMES_TO_A_KEY_MAX,
    NO_BASE,
    PLAIN_BYTES_MAX,
    Codec,
    FrameName,
    FramePlace,
    check_codec,
)
from repo_store.pack_key import ORIGIN_BYTES, SEALED_BYTES, SUITE, KeySuite, SealedKey
from repo_store.sealed import TAG_BYTES, Kind, Opened

KEYS_MAX = 256
ID_BYTES = 32
FRAME_ROW = struct.Struct("<HBBIIIII20sI")
assert FRAME_ROW.size == 48  # the size docs/format.md gives
_HOLE = bytes(ID_BYTES)


@dataclass(frozen=True, slots=True)
class Directory:
    """What a pack holds. `frames` are in the order of their offsets, chunks in the order of frames.

    `key_of[i]` is the index in `keys` of frame i; the chunks of frame i are those from `starts[i]` to `starts[i+1]`;
    `ids` holds 32 bytes for each chunk, `lengths` its bytes. `signer` names who signed it.
    """

    kind: Kind
    keys: list[SealedKey]
    frames: list[FramePlace]
    key_of: list[int]
    starts: list[int]
    ids: bytes
    lengths: "array[int]"
    signer: bytes

    def chunk_ids(self, frame: int) -> list[bytes]:
        """Return the ids of the chunks in the frame of this index."""
        first, last = self.starts[frame], self.starts[frame + 1]
        return [self.ids[at : at + ID_BYTES] for at in range(first * ID_BYTES, last * ID_BYTES, ID_BYTES)]

    def chunk_lengths(self, frame: int) -> "array[int]":
        """Return the lengths of the chunks in the frame of this index."""
        return self.lengths[self.starts[frame] : self.starts[frame + 1]]

    def chunks(self, frame: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield (id, offset in the frame's plaintext, length) of each chunk in the frame of this index."""
        lengths = self.chunk_lengths(frame)
        return zip(self.chunk_ids(frame), accumulate(lengths, initial=0), lengths, strict=False)


def parse_directory(name: str, kind: Kind, opened: Opened, frames_bytes: int) -> Directory:
    """Return the directory in the body `opened` of an object of `kind` whose frames have `frames_bytes` together.

    Raises ObjectDamaged unless keys, frames and chunks account for each other and for every byte.
    """
    body = opened.body
    if len(_bytes(name, body, "random")) != 16:
        raise ObjectDamaged(name, "its directory has no 16 random bytes")
    keys = _parse_keys(name, kind, body.get("keys"))
    frames, key_of, counts = _parse_frames(name, keys, _bytes(name, body, "frames"), frames_bytes)
    starts = list(accumulate(counts, initial=0))
    ids, lengths = _parse_chunks(name, starts[-1], _bytes(name, body, "ids"), _bytes(name, body, "lengths"))
    for place, (first, last) in zip(frames, pairwise(starts), strict=True):
        covered = sum(lengths[first:last])
        if covered != place.plain_length:
            raise ObjectDamaged(
                name, f"the chunks of frame {place.name} cover {covered} of its {place.plain_length} bytes"
            )
    return Directory(kind, keys, frames, key_of, starts, ids, lengths, opened.signer)


def _bytes(name: str, body: dict[str, Any], field: str) -> bytes:
    value = body.get(field)
    if not isinstance(value, bytes):
        raise ObjectDamaged(name, f"its directory has no {field}")
    return value


def _parse_keys(name: str, kind: Kind, rows: Any) -> list[SealedKey]:
    if not isinstance(rows, list) or not 1 <= len(rows) <= KEYS_MAX:
        raise ObjectDamaged(name, f"its directory does not have 1 to {KEYS_MAX} keys")
    keys = [_parse_key(name, kind, row) for row in rows]
    if len({key.origin for key in keys}) != len(keys):
        raise ObjectDamaged(name, "its directory has two keys of one origin")
    return keys


def _parse_key(name: str, kind: Kind, row: Any) -> SealedKey:
    match row:
        case [bytes(origin), int(epoch), int(suite), bytes(sealed), *_] if len(origin) == ORIGIN_BYTES:
            pass
        case _:
            raise ObjectDamaged(name, "its directory has a key that is none")
    if suite not in SEALED_BYTES:
        raise ObjectDamaged(
            name, f"a key in its directory uses suite {suite}, which this version does not know"
        )
    if suite != SUITE[kind]:
        raise ObjectDamaged(
            name, f"a key in its directory uses suite {suite}, which keys of its kind never do"
        )
    if len(sealed) != SEALED_BYTES[KeySuite(suite)]:
        raise ObjectDamaged(name, f"a key in its directory has {len(sealed)} bytes sealed")
    return SealedKey(origin, epoch, suite, sealed)


def _parse_frames(
    name: str, keys: list[SealedKey], rows: bytes, frames_bytes: int
) -> tuple[list[FramePlace], list[int], list[int]]:
    if not rows or len(rows) % FRAME_ROW.size:
        raise ObjectDamaged(name, f"the frames in its directory are {len(rows)} bytes, not whole rows")
    frames: list[FramePlace] = []
    key_of: list[int] = []
    counts: list[int] = []
    end = 0
    for row in FRAME_ROW.iter_unpack(rows):
        key, codec, zero, ordinal, offset, sealed_length, plain_length, count, base, zero_too = row
        if key >= len(keys):
            raise ObjectDamaged(name, f"frame {len(frames)} in its directory uses key {key} of {len(keys)}")
        frame = FrameName(keys[key].origin, ordinal)
        base_name = None if base == NO_BASE else FrameName.unpack(base)
        place = FramePlace(frame, offset, sealed_length, plain_length, codec, base_name)
        if zero or zero_too or ordinal >= FRAMES_TO_A_KEY_MAX:
            raise ObjectDamaged(name, f"frame {frame} in its directory has a number that none can have")
        if offset != end or sealed_length <= TAG_BYTES:
            raise ObjectDamaged(name, f"frame {frame} in its directory leaves a gap or overlaps")
        if not 0 < plain_length <= PLAIN_BYTES_MAX or not 0 < count <= plain_length:
            raise ObjectDamaged(
                name,
                f"frame {frame} in its directory has {count} chunks of {plain_length} bytes, outside the limits",
            )
        check_codec(name, place)
        end += sealed_length
        frames.append(place)
        key_of.append(key)
        counts.append(count)
    if end != frames_bytes:
        raise ObjectDamaged(name, f"its directory accounts for {end} of {frames_bytes} bytes of frames")
    _check_names(name, frames)
    return frames, key_of, counts


def _check_names(name: str, frames: list[FramePlace]) -> None:
    codecs = {place.name: place.codec for place in frames}
    if len(codecs) != len(frames):
        raise ObjectDamaged(name, "its directory has two frames of one name")
    for place in frames:
        if place.base is not None and codecs.get(place.base) == Codec.ZSTD_WITH_BASE:
            raise ObjectDamaged(
                name, f"frame {place.name} has the base {place.base}, which has a base itself"
            )


def _parse_chunks(name: str, count: int, ids: bytes, packed: bytes) -> "tuple[bytes, array[int]]":
    if len(ids) != ID_BYTES * count or len(packed) != 4 * count:
        raise ObjectDamaged(
            name, f"its directory has {len(ids)} bytes of ids and {len(packed)} of lengths for {count} chunks"
        )
    lengths = array("I", packed)
    if sys.byteorder == "big":
        lengths.byteswap()
    if not all(lengths):
        raise ObjectDamaged(name, "its directory has a chunk of no bytes")
    at = ids.find(_HOLE)
    while at >= 0:
        if at % ID_BYTES == 0:
            raise ObjectDamaged(name, "its directory has a chunk with the id of a hole")
        at = ids.find(_HOLE, at + 1)
    return ids, lengths
