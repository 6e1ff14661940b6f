"""Excludes mean what git means by them, name by name, and prune what they exclude."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.trees import write

from engine.problems import Problem
from engine.sources.excludes import CACHE_SIGNATURE, Excludes, read_patterns
from engine.sources.files import FileTree, WalkOptions
from engine.sources.roots import plan_roots
from repo_store.errors import UsageError


def kept(top: bytes, options: WalkOptions) -> set[bytes]:
    """Return the paths that a walk of `top` finds, relative to it, directories without a slash."""
    problems: list[Problem] = []
    tree = FileTree(plan_roots([top]), options, problems.append)
    found = {
        b"/".join((*directory.path, entry.name)[1:])
        for directory, entries in tree.batches()
        for entry in entries
    }
    assert problems == []
    return found - {b""}


def make(top: bytes, *names: bytes) -> bytes:
    for name in names:
        write(os.path.join(top, name), b"")
    return top


def test_patterns_exclude_negate_anchor_and_prune(tmp_path: Path) -> None:
    top = make(
        os.fsencode(tmp_path / "t"),
        b"a.o", b"keep.o", b"src/b.o", b"src/c.c", b"build/x", b"src/build/y", b"tmp/keep.o", b"tmpfile",
    )  # fmt: skip
    options = WalkOptions(patterns=["# objects", "*.o", "!keep.o", "", "/build", "tmp/"])
    assert kept(top, options) == {b"keep.o", b"src", b"src/c.c", b"src/build", b"src/build/y", b"tmpfile"}


def test_the_idiom_of_keeping_one_kind_of_file_works(tmp_path: Path) -> None:
    top = make(os.fsencode(tmp_path / "t"), b"a.txt", b"a.bin", b"d/b.txt", b"d/b.bin")
    assert kept(top, WalkOptions(patterns=["*", "!*/", "!*.txt"])) == {b"a.txt", b"d", b"d/b.txt"}


def test_names_with_newlines_hide_nothing(tmp_path: Path) -> None:
    top = make(os.fsencode(tmp_path / "t"), b"a\nb/foo", b"foo\n", b"x\ny.o")
    assert kept(top, WalkOptions(patterns=["foo", "*.o"])) == {b"a\nb", b"foo\n"}


def test_patterns_match_raw_bytes(tmp_path: Path) -> None:
    top = make(os.fsencode(tmp_path / "t"), b"\xff.o", "é".encode(), b"plain")
    assert kept(top, WalkOptions(patterns=[b"\xff*", "é"])) == {b"plain"}


def test_a_root_is_never_excluded(tmp_path: Path) -> None:
    top = make(os.fsencode(tmp_path / "t"), b"a")
    assert kept(top, WalkOptions(patterns=["t", "/t", "/"])) == {b"a"}


def test_no_pattern_is_falsy_and_comments_are_none() -> None:
    assert not Excludes([]) and not Excludes(["# a comment", "", "  "])


def test_a_pattern_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"^!: is not a gitignore pattern$"):
        Excludes(["*.o", "!"])


def test_pattern_files_are_read_as_git_reads_them(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_bytes(b"\xef\xbb\xbf*.o\r\n!a.o\n\xff")
    assert read_patterns(str(tmp_path / "patterns")) == [b"*.o", b"!a.o", b"\xff"]
    with pytest.raises(UsageError, match="missing: pattern file cannot be read: no such file or directory"):
        read_patterns(str(tmp_path / "missing"))


def test_a_marked_directory_keeps_only_its_mark(tmp_path: Path) -> None:
    top = make(os.fsencode(tmp_path / "t"), b"a/.nobackup", b"a/x", b"a/b/y", b"c/z", b".nobackup")
    options = WalkOptions(exclude_if_present=[b".nobackup", b".other"])
    assert kept(top, options) == {b".nobackup", b"a", b"a/.nobackup", b"c", b"c/z"}


def test_cache_directories_are_known_by_their_real_signature(tmp_path: Path) -> None:
    top = make(os.fsencode(tmp_path / "t"), b"real/x", b"fake/x", b"fifo/x", b"link/x")
    write(os.path.join(top, b"real", b"CACHEDIR.TAG"), CACHE_SIGNATURE + b"\n# made by a test\n")
    write(os.path.join(top, b"fake", b"CACHEDIR.TAG"), b"Signature: of somebody else")
    os.mkfifo(os.path.join(top, b"fifo", b"CACHEDIR.TAG"))
    os.symlink(b"../real/CACHEDIR.TAG", os.path.join(top, b"link", b"CACHEDIR.TAG"))
    everything = kept(top, WalkOptions())
    assert kept(top, WalkOptions(exclude_caches=True)) == everything - {b"real/x"}


SEGMENTS = st.sampled_from(
    ["a", "b", "ab", "*", "a*", "?", "*b", "[ab]", "[!a]", "**", "a.b", "*.b", "\\*", "-"]
)
PATTERNS = st.builds(
    lambda negate, anchored, segments, directory: negate + anchored + "/".join(segments) + directory,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A git repository with files and directories of the same few names on three levels."""
    top = os.fsencode(tmp_path_factory.mktemp("git"))
    names, folders = [b"a", b"b", b"ab", b"a.b", b"*", b"-"], [b"a", b"b", b"ba", b"c.b"]
    for above in [
        b"",
        *(one + b"/" for one in folders),
        *(one + b"/" + two + b"/" for one in folders for two in folders),
    ]:
        for name in names:
            if above.count(b"/") == 2 or name not in folders:
                write(os.path.join(top, above + name), b"")
    subprocess.run(["git", "init", "-q", os.fsdecode(top)], check=True)
    return top


def _agrees_with_git(top: bytes, patterns: list[str]) -> None:
    with open(os.path.join(top, b".git", b"info", b"exclude"), "w") as file:
        file.write("\n".join(patterns))
    everything = kept(top, WalkOptions(patterns=["/.git"]))
    command = ["git", "-C", os.fsdecode(top), "check-ignore", "-z", "--stdin"]
    answer = subprocess.run(command, input=b"\0".join(everything), capture_output=True, check=False)
    assert answer.returncode in (0, 1), answer.stderr
    ignored = set(answer.stdout.split(b"\0")) - {b""}
    assert kept(top, WalkOptions(patterns=[*patterns, "/.git"])) == everything - ignored


@settings(max_examples=150, deadline=None)
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=4))
@example(patterns=["a/**/"])
@example(patterns=["a/**", "!a/b"])
@example(patterns=["*", "!*/", "!*.b"])
def test_the_walk_leaves_out_what_git_ignores(repository: bytes, patterns: list[str]) -> None:
    _agrees_with_git(repository, patterns)


@pytest.mark.full
@settings(max_examples=5000, deadline=None)
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=5))
def test_the_walk_leaves_out_what_git_ignores_in_very_many_cases(
    repository: bytes, patterns: list[str]
) -> None:
    _agrees_with_git(repository, patterns)
