"""Snapshot and restore of real trees on a real disk: everything comes back, bit for bit, with its metadata.

The trees: what the system has installed, a checkout with its .git, names nobody should use, many small files, a
sparse file, and uploads as they change in life (the cases of A21: research said which ones fool a comparison of times).
"""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.local_sessions import LocalWorld, make_local_world
from support.sessions import content_of
from support.trees import compare_trees, make_hostile_tree

from engine.files_snapshot import snapshot_files
from engine.restore import restore_manifest
from engine.snapshot_run import SnapshotResult
from engine.stream_snapshot import snapshot_stdin
from engine.verify import verify_repository
from repo_store.entry import EntryKind
from repo_store.tree_reader import lookup

GIB = 1024**3


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    return make_local_world(tmp_path / "world")


def _snapshot(world: LocalWorld, tree: Path | str) -> SnapshotResult:
    result = snapshot_files(world.session(), [str(tree)])
    assert result.manifest.status == "complete", result.problems
    return result


def _assert_round_trip(world: LocalWorld, tree: Path, out: Path) -> None:
    result = _snapshot(world, tree)
    session = world.session("read")
    restored = restore_manifest(session, result.manifest, str(out))
    assert restored.problems == []
    assert compare_trees(tree, out / tree.name) == []
    assert verify_repository(session, data=True).status == "ok"


@pytest.mark.parametrize(
    "name", ["zoneinfo", *(pytest.param(name, marks=pytest.mark.full) for name in ("doc", "perl"))]
)
def test_installed_trees_come_back(world: LocalWorld, tmp_path: Path, name: str) -> None:
    tree = Path("/usr/share") / name
    if not tree.is_dir():
        pytest.skip(f"{tree} is not installed")
    _assert_round_trip(world, tree, tmp_path / "out")


@pytest.mark.full
def test_all_of_usr_share_comes_back(world: LocalWorld, tmp_path: Path) -> None:
    _assert_round_trip(world, Path("/usr/share"), tmp_path / "out")


def test_hostile_names_and_metadata_come_back(world: LocalWorld, tmp_path: Path) -> None:
    tree = tmp_path / "hostile"
    make_hostile_tree(tree)
    result = snapshot_files(world.session(), [str(tree)])
    restored = restore_manifest(world.session("read"), result.manifest, str(tmp_path / "out"))
    assert [problem for problem in restored.problems if problem.kind != "note"] == []
    assert compare_trees(tree, tmp_path / "out" / "hostile") == []


def test_a_git_checkout_comes_back(world: LocalWorld, tmp_path: Path) -> None:
    tree = tmp_path / "checkout"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "-C", str(tree)]
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    for number in range(20):
        (tree / f"file{number % 7}").write_text(f"line {number}\n" * 50)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", f"change {number}"], check=True)
    _assert_round_trip(world, tree, tmp_path / "out")
    out = tmp_path / "out" / "checkout"
    subprocess.run(["git", "-C", str(out), "fsck", "--full", "--strict"], check=True, capture_output=True)


def _small_files(tree: Path, count: int) -> None:
    source = random.Random(7)
    words = [source.randbytes(4).hex() for _ in range(2000)]
    for number in range(count):
        path = tree / f"d{number // 1000:03}" / f"d{number // 100 % 10}" / f"f{number}.txt"
        if number % 100 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(source.choices(words, k=source.randrange(5, 120))))


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_many_small_files_come_back(world: LocalWorld, tmp_path: Path, count: int) -> None:
    _small_files(tmp_path / "many", count)
    _assert_round_trip(world, tmp_path / "many", tmp_path / "out")


