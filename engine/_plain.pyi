from typing import Any

from typing_extensions import Buffer

from repo_store.entry import Entry

def look(
    directory_fd: int, names: tuple[bytes, ...], start: int, kinds: bytes, /
) -> list[tuple[Any, ...] | None]: ...
def read_files(
    directory_fd: int, entries: tuple[Entry, ...], target: Buffer, euid: int, xattrs: bool, /
) -> int: ...
