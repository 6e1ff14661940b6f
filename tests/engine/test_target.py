"""A Target gives files back whole: content, holes, metadata in the right order, durable at the end."""

import ctypes
import os
import random
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import posix_acl

import engine.target_directories
import engine.target_file
from engine.problems import Problem, ProblemKind
from engine.sources.owners import OwnerNames
from engine.target import Target, TargetOptions
from engine.target_file import HOLE_BYTES, data_runs
from repo_store.entry import Entry, EntryKind
from repo_store.errors import ObjectDamaged, Refused, StorageError

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="giving files away needs privilege")


def entry(name: bytes, kind: EntryKind = EntryKind.FILE, size: int = 0, **fields: Any) -> Entry:
    """Return an entry of ours, with fields of choice."""
    plain = Entry(name, int(kind), 0o644, os.geteuid(), os.getegid(), 10**18 + 7, 0, 0, size, None, None)
    return plain._replace(**fields)


def open_target(
    location: Path, problems: list[Problem], *, names: OwnerNames | None = None, **options: Any
) -> Target:
    options = {"durable": False, **options}
    return Target(
        os.fsencode(location), TargetOptions(**options), names or OwnerNames({}, {}), problems.append
    )


def test_the_target_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("empty")
    before = os.listdir("/proc/self/fd")
    open_target(tmp_path / "new", []).close()
    open_target(tmp_path / "empty", []).close()
    with pytest.raises(Refused, match="full: is not empty"):
        open_target(tmp_path / "full", [])
    for name in ("file", "link"):
        with pytest.raises(Refused, match="exists and is not a directory"):
            open_target(tmp_path / name, [])
    with pytest.raises(StorageError, match="cannot be created: no such file or directory"):
        open_target(tmp_path / "no" / "parent", [])
    assert os.listdir("/proc/self/fd") == before


def test_directories_get_their_mode_and_time_after_everything_in_them(tmp_path: Path) -> None:
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        for path in ((b"a",), (b"a", b"b"), (b"a", b"b", b"c")):
            target.make_directory(path, entry(path[-1], EntryKind.DIRECTORY, mode=0o555))
        assert stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode) == 0o700
        target.write_file((b"a", b"b", b"c", b"f"), entry(b"f", size=1), b"x")
        target.write_file((b"a", b"late"), entry(b"late", size=1), b"x")
        target.finish()
    for name in ("a", "a/b", "a/b/c"):
        status = (tmp_path / "out" / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o555, 10**18 + 7)
    assert problems == []


def test_a_file_under_way_is_nobody_elses(tmp_path: Path) -> None:
    with open_target(tmp_path / "out", []) as target:
        file = target.make_file((b"f",), entry(b"f", size=10, mode=0o666))
        assert file is not None
        assert stat.S_IMODE((tmp_path / "out" / "f").stat().st_mode) == 0o600
        file.finish()
    assert (tmp_path / "out" / "f").stat().st_size == 10
    assert stat.S_IMODE((tmp_path / "out" / "f").stat().st_mode) == 0o666


@pytest.mark.parametrize("open_max", [0, 1, 256])
def test_pieces_come_in_any_order_from_any_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_max: int
) -> None:
    monkeypatch.setattr(engine.target_file, "OPEN_FILES_MAX", open_max)
    rng = random.Random(open_max)
    contents = {b"f%d" % number: rng.randbytes(rng.randrange(30_000)) for number in range(20)}
    before = len(os.listdir("/proc/self/fd"))
    with open_target(tmp_path / "out", []) as target:
        target.make_directory((b"d",), entry(b"d", EntryKind.DIRECTORY))
        work, files = [], []
        for name, content in contents.items():
            file = target.make_file((b"d", name), entry(name, size=len(content)))
            assert file is not None
            files.append(file)
            work += [(file, at, content[at : at + 5000]) for at in range(0, len(content), 5000)]
        assert len(os.listdir("/proc/self/fd")) <= before + 3 + open_max
        rng.shuffle(work)

        def write_some(number: int) -> None:
            for file, offset, data in work[number::4]:
                file.write_at(offset, memoryview(data))

        threads = [threading.Thread(target=write_some, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for file in files:
            file.finish()
        target.finish()
    assert {
        os.fsencode(path.name): path.read_bytes() for path in (tmp_path / "out" / "d").iterdir()
    } == contents
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_discarded_file_is_gone(tmp_path: Path) -> None:
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        file = target.make_file((b"f",), entry(b"f", size=9))
        assert file is not None
        file.write_at(0, b"half")
        file.discard()
    assert os.listdir(tmp_path / "out") == [] and problems == []


BYTES = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.sampled_from([1, 7, 4095, 4096, 4097, 12288])), max_size=6
).map(lambda runs: b"".join(bytes([byte]) * length for byte, length in runs))


