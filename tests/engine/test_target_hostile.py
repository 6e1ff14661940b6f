"""Whatever a manifest says, nothing outside of the target is touched, and the rest is restored."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.trees import compare_trees, describe_tree

import engine.target_directories
import engine.target_file
from engine.problems import Problem, ProblemKind
from engine.sources.owners import OwnerNames
from engine.target import Target, TargetOptions
from repo_store.entry import Entry, EntryKind
from repo_store.entry import Path as EntryPath
from repo_store.errors import StorageError

ROOT = os.geteuid() == 0
DIRECTORY, FIFO, SYMLINK = EntryKind.DIRECTORY, EntryKind.FIFO, EntryKind.SYMLINK
BAD_NAMES = [b"", b".", b"..", b"/", b"a/b", b"/etc", b"../x", b"a\0b", b"x/"]


def entry(name: bytes, kind: EntryKind = EntryKind.FILE, **fields: Any) -> Entry:
    plain = Entry(name, int(kind), 0o644, os.geteuid(), os.getegid(), 10**18, 0, 0, 0, None, None)
    return plain._replace(**fields)


class Sandbox:
    """A target beside a directory that must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        (self.outside / "sub").mkdir(parents=True)
        (self.outside / "victim").write_text("untouched")
        self.before = describe_tree(self.outside)
        self.problems: list[Problem] = []
        self.out = folder / "out"
        self.target = Target(
            os.fsencode(self.out), TargetOptions(durable=False), OwnerNames({}, {}), self.problems.append
        )

    def create_all(self, path: EntryPath, **fields: Any) -> list[bool]:
        """Try every way to create something at the path."""
        name, target = path[-1] if path else b"", self.target
        link = entry(name, SYMLINK, extra={"target": b"x"}, **fields)
        file = target.make_file(path, entry(name, **fields))
        if file is not None:
            file.finish()
        return [
            target.write_file(path, entry(name, **fields), b""),
            file is not None,
            target.make_directory(path, entry(name, DIRECTORY, **fields)),
            target.make_special(path, link),
            target.make_special(path, entry(name, FIFO, **fields)),
        ]

    def close(self) -> None:
        """Finish, and check that nothing happened outside."""
        self.target.finish()
        self.target.close()
        assert describe_tree(self.outside) == self.before


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def kinds(problems: list[Problem]) -> set[ProblemKind]:
    return {problem.kind for problem in problems}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_and_the_rest_goes_on(sandbox: Sandbox, name: bytes) -> None:
    sandbox.target.make_directory((b"d",), entry(b"d", DIRECTORY))
    assert not any(sandbox.create_all((b"d", name)))
    assert not any(sandbox.create_all((name,)))
    assert not any(sandbox.create_all((name, b"below")))
    assert not any(sandbox.create_all((b"d", name, b"below")))
    assert not sandbox.target.make_link((b"d", b"l"), (b"d", name))
    assert kinds(sandbox.problems) == {ProblemKind.DAMAGED} and len(sandbox.problems) == 21
    assert sandbox.target.write_file((b"d", b"good"), entry(b"good"), b"")
    sandbox.close()
    assert [path for path in describe_tree(sandbox.out) if path] == [(b"d",), (b"d", b"good")]


def test_an_entry_without_any_name_is_refused(sandbox: Sandbox) -> None:
    assert not any(sandbox.create_all(()))
    assert kinds(sandbox.problems) == {ProblemKind.DAMAGED}
    sandbox.close()


@pytest.mark.parametrize("target", [b"../outside", b"..", b"/", b"d"])
def test_nothing_is_created_through_a_link_the_manifest_has_made(sandbox: Sandbox, target: bytes) -> None:
    sandbox.target.make_directory((b"d",), entry(b"d", DIRECTORY))
    assert sandbox.target.make_special((b"l",), entry(b"l", SYMLINK, extra={"target": target}))
    assert not any(sandbox.create_all((b"l", b"new")))
    assert not any(sandbox.create_all((b"l", b"sub", b"new")))
    sandbox.target.write_file((b"f",), entry(b"f"), b"")
    assert not sandbox.target.make_link((b"l", b"victim"), (b"f",))
    assert not sandbox.target.make_link((b"stolen",), (b"l", b"victim"))
    assert kinds(sandbox.problems) == {ProblemKind.DAMAGED}
    sandbox.close()
    assert sorted(os.listdir(sandbox.out)) == ["d", "f", "l"] and os.listdir(sandbox.out / "d") == []


