from collections.abc import Sequence

from repo_store.entry import Entry

def pack_rows(
    entries: list[Entry],
    contents: Sequence[bytes | None] | None,
    start: int,
    last_name: bytes,
    name_bytes_max: int,
    /,
) -> list[bytes]: ...
def unchanged(
    previous: Sequence[Entry | None], current: list[Entry], trusted_before_ns: int, /
) -> list[Entry | None]: ...