@given(BYTES, st.integers(0, 2 * HOLE_BYTES))
def test_what_is_not_written_is_exactly_the_aligned_blocks_of_zeros(data: bytes, offset: int) -> None:
    written = set()
    for start, end in data_runs(data, offset):
        assert start < end
        written.update(range(start, end))
    for at in range(len(data)):
        block = (offset + at) // HOLE_BYTES * HOLE_BYTES - offset
        whole = block >= 0 and block + HOLE_BYTES <= len(data)
        hole = whole and data[block : block + HOLE_BYTES] == bytes(HOLE_BYTES)
        assert (at in written) != hole


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: genuine(fd, bytes(data)[:3], at))
    content = bytes(4096) + b"0123456789" * 10
    with open_target(tmp_path / "out", []) as target:
        assert target.write_file((b"f",), entry(b"f", size=len(content)), content)
    assert (tmp_path / "out" / "f").read_bytes() == content


def test_a_full_disk_ends_the_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with open_target(tmp_path / "out", []) as target:
        file = target.make_file((b"g",), entry(b"g", size=3))
        assert file is not None
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="out: f cannot be written: no space left on device"):
            target.write_file((b"f",), entry(b"f", size=1), b"x")
        with pytest.raises(StorageError, match="out: g cannot be written: no space left on device"):
            file.write_at(0, b"x")


class _NoSync:
    """A C library whose syncfs is as told."""

    def __init__(self, result: int) -> None:
        self.synced: list[int] = []
        self._result = result

    def syncfs(self, fd: int) -> int:
        self.synced.append(fd)
        ctypes.set_errno(5)
        return self._result


def test_finish_waits_for_the_disk_and_says_so_if_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for result, name in ((0, "good"), (-1, "bad")):
        libc = _NoSync(result)
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, library=libc, **__: library)
        with open_target(tmp_path / name, [], durable=True) as target:
            if result:
                with pytest.raises(StorageError, match="not all is on the disk: input/output error"):
                    target.finish()
            else:
                target.finish()
        assert len(libc.synced) == 1
    libc = _NoSync(0)
    with open_target(tmp_path / "hasty", [], durable=False) as target:
        target.finish()
    assert libc.synced == []


def test_a_real_sync_works(tmp_path: Path) -> None:
    with open_target(tmp_path / "out", [], durable=True) as target:
        target.finish()


@as_root
def test_set_id_bits_come_after_the_owner_and_only_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        target.write_file((b"given",), entry(b"given", uid=1234, gid=5678, mode=0o6755), b"")
        genuine = os.fchown

        def refuse(fd: int, uid: int, gid: int) -> None:
            if uid == 4321:
                raise PermissionError(1, "Operation not permitted")
            genuine(fd, uid, gid)

        monkeypatch.setattr(os, "fchown", refuse)
        for name in (b"kept", b"kept-too"):
            target.write_file((name,), entry(name, uid=4321, mode=0o6755), b"")
        target.finish()
    status = (tmp_path / "out" / "given").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o6755)
    assert stat.S_IMODE((tmp_path / "out" / "kept").stat().st_mode) == 0o755
    message = "owner cannot be set: operation not permitted (2 entries)"
    assert problems == [Problem((b"kept",), message, ProblemKind.INCOMPLETE)]


@as_root
def test_owners_go_by_name_then_by_id(tmp_path: Path) -> None:
    names = OwnerNames({4242: b"nobody", 4243: b"no-such-user"}, {4242: b"daemon"})
    expected = {False: [(65534, 1), (4243, 77)], True: [(4242, 4242), (4243, 77)]}
    for numeric, owners in expected.items():
        out = tmp_path / str(numeric)
        with open_target(out, [], names=names, numeric_ids=numeric) as target:
            target.write_file((b"a",), entry(b"a", uid=4242, gid=4242), b"")
            target.write_file((b"b",), entry(b"b", uid=4243, gid=77), b"")
        assert [((out / n).stat().st_uid, (out / n).stat().st_gid) for n in "ab"] == owners


def test_access_rules_of_the_place_of_the_target_are_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    try:
        os.setxattr(tmp_path / "out", "system.posix_acl_default", posix_acl(7))
    except OSError as error:
        pytest.skip(f"no access rules here: {error}")
    with open_target(tmp_path / "out", []) as target:
        target.write_file((b"f",), entry(b"f"), b"")
        target.make_directory((b"d",), entry(b"d", EntryKind.DIRECTORY))
        target.write_file((b"d", b"g"), entry(b"g"), b"")
        target.make_special((b"p",), entry(b"p", EntryKind.FIFO))
        target.finish()
    for name in ("f", "d", "d/g", "p"):
        assert os.listxattr(tmp_path / "out" / name) == [], name


