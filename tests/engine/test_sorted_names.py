"""Directories of any size are listed in order, each name once."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trees import HOSTILE_NAMES, write

from engine.sources import sorted_names


def listing(folder: Path) -> list[bytes]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        names = sorted_names.sorted_names(fd)
    finally:
        os.close(fd)  # all has been read by now, whatever the number of names
    return list(names)


@pytest.mark.parametrize("names_max", [1, 2, 3, 30, 31, 32, 100_000])
def test_the_limit_in_memory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_max: int
) -> None:
    for name in HOSTILE_NAMES:
        write(os.path.join(os.fsencode(tmp_path), name), b"")
    monkeypatch.setattr(sorted_names, "NAMES_MAX", names_max)
    assert listing(tmp_path) == sorted(HOSTILE_NAMES)


def test_an_empty_directory_has_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing(tmp_path) == []
    monkeypatch.setattr(sorted_names, "NAMES_MAX", 1)
    assert listing(tmp_path) == []


@settings(deadline=None)
@given(
    st.sets(st.binary(min_size=1, max_size=9).map(lambda name: name.replace(b"\0", b"_"))), st.integers(1, 9)
)
def test_runs_are_read_back_as_written_at_any_buffer_size(names: set[bytes], read_bytes: int) -> None:
    with sorted_names.tempfile.TemporaryFile() as spill:
        spill.write(b"before")
        start, end = sorted_names._write_run(spill, sorted(names))
        spill.flush()
        if not names:
            return
        before, sorted_names.READ_BYTES = sorted_names.READ_BYTES, read_bytes
        try:
            assert list(sorted_names._read_run(spill.fileno(), start, end)) == sorted(names)
        finally:
            sorted_names.READ_BYTES = before


@pytest.mark.full
def test_memory_does_not_grow_with_a_directory_of_half_a_million_names(tmp_path: Path) -> None:
    import tracemalloc

    fd = os.open(tmp_path, os.O_RDONLY)
    for number in range(500_000):
        os.mknod(b"%07d" % (number * 7_654_321 % 10_000_019), dir_fd=fd)
    tracemalloc.start()
    count, last = 0, b""
    for name in sorted_names.sorted_names(fd):
        assert last < name
        count, last = count + 1, name
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    os.close(fd)
    assert count == 500_000 and peak < 24 << 20
