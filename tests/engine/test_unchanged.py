"""Every way in which an upload changes in life is seen (A21), and what did not change is not read again."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.copying import read_tree

from engine.sources.unchanged import RACY_MARGIN_NS, carried, trusted_before, unchanged
from repo_store.entry import Entry, EntryKind

DAY_NS = 86_400_000_000_000
LONG_AGO_NS = 1_700_000_000_000_000_000
OLD = Entry(
    b"f",
    EntryKind.FILE,
    0o644,
    1,
    2,
    LONG_AGO_NS,
    LONG_AGO_NS + 5,
    77,
    100,
    b"i" * 32,
    {"xattrs": {b"user.a": b"1"}},
)
NEW = OLD._replace(content=None, extra=None)
START_NS = LONG_AGO_NS + DAY_NS


def test_a_file_that_looks_the_same_well_after_its_last_change_is_unchanged() -> None:
    assert unchanged(OLD, NEW, trusted_before(START_NS))


@pytest.mark.parametrize("field", ["kind", "mtime_ns", "ctime_ns", "inode", "size"])
@pytest.mark.parametrize("step", [-1, 1])
def test_any_difference_is_a_change_in_either_direction(field: str, step: int) -> None:
    assert not unchanged(OLD, NEW._replace(**{field: getattr(NEW, field) + step}), trusted_before(START_NS))


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
def test_times_within_two_seconds_of_the_previous_start_prove_nothing(field: str) -> None:
    for before_start_ns, expected in (
        (2_000_000_001, True),
        (2_000_000_000, False),
        (0, False),
        (-DAY_NS, False),
    ):
        time_ns = START_NS - before_start_ns
        old, new = OLD._replace(**{field: time_ns}), NEW._replace(**{field: time_ns})
        assert unchanged(old, new, trusted_before(START_NS)) is expected


def test_a_file_that_changed_while_it_was_read_is_read_again() -> None:
    unstable = OLD._replace(extra={"unstable": True})
    assert not unchanged(unstable, NEW, trusted_before(START_NS))


def test_an_entry_whose_metadata_could_not_be_read_is_read_again() -> None:
    assert not unchanged(OLD._replace(ctime_ns=0), NEW, trusted_before(START_NS))


def entry_of(folder: Path) -> Entry:
    """Return the entry of the upload as a snapshot would see it now."""
    return dict(read_tree([str(folder)]).entries)[folder.name.encode(), b"upload"]


def _settled(folder: Path) -> int:
    """Return a snapshot start that trusts everything up to now, as if the times were minutes ago."""
    del folder
    return time.time_ns() + RACY_MARGIN_NS + 1_000_000_000


def _replace_keeping_mtime(upload: Path) -> None:
    other = upload.with_name("other")
    other.write_bytes(b"B" * 100)
    shutil.copystat(upload, other)
    other.rename(upload)


def _rewrite_in_place_keeping_mtime(upload: Path) -> None:
    status = upload.stat()
    with upload.open("r+b") as file:
        file.write(b"B" * 100)
    os.utime(upload, ns=(status.st_atime_ns, status.st_mtime_ns))


def _rewrite_same_size(upload: Path) -> None:
    with upload.open("r+b") as file:
        file.write(b"B" * 100)


def _rename_another_over_it(upload: Path) -> None:
    upload.with_name("second").rename(upload)


def _swap_two(upload: Path) -> None:
    second, third = upload.with_name("second"), upload.with_name("third")
    upload.rename(third)
    second.rename(upload)
    third.rename(second)


def _write_with_clock_set_back(upload: Path) -> None:
    """The clock cannot be set here; what a set-back clock leaves behind is an mtime of the past."""
    with upload.open("r+b") as file:
        file.write(b"B" * 100)
    os.utime(upload, ns=(LONG_AGO_NS - DAY_NS, LONG_AGO_NS - DAY_NS))


def _change_mode_only(upload: Path) -> None:
    upload.chmod(0o600)


def _change_xattr_only(upload: Path) -> None:
    os.setxattr(upload, "user.tag", b"new")


def _become_a_link(upload: Path) -> None:
    upload.rename(upload.with_name("moved"))
    upload.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [
        _replace_keeping_mtime,
        _rewrite_in_place_keeping_mtime,
        _rewrite_same_size,
        _rename_another_over_it,
        _swap_two,
        _write_with_clock_set_back,
        _change_mode_only,
        _change_xattr_only,
        _become_a_link,
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_an_upload_that_changed_is_never_taken_for_unchanged(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Old and new file have the same size and mtime; the previous snapshot is old enough to be trusted."""
    upload = tmp_path / "upload"
    for name, content in (("second", b"B" * 100), ("upload", b"A" * 100)):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    previous = entry_of(tmp_path)
    assert unchanged(previous, entry_of(tmp_path), trusted_before(_settled(tmp_path)))
    time.sleep(0.015)  # longer than a tick of the clock of the file system
    change(upload)
    assert not unchanged(previous, entry_of(tmp_path), trusted_before(_settled(tmp_path)))


def test_a_rewrite_within_the_tick_of_the_clock_is_seen_through_the_racy_rule(tmp_path: Path) -> None:
    """All of it may look the same; the file is too young at the previous start to be believed."""
    upload = tmp_path / "upload"
    start_ns = time.time_ns()
    upload.write_bytes(b"A" * 100)
    previous = entry_of(tmp_path)
    _rewrite_same_size(upload)
    current = entry_of(tmp_path)._replace(mtime_ns=previous.mtime_ns, ctime_ns=previous.ctime_ns)
    assert not unchanged(previous, current, trusted_before(start_ns))


def test_an_unchanged_entry_is_the_previous_one_itself() -> None:
    assert carried(OLD, NEW) is OLD
    linked = OLD._replace(extra={"link": 5, "xattrs": {}})
    assert carried(linked, NEW._replace(extra={"link": 5})) is linked


def test_what_lstat_says_is_taken_from_now_and_the_rest_from_before() -> None:
    current = NEW._replace(name=b"new", uid=9, extra={"link": 6})
    assert carried(OLD._replace(extra={"link": 5, "target": b"x"}), current) == current._replace(
        content=OLD.content, extra={"link": 6, "target": b"x"}
    )
    assert carried(OLD._replace(extra={"link": 5}), NEW) == NEW._replace(content=OLD.content, extra=None)


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_nothing_not_older_than_the_trusted_time_is_ever_trusted(
    mtime: int, ctime: int, trusted: int
) -> None:
    old = OLD._replace(mtime_ns=mtime, ctime_ns=ctime)
    assert unchanged(old, old, trusted) == (max(mtime, ctime) < trusted)
