"""The C of engine/_plain.c does what Python does, for files in the ordinary case only, and leaves every other one alone."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine._plain import look, read_files
from engine.sources.metadata import KIND_BYTES, KIND_OF_TYPE, entry_from_stat
from repo_store.entry import Entry

EUID = os.geteuid()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open descriptor of `tmp_path`."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def entry_of(path: Path) -> Entry:
    status = path.lstat()
    kind = KIND_OF_TYPE[status.st_mode >> 12]
    assert kind is not None
    return entry_from_stat(os.fsencode(path.name), kind, status, None)


def write(folder: Path, name: str, content: bytes = b"content") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_rows_are_the_entries_that_python_makes(tmp_path: Path, folder: int) -> None:
    paths = [write(tmp_path, "empty", b""), write(tmp_path, "file"), tmp_path / "fifo", tmp_path / "link"]
    os.mkfifo(paths[2])
    paths[3].symlink_to("nowhere")
    paths[1].chmod(0o4751)
    os.utime(paths[1], ns=(1, -1_500_000_000))
    rows = look(folder, tuple(os.fsencode(path.name) for path in paths), 0, KIND_BYTES)
    assert rows == [entry_of(path) for path in paths]


def test_a_directory_ends_the_look(tmp_path: Path, folder: int) -> None:
    for name in ("b", "d"):
        (tmp_path / name).mkdir()
    for name in ("a", "c"):
        write(tmp_path, name)
    names = (b"a", b"b", b"c", b"d")
    found = [[row[0] for row in look(folder, names, at, KIND_BYTES) if row] for at in range(5)]
    assert found == [[b"a", b"b"], [b"b"], [b"c", b"d"], [b"d"], []]


def test_one_call_looks_at_a_bounded_number(tmp_path: Path, folder: int) -> None:
    names = tuple(os.fsencode(write(tmp_path, f"{number:03}", b"").name) for number in range(300))
    rows, at = [], 0
    while at < len(names):
        more = look(folder, names, at, KIND_BYTES)
        assert 0 < len(more) <= 128
        rows += more
        at += len(more)
    assert [row[0] for row in rows if row] == list(names)


@pytest.mark.parametrize("special", ["missing", "hard link", "socket"])
def test_what_is_special_is_left_to_python(
    tmp_path: Path, folder: int, special: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (os.fsencode(write(tmp_path, "a").name), b"b", os.fsencode(write(tmp_path, "c").name))
    if special == "hard link":
        os.link(tmp_path / "a", tmp_path / "b")
        names = names[1:]
    elif special == "socket":
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("b")
    rows = look(folder, names, 0, KIND_BYTES)
    assert rows[-1] is None and len(rows) == names.index(b"b") + 1
    assert [row[0] for row in look(folder, names, len(rows), KIND_BYTES) if row] == [b"c"]


def test_calls_that_make_no_sense_are_refused(folder: int) -> None:
    for start in (-1, 2):
        with pytest.raises(ValueError):
            look(folder, (b"a",), start, KIND_BYTES)
    with pytest.raises(ValueError):
        look(folder, (b"a\0b",), 0, KIND_BYTES)
    with pytest.raises(ValueError):
        look(folder, (b"a",), 0, b"short")
    with pytest.raises(TypeError):
        read_files(folder, ((b"a", 1),), bytearray(1), EUID, True)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        look(folder, ("a",), 0, KIND_BYTES)  # type: ignore[arg-type]


def test_files_are_read_one_behind_the_other(tmp_path: Path, folder: int) -> None:
    contents = [b"one", b"", b"three" * 5000, b"4"]
    entries = tuple(entry_of(write(tmp_path, str(n), content)) for n, content in enumerate(contents))
    target = bytearray(b"." * (sum(map(len, contents)) + 2))
    assert read_files(folder, entries, target, EUID, True) == 4
    assert target == b"".join(contents) + b".."
    assert read_files(folder, entries, memoryview(target)[:100], EUID, True) == 2, (
        "no more than there is room for"
    )


CHANGES = {
    "gone": lambda path: path.unlink(),
    "grown": lambda path: path.write_bytes(b"longer than it was"),
    "shrunk": lambda path: os.truncate(path, 1),
    "touched": lambda path: os.utime(path, ns=(1, 1)),
    "another mode": lambda path: path.chmod(0o600),
    "replaced": lambda path: (path.rename(f"{path}.old"), path.write_bytes(b"content")),
    "a link": lambda path: (path.rename(f"{path}.old"), path.symlink_to(f"{path.name}.old")),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_as_listed_is_left_to_python(tmp_path: Path, folder: int, change: str) -> None:
    paths = [write(tmp_path, name) for name in "abc"]
    entries = tuple(map(entry_of, paths))
    CHANGES[change](paths[1])
    assert read_files(folder, entries, bytearray(100), EUID, True) == 1


def test_holes_and_extended_attributes_are_left_to_python(tmp_path: Path, folder: int) -> None:
    sparse, labelled = write(tmp_path, "sparse", b""), write(tmp_path, "labelled")
    os.truncate(sparse, 100_000)
    assert read_files(folder, (entry_of(sparse),), bytearray(100_000), EUID, True) == 0
    try:
        os.setxattr(labelled, "user.label", b"x")
    except OSError:
        pytest.skip("no extended attributes here")
    assert read_files(folder, (entry_of(labelled),), bytearray(100), EUID, True) == 0
    assert read_files(folder, (entry_of(labelled),), bytearray(100), EUID, False) == 1