def test_an_attribute_that_cannot_be_set_is_reported_once(tmp_path: Path) -> None:
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        for name in (b"a", b"b", b"c"):
            target.write_file((name,), entry(name, extra={"xattrs": {b"nowhere.x": b"1"}}), b"")
        target.finish()
    assert [str(problem) for problem in problems] == [
        "a: extended attribute nowhere.x cannot be set: operation not supported (3 entries)"
    ]


def test_attributes_are_left_out_if_wanted(tmp_path: Path) -> None:
    with open_target(tmp_path / "out", [], xattrs=False) as target:
        target.write_file((b"a",), entry(b"a", extra={"xattrs": {b"user.x": b"1"}}), b"")
    assert os.listxattr(tmp_path / "out" / "a") == []


def test_a_link_that_cannot_be_made_is_left_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        assert not target.make_link((b"b",), (b"a",)), "nothing is restored at its first path"
        target.write_file((b"a",), entry(b"a"), b"")
        assert target.make_link((b"b",), (b"a",))

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(31, "Too many links")

        monkeypatch.setattr(os, "link", refuse)
        assert not target.make_link((b"c",), (b"a",))
    assert problems == []
    assert (tmp_path / "out" / "a").samefile(tmp_path / "out" / "b")


def test_more_than_its_size_is_refused(tmp_path: Path) -> None:
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        file = target.make_file((b"f",), entry(b"f", size=4))
        assert file is not None
        for offset, data in ((0, b"12345"), (4, b"x"), (-1, b"x")):
            with pytest.raises(ObjectDamaged, match="f: damaged: its content is longer than its size"):
                file.write_at(offset, data)
        file.write_at(0, b"1234")
        assert not target.write_file((b"g",), entry(b"g", size=2), b"x")
    assert problems == [Problem((b"g",), "its content has 1 bytes, not 2", ProblemKind.DAMAGED)]
    assert os.listdir(tmp_path / "out") == ["f"]


def test_directories_are_finished_before_those_that_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that is finished is closed to its maker, and belongs to somebody else."""
    monkeypatch.setattr(engine.target_directories, "OPEN_DIRECTORIES_MAX", 1)
    problems: list[Problem] = []
    uid = 1234 if ROOT else os.geteuid()
    with open_target(tmp_path / "out", problems) as target:
        for path in ((b"a",), (b"d",), (b"a", b"b"), (b"d", b"e"), (b"a", b"b", b"c")):
            target.make_directory(path, entry(path[-1], EntryKind.DIRECTORY, mode=0, uid=uid))
        target.finish()
    assert problems == []
    assert (tmp_path / "out" / "a").stat().st_uid == uid
    for path in (tmp_path / "out" / "a", tmp_path / "out" / "d"):
        path.chmod(0o700)


@pytest.mark.parametrize("content", [b"x" * 4096 + bytes(8192), bytes(4096), bytes(5000), bytes(4096) + b"x"])
def test_a_file_that_ends_in_zeros_has_its_whole_size(tmp_path: Path, content: bytes) -> None:
    with open_target(tmp_path / "out", []) as target:
        assert target.write_file((b"f",), entry(b"f", size=len(content)), content)
    assert (tmp_path / "out" / "f").read_bytes() == content


def test_a_file_in_use_is_not_closed_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.target_file, "OPEN_FILES_MAX", 1)
    with open_target(tmp_path / "out", []) as target:
        files = [target.make_file((name,), entry(name, size=1)) for name in (b"a", b"b", b"c")]
        first, *others = [file for file in files if file is not None]
        first.write_at(0, b"y")  # so that it is the idle one
        fd = target._files.pin(first)
        for other in others * 2:
            other.write_at(0, b"x")
        assert first.fd == fd and os.path.samestat(os.fstat(fd), (tmp_path / "out" / "a").stat())
        target._files.unpin(first)
        for file in (first, *others):
            file.finish()


def test_directories_belong_to_whom_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a mount with `uid=`, or a server that squashes root, what we make is not ours: it is restored all the same."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(engine.target_directories, "OPEN_DIRECTORIES_MAX", 1)
    problems: list[Problem] = []
    with open_target(tmp_path / "out", problems) as target:
        for path in ((b"a",), (b"b",), (b"a", b"c")):
            assert target.make_directory(path, entry(path[-1], EntryKind.DIRECTORY))
        assert target.write_file((b"b", b"f"), entry(b"f"), b"")
    assert problems == []
