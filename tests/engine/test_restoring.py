"""The C of engine/_restoring.c creates what Python would, for ordinary files only, and stops at every other one."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine._restoring import create_files

OWN = (os.geteuid(), os.getegid())
Row = tuple[bytes, bytes, int, int, int, int]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open descriptor of `tmp_path`."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def row(name: bytes, content: bytes = b"content", mode: int = 0o640, mtime_ns: int = -1_500_000_001) -> Row:
    return name, content, *OWN, mode, mtime_ns


def test_files_are_made_whole_with_their_metadata(tmp_path: Path, folder: int) -> None:
    rows = tuple(row(b"%d" % number, b"x" * number, 0o600 + number % 8) for number in range(20))
    assert create_files(folder, rows, 3) == 17
    assert sorted(map(int, os.listdir(tmp_path))) == list(range(3, 20))
    for number in range(3, 20):
        path = tmp_path / str(number)
        assert path.read_bytes() == b"x" * number
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 + number % 8
        assert path.stat().st_mtime_ns == -1_500_000_001


@pytest.mark.parametrize(
    "special",
    [
        row(b""),
        row(b"."),
        row(b".."),
        row(b"../out"),
        row(b"/out"),
        row(b"a\0b"),
        row(b"there"),
        row(b"link"),
        row(b"x" * 256),
        row(b"hole", b"y" * 4096 + bytes(4096)),
        row(b"mode", mode=0o10000),
        row(b"mode", mode=-1),
        row(b"late", mtime_ns=2**64),
        (b"owner", b"", 2**32, 0, 0o600, 0),
        (b"owner", b"", -2, 0, 0o600, 0),
        (b"group", b"", 0, 2**70, 0o600, 0),
        (b"text", "no bytes", *OWN, 0o600, 0),
        ("text", b"", *OWN, 0o600, 0),
        (b"short", b""),
        None,
    ],
    ids=repr,
)
def test_what_is_special_is_left_to_python(tmp_path: Path, special: object) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "there").write_bytes(b"before")
    (tmp_path / "in" / "link").symlink_to("../out")
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    try:
        assert create_files(fd, (row(b"first"), special, row(b"last")), 0) == 1  # type: ignore[arg-type]
    finally:
        os.close(fd)
    assert sorted(os.listdir(tmp_path / "in")) == ["first", "link", "there"] and os.listdir(tmp_path) == [
        "in"
    ]
    assert (tmp_path / "in" / "there").read_bytes() == b"before"


def test_one_call_makes_a_bounded_number(folder: int) -> None:
    rows = tuple(row(b"%d" % number) for number in range(1300))
    at = 0
    while at < len(rows):
        more = create_files(folder, rows, at)
        assert 0 < more <= 512
        at += more


@pytest.mark.parametrize("start", [-1, 2])
def test_a_start_outside_of_the_rows_is_refused(folder: int, start: int) -> None:
    with pytest.raises(ValueError, match="outside the rows"):
        create_files(folder, (row(b"a"),), start)
