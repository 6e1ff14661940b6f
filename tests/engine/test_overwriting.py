"""A restore over what is there: what differs is written, each file is the old or the new one, nothing else is touched."""

import os
import socket
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.sessions import World, make_world, write_tree
from support.trees import COMPARED, Described, describe_tree, make_hostile_tree, remove_tree

from engine.existing_directories import ExistingDirectories, tops_below, tops_in_place
from engine.existing_target import TEMPORARY
from engine.files_snapshot import snapshot_files
from engine.overwrite import Change, Overwrite, OverwriteOptions, OverwriteResult
from engine.overwriting import overwrite_tree
from engine.problems import ProblemKind
from engine.target import TargetOptions
from engine.target_directories import Unrestorable
from repo_store.chunk_reader import ChunkReader
from repo_store.entry import Path as EntryPath
from repo_store.errors import Refused
from repo_store.manifest import Manifest
from repo_store.pack import pack_name
from repo_store.sealed import Kind

Tree = dict[EntryPath, Described]
OLD_NS = 10**18


class Case:
    """A snapshot of `source`, which is then changed, beside a directory that must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.outside = folder / "source", folder / "outside"
        self.source.mkdir(exist_ok=True)
        write_tree(self.outside, {"victim": b"untouched", "sub/deep": b"as well"})
        self.world: World = make_world(folder)
        self.manifest: Manifest | None = None
        self.changes: list[tuple[Change, str]] = []

    def snapshot(self) -> Tree:
        """Take the snapshot and return what it is of."""
        self.manifest = snapshot_files(self.world.session(), [str(self.source)]).manifest
        return describe_tree(self.source)

    def restore(
        self, overwrite: Overwrite = Overwrite.CHANGED, *, to: Path | None = None, **more: Any
    ) -> OverwriteResult:
        """Restore in place, or over what is in `to`."""
        assert self.manifest is not None
        paths = more.pop("paths", ())
        options = OverwriteOptions(overwrite=overwrite, target=TargetOptions(durable=False), **more)
        tops = tops_in_place(dict(self.manifest.roots)) if to is None else tops_below(os.fsencode(to))
        return overwrite_tree(
            self.world.session(operation="read"),
            self.manifest,
            tops,
            paths=paths,
            options=options,
            on_change=lambda change, path: self.changes.append((change, os.fsdecode(b"/".join(path)))),
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def files_of(tree: Tree) -> dict[str, bytes]:
    return {
        b"/".join(path).decode(): each.content for path, each in tree.items() if each.kind == stat.S_IFREG
    }


def differences(expected: Tree, found: Tree) -> list[str]:
    wrong = [f"{path}: only expected" for path in expected.keys() - found.keys()]
    wrong += [f"{path}: only found" for path in found.keys() - expected.keys()]
    for path in expected.keys() & found.keys():
        for name in COMPARED:
            if getattr(expected[path], name) != getattr(found[path], name):
                wrong.append(
                    f"{path}: {name}: {getattr(expected[path], name)!r} {getattr(found[path], name)!r}"
                )
    return wrong


def linked_within(tree: Tree) -> Tree:
    """Return the tree without the groups of one name: their other names are outside, where no restore makes any."""
    names = Counter(each.group for each in tree.values())
    return {path: each if names[each.group] > 1 else replace(each, group=()) for path, each in tree.items()}


@pytest.mark.parametrize("mode", [Overwrite.CHANGED, Overwrite.ALWAYS])
def test_what_is_as_it_was_is_not_touched(case: Case, mode: Overwrite) -> None:
    make_hostile_tree(case.source / "tree")
    before = case.snapshot()
    result = case.restore(mode, delete=True)
    assert case.changes == [] and result.problems == []
    assert (result.files, result.deleted, result.skipped) == (0, 0, 0) and result.unchanged > 40
    after = describe_tree(case.source)
    assert differences(before, after) == []
    assert {path: each.inode for path, each in before.items()} == {p: each.inode for p, each in after.items()}


def test_an_emptied_tree_comes_back_with_everything(case: Case) -> None:
    make_hostile_tree(case.source / "tree")
    before = case.snapshot()
    remove_tree(case.source)
    result = case.restore()
    assert result.problems == [] and differences(before, describe_tree(case.source)) == []


def test_only_the_pieces_that_differ_come_from_the_repository(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(2_000_000)
    write_tree(case.source, {"large": content, "same": b"same"})
    before = case.snapshot()
    with (case.source / "large").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
    asked: list[int] = []
    genuine = ChunkReader.sweep

    def sweep(reader: Any, ids: Any, take: Any) -> None:
        asked.append(len(ids))
        genuine(reader, ids, take)

    monkeypatch.setattr(ChunkReader, "sweep", sweep)
    result = case.restore()
    assert (result.files, result.unchanged, result.bytes) == (1, 1, 2_000_000)
    assert asked == [1] and case.changes == [(Change.REWRITE, "source/large")]
    assert files_of(describe_tree(case.source)) == files_of(before)


def test_a_touched_file_gets_its_time_back_and_is_not_rewritten(case: Case) -> None:
    write_tree(case.source, {"a": b"content"})
    before = case.snapshot()
    os.utime(case.source / "a", ns=(1, 1))
    (case.source / "a").chmod(0o711)
    result = case.restore()
    assert case.changes == [(Change.METADATA, "source/a")] and (result.files, result.unchanged) == (0, 1)
    assert differences(before, describe_tree(case.source)) == []


def test_content_that_changed_behind_its_time_is_found_by_always_only(case: Case) -> None:
    write_tree(case.source, {"a": b"content"})
    before = case.snapshot()
    times = os.stat(case.source / "a")
    (case.source / "a").write_bytes(b"CONTENT")
    os.utime(case.source / "a", ns=(times.st_mtime_ns, times.st_mtime_ns))
    assert case.restore().unchanged == 1 and (case.source / "a").read_bytes() == b"CONTENT"
    assert case.restore(Overwrite.ALWAYS).files == 1
    assert differences(before, describe_tree(case.source)) == []


def test_a_name_outside_keeps_the_old_content_and_metadata(case: Case) -> None:
    """One of the files is a hard link of something outside: it is exchanged, not written to."""
    write_tree(case.source, {"a": b"aaa", "b": b"bbb", "c": b"ccc"})
    before = case.snapshot()
    for name in ("a", "b"):
        (case.source / name).unlink()
        os.link(case.outside / "victim", case.source / name)
    os.link(case.source / "c", case.outside / "c")
    (case.source / "c").chmod(0o700)
    outside = describe_tree(case.outside)
    assert case.restore().problems == []
    assert differences(before, describe_tree(case.source)) == []
    assert (case.outside / "victim").read_bytes() == b"untouched"
    assert stat.S_IMODE((case.outside / "c").stat().st_mode) == 0o700
    assert files_of(describe_tree(case.outside)) == files_of(outside)


def test_a_name_outside_that_the_snapshot_knew_of_keeps_its_metadata(case: Case) -> None:
    write_tree(case.source, {"a": b"aaa", "b": b"bbb"})
    for name in ("a", "b"):
        os.link(case.source / name, case.outside / name)
    before = case.snapshot()
    (case.source / "a").chmod(0o700)
    assert (case.restore().files, case.restore().files) == (1, 0)
    assert stat.S_IMODE((case.outside / "a").stat().st_mode) == 0o700
    assert (case.source / "b").samefile(case.outside / "b"), "what is right keeps its other name"
    after = describe_tree(case.source)
    assert {path: (each.content, each.mode) for path, each in after.items()} == {
        path: (each.content, each.mode) for path, each in before.items()
    }


def test_files_that_became_one_are_parted_again(case: Case) -> None:
    names = ("a", "b", "c", "d", "e")
    write_tree(case.source, dict.fromkeys(names, b"same"))
    for first, second in (("a", "b"), ("c", "d")):
        (case.source / second).unlink()
        os.link(case.source / first, case.source / second)
    for name in names:
        os.utime(case.source / name, ns=(OLD_NS, OLD_NS))
    before = case.snapshot()
    for name in names[1:]:
        (case.source / name).unlink()
        os.link(case.source / "a", case.source / name)
    assert case.restore().files == 3, "a and its link stay, the others are made anew"
    assert differences(before, describe_tree(case.source)) == []


def test_no_link_is_made_to_a_file_that_was_left_as_it_was(case: Case) -> None:
    write_tree(case.source, {"a": b"from the snapshot"})
    os.link(case.source / "a", case.source / "b")
    case.snapshot()
    for name in ("a", "b"):
        (case.source / name).unlink()
    (case.source / "a").write_bytes(b"mine")
    assert case.restore(Overwrite.NEVER).files == 1
    assert (case.source / "a").read_bytes() == b"mine"
    assert (case.source / "b").read_bytes() == b"from the snapshot"


def test_no_directory_is_entered_through_a_link_whoever_put_it_there_meanwhile(case: Case) -> None:
    write_tree(case.source, {"d/e/f": b""})
    directories = ExistingDirectories(tops_below(os.fsencode(case.folder)), create=False)
    inside = os.fstat(directories.fd((b"source", b"d", b"e")))
    assert inside.st_ino == (case.source / "d/e").stat().st_ino
    directories.close()
    for place in ("d/e", "d", ""):
        remove_tree(case.source / place)
        (case.source / place).symlink_to(case.outside)
        (case.outside / "d").mkdir(exist_ok=True)
        directories = ExistingDirectories(tops_below(os.fsencode(case.folder)), create=False)
        with pytest.raises(OSError, match="Not a directory"):
            directories.fd((b"source", b"d", b"e"))
        for name in (b"..", b".", b"", b"a/b", b"a\0"):
            with pytest.raises(Unrestorable):
                directories.place((b"source", name))
            with pytest.raises(Unrestorable):
                directories.place((name, b"x"))
        directories.close()


def test_a_root_that_is_a_link_is_followed_if_it_is_ours(case: Case) -> None:
    write_tree(case.source, {"a": b"aaa"})
    before = case.snapshot()
    case.source.rename(case.folder / "elsewhere")
    case.source.symlink_to("elsewhere")
    (case.folder / "elsewhere" / "a").write_bytes(b"changed")
    assert case.restore().files == 1 and case.source.is_symlink()
    assert differences(before, describe_tree(case.folder / "elsewhere")) == []
    if os.geteuid() == 0:
        (case.source / "a").write_bytes(b"changed")
        os.lchown(case.source, 4321, 4321)
        with pytest.raises(Refused, match="is a link of another user"):
            case.restore(Overwrite.ALWAYS)
        assert (case.folder / "elsewhere" / "a").read_bytes() == b"changed"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives privilege up")
def test_directories_closed_to_their_owner_are_opened_and_closed_again() -> None:
    """By a user without privilege, whose directory is read-only both in the snapshot and now."""
    folder = tempfile.mkdtemp()
    try:
        case = Case(Path(folder))
        write_tree(case.source, {"d/a": b"aaa", "d/b": b"bbb"})
        (case.source / "d").chmod(0o555)
        subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
        before = case.snapshot()
        (case.source / "d" / "a").unlink()
        (case.source / "d" / "b").write_bytes(b"changed")
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                result = case.restore(to=case.folder)
                os._exit(0 if result.files == 2 and not result.problems else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert differences(before, describe_tree(case.source)) == []
    finally:
        remove_tree(folder)


@pytest.mark.parametrize("mode", list(Overwrite))
@pytest.mark.parametrize("link", ["../outside", "../outside/sub", "/", "nowhere"])
def test_a_link_where_a_directory_should_be_is_not_followed(case: Case, mode: Overwrite, link: str) -> None:
    write_tree(case.source, {"d/victim": b"from the snapshot", "d/sub/deep": b"too"})
    before = case.snapshot()
    remove_tree(case.source / "d")
    (case.source / "d").symlink_to(link)
    outside = describe_tree(case.outside)
    result = case.restore(mode, delete=True)
    assert differences(outside, describe_tree(case.outside)) == []
    if mode == Overwrite.NEVER:
        assert os.readlink(case.source / "d") == link and result.skipped == 3
    else:
        assert differences(before, describe_tree(case.source)) == []


def test_a_link_on_the_way_to_a_chosen_path_is_left_alone(case: Case) -> None:
    write_tree(case.source, {"d/victim": b"from the snapshot"})
    case.snapshot()
    remove_tree(case.source / "d")
    (case.source / "d").symlink_to("../outside")
    outside = describe_tree(case.outside)
    result = case.restore(Overwrite.ALWAYS, paths=[(b"source", b"d", b"victim")])
    assert [problem.kind for problem in result.problems] == [ProblemKind.INCOMPLETE]
    assert os.readlink(case.source / "d") == "../outside"
    assert differences(outside, describe_tree(case.outside)) == []


def test_a_directory_where_a_file_should_be_goes_only_with_delete(case: Case) -> None:
    write_tree(case.source, {"a": b"a", "b": b"b"})
    before = case.snapshot()
    for name in ("a", "b"):
        (case.source / name).unlink()
    write_tree(case.source, {"a/inside": b"precious"})
    (case.source / "b").mkdir()
    result = case.restore()
    assert [str(problem) for problem in result.problems] == [
        "source/a: a directory that is not empty is in its place"
    ]
    assert (case.source / "a" / "inside").read_bytes() == b"precious" and (
        case.source / "b"
    ).read_bytes() == b"b"
    assert case.restore(delete=True).deleted == 2
    assert differences(before, describe_tree(case.source)) == []


def test_delete_takes_what_is_not_in_the_snapshot_and_follows_no_link(case: Case) -> None:
    write_tree(case.source, {"a": b"a", "d/b": b"b"})
    before = case.snapshot()
    write_tree(case.source, {"d/extra": b"", "more/of/it": b"", "z": b""})
    for place in ("link", "d/link", "more/link"):
        (case.source / place).symlink_to(case.outside)
    outside = describe_tree(case.outside)
    assert case.restore(dry_run=True, delete=True).deleted == 8
    assert (case.source / "more/of/it").exists()
    case.changes.clear()
    result = case.restore(delete=True)
    assert result.problems == [] and result.deleted == 8
    assert {change for change, _ in case.changes} == {Change.METADATA, Change.DELETE}
    assert differences(before, describe_tree(case.source)) == []
    assert differences(outside, describe_tree(case.outside)) == []


def test_delete_stays_below_the_chosen_paths(case: Case) -> None:
    write_tree(case.source, {"a/b": b"", "c/d": b"", "c/sub/e": b""})
    case.snapshot()
    for place in ("extra", "a/extra", "c/extra", "c/sub/extra"):
        (case.source / place).touch()
    result = case.restore(delete=True, paths=[(b"source", b"c", b"sub"), (b"source", b"a")])
    assert sorted(path for change, path in case.changes if change == Change.DELETE) == [
        "source/a/extra",
        "source/c/sub/extra",
    ]
    assert result.deleted == 2 and (case.source / "c/extra").exists() and (case.source / "extra").exists()


def test_the_repository_and_sockets_are_never_deleted(case: Case) -> None:
    write_tree(case.source, {"a": b"a"})
    case.snapshot()
    write_tree(case.source, {"new/repository/packs": b"all there is", "new/other": b""})
    with socket.socket(socket.AF_UNIX) as listening:
        with chdir(case.source):  # the name of a socket has a small limit
            listening.bind("run.sock")
        result = case.restore(delete=True, protected=[str(case.source / "new/repository")])
    assert result.deleted == 1 and {problem.kind for problem in result.problems} == {ProblemKind.NOTE}
    assert (case.source / "new/repository/packs").read_bytes() == b"all there is"
    assert (case.source / "run.sock").is_socket()


def test_nothing_is_deleted_by_a_manifest_that_does_not_have_everything(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(case.source, {"a": b"a"})
    case.snapshot()
    (case.source / "extra").touch()
    assert case.manifest is not None
    object.__setattr__(case.manifest, "status", "incomplete")
    with pytest.raises(Refused, match="is incomplete: what it has not got may still have been there"):
        case.restore(delete=True)
    assert (case.source / "extra").exists()


@pytest.mark.parametrize("mode", list(Overwrite))
def test_killed_at_any_call_each_file_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Overwrite
) -> None:
    """From some call on every call that changes something fails, as for one who is dead: also those that clean up."""
    killed_at, finished = 0, False
    case = Case(tmp_path)
    write_tree(
        case.source, {"same": b"same", "d/edited": os.urandom(300_000), "swapped": b"file", "gone": b"gone"}
    )
    os.link(case.source / "gone", case.source / "link")
    before = case.snapshot()
    while not finished:
        killed_at += 1
        remove_tree(case.source)
        write_tree(case.source, {"same": b"same", "d/edited": b"edited", "extra": b"extra", "link": b"other"})
        (case.source / "swapped").symlink_to("../outside/victim")
        old = files_of(describe_tree(case.source))
        with monkeypatch.context() as patch:
            finished = _dies_at(killed_at, patch, lambda: case.restore(mode, delete=True))
        new, found = files_of(before), files_of(describe_tree(case.source))
        for name in found:
            if TEMPORARY.decode() not in name:
                assert found[name] in (new.get(name), old.get(name))
        assert found.keys() >= new.keys() & old.keys(), "none is ever missing"
    assert killed_at > 15
    if mode != Overwrite.NEVER:
        assert differences(before, describe_tree(case.source)) == []
    assert (case.outside / "victim").read_bytes() == b"untouched"


class Killed(BaseException):
    """The process is gone."""


def _dies_at(number: int, patch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Do `work`, which is killed at its call of this number; say whether it came to its end."""
    calls = 0

    def counted(genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= number:
                raise Killed
            return genuine(*args, **more)

        return call

    for name in (
        "pwrite",
        "rename",
        "unlink",
        "rmdir",
        "mkdir",
        "symlink",
        "link",
        "ftruncate",
        "fchmod",
        "utime",
    ):
        patch.setattr(os, name, counted(getattr(os, name)))
    try:
        work()
    except Killed:
        return False
    return calls < number


NAMES = st.sampled_from(["a", "a", "b", "b", "c"])  # few, so that steps meet each other
PLACES = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "mkdir", "symlink", "outward", "fifo", "link", "remove", "chmod", "outside"]
        ),
        PLACES,
        PLACES,
        st.sampled_from([0, 1, 3000, 200_000]),
    ),
    max_size=10,
)


