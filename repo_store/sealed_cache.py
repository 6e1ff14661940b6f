"""Sealed objects kept on this machine, as they were stored: what is read once need not be fetched again.

The bytes are opened, and so checked, at every use; a cache that was deleted or spoilt costs time only. Without a
folder nothing is kept.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from repo_store.cache_file import write_cache_file


class SealedCache:
    """Objects below one prefix ("manifests/"), each in a file of its own. No method raises for what a disk does."""

    def __init__(self, folder: Path | None, prefix: str) -> None:
        self._prefix = prefix
        self._folder = folder
        if folder is not None:
            with suppress(OSError):  # then nothing is kept, and each object is read from the storage
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, name: str) -> bytes | None:
        """Return what was kept under the object's name, unchecked, or None."""
        if self._folder is None:
            return None
        try:
            return (self._folder / name.removeprefix(self._prefix)).read_bytes()
        except OSError:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Keep an object if that is possible."""
        if self._folder is not None:
            with suppress(OSError):
                write_cache_file(self._folder / name.removeprefix(self._prefix), data)

    def keep_only(self, names: Collection[str]) -> None:
        """Drop what the storage no longer lists."""
        if self._folder is not None:
            with suppress(OSError):
                for path in self._folder.iterdir():
                    if self._prefix + path.name not in names:
                        path.unlink(missing_ok=True)
