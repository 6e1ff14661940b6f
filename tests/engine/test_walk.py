"""The walk finds everything, in the order of the tuple of names, and reports what it cannot read."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.copying import read_tree
from support.trees import describe_tree, make_deep, make_hostile_tree, remove_tree, write

from engine.problems import Problem, ProblemKind
from engine.sources import files, sorted_names
from engine.sources.files import FileTree, WalkOptions
from engine.sources.roots import Root, plan_roots
from repo_store.entry import Entry, EntryKind
from repo_store.entry import Path as EntryPath
from repo_store.errors import SourceError

ROOT = os.geteuid() == 0


def walk(
    *paths: str | bytes | Path, options: WalkOptions | None = None
) -> tuple[dict[EntryPath, Entry], list[Problem]]:
    """Return the entries by path, in the order of the walk, and the problems."""
    problems: list[Problem] = []
    tree = FileTree(plan_roots(map(os.fsencode, paths)), options or WalkOptions(), problems.append)
    return {
        (*directory.path, entry.name): entry for directory, entries in tree.batches() for entry in entries
    }, problems


def test_siblings_come_before_the_next_name_is_compared(tmp_path: Path) -> None:
    for name in ("a/b", "a-b", "a.c/d", "ab", "a/b-c"):
        write(os.fsencode(tmp_path / "t" / name), b"")
    found, _ = walk(tmp_path / "t")
    assert ["/".join(map(os.fsdecode, path)) for path in found] == [
        "t", "t/a", "t/a/b", "t/a/b-c", "t/a-b", "t/a.c", "t/a.c/d", "t/ab",
    ]  # fmt: skip


@pytest.mark.parametrize(("names_max", "batch_max", "open_max"), [(100_000, 1024, 64), (2, 1, 1), (3, 7, 2)])
def test_the_walk_agrees_with_a_slow_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_max: int, batch_max: int, open_max: int
) -> None:
    monkeypatch.setattr(sorted_names, "NAMES_MAX", names_max)
    monkeypatch.setattr(files, "BATCH_ENTRIES_MAX", batch_max)
    monkeypatch.setattr(files, "OPEN_DIRECTORIES_MAX", open_max)
    make_hostile_tree(tmp_path / "t")
    found, problems = walk(tmp_path / "t")
    expected = describe_tree(tmp_path / "t")
    assert problems == []
    assert list(found) == sorted((b"t", *path) for path in expected)
    for path, entry in found.items():
        here = expected[path[1:]]
        assert (entry.name, entry.mode, entry.uid, entry.gid) == (path[-1], here.mode, here.uid, here.gid)
        assert (entry.mtime_ns, entry.inode, entry.size) == (here.mtime_ns, here.inode, here.size)
        assert entry.content is None


def test_roots_are_walked_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/x", "a/y", "c/z"):
        write(os.fsencode(tmp_path / name), b"")
    found, _ = walk(tmp_path / "c", tmp_path / "b", tmp_path / "a")
    assert list(found) == sorted(found) and len(found) == 6


def test_depth_is_limited_by_neither_descriptors_nor_recursion(tmp_path: Path) -> None:
    """1,500 levels: more than open files allowed by default, and than Python's stack."""
    try:
        make_deep(os.fsencode(tmp_path / "t"), b"d", 1500)
        write(os.fsencode(tmp_path / "t" / "d" / "d" / "e"), b"seen on the way back")
        before = len(os.listdir("/proc/self/fd"))
        problems: list[Problem] = []
        tree = FileTree(plan_roots([str(tmp_path / "t")]), WalkOptions(), problems.append)
        most, paths = 0, []
        for directory, entries in tree.batches():
            most = max(most, directory.fd - before)
            paths += [(*directory.path, entry.name) for entry in entries]
        assert len(paths) == 1503 and paths[-1] == (b"t", b"d", b"d", b"e")
        assert problems == [] and most < files.OPEN_DIRECTORIES_MAX + 10
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        remove_tree(tmp_path / "t")


def test_a_walk_given_up_half_way_closes_what_it_opened(tmp_path: Path) -> None:
    make_hostile_tree(tmp_path / "t")
    before = len(os.listdir("/proc/self/fd"))
    batches = FileTree(plan_roots([str(tmp_path / "t")]), WalkOptions(), print).batches()
    for _ in range(5):
        next(batches)
    assert isinstance(batches, Iterator)
    batches.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