def steps(*words: str) -> list[tuple[str, str, str, int]]:
    """Return steps as the strategy draws them: of each what is done, and to what, with what."""
    return [(kind, place, other[0] if other else "c", 3000) for kind, place, *other in map(str.split, words)]


def apply_step(case: Case, step: tuple[str, str, str, int]) -> None:
    """Do one thing to the source, where that is possible."""
    kind, name, other, size = step
    path = case.source / name
    if kind != "remove" and kind != "chmod":
        if any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in path.parents):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            return
    if any(parent.is_symlink() for parent in path.parents):
        return
    if kind == "remove":
        remove_tree(path)
    elif kind == "chmod":
        if os.path.lexists(path) and not path.is_symlink() and path.stat().st_nlink == 1:
            path.chmod(0o600 + size % 2)
    else:
        if kind != "mkdir":
            path.unlink(missing_ok=True)
        _make(case, kind, path, other, size)


def _make(case: Case, kind: str, path: Path, other: str, size: int) -> None:
    first = case.source / other
    if kind == "write":
        path.write_bytes((path.name.encode() * size)[:size] + os.urandom(size % 7))
    elif kind == "mkdir":
        if not os.path.lexists(path):
            path.mkdir()
    elif kind == "symlink":
        path.symlink_to(other)
    elif kind == "outward":
        path.symlink_to(case.outside)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "outside":
        os.link(case.outside / "victim", path)
    elif (
        os.path.lexists(first)
        and not (first.is_dir() and not first.is_symlink())
        and not any(parent.is_symlink() for parent in first.parents)
    ):
        os.link(first, path, follow_symlinks=False)


