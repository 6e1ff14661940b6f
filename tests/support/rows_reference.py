"""What repo_store/_rows.c does, in slow and plain Python: the oracle of its tests."""

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
