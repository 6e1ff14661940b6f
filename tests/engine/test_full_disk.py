"""Disks that are full, read-only or not ours: the run says so in one line and fails, and nothing that was saved suffers.

Method: real file systems that are really small (tmpfs, so only root can run most of this), and `holdfast` in
processes of their own. A repository without room, a restore's target without room, a cache without room or rights,
a repository mounted read-only, one that belongs to somebody else.
"""

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.processes import MIB, Content, Ended, Host, make_host, objects, random_files
from support.sessions import tree_content, write_tree
from support.trees import compare_trees

NOBODY = 65534
SEED = 20261125

Mount = Callable[[Path, int], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a tmpfs of so many bytes on a new directory, until the test ends."""
    mounted: list[Path] = []

    def make(folder: Path, size: int) -> None:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "holdfast-test", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"only root may mount a small file system: {done.stderr.strip()}")
        mounted.append(folder)

    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=False)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", random_files(SEED, 12))


@pytest.fixture
def host(tmp_path: Path, tree: Path) -> Host:
    """A host with one snapshot of `tree`, on a disk with room."""
    host = make_host(tmp_path / "host")
    host.snapshot(tree)
    return host


def _assert_one_line(ended: Ended, *words: str, code: int = 1) -> None:
    """Check that the command failed, and said why in one line and no more."""
    assert ended.code == code, ended
    assert ended.out == ""
    (line,) = ended.lines()
    assert line.startswith("holdfast: ") and "bug" not in ended.err
    for word in words:
        assert word in ended.err, ended.err


def _with_cache_elsewhere(host: Host, folder: Path) -> Host:
    """Let the host keep cache and state in a place that has room."""
    host.environment |= {
        "HOLDFAST_CACHE_DIR": str(folder / "cache"),
        "HOLDFAST_STATE_DIR": str(folder / "state"),
    }
    return host


def _fill(folder: Path, keep: int = 0) -> Path:
    """Fill a file system but for `keep` bytes with a file, and return that."""
    ballast = folder / "lost+found"  # a name that no object of a repository has
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(bytes(max(0, free - keep)))
    return ballast


class TestRepositoryWithoutRoom:
    """A snapshot that runs out of space."""

    @pytest.mark.parametrize(
        "room", [64 * 1024, 11 * MIB, *(pytest.param(n * MIB, marks=pytest.mark.full) for n in range(22))]
    )
    def test_the_snapshot_fails_saves_nothing_and_the_next_one_goes_on(
        self, tmp_path: Path, tree: Path, mount: Mount, room: int
    ) -> None:
        mount(tmp_path / "disk", 64 * MIB)
        host = _with_cache_elsewhere(make_host(tmp_path / "disk" / "host"), tmp_path)
        host.snapshot(tree)
        before = tree_content(tree)
        write_tree(tree, random_files(SEED + 1, 80))
        ballast = _fill(tmp_path / "disk", keep=room)
        packs = objects(host.location, "packs")
        ended = host.run("snapshot", "files", tree, checkpoint_bytes=10**12)
        _assert_one_line(ended, "no space left on device", "hint: free some space")
        assert len(objects(host.location, "manifests")) == 1
        ballast.unlink()
        states = [before, tree_content(tree)]
        host.assert_nothing_lies(states)
        landed = sum(size for name, size in objects(host.location, "packs").items() if name not in packs)
        assert landed >= 3 * MIB or room < 8 * MIB, "what there is room for is used"
        assert host.run("snapshot", "files", tree).code == 0
        manifests = host.assert_nothing_lies(states)
        new = sum(len(data) for name, data in states[1].items() if before.get(name) != data)
        assert manifests[-1].statistics["new_bytes"] <= new - max(0, landed - MIB), (
            "metadata is less than 1 MiB"
        )

    def test_with_json_the_answer_is_the_error(self, tmp_path: Path, tree: Path, mount: Mount) -> None:
        mount(tmp_path / "disk", 16 * MIB)
        host = make_host(tmp_path / "disk" / "host")
        _fill(tmp_path / "disk")
        ended = host.run("snapshot", "files", tree, "--json")
        assert ended.code == 1
        assert '"exit_code": 1' in ended.out and "manifest" not in ended.out.replace("manifests/", "")

    def test_room_is_missing_for_the_manifest_alone(self, tmp_path: Path, tree: Path, mount: Mount) -> None:
        mount(tmp_path / "disk", 16 * MIB)
        host = make_host(tmp_path / "disk" / "host")
        host.snapshot(tree)
        ballast = _fill(tmp_path / "disk")
        _assert_one_line(host.run("snapshot", "files", tree), "no space left")
        ballast.unlink()
        assert len(host.assert_nothing_lies([tree_content(tree)])) == 1

    def test_verify_and_restore_need_no_room(self, tmp_path: Path, tree: Path, mount: Mount) -> None:
        mount(tmp_path / "disk", 16 * MIB)
        host = _with_cache_elsewhere(make_host(tmp_path / "disk" / "host"), tmp_path)
        host.snapshot(tree)
        _fill(tmp_path / "disk")
        assert host.run("verify", "--data").code == 0
        assert host.run("restore", "latest", "--to", tmp_path / "out").code == 0
        assert compare_trees(tree, tmp_path / "out" / "tree") == []

    def test_init_on_a_full_disk_fails_and_leaves_no_half_repository(
        self, tmp_path: Path, mount: Mount
    ) -> None:
        mount(tmp_path / "disk", MIB)
        ballast = _fill(tmp_path / "disk")
        environment = {
            "HOLDFAST_REPOSITORY": str(tmp_path / "disk" / "repository"),
            "HOLDFAST_KEY_FILE": str(tmp_path / "new-key"),
        }
        host = make_host(tmp_path / "host")
        host.environment |= environment
        _assert_one_line(host.run("init"), "no space left")
        ballast.unlink()
        again = host.run("init")
        if (tmp_path / "new-key").exists() and again.code != 0:
            (tmp_path / "new-key").unlink()
            again = host.run("init")
        assert again.code == 0, again


class TestTargetWithoutRoom:
    """A restore that runs out of space."""

    @pytest.mark.parametrize(
        ("room", "sizes"),
        [(2 * MIB, (900, 900_000)), (64 * 1024, (900,)), (64 * 1024, (0, 30_000))],
        ids=["large files", "small files", "files of one chunk"],
    )
    def test_the_restore_fails_and_says_where(
        self, tmp_path: Path, mount: Mount, room: int, sizes: tuple[int, ...]
    ) -> None:
        host = make_host(tmp_path / "host")
        host.snapshot(write_tree(tmp_path / "tree", random_files(SEED, 40, sizes)))
        mount(tmp_path / "small", room)
        ended = host.run("restore", "latest", "--to", tmp_path / "small" / "out")
        _assert_one_line(ended, "small/out", "no space left on device")
        assert "prune" not in ended.err, "advice for a repository is of no use for a target"


class TestCacheInTrouble:
    """A cache without room or rights fails the run cleanly, and says that it is the cache; it never spoils a backup."""

    def _host_with_cache(self, host: Host, cache: Path) -> Host:
        host.environment["HOLDFAST_CACHE_DIR"] = str(cache)
        return host

    @pytest.mark.parametrize(
        "keep",
        [0, 6 * 4096, *(pytest.param(n * 4096, marks=pytest.mark.full) for n in (1, 2, 3, *range(7, 20)))],
    )
    def test_a_full_cache_fails_the_snapshot_or_does_not_matter(
        self, tmp_path: Path, tree: Path, host: Host, mount: Mount, keep: int
    ) -> None:
        before = tree_content(tree)
        write_tree(tree, random_files(SEED + 1, 30))
        states = [before, tree_content(tree)]
        mount(tmp_path / "small", MIB)
        ballast = _fill(tmp_path / "small", keep=keep)
        ended = self._host_with_cache(host, tmp_path / "small" / "cache").run("snapshot", "files", tree)
        if ended.code:
            _assert_one_line(ended, "small/cache", "no space left", "--cache-dir")
        manifests = host.assert_nothing_lies(states)
        assert (manifests[-1].status == "complete" and len(manifests) > 1) == (ended.code == 0)
        ballast.unlink()
        assert host.run("snapshot", "files", tree).code == 0
        host.assert_nothing_lies(states)

    def test_a_cache_that_cannot_be_made_is_named(
        self, tmp_path: Path, tree: Path, host: Host, mount: Mount
    ) -> None:
        mount(tmp_path / "small", MIB)
        _remount(tmp_path / "small", "ro")
        self._host_with_cache(host, tmp_path / "small" / "cache")
        for ended in (
            host.run("snapshot", "files", tree),
            host.run("restore", "latest", "--to", tmp_path / "out"),
        ):
            _assert_one_line(ended, "small/cache", "read-only file system", "--cache-dir")
        assert not (tmp_path / "out").exists()

    def test_a_cache_that_became_read_only_is_named(
        self, tmp_path: Path, tree: Path, host: Host, mount: Mount
    ) -> None:
        mount(tmp_path / "small", MIB)
        self._host_with_cache(host, tmp_path / "small" / "cache")
        assert host.run("snapshot", "files", tree).code == 0
        _remount(tmp_path / "small", "ro")
        _assert_one_line(host.run("snapshot", "files", tree), "read-only file system", "--cache-dir")

    def test_a_file_in_place_of_the_cache_is_named(self, tmp_path: Path, tree: Path, host: Host) -> None:
        (tmp_path / "cache").write_text("not a directory")
        ended = self._host_with_cache(host, tmp_path / "cache").run("snapshot", "files", tree)
        _assert_one_line(ended, "/cache/", "--cache-dir")

    def test_manifests_that_cannot_be_cached_are_read_from_the_repository(
        self, tree: Path, host: Host
    ) -> None:
        (cache,) = host.world.places.cache_dir.iterdir()
        shutil.rmtree(cache / "manifests", ignore_errors=True)
        (cache / "manifests").write_text("not a directory")
        assert host.snapshot(tree).sequence == 2
        assert host.snapshot(tree).sequence == 3

    @pytest.mark.parametrize(
        "number", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.full) for n in range(3, 60))]
    )
    def test_a_spoilt_cache_spoils_no_backup(self, tree: Path, host: Host, number: int) -> None:
        source = random.Random(SEED + number)
        before = tree_content(tree)
        assert len(host.world.session().read_manifests().live) == 1, "which caches it"
        (tree / "d1" / "new").write_bytes(source.randbytes(100_000))
        states = [before, tree_content(tree)]
        for path in sorted(host.world.places.cache_dir.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                place = source.randrange(len(data)) if data else 0
                flipped = bytes([data[place] ^ 1 << source.randrange(8)]) if data else b"?"
                path.write_bytes([data[:place] + flipped + data[place + 1 :], data[:place], b""][number % 3])
        assert host.run("snapshot", "files", tree).code == 0
        print(f"seed {SEED}, number {number}")
        manifests = host.assert_nothing_lies(states)
        assert (manifests[-1].status, manifests[-1].sequence) == ("complete", 2)


def test_a_read_only_repository_cannot_be_written_to_and_restores(
    tmp_path: Path, tree: Path, mount: Mount
) -> None:
    mount(tmp_path / "disk", 64 * MIB)
    host = _with_cache_elsewhere(make_host(tmp_path / "disk" / "host"), tmp_path)
    host.snapshot(tree)
    _remount(tmp_path / "disk", "ro")
    _assert_one_line(host.run("snapshot", "files", tree), "read-only file system")
    assert host.run("verify", "--data").code == 0
    assert host.run("restore", "latest", "--to", tmp_path / "out").code == 0
    assert compare_trees(tree, tmp_path / "out" / "tree") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
class TestSomebodyElse:
    """A user without rights gets told what is closed to them."""

    @pytest.fixture
    def open_folder(self) -> Iterator[Path]:
        """A folder that everybody may enter, as those of pytest are not."""
        with tempfile.TemporaryDirectory(prefix="holdfast-others-") as folder:
            os.chmod(folder, 0o755)
            yield Path(folder)

    def _readable_host(self, open_folder: Path, tree: Path) -> Host:
        host = make_host(open_folder / "host")
        host.snapshot(tree)
        for path in (host.folder, host.location, *host.location.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o444)
        return host

    def _as_nobody(self, host: Host, folder: Path, *args: str | Path) -> Ended:
        for name in ("cache", "state"):
            (folder / name).mkdir(exist_ok=True)
            os.chown(folder / name, NOBODY, NOBODY)
        key = folder / "its-key"
        key.write_bytes(host.key.read_bytes())
        key.chmod(0o600)
        os.chown(key, NOBODY, NOBODY)
        host.environment |= {
            "HOLDFAST_KEY_FILE": str(key),
            "HOLDFAST_CACHE_DIR": str(folder / "cache"),
            "HOLDFAST_STATE_DIR": str(folder / "state"),
            "HOME": str(folder),
        }
        return host.run(*args, user=NOBODY, cwd=folder)

    @pytest.mark.parametrize(
        "closed",
        ["", "packs", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("config", "manifests"))],
    )
    def test_a_repository_that_may_not_be_read_is_named(
        self, open_folder: Path, tree: Path, closed: str
    ) -> None:
        host = self._readable_host(open_folder, tree)
        (host.location / closed).chmod(0o700)
        out = open_folder / "state" / "out"
        ended = self._as_nobody(host, open_folder, "restore", "latest", "--to", out)
        _assert_one_line(ended, "repository", "permission denied", "hint: check who owns")

    def test_a_repository_that_may_be_read_restores_and_refuses_snapshots(
        self, open_folder: Path, tree: Path
    ) -> None:
        host = self._readable_host(open_folder, tree)
        source = write_tree(open_folder / "source", {"file": b"content"})
        _assert_one_line(self._as_nobody(host, open_folder, "snapshot", "files", source), "permission denied")
        content: Content = tree_content(tree)
        out = open_folder / "state" / "out"
        ended = self._as_nobody(host, open_folder, "restore", "latest", "--to", out)
        assert ended.code in (0, 3), ended
        assert tree_content(out / "tree") == content