def expected_after(
    snapshot: Tree, local: Tree, mode: Overwrite, *, delete: bool
) -> dict[EntryPath, tuple[Any, ...]]:
    """Return what should be where after a restore: the slow and obvious way. Of each: kind, content, size, mode."""

    def seen(each: Described) -> tuple[Any, ...]:
        return each.kind, each.content, each.size, each.rdev, each.mode

    expected = {path: seen(each) for path, each in local.items()}
    blocked: list[EntryPath] = []
    left_whole: list[EntryPath] = []
    for path in sorted(snapshot):
        if any(path[: len(each)] == each for each in blocked):
            continue
        new, old = snapshot[path], local.get(path)
        is_directory = new.kind == stat.S_IFDIR
        below = [each for each in local if each[: len(path)] == path and each != path]
        replaces = old is not None and old.kind == stat.S_IFDIR and not is_directory
        if old is not None and mode == Overwrite.NEVER:
            if is_directory and old.kind != stat.S_IFDIR:
                blocked.append(path)
            if replaces:
                left_whole.append(path)  # `--delete` looks only into what the snapshot has as a directory
            continue
        if replaces and below and not delete:
            continue
        if replaces:
            for each in below:
                del expected[each]
        expected[path] = seen(new)
    if delete:
        known = {path for path in expected if path in snapshot}
        known |= {path for path in expected if any(path[: len(each)] == each for each in left_whole)}
        expected = {path: each for path, each in expected.items() if path in known}
    return expected


