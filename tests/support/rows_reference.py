"""What repo_store/_rows.c and _lookups.c do, in slow and plain Python: the oracle of its tests."""

DROP = 0xFFFFFFFF
_MASK = (1 << 64) - 1


def split(rows: bytes, row_bytes: int) -> list[bytes]:
    """Return the rows one by one."""
    return [bytes(rows[at : at + row_bytes]) for at in range(0, len(rows), row_bytes)]


def sort_rows(rows: bytes, row_bytes: int) -> bytes:
    return b"".join(sorted(split(rows, row_bytes)))


def lower_bound(rows: bytes, row_bytes: int, key: bytes) -> int:
    return sum(row[: len(key)] < key for row in split(rows, row_bytes))


def check_rows(rows: bytes, row_bytes: int, key_bytes: int, index_at: int, index_limit: int) -> int:
    last = b""
    for number, row in enumerate(split(rows, row_bytes)):
        if int.from_bytes(row[index_at : index_at + 4], "little") >= index_limit or row[:key_bytes] < last:
            return number
        last = row[:key_bytes]
    return -1


def remap_rows(rows: bytes, row_bytes: int, index_at: int, numbers: list[int]) -> bytes:
    kept = []
    for row in split(rows, row_bytes):
        number = numbers[int.from_bytes(row[index_at : index_at + 4], "little")]
        if number != DROP:
            kept.append(row[:index_at] + number.to_bytes(4, "little") + row[index_at + 4 :])
    return b"".join(kept)


def _mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _bits(filter_bytes: int, key: bytes) -> list[int]:
    low = int.from_bytes(key[16:20], "little")
    hashed = int.from_bytes(key[8:16], "big") ^ (low * 0x9E3779B97F4A7C15 & _MASK)
    block = (_mix(hashed) >> 32) * (filter_bytes // 64) >> 32
    bits = _mix(hashed ^ 0x5851F42D4C957F2D)
    return [block * 512 + (bits >> 9 * probe & 511) for probe in range(7)]


def filter_add(filter_: bytearray, rows: bytes, row_bytes: int) -> None:
    for row in split(rows, row_bytes):
        for bit in _bits(len(filter_), row):
            filter_[bit >> 3] |= 1 << (bit & 7)


def probe(filters: tuple[bytes, ...], key: bytes) -> int:
    return sum(
        1 << number
        for number, filter_ in enumerate(filters)
        if filter_ and all(filter_[bit >> 3] >> (bit & 7) & 1 for bit in _bits(len(filter_), key))
    )


def probe_ids(filters: tuple[bytes, ...], ids: list[bytes]) -> bytes:
    hits = [probe(filters, chunk_id) for chunk_id in ids]
    return bytes(hit.bit_length() if hit & hit - 1 == 0 and hit < 1 << 254 else 255 for hit in hits)


def blocks_of(fences: list[bytes], ids: list[bytes]) -> list[int]:
    return [max(0, sum(fence < chunk_id[: len(fence)] for fence in fences) - 1) for chunk_id in ids]


def frames_of(blocks: list[bytes], ids: list[bytes]) -> list[bytes | None]:
    found = []
    for block, chunk_id in zip(blocks, ids, strict=True):
        rows = [row for row in split(block, 44) if row.startswith(chunk_id)]
        found.append(rows[0][32:36] + rows[0][42:44] if rows else None)
    return found


def chunk_rows(ids: list[bytes], lengths: list[int], origin_number: int, ordinal: int) -> bytes:
    rows, offset = [], 0
    for chunk_id, length in zip(ids, lengths, strict=True):
        place = ordinal << 48 | offset << 24 | length
        rows.append(chunk_id + origin_number.to_bytes(4, "little") + place.to_bytes(8, "little"))
        offset += length
    return b"".join(rows)
