"""Key files survive paper and bad typists, and say what is wrong with them."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.damaging import truncations

from repo_store.errors import Refused, StorageError, WrongKey
from repo_store.key_file import KeyFile, parse_key_file, read_key_file, recovery_sheet, write_key_file

KEY = KeyFile(bytes(range(32)), "0123456789abcdef", bytes(range(100, 132)))
LINE = (
    "holdfast-key-1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 0123456789abcdef "
    "6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283 18457a8d"
)


def why(text: str) -> str:
    with pytest.raises((WrongKey, Refused)) as caught:
        parse_key_file(text)
    return str(caught.value)


def test_the_line_is_what_the_format_says() -> None:
    assert KEY.line == LINE
    assert parse_key_file(LINE) == KEY


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=32, max_size=32),
)
def test_every_key_file_reads_back(repository: bytes, slot: bytes, key: bytes) -> None:
    key_file = KeyFile(repository, slot.hex(), key)
    assert parse_key_file(key_file.line) == key_file


def test_spacing_and_case_do_not_matter() -> None:
    assert parse_key_file("\n  " + LINE.upper().replace(" ", "\r\n\t ") + "\n\n") == KEY


def test_one_mistyped_letter_is_noticed() -> None:
    for at, letter in enumerate(LINE):
        other = "0" if letter != "0" else "1"
        assert why(LINE[:at] + other + LINE[at + 1 :])


def test_a_part_of_a_key_file_is_none() -> None:
    for shorter in truncations(LINE.encode()):
        assert why(shorter.decode())


@given(st.text() | st.text().map(lambda text: f"holdfast-key-1 {text}"))
def test_other_text_is_no_key_file(text: str) -> None:
    assert why(text)


def test_each_refusal_has_its_own_words() -> None:
    assert why("hello") == "the key file: not a key file of holdfast"
    assert why(LINE[:-9]) == "the key file: not a whole key file: something is missing or mistyped"
    assert (
        why(LINE[:-1] + "e") == "the key file: its check does not fit: something in it is mistyped or damaged"
    )
    assert why(LINE.replace("key-1", "key-2")) == "the key file: has format 2; this version reads up to 1"


def test_a_written_key_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key_file(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == LINE + "\n"
    assert read_key_file(str(path)) == (KEY, ())


def test_an_existing_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("precious")
    with pytest.raises(Refused) as caught:
        write_key_file(path, KEY)
    assert str(caught.value) == f"{path}: exists already, and a key file is never overwritten"
    assert path.read_text() == "precious"


def test_a_key_file_that_cannot_be_written_whole_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "key"
    with pytest.raises(StorageError) as caught:
        write_key_file(path, KEY)
    assert str(caught.value) == f"{path}: cannot write: no space left on device"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_told_of(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_key_file(path, KEY)
    path.chmod(mode)
    read = read_key_file(path)
    assert read.key_file == KEY
    assert read.warnings == (f"{path}: others than its owner may read it (mode {mode:04o}): chmod 600 it",)


def test_files_that_are_no_key_files_are_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(StorageError) as missing:
        read_key_file(path)
    assert str(missing.value) == f"{path}: cannot read: no such file or directory"
    for content in (b"\0" * 10_000, b"\xff\xfe", LINE.encode() * 40):
        path.write_bytes(content)
        with pytest.raises(WrongKey, match="^" + str(path)):
            read_key_file(path)


def test_the_key_shows_in_no_repr_and_no_message() -> None:
    assert KEY.key.hex() not in repr(KEY) and repr(KEY.key) not in repr(KEY)
    assert KEY.key.hex() not in why(LINE[:-1] + "e")


def test_the_recovery_sheet_says_where_what_and_how() -> None:
    sheet = recovery_sheet("/backups", KEY.repository, KEY.slot, KEY)
    for expected in (
        "/backups",
        KEY.repository.hex(),
        KEY.slot,
        LINE,
        "--key-file",
        "nobody can recover them",
    ):
        assert expected in sheet
    without = recovery_sheet("/backups", KEY.repository, KEY.slot, None)
    assert "HOLDFAST_PASSPHRASE" in without and "holdfast-key-1" not in without
    lines = (sheet + without).splitlines()
    assert all(len(line) <= 100 for line in lines if LINE not in line)