@settings(
    max_examples=max(8, settings.default.max_examples // 4),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(before=STEPS, after=STEPS, mode=st.sampled_from(Overwrite), delete=st.booleans())
@example(before=steps("write a"), after=steps("remove a", "write a/b"), mode=Overwrite.CHANGED, delete=False)
@example(before=steps("write a"), after=steps("remove a", "write a/b"), mode=Overwrite.NEVER, delete=True)
@example(before=steps("outside a"), after=steps("write a"), mode=Overwrite.CHANGED, delete=True)
@example(
    before=steps("write a", "link b a"),
    after=steps("write a", "link b a"),
    mode=Overwrite.CHANGED,
    delete=False,
)
@example(
    before=steps("write a/a", "link a/b a/a", "mkdir b"),
    after=steps("remove a", "write a"),
    mode=Overwrite.CHANGED,
    delete=False,
)
@example(
    before=steps("fifo a", "fifo b"),
    after=steps("remove b", "link b a"),
    mode=Overwrite.ALWAYS,
    delete=False,
)
@example(
    before=steps("fifo a", "write b"),
    after=steps("remove a", "link a/a b"),
    mode=Overwrite.ALWAYS,
    delete=True,
)
def test_any_tree_over_any_other_is_what_the_slow_way_gives(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[Any],
    after: list[Any],
    mode: Overwrite,
    delete: bool,
) -> None:
    case = Case(tmp_path_factory.mktemp("case"))
    for step in before:
        apply_step(case, step)
    for path in case.source.rglob("*"):
        if not path.is_symlink() and not path.samefile(case.outside / "victim"):
            os.utime(path, ns=(OLD_NS, OLD_NS))  # so that what is written later has another time
    snapshot = case.snapshot()
    for step in after:
        apply_step(case, step)
    local, outside = describe_tree(case.source), describe_tree(case.outside)
    planned = case.restore(mode, delete=delete, dry_run=True)
    assert differences(local, describe_tree(case.source)) == [], "a dry run changes nothing"
    plan, case.changes = case.changes, []
    result = case.restore(mode, delete=delete)
    assert not result.damaged
    assert sorted(plan) == sorted(case.changes)
    for count in ("files", "bytes", "unchanged", "deleted", "skipped"):
        assert getattr(planned, count) == getattr(result, count), count
    assert sorted(map(str, planned.problems)) == sorted(map(str, result.problems))
    found = describe_tree(case.source)
    seen = {path: (each.kind, each.content, each.size, each.rdev, each.mode) for path, each in found.items()}
    assert seen == expected_after(snapshot, local, mode, delete=delete)
    if mode != Overwrite.NEVER and delete:
        assert differences(linked_within(snapshot), linked_within(found)) == []
    after_outside = describe_tree(case.outside)
    assert {p: (e.content, e.mode, e.mtime_ns) for p, e in outside.items()} == {
        p: (e.content, e.mode, e.mtime_ns) for p, e in after_outside.items()
    }


def test_a_directory_gives_way_only_if_all_of_it_may_go_and_a_dry_run_says_so(case: Case) -> None:
    """A socket lies in one, the repository in another; a third is empty and protected."""
    write_tree(case.source, dict.fromkeys(("a", "b", "c", "d"), b"from the snapshot"))
    case.snapshot()
    remove_tree(case.source)
    write_tree(case.source, {"a/x": b"x", "b/repository/packs": b"all", "b/x": b"x", "d/x/y": b"y"})
    (case.source / "c").mkdir()
    assert case.manifest is not None
    protected = [str(case.source / "b" / "repository"), str(case.source / "c")]
    with socket.socket(socket.AF_UNIX) as listening, chdir(case.source / "a"):
        listening.bind("run.sock")
    planned = case.restore(dry_run=True, delete=True, protected=protected)
    plan, case.changes = case.changes, []
    result = case.restore(delete=True, protected=protected)
    assert sorted(plan) == sorted(case.changes)
    assert sorted(map(str, planned.problems)) == sorted(map(str, result.problems))
    assert [str(each) for each in result.problems if each.kind != ProblemKind.NOTE] == [
        "source/a: a directory that is not empty is in its place",
        "source/b: a directory that is not empty is in its place",
    ]
    assert (planned.files, planned.deleted, planned.skipped) == (1, 3, 1)
    assert (result.files, result.deleted, result.skipped) == (1, 3, 1)
    assert files_of(describe_tree(case.source)) == {
        "a/x": b"x",
        "b/x": b"x",
        "b/repository/packs": b"all",
        "d": b"from the snapshot",
    }
    assert (case.source / "c").is_dir()


@pytest.mark.parametrize("mode", [Overwrite.CHANGED, Overwrite.ALWAYS])
def test_a_key_file_is_not_exchanged_for_an_older_one(case: Case, mode: Overwrite) -> None:
    """Without it nothing could be restored any more."""
    write_tree(case.source, {"key": b"of yesterday", "a": b"aaa"})
    os.link(case.source / "a", case.source / "link")
    case.snapshot()
    for name in ("key", "link"):
        (case.source / name).unlink()
        (case.source / name).write_bytes(b"of today")
    protected = [str(case.source / "key"), str(case.source / "link")]
    result = case.restore(mode, delete=True, protected=protected)
    assert (case.source / "key").read_bytes() == (case.source / "link").read_bytes() == b"of today"
    assert {problem.kind for problem in result.problems} == {ProblemKind.NOTE} and result.skipped == 2


def test_a_lost_file_leaves_the_directory_in_its_place(case: Case) -> None:
    write_tree(case.source, {"a": b"a" * 1000})
    case.snapshot()
    (case.source / "a").unlink()
    write_tree(case.source, {"a/inside": b"precious"})
    lose_contents(case)
    result = case.restore(delete=True)
    assert result.damaged and (case.source / "a" / "inside").read_bytes() == b"precious"


def test_a_lost_file_leaves_the_old_one_and_stops_deleting(case: Case) -> None:
    write_tree(case.source, {"a": b"a" * 1000, "b": b"b" * 1000})
    case.snapshot()
    (case.source / "a").write_bytes(b"changed")
    (case.source / "extra").touch()
    lose_contents(case)
    result = case.restore(delete=True)
    assert result.damaged and (case.source / "a").read_bytes() == b"changed"
    assert (case.source / "extra").exists() and result.unchanged == 1
    assert not [name for name in os.listdir(case.source) if name.startswith(TEMPORARY.decode())]


def lose_contents(case: Case) -> None:
    """Take away every pack of contents."""
    session = case.world.session(operation="read")
    for location in list(session.index.locations()):
        directory = session.reader.packs.directory(location.pack, location.pack_size)
        if directory.kind == Kind.DATA_DIRECTORY:
            session.storage.delete(pack_name(location.pack))