def test_kinds_targets_and_device_numbers_are_read(tmp_path: Path) -> None:
    made = make_hostile_tree(tmp_path / "t")
    entries = dict(read_tree([str(tmp_path / "t")]).entries)
    assert entries[b"t", b"links", b"loop"].kind == EntryKind.SYMLINK
    assert entries[b"t", b"links", b"loop"].extra == {"target": b"loop"}
    assert entries[b"t", b"links", b"loop"].size == 0
    assert entries[b"t", b"specials", b"fifo"].kind == EntryKind.FIFO
    if "device" not in made.refused:
        block = entries[b"t", b"specials", b"block"]
        assert (block.kind, block.extra) == (EntryKind.BLOCK_DEVICE, {"rdev": [259, 70000]})
        assert entries[b"t", b"specials", b"char"].kind == EntryKind.CHARACTER_DEVICE


def test_hard_links_share_a_number_that_stays_the_same(tmp_path: Path) -> None:
    make_hostile_tree(tmp_path / "t")
    first, _ = walk(tmp_path / "t")
    links = [first[b"t", b"links", *rest].extra for rest in ([b"first"], [b"second"], [b"below", b"third"])]
    assert links[0] is not None and links[0] == links[1] == links[2]
    assert 0 <= links[0]["link"] < 2**63
    other = first[b"t", b"links", b"up"].extra
    assert other == first[b"t", b"links", b"up-too"].extra and other != links[0]
    assert walk(tmp_path / "t")[0] == first, "an unchanged tree gives identical entries"


def test_a_socket_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "t" / "s"))
        found, problems = walk(tmp_path / "t")
    message = "socket: not backed up, its program makes it anew"
    assert list(found) == [(b"t",)]
    assert problems == [Problem((b"t", b"s"), message, ProblemKind.NOTE)]


def test_owner_names_are_collected_once(tmp_path: Path) -> None:
    write(os.fsencode(tmp_path / "t" / "f"), b"")
    if ROOT:
        os.chown(tmp_path / "t" / "f", 65534, 54321)
    names = read_tree([str(tmp_path / "t")]).owners
    if ROOT:
        assert names.users == {0: b"root", 65534: b"nobody"}
        assert names.groups == {0: b"root"}, "an id without a name has none"


