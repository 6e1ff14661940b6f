from typing_extensions import Buffer

def create_files(
    directory_fd: int, rows: tuple[tuple[bytes, Buffer, int, int, int, int], ...], start: int, /
) -> int: ...