@pytest.mark.parametrize("size", [GIB // 4, pytest.param(10 * GIB, marks=pytest.mark.full)])
def test_a_sparse_file_comes_back_sparse(world: LocalWorld, tmp_path: Path, size: int) -> None:
    tree = tmp_path / "sparse"
    tree.mkdir()
    with open(tree / "disk.img", "wb") as file:
        file.truncate(size)
        for place in (0, size // 3, size - 5000):
            file.seek(place)
            file.write(os.urandom(4000))
    if (tree / "disk.img").stat().st_blocks * 512 >= size:
        pytest.skip("this file system keeps no holes")
    _assert_round_trip(world, tree, tmp_path / "out")
    assert (tmp_path / "out/sparse/disk.img").stat().st_blocks * 512 < 1024 * 1024


@pytest.mark.parametrize("size", [24 * 1024**2, pytest.param(2 * GIB, marks=pytest.mark.full)])
def test_a_stream_comes_back(world: LocalWorld, tmp_path: Path, size: int) -> None:
    path = tmp_path / "stream"
    with open(path, "wb") as file:
        source = random.Random(5)
        while file.tell() < size:
            file.write(source.randbytes(600_000) + b"the same line again\n" * 30_000)
    with open(path, "rb") as file:
        result = snapshot_stdin(world.session(), b"dump.sql", file.fileno())
    assert result.manifest.statistics["bytes"] == path.stat().st_size
    restore_manifest(world.session("read"), result.manifest, str(tmp_path / "out"))
    subprocess.run(["cmp", path, tmp_path / "out" / "dump.sql"], check=True)


def test_an_unchanged_tree_stores_nothing_and_a_changed_file_little(
    world: LocalWorld, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    _small_files(tree, 3_000)
    _snapshot(world, tree)
    assert _snapshot(world, tree).manifest.statistics["stored_bytes"] == 0
    (tree / "d000/d0/f7.txt").write_text("changed")
    changed = _snapshot(world, tree).manifest.statistics
    assert changed["new_bytes"] == len("changed")
    assert changed["stored_bytes"] < 150_000


class TestUploadsThatChangeInLife:
    """A21: each change must be in the next snapshot, whatever the times say."""

    @pytest.fixture
    def upload(self, world: LocalWorld, tmp_path: Path) -> Path:
        tree = tmp_path / "uploads"
        tree.mkdir()
        (tree / "avatar.png").write_bytes(b"first" * 1000)
        (tree / "other.png").write_bytes(b"other" * 1000)
        _snapshot(world, tree)
        return tree / "avatar.png"

    def _stored(self, world: LocalWorld, upload: Path) -> dict[str, bytes]:
        result = _snapshot(world, upload.parent)
        return content_of(world.session("read"), result.manifest)

    def test_replaced_by_a_copy_that_keeps_the_time(self, world: LocalWorld, upload: Path) -> None:
        times = upload.stat()
        new = upload.with_name("new")
        new.write_bytes(b"secnd" * 1000)
        os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
        new.rename(upload)
        assert self._stored(world, upload)["uploads/avatar.png"] == b"secnd" * 1000

    def test_rewritten_with_the_same_size_at_once(self, world: LocalWorld, upload: Path) -> None:
        for number in range(5):
            data = (b"%05d" % number) * 1000
            with open(upload, "r+b") as file:
                file.write(data)
            assert self._stored(world, upload)["uploads/avatar.png"] == data

    def test_rewritten_in_place_with_the_time_set_back(self, world: LocalWorld, upload: Path) -> None:
        times = upload.stat()
        with open(upload, "r+b") as file:
            file.write(b"third" * 1000)
        os.utime(upload, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert self._stored(world, upload)["uploads/avatar.png"] == b"third" * 1000

    def test_renamed_over_each_other(self, world: LocalWorld, upload: Path) -> None:
        shutil.move(upload.with_name("other.png"), upload)
        assert self._stored(world, upload) == {"uploads/avatar.png": b"other" * 1000}

    def test_swapped(self, world: LocalWorld, upload: Path) -> None:
        other, aside = upload.with_name("other.png"), upload.with_name("aside")
        upload.rename(aside)
        other.rename(upload)
        aside.rename(other)
        stored = self._stored(world, upload)
        assert stored == {"uploads/avatar.png": b"other" * 1000, "uploads/other.png": b"first" * 1000}

    def test_written_while_the_clock_was_set_back(self, world: LocalWorld, upload: Path) -> None:
        with open(upload, "r+b") as file:
            file.write(b"backw" * 1000)
        os.utime(upload, ns=(10**9, 10**9))
        assert self._stored(world, upload)["uploads/avatar.png"] == b"backw" * 1000


def test_hard_links_come_back_as_links(world: LocalWorld, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/one").write_bytes(b"linked" * 10_000)
    os.link(tree / "a/one", tree / "two")
    result = _snapshot(world, tree)
    session = world.session("read")
    restore_manifest(session, result.manifest, str(tmp_path / "out"))
    one, two = (tmp_path / "out/tree/a/one").stat(), (tmp_path / "out/tree/two").stat()
    assert one.st_ino == two.st_ino
    assert result.manifest.root is not None
    entry = lookup(session.reader.get_node, result.manifest.root, (b"tree", b"two"))
    assert entry is not None and entry.kind == EntryKind.FILE and entry.size == 60_000


def test_some_paths_are_restored_with_the_directories_above_them(world: LocalWorld, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a/b/wanted", "a/b/c/too", "a/not", "not"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    os.chmod(tree / "a", 0o751)
    result = _snapshot(world, tree)
    out = tmp_path / "out"
    paths = [(b"tree", b"a", b"b"), (b"tree", b"a", b"b", b"wanted")]
    restored = restore_manifest(world.session("read"), result.manifest, str(out), paths=paths)
    assert restored.files == 2
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["tree/a/b/c/too", "tree/a/b/wanted"]
    assert (out / "tree/a").stat().st_mode & 0o777 == 0o751


def test_an_entry_beyond_the_limits_is_named_and_the_rest_is_stored(
    world: LocalWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("a")
    (tree / "b").write_text("b")
    try:
        os.setxattr(tree / "b", "user.large", b"x" * 4000)
    except OSError:
        pytest.skip("this file system keeps no extended attributes")
    monkeypatch.setattr("repo_store.tree_builder.ENTRY_BYTES_MAX", 1000)
    result = snapshot_files(world.session(), [str(tree)])
    assert result.manifest.status == "incomplete"
    assert [path for path, _ in result.manifest.problems] == ["tree/b"]
    assert content_of(world.session("read"), result.manifest) == {"tree/a": b"a"}
