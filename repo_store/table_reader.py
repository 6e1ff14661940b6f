"""Table reader: the rows of one table, in ranges of blocks, each checked before it is believed.

A table is read from its end: footer, sealed trailer, then the header, whose commitment the trailer repeats, and any
blocks. A fresh host that restores one directory reads the few blocks that its chunks can be in and no others.
docs/format.md, section 7, is the authority. This module touches no storage except through the `read` it is given.
"""

from collections.abc import Callable, Iterator, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repo_store._rows import check_rows, lower_bound
from repo_store.errors import ObjectDamaged
from repo_store.key_ring import KeyRing
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.row_batch import CODEC_AT, CODEC_MAX, KEY_BYTES, ROW_BYTES, ZEROS_AT, sum_rows
from repo_store.row_sums import RowSums
from repo_store.rows import CHUNK_ID_BYTES, Section
from repo_store.sealed import FORMAT, HEADER_BYTES, TAG_BYTES, Kind, read_header
from repo_store.table import (
    BLOCK_ROWS,
    DIGEST_BYTES,
    FIRST_BYTES,
    FOOTER,
    PACK_ENTRY,
    TABLE_BYTES_MAX,
    TABLE_MAGIC,
    block_count,
    block_digest,
    block_nonce,
    read_trailer,
    row_names,
)

Read = Callable[[int, int], bytes]
"""read(offset, length) -> bytes of the table's object; fewer only where it ends."""

_MARGIN_BYTES = 64 * 1024
"""Read from the end at first: footer and trailer of most tables, in one request."""

_ZEROS = range(ZEROS_AT.start, ZEROS_AT.stop)
_BLOCKS_AT_ONCE = 64
_GAP_BLOCKS = 8
"""Blocks that are cheaper to read than another request: 8 × 45 kB."""


