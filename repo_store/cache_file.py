"""Files of the local cache: whole or absent for other processes, not synced, worth nothing when lost."""

import os
import secrets
from pathlib import Path


def write_cache_file(path: Path, data: bytes) -> None:
    """Write `data` as `path` in one step. Raises OSError.

    No fsync: after a power cut a cache file may be torn, so every reader checks what it reads and starts again.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb", opener=_private) as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
