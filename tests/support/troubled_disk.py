"""Small helpers for tests of files on disk: errors on request, a small file system, what lies in a folder."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def failing_with(number: int) -> Callable[..., Any]:
    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def quick_folder() -> Path:
    """Return a new folder for very many small files: in memory where there is /dev/shm. The caller removes it."""
    memory = "/dev/shm"
    return Path(tempfile.mkdtemp(prefix="holdfast-", dir=memory if os.access(memory, os.W_OK) else None))


@contextmanager
def mounted(target: Path, size: str) -> Iterator[None]:
    """Mount a small tmpfs, or skip the test."""
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(target)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount program")
    if made.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)