def test_a_link_is_never_written_to_or_given_metadata_through(sandbox: Sandbox) -> None:
    """The link itself gets owner and time; a second entry of its name is refused, not written through it."""
    victim = b"../outside/victim"
    assert sandbox.target.make_special((b"l",), entry(b"l", SYMLINK, extra={"target": victim}, mtime_ns=5))
    assert not any(sandbox.create_all((b"l",)))
    sandbox.close()
    assert os.lstat(sandbox.out / "l").st_mtime_ns == 5


def test_a_file_or_special_is_no_parent(sandbox: Sandbox) -> None:
    sandbox.target.write_file((b"f",), entry(b"f"), b"")
    sandbox.target.make_special((b"p",), entry(b"p", FIFO))
    assert not any(sandbox.create_all((b"f", b"x"))) and not any(sandbox.create_all((b"p", b"x")))
    assert len(sandbox.problems) == 10 and kinds(sandbox.problems) == {ProblemKind.DAMAGED}
    sandbox.close()


def test_a_parent_that_was_not_restored_is_not_made_up(sandbox: Sandbox) -> None:
    assert not any(sandbox.create_all((b"no", b"x")))
    assert str(sandbox.problems[0]) == "no/x: its directory no was not restored"
    sandbox.close()
    assert os.listdir(sandbox.out) == []


def test_a_name_given_twice_keeps_the_first(sandbox: Sandbox) -> None:
    sandbox.target.write_file((b"f",), entry(b"f", size=5), b"first")
    sandbox.target.make_directory((b"d",), entry(b"d", DIRECTORY, mode=0o711))
    assert not any(sandbox.create_all((b"f",))) and not any(sandbox.create_all((b"d",)))
    assert not sandbox.target.make_link((b"d",), (b"f",))
    assert kinds(sandbox.problems) == {ProblemKind.DAMAGED} and len(sandbox.problems) == 11
    sandbox.close()
    assert (sandbox.out / "f").read_bytes() == b"first"
    assert (sandbox.out / "d").stat().st_mode & 0o7777 == 0o711


@pytest.mark.parametrize("directories_max", [1, 64])
def test_a_link_put_in_place_of_a_directory_meanwhile_is_not_followed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, directories_max: int
) -> None:
    """Somebody with access to the target swaps d for a link, before and after its descriptor was given up."""
    monkeypatch.setattr(engine.target_directories, "OPEN_DIRECTORIES_MAX", directories_max)
    sandbox.target.make_directory((b"d",), entry(b"d", DIRECTORY))
    sandbox.target.make_directory((b"e",), entry(b"e", DIRECTORY))
    sandbox.target.write_file((b"d", b"one"), entry(b"one"), b"")
    sandbox.target.write_file((b"e", b"two"), entry(b"two"), b"")
    (sandbox.out / "d").rename(sandbox.out / "aside")
    (sandbox.out / "d").symlink_to("../outside")
    sandbox.target.write_file((b"d", b"three"), entry(b"three", size=3), b"new")
    sandbox.close()
    assert len(sandbox.problems) == (2 if directories_max == 1 else 1), "d cannot be finished"


def test_a_file_swapped_while_its_descriptor_was_given_up_is_not_written(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.target_file, "OPEN_FILES_MAX", 0)
    file = sandbox.target.make_file((b"f",), entry(b"f", size=9))
    assert file is not None
    (sandbox.out / "f").rename(sandbox.out / "aside")  # kept, so that its inode is not used again
    for swap in (lambda: (sandbox.out / "f").symlink_to("../outside/victim"), (sandbox.out / "f").touch):
        (sandbox.out / "f").unlink(missing_ok=True)
        swap()
        with pytest.raises(StorageError, match="f cannot be written"):
            file.write_at(0, b"overwrite")
    assert (sandbox.out / "f").read_bytes() == b""
    sandbox.close()


