"""A tree read by the walk and written by the Target is the same tree, bit for bit, metadata included."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.copying import read_tree, restore_tree
from support.trees import HOSTILE_NAMES, compare_trees, describe_tree, make_hostile_tree, remove_tree, write

import engine.target_directories
import engine.target_file
from engine.problems import ProblemKind
from engine.sources import files, sorted_names

ROOT = os.geteuid() == 0


def test_a_hostile_tree_comes_back_whole(tmp_path: Path) -> None:
    made = make_hostile_tree(tmp_path / "tree")
    read = read_tree([str(tmp_path / "tree")])
    assert read.problems == []
    assert restore_tree(read, str(tmp_path / "out")) == []
    assert compare_trees(tmp_path / "tree", tmp_path / "out" / "tree") == []
    if ROOT:
        assert made.refused == {}, "this file system cannot hold all that the test is about"


def test_a_hostile_tree_comes_back_whole_with_every_limit_at_its_smallest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spilled names, closed and reopened directories and files, spilled directory metadata: nothing shows."""
    make_hostile_tree(tmp_path / "tree")
    monkeypatch.setattr(files, "OPEN_DIRECTORIES_MAX", 1)
    monkeypatch.setattr(files, "BATCH_ENTRIES_MAX", 2)
    monkeypatch.setattr(sorted_names, "NAMES_MAX", 3)
    monkeypatch.setattr(sorted_names, "READ_BYTES", 7)
    monkeypatch.setattr(engine.target_directories, "OPEN_DIRECTORIES_MAX", 1)
    monkeypatch.setattr(engine.target_directories, "DIRECTORIES_IN_MEMORY_MAX", 2)
    monkeypatch.setattr(engine.target_file, "OPEN_FILES_MAX", 1)
    read = read_tree([str(tmp_path / "tree")])
    assert read.problems == []
    assert restore_tree(read, str(tmp_path / "out"), seed=1) == []
    assert compare_trees(tmp_path / "tree", tmp_path / "out" / "tree") == []


def test_holes_come_back_as_holes(tmp_path: Path) -> None:
    make_hostile_tree(tmp_path / "tree")
    restore_tree(read_tree([str(tmp_path / "tree" / "sparse")]), str(tmp_path / "out"))
    for path, found in describe_tree(tmp_path / "out" / "sparse").items():
        if path:
            assert found.size >= 4 << 20
            assert found.blocks <= 64 * 1024, f"{path} takes {found.blocks} bytes on disk"


def test_reading_and_restoring_leaves_no_descriptor_open(tmp_path: Path) -> None:
    make_hostile_tree(tmp_path / "tree")
    before = len(os.listdir("/proc/self/fd"))
    restore_tree(read_tree([str(tmp_path / "tree")]), str(tmp_path / "out"))
    assert len(os.listdir("/proc/self/fd")) == before


NAMES = st.one_of(
    st.sampled_from(HOSTILE_NAMES),
    st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"-")),
).filter(lambda name: name not in (b".", b".."))
# A file is described by runs of one byte, so that an example stays readable: (byte, blocks, bytes).
LEAVES = st.lists(st.tuples(st.sampled_from([0, 120]), st.integers(0, 2), st.integers(0, 20)), max_size=3)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=4),
    max_leaves=12,
)


def _build(directory: bytes, tree: dict[bytes, Any]) -> None:
    os.mkdir(directory)
    for name, node in tree.items():
        if isinstance(node, dict):
            _build(os.path.join(directory, name), node)
        else:
            content = b"".join(bytes([byte]) * (4096 * blocks + more) for byte, blocks, more in node)
            write(os.path.join(directory, name), content)


@settings(max_examples=80, deadline=None)
@given(tree=TREES, seed=st.integers(0, 5))
def test_any_tree_is_walked_in_order_and_comes_back(tree: dict[bytes, Any], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(os.fsencode(folder), b"tree")
        _build(source, tree)
        read = read_tree([source])
        assert [path for path, _ in read.entries] == sorted(
            (b"tree", *path) for path in describe_tree(source)
        )
        assert restore_tree(read, os.path.join(os.fsencode(folder), b"out"), seed=seed) == []
        assert compare_trees(source, os.path.join(os.fsencode(folder), b"out", b"tree")) == []


UNPRIVILEGED = """
import os, sys
from support.copying import read_tree, restore_tree
os.setgroups([]); os.setgid(65534); os.setuid(65534)
read = read_tree([sys.argv[1]])
print("read", sorted(map(str, read.problems)))
problems = restore_tree(read, sys.argv[2])
print("restore", sorted((str(problem.kind), str(problem)) for problem in problems))
"""


@pytest.mark.skipif(not ROOT, reason="dropping privileges needs them")
def test_an_unprivileged_run_names_what_it_cannot_read_and_goes_on(tmp_path: Path) -> None:
    folder = tempfile.mkdtemp()
    try:
        os.chmod(folder, 0o777)
        tree = os.path.join(os.fsencode(folder), b"tree")
        write(os.path.join(tree, b"open"), b"readable")
        write(os.path.join(tree, b"secret"), b"not yours")
        write(os.path.join(tree, b"locked", b"inside"), b"unseen")
        write(os.path.join(tree, b"listed", b"inside"), b"unseen")
        write(os.path.join(tree, b"suid"), b"program")
        os.chmod(os.path.join(tree, b"suid"), 0o6755)
        os.chmod(os.path.join(tree, b"secret"), 0o600)
        os.chmod(os.path.join(tree, b"locked"), 0o700)
        os.chmod(os.path.join(tree, b"listed"), 0o704)  # names can be read, nothing behind them
        os.mknod(os.path.join(tree, b"device"), 0o020666, os.makedev(1, 3))
        out = os.path.join(folder, "out")
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, os.fsdecode(tree), out],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert done.stderr == ""
        reading, restoring = done.stdout.splitlines()
        assert "tree/locked: directory cannot be read: permission denied" in reading
        assert "tree/listed/inside: cannot be looked at: permission denied" in reading
        assert "tree/secret: cannot be read" in reading
        assert reading.count("tree/") == 3
        note = (str(ProblemKind.NOTE), "owner and group are kept as they are: not root")
        assert restoring.count("owner and group") == 1 and note[1] in restoring and note[0] in restoring
        assert "tree/device: cannot be restored: operation not permitted" in restoring
        found = describe_tree(os.path.join(out, "tree"))
        assert found[(b"open",)].content == b"readable"
        assert found[(b"suid",)].mode == 0o755, "a program set-uid root must not become set-uid somebody else"
        assert {here.uid for here in found.values()} == {65534}
    finally:
        remove_tree(folder)