class TableReader:
    """One table, read in ranges of blocks. Every block that comes out has been checked in every way but the sums."""

    def __init__(self, ring: KeyRing, name: str, size: int, read: Read) -> None:
        """Read the ends of the object `name` of `size` bytes. Raises ObjectDamaged, and what `read` raises."""
        self.name, self.size = name, size
        self._ring, self._read = ring, read
        trailer_bytes = self._read_ends()
        header = read_header(ring, (Kind.TABLE,), name, self._get(0, HEADER_BYTES), magic=TABLE_MAGIC)[1]
        data = self._get(size - FOOTER.size - trailer_bytes, trailer_bytes)
        self.trailer = read_trailer(ring, name, data)
        if self.trailer.commitment != header.commitment:
            raise ObjectDamaged(name, "its trailer belongs to another table")
        self._cipher, self._beside = AESGCM(header.key), ring.repository + header.data
        self._starts, end = _starts(self.trailer.sums)
        if end + trailer_bytes + FOOTER.size != size:
            raise ObjectDamaged(name, f"its blocks would end at {end}, its trailer starts elsewhere")

    def _read_ends(self) -> int:
        """Check the footer; return the size of the trailer. Keeps the end of the object for what is read next."""
        name, size = self.name, self.size
        if size > TABLE_BYTES_MAX:
            raise ObjectDamaged(name, f"has {size} bytes, above the limit")
        if size < HEADER_BYTES + FOOTER.size:
            raise ObjectDamaged(name, "too short for a table")
        self._margin_at = max(0, size - _MARGIN_BYTES)
        self._margin = self._read(self._margin_at, size - self._margin_at)
        if len(self._margin) != size - self._margin_at:
            raise ObjectDamaged(name, f"ends before its {size} bytes")
        magic, version, kind, zero, trailer_bytes, zero_too = FOOTER.unpack(self._margin[-FOOTER.size :])
        if magic != TABLE_MAGIC:
            raise ObjectDamaged(name, "does not end like a table")
        if version != FORMAT:
            raise ObjectDamaged(name, f"has format {version}; this version reads up to {FORMAT}")
        if kind != Kind.TABLE or zero or zero_too:
            raise ObjectDamaged(name, f"its footer is of kind {kind}, not of a table")
        if trailer_bytes > size - HEADER_BYTES - FOOTER.size:
            raise ObjectDamaged(name, "its trailer is larger than the table")
        return int(trailer_bytes)

    def _get(self, offset: int, length: int) -> bytes:
        if offset >= self._margin_at:
            return self._margin[offset - self._margin_at : offset - self._margin_at + length]
        data = self._read(offset, length)
        if len(data) != length:
            raise ObjectDamaged(self.name, f"ends before its {self.size} bytes")
        return data

    def rows(self, section: int, first: int = 0, end: int | None = None) -> bytes:
        """Return the rows of the blocks `first` to `end` (exclusive) of a section, read in one piece."""
        blocks = block_count(self.trailer.sums.counts[section])
        end = blocks if end is None else min(end, blocks)
        if first >= end:
            return b""
        step = BLOCK_ROWS * ROW_BYTES[section] + TAG_BYTES
        start = self._starts[section] + first * step
        length = min(end * step, self._section_bytes(section)) - first * step
        data = memoryview(self._get(start, length))
        opened = [
            self._open_block(section, number, data[(number - first) * step : (number + 1 - first) * step])
            for number in range(first, end)
        ]
        rows = b"".join(opened)
        self._check_order(section, rows)
        return rows

    def _section_bytes(self, section: int) -> int:
        count = self.trailer.sums.counts[section]
        return count * ROW_BYTES[section] + block_count(count) * TAG_BYTES

    def _open_block(self, section: int, number: int, sealed: memoryview) -> bytes:
        digest = self.trailer.digests[section][number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        place = f"block {number} of section {section}"
        if block_digest(sealed) != digest:
            raise ObjectDamaged(self.name, f"{place} is not the one that was signed")
        blocks_before = sum(block_count(count) for count in self.trailer.sums.counts[:section])
        try:
            rows = self._cipher.decrypt(block_nonce(blocks_before + number), sealed, self._beside)
        except InvalidTag:
            raise ObjectDamaged(self.name, f"{place} fails authentication") from None
        if (
            rows[:FIRST_BYTES]
            != self.trailer.firsts[section][number * FIRST_BYTES : (number + 1) * FIRST_BYTES]
        ):
            raise ObjectDamaged(self.name, f"{place} does not start with the key that the trailer states")
        return rows

    def _check_order(self, section: int, rows: bytes) -> None:
        trailer = self.trailer
        limit = len(trailer.origins) // ORIGIN_BYTES if section else len(trailer.packs) // PACK_ENTRY.size
        key_bytes = KEY_BYTES[section]
        if check_rows(rows, ROW_BYTES[section], key_bytes, key_bytes, limit) >= 0:
            raise ObjectDamaged(self.name, f"rows of section {section} are out of order or point nowhere")
        if section and rows.startswith(bytes(CHUNK_ID_BYTES)):
            raise ObjectDamaged(self.name, "it has a row for the hole, which is no chunk")
        if not section and (_max(rows, CODEC_AT) > CODEC_MAX or any(_max(rows, at) for at in _ZEROS)):
            raise ObjectDamaged(self.name, "a location has a codec that this version does not know")

    def stream(self, section: int) -> Iterator[bytes]:
        """Yield all rows of a section in order, some blocks at a time."""
        last = b""
        for first in range(0, block_count(self.trailer.sums.counts[section]), _BLOCKS_AT_ONCE):
            rows = self.rows(section, first, first + _BLOCKS_AT_ONCE)
            if last > rows[: KEY_BYTES[section]]:
                raise ObjectDamaged(self.name, f"rows of section {section} are out of order or point nowhere")
            last = rows[-ROW_BYTES[section] :][: KEY_BYTES[section]]
            yield rows

    def find(self, section: int, keys: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """Return the rows of each of `keys` (as rows start with them), reading only the blocks that may have one."""
        found: dict[bytes, list[bytes]] = {}
        row_bytes, ordered = ROW_BYTES[section], sorted(keys)
        for first, end, low, high in _ranges(self.trailer.firsts[section], ordered):
            rows = self.rows(section, first, end)
            for key in ordered[low:high]:
                at = lower_bound(rows, row_bytes, key) * row_bytes
                while rows.startswith(key, at):
                    found.setdefault(key, []).append(rows[at : at + row_bytes])
                    at += row_bytes
        return found

    def check_sums(self) -> None:
        """Read all rows and check that they add up to what the trailer states. Raises ObjectDamaged."""
        trailer = self.trailer
        packs = [pack for pack, _ in PACK_ENTRY.iter_unpack(trailer.packs)]
        origins = [
            trailer.origins[at : at + ORIGIN_BYTES] for at in range(0, len(trailer.origins), ORIGIN_BYTES)
        ]
        names = row_names(packs, origins)
        for section in Section:
            key = self._ring.row_sum_key
            total = sum(sum_rows(key, section, rows, names[section]) for rows in self.stream(section))
            if total % (1 << 256) != trailer.sums.sums[section]:
                raise ObjectDamaged(self.name, f"rows of section {int(section)} do not add up to their sum")


def _max(rows: bytes, at: int) -> int:
    return max(rows[at :: ROW_BYTES[Section.LOCATIONS]], default=0)


def _starts(sums: RowSums) -> tuple[list[int], int]:
    """Return where the blocks of each section start in the object, and where the last ends."""
    starts, at = [], HEADER_BYTES
    for count, row_bytes in zip(sums.counts, ROW_BYTES, strict=True):
        starts.append(at)
        at += count * row_bytes + block_count(count) * TAG_BYTES
    return starts, at


def _ranges(firsts: bytes, ordered: Sequence[bytes]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first block, end block, low, high): read those blocks for the keys ordered[low:high].

    Neighbouring ranges are joined where a request costs more than the blocks between, up to a bound.
    """
    current: tuple[int, int, int, int] | None = None
    for number, key in enumerate(ordered):
        prefix = key[:FIRST_BYTES]
        first = max(0, lower_bound(firsts, FIRST_BYTES, prefix) - 1)
        end = _upper_bound(firsts, prefix)
        if current is None:
            current = (first, end, number, number + 1)
        elif first <= current[1] + _GAP_BLOCKS and end <= max(current[1], current[0] + _BLOCKS_AT_ONCE):
            current = (current[0], max(end, current[1]), current[2], number + 1)
        else:
            yield current
            current = (first, end, number, number + 1)
    if current is not None:
        yield current


def _upper_bound(firsts: bytes, prefix: bytes) -> int:
    """Return how many blocks start at or below `prefix`."""
    after = int.from_bytes(prefix, "big") + 1
    if after >> 64:
        return len(firsts) // FIRST_BYTES
    return lower_bound(firsts, FIRST_BYTES, after.to_bytes(FIRST_BYTES, "big"))