@pytest.mark.skipif(not ROOT, reason="another user is needed")
def test_a_directory_put_there_by_another_user_is_not_filled(sandbox: Sandbox) -> None:
    sandbox.target.make_directory((b"ours",), entry(b"ours", DIRECTORY))
    (sandbox.out / "d").mkdir()
    os.chown(sandbox.out / "d", 65534, 65534)
    assert not sandbox.target.make_directory((b"d",), entry(b"d", DIRECTORY))
    assert not sandbox.target.write_file((b"d", b"secret"), entry(b"secret"), b"")
    assert str(sandbox.problems[1]) == "d/secret: its directory d was made by somebody else"
    assert os.listdir(sandbox.out / "d") == []
    sandbox.target.close()


IMPOSSIBLE: list[dict[str, Any]] = [
    {"mtime_ns": 2**100},
    {"mtime_ns": "soon"},
    {"uid": 2**40},
    {"uid": -7},
    {"gid": None},
    {"mode": None},
    {"extra": {"xattrs": {b"user.\0": b""}}},
    {"extra": {"xattrs": {b"user.x": 5}}},
]


@pytest.mark.parametrize("fields", IMPOSSIBLE, ids=str)
def test_impossible_metadata_is_damage_of_one_entry(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    sandbox.target.write_file((b"f",), entry(b"f", **fields), b"")
    sandbox.target.make_directory((b"d",), entry(b"d", DIRECTORY, **fields))
    sandbox.target.make_special((b"p",), entry(b"p", FIFO, **fields))
    sandbox.close()
    assert {problem.path for problem in sandbox.problems} == {(b"f",), (b"d",), (b"p",)}
    assert kinds(sandbox.problems) <= {ProblemKind.DAMAGED, ProblemKind.INCOMPLETE}


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        (SYMLINK, None),
        (SYMLINK, {"target": b"a\0b"}),
        (SYMLINK, {"target": b""}),
        (SYMLINK, {"target": 7}),
        (EntryKind.BLOCK_DEVICE, None),
        (EntryKind.CHARACTER_DEVICE, {"rdev": [1]}),
        (EntryKind.CHARACTER_DEVICE, {"rdev": [-1, 2**70]}),
        (EntryKind.STREAM, None),
        (99, None),
    ],
)
def test_a_special_that_cannot_be_is_a_problem(
    sandbox: Sandbox, kind: int, extra: dict[str, Any] | None
) -> None:
    assert not sandbox.target.make_special((b"s",), entry(b"s")._replace(kind=kind, extra=extra))
    assert len(sandbox.problems) == 1
    sandbox.close()
    assert os.listdir(sandbox.out) == []


NAMES = st.sampled_from([b"a", b"b", b"l", b"..", b".", b"", b"a/b", b"../outside", b"victim", b"x" * 256])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["directory", "file", "pieces", "link", "symlink", "fifo"]),
        st.lists(NAMES, max_size=3).map(tuple),
        st.lists(NAMES, min_size=1, max_size=2).map(tuple),
        st.sampled_from([b"..", b"../outside", b"/", b"a", b"."]),
    ),
    max_size=14,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_sequence_of_entries_leads_outside(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    sandbox = Sandbox(tmp_path_factory.mktemp("hostile"))
    for step, path, first, link in steps:
        name = path[-1] if path else b""
        if step == "directory":
            sandbox.target.make_directory(path, entry(name, DIRECTORY))
        elif step == "file":
            sandbox.target.write_file(path, entry(name, size=3), b"new")
        elif step == "pieces":
            file = sandbox.target.make_file(path, entry(name, size=3))
            if file is not None:
                file.write_at(0, b"new")
                file.finish()
        elif step == "link":
            sandbox.target.make_link(path, first)
        else:
            kind = SYMLINK if step == "symlink" else FIFO
            sandbox.target.make_special(path, entry(name, kind, extra={"target": link}))
    sandbox.close()
    assert sorted(os.listdir(sandbox.out.parent)) == ["out", "outside"]


def test_the_comparison_sees_what_this_file_relies_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("same")
    ignored = ("mtime_ns",)
    assert compare_trees(tmp_path / "a", tmp_path / "b", ignore=ignored) == []
    (tmp_path / "b" / "f").write_text("else")
    assert compare_trees(tmp_path / "a", tmp_path / "b", ignore=ignored) != []
