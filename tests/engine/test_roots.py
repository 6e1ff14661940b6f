"""Roots are stored under their last name; what is ambiguous or missing is refused."""

import os
from pathlib import Path

import pytest
from support.copying import read_tree

from engine.sources.roots import Root, plan_roots
from repo_store.errors import SourceError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> bytes:
    for name in ("www/data", "old/data", "etc"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "current").symlink_to("old/data")
    (tmp_path / "single").write_text("one file")
    return os.fsencode(tmp_path)


def test_roots_are_named_by_their_basename_and_sorted(folder: bytes) -> None:
    roots = plan_roots([folder + b"/www/data/", folder + b"/etc"])
    assert roots == [Root(b"data", folder + b"/www/data"), Root(b"etc", folder + b"/etc")]


def test_equal_basenames_are_refused_with_both_paths(folder: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        plan_roots([folder + b"/www/data", folder + b"/old/data"])
    shown = os.fsdecode(folder)
    assert str(caught.value) == f"{shown}/www/data and {shown}/old/data would both be stored as data"
    assert caught.value.hint == "name one of them with --as NAME=PATH"


def test_a_name_of_its_own_settles_equal_basenames(folder: bytes) -> None:
    roots = plan_roots([folder + b"/www/data", folder + b"/old/data"], {"older": folder + b"/old/data/"})
    assert roots == [Root(b"data", folder + b"/www/data"), Root(b"older", folder + b"/old/data")]


def test_a_named_path_need_not_be_given_twice(folder: bytes) -> None:
    assert plan_roots([], {b"x": folder + b"/etc"}) == [Root(b"x", folder + b"/etc")]


def test_a_path_given_twice_counts_once(folder: bytes) -> None:
    assert len(plan_roots([folder + b"/etc", folder + b"/etc/../etc/"])) == 1


def test_the_whole_file_system_needs_a_name() -> None:
    for path in (b"/", b"//", "/usr/.."):
        with pytest.raises(UsageError, match="/: has no name of its own"):
            plan_roots([path])
    assert plan_roots([b"/"], {b"all": b"/"}) == [Root(b"all", b"/")]


def test_a_dot_is_named_after_its_directory(folder: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert plan_roots(["etc/.."])[0].name == os.path.basename(folder)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0"])
def test_impossible_names_are_refused(folder: bytes, name: bytes) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a root"):
        plan_roots([], {name: folder})


@pytest.mark.parametrize("path", [b"", b"a\0b"])
def test_impossible_paths_are_refused(path: bytes) -> None:
    with pytest.raises(UsageError):
        plan_roots([path])


def test_a_missing_root_fails_before_anything_is_read(folder: bytes) -> None:
    with pytest.raises(SourceError, match="nowhere: no such file or directory"):
        plan_roots([folder + b"/etc", folder + b"/nowhere"])


@pytest.mark.parametrize("ending", [b"", b"/"])
def test_a_link_given_as_root_is_followed_and_keeps_its_name(folder: bytes, ending: bytes) -> None:
    read = read_tree([folder + b"/current" + ending])
    assert [path for path, _ in read.entries] == [(b"current",), (b"current", b"file")]
    assert read.contents[b"current", b"file"] == {0: b"old/data"}


def test_a_file_can_be_a_root_under_any_name(folder: bytes) -> None:
    read = read_tree([folder + b"/single"], names={b"other": folder + b"/single"})
    assert [path for path, _ in read.entries] == [(b"other",)]
    assert read.contents[b"other",] == {0: b"one file"}