def test_what_vanishes_between_listing_and_looking_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name is removed after the directory was listed, files and directories alike."""
    for name in ("a", "b/c", "d/e", "f"):
        write(os.fsencode(tmp_path / "t" / name), b"")
    genuine = sorted_names.sorted_names

    def listed_then_removed(fd: int) -> Iterator[bytes]:
        names = list(genuine(fd))
        for name in (b"a", b"f"):
            if name in names:
                os.unlink(name, dir_fd=fd)
        return iter(names)

    monkeypatch.setattr(files, "sorted_names", listed_then_removed)
    problems: list[Problem] = []
    seen = []
    for directory, entries in FileTree(
        plan_roots([str(tmp_path / "t")]), WalkOptions(), problems.append
    ).batches():
        for entry in entries:
            seen.append((*directory.path, entry.name))
            if entry.name == b"b":
                remove_tree(tmp_path / "t" / "b")
    assert problems == []
    assert seen == [(b"t",), (b"t", b"b"), (b"t", b"d"), (b"t", b"d", b"e")]


def test_a_directory_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    write(os.fsencode(tmp_path / "t" / "d" / "inside"), b"")
    write(os.fsencode(tmp_path / "elsewhere" / "secret"), b"")
    problems: list[Problem] = []
    seen = []
    for directory, entries in FileTree(
        plan_roots([str(tmp_path / "t")]), WalkOptions(), problems.append
    ).batches():
        for entry in entries:
            seen.append((*directory.path, entry.name))
            if entry.name == b"d":
                (tmp_path / "t" / "d").rename(tmp_path / "moved")
                (tmp_path / "t" / "d").symlink_to(tmp_path / "elsewhere")
    assert seen == [(b"t",), (b"t", b"d")]
    assert [problem.path for problem in problems] == [(b"t", b"d")]
    assert problems[0].kind == ProblemKind.INCOMPLETE


def _walk_and_move(tmp_path: Path, *moved: str) -> tuple[list[EntryPath], list[Problem]]:
    """Walk t/d/e/f/h, t/d/e/g, t/d/y, t/z with one descriptor; at h move some directories elsewhere."""
    for name in ("t/d/e/f/h", "t/d/e/g", "t/d/y", "t/z"):
        write(os.fsencode(tmp_path / name), b"")
    problems: list[Problem] = []
    seen = []
    for directory, entries in FileTree(
        plan_roots([str(tmp_path / "t")]), WalkOptions(), problems.append
    ).batches():
        for entry in entries:
            seen.append((*directory.path, entry.name))
            if entry.name == b"h":
                for name in moved:
                    (tmp_path / name).rename(tmp_path / f"moved-{name.replace('/', '-')}")
    return seen, problems


@pytest.mark.parametrize("moved", ["t/d/e/f", "t/d/e", "t/d"])
def test_the_way_back_is_found_though_a_directory_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    monkeypatch.setattr(files, "OPEN_DIRECTORIES_MAX", 1)
    seen, problems = _walk_and_move(tmp_path, moved)
    assert {(b"t", b"d", b"e", b"g"), (b"t", b"d", b"y"), (b"t", b"z")} <= set(seen)
    assert problems == []


def test_what_cannot_be_found_again_is_a_problem_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "OPEN_DIRECTORIES_MAX", 1)
    seen, problems = _walk_and_move(tmp_path, "t/d/e", "t/d")
    assert (b"t", b"z") in seen and (b"t", b"d", b"y") not in seen
    assert problems == [Problem((b"t", b"d"), "directory was moved away before all of it was read")]


def test_a_root_that_vanishes_before_the_walk_is_a_source_error(tmp_path: Path) -> None:
    tree = FileTree([Root(b"t", os.fsencode(tmp_path / "t"))], WalkOptions(), print)
    with pytest.raises(SourceError, match="no such file or directory"):
        list(tree.batches())


@pytest.mark.skipif(not ROOT, reason="mounting needs privilege")
def test_another_file_system_is_an_empty_directory_if_wanted(tmp_path: Path) -> None:
    write(os.fsencode(tmp_path / "t" / "a"), b"")
    (tmp_path / "t" / "mounted").mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "none", str(tmp_path / "t" / "mounted")], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is refused: {done.stderr!r}")
    try:
        write(os.fsencode(tmp_path / "t" / "mounted" / "b"), b"")
        assert (b"t", b"mounted", b"b") in walk(tmp_path / "t")[0]
        found, problems = walk(tmp_path / "t", options=WalkOptions(one_file_system=True))
        assert list(found) == [(b"t",), (b"t", b"a"), (b"t", b"mounted")] and problems == []
        assert (b"mounted", b"b") in walk(
            tmp_path / "t" / "mounted", options=WalkOptions(one_file_system=True)
        )[0]
    finally:
        subprocess.run(["umount", str(tmp_path / "t" / "mounted")], check=True)


def test_extended_attributes_can_be_left_out(tmp_path: Path) -> None:
    write(os.fsencode(tmp_path / "t" / "f"), b"")
    os.setxattr(tmp_path / "t" / "f", "user.x", b"1")
    with_them = dict(read_tree([str(tmp_path / "t")]).entries)[b"t", b"f"]
    without = dict(read_tree([str(tmp_path / "t")], WalkOptions(xattrs=False)).entries)[b"t", b"f"]
    assert with_them.extra == {"xattrs": {b"user.x": b"1"}} and without.extra is None


def test_metadata_that_cannot_be_read_is_a_problem_and_is_tried_again_next_time(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "link").symlink_to("x")
    problems: list[Problem] = []
    tree = FileTree(plan_roots([str(tmp_path / "t")]), WalkOptions(), problems.append)
    for directory, entries in tree.batches():
        if entries[0].name == b"link":
            (tmp_path / "t" / "link").unlink()
            assert tree.read_extra(directory, entries[0]).ctime_ns == 0
    assert [str(problem) for problem in problems] == [
        "t/link: its metadata cannot be read: no such file or directory"
    ]
