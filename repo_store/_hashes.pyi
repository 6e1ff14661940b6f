from array import array

from typing_extensions import Buffer

def hashes(key: bytes, data: Buffer, lengths: array[int], kernel: int, /) -> bytes: ...
def row_sum(
    key: bytes,
    section: int,
    rows: Buffer,
    row_bytes: int,
    index_at: int,
    names: bytes,
    name_bytes: int,
    kernel: int,
    /,
) -> bytes: ...
def kernels() -> int: ...
