"""A repository on a real S3 server, used by real processes, while the server dies and comes back.

Method: holdfast runs in processes of its own, slowed down by its own limits of transfer so that there is a middle to
be hit; the server is ended by SIGKILL and started again, or left dead until the run has given up. A run either makes
up for it or ends with 1 and one line that says what happened; and afterwards everything that was committed restores.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.minio import running_minio
from support.processes import HANG_SECONDS, ROOT, random_files
from support.s3_server import S3Server
from support.seaweed import running_server
from support.sessions import content_of, tree_content, write_tree

from cli.exit_codes import DONE, FAILED, NO_REPOSITORY, REFUSED
from engine.session import Places, init_repository, open_session
from engine.verify import verify_repository
from repo_store.key_file import KeyFile, NewKeyFile, write_key_file
from repo_store.s3_storage import S3Storage

PROGRAM = """
import sys
from cli.main import main
from repo_store.pack_writer import PackWriter
from repo_store.s3_options import S3Options
S3Options.__init__.__kwdefaults__.update(deadline_seconds=float(sys.argv[1]))
PackWriter.__init__.__kwdefaults__.update(pack_bytes=3 << 20, in_flight_bytes_max=32_000_000)
sys.exit(main(sys.argv[2:]))
"""
SLOWLY = ("--limit-upload", "4M", "--limit-download", "4M")


class Host:
    """One user of a repository on the server."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder, self.server = folder, server
        self.place = server.new_place()
        self.location = f"s3://{self.place}"
        self.storage: S3Storage = server.storage(self.place)
        saved: list[KeyFile] = []
        init_repository(self.location, NewKeyFile(saved.append), self.places("own"), label="test")
        self.key_file = saved[0]
        write_key_file(str(folder / "key"), self.key_file)

    def places(self, name: str) -> Places:
        return Places(self.folder / name / "cache", self.folder / name / "state")

    def start(self, *args: str | Path, deadline: float = 60, name: str = "own") -> "subprocess.Popen[str]":
        places = self.places(name)
        settings = {
            "HOLDFAST_REPOSITORY": self.location,
            "HOLDFAST_KEY_FILE": str(self.folder / "key"),
            "HOLDFAST_CACHE_DIR": str(places.cache_dir),
            "HOLDFAST_STATE_DIR": str(places.state_dir),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-P", "-c", PROGRAM, str(deadline), *map(str, args)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ | settings)

    def run(self, *args: str | Path, name: str = "own") -> str:
        code, out, err = ended(self.start(*args, name=name))
        assert code == DONE, err
        return out

    def packs(self) -> int:
        return sum(1 for _ in self.storage.list("packs/"))

    def assert_restores(self, *states: Mapping[str, bytes]) -> None:
        """Check, as a host that has never seen it, that each state is in a complete manifest, and no other is."""
        places = self.places(f"fresh-{time.monotonic_ns()}")
        session = open_session(self.location, lambda _: self.key_file, places, operation="verify")
        manifests = session.read_manifests()
        assert not manifests.damaged
        found = [
            content_of(session, manifest) for manifest in manifests.live if manifest.status == "complete"
        ]
        assert sorted(map(sorted, found)) == sorted(map(sorted, states)) and all(
            state in found for state in states
        )
        assert verify_repository(session, data=True).status == "ok"


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=HANG_SECONDS)
    return process.returncode, out, err


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """SeaweedFS, unless the test asks for another."""
    is_minio = getattr(request, "param", "") == "minio"
    full = request.config.getoption("--full")
    server: S3Server = running_minio(may_build=full) if is_minio else running_server()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def host(server: S3Server, tmp_path: Path) -> Host:
    return Host(tmp_path, server)


ON_EACH_SERVER = pytest.mark.parametrize(
    "server", ["seaweed", pytest.param("minio", marks=pytest.mark.full)], indirect=True
)


def make_tree(folder: Path, seed: int = 1, count: int = 36) -> Path:
    return write_tree(folder, random_files(seed, count))


@ON_EACH_SERVER
def test_a_repository_in_a_bucket_serves_every_command(host: Host, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    host.run("snapshot", "files", tree)
    host.run("snapshot", "files", tree)
    host.run("restore", "latest", "--to", tmp_path / "back", name="another")
    assert tree_content(tmp_path / "back" / "tree") == tree_content(tree)
    host.run("verify", "--data")
    assert '"problem"' not in host.run("doctor", "--json")
    assert len(json.loads(host.run("manifests", "--json"))) == 2
    host.assert_restores(tree_content(tree), tree_content(tree))
    assert list(host.storage.list("pending/")) == list(host.storage.list("probe/")) == []


def test_there_is_one_repository_in_one_place(host: Host) -> None:
    code, _, err = ended(host.start("init"))
    assert (code, host.location in err) == (REFUSED, True)
    host.location += "/deeper"
    code, _, err = ended(host.start("manifests"))
    assert (code, err.splitlines()[0]) == (NO_REPOSITORY, f"holdfast: {host.location}: no repository there")


def test_a_bucket_that_is_not_there_is_a_named_failure(host: Host) -> None:
    host.location = "s3://no-such-bucket/at/all"
    code, _, err = ended(host.start("manifests"))
    assert (code, err) == (
        FAILED,
        "holdfast: s3://no-such-bucket/at/all/config: cannot list: no such bucket (NoSuchBucket)\n"
        "hint: make the bucket first: docs/s3.md\n",
    )


def kill_in_the_middle_of_a_snapshot(host: Host, tree: Path, deadline: float) -> "subprocess.Popen[str]":
    before = host.packs()
    running = host.start("snapshot", "files", tree, *SLOWLY, deadline=deadline)
    while host.packs() == before:
        assert running.poll() is None, "it ended before it could be disturbed"
        time.sleep(0.01)
    host.server.kill()
    return running


@pytest.fixture(scope="module")
def first_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("first") / "first", 2, 10)


@ON_EACH_SERVER
def test_a_snapshot_makes_up_for_a_server_that_dies_and_comes_back(
    host: Host, first_tree: Path, tmp_path: Path
) -> None:
    host.run("snapshot", "files", first_tree)
    tree = make_tree(tmp_path / "tree")
    running = kill_in_the_middle_of_a_snapshot(host, tree, deadline=60)
    host.server.start()
    code, _, err = ended(running)
    assert code == DONE, err
    host.assert_restores(tree_content(first_tree), tree_content(tree))


def test_a_snapshot_gives_up_on_a_server_that_stays_away_and_the_next_one_goes_on(
    host: Host, first_tree: Path, tmp_path: Path
) -> None:
    host.run("snapshot", "files", first_tree)
    tree = make_tree(tmp_path / "tree")
    try:
        code, _, err = ended(kill_in_the_middle_of_a_snapshot(host, tree, deadline=1))
    finally:
        host.server.start()
    assert code == FAILED
    assert err.count("holdfast: ") == 1
    assert f"holdfast: {host.location}/" in err and ": gave up after " in err and "hint: " in err
    host.assert_restores(tree_content(first_tree))
    stored = host.packs()
    host.run("snapshot", "files", tree)
    assert host.packs() > stored
    host.assert_restores(tree_content(first_tree), tree_content(tree))


@pytest.mark.parametrize(
    "comes_back", [True, pytest.param(False, marks=pytest.mark.full)], ids=["comes back", "stays away"]
)
def test_a_restore_survives_the_death_of_the_server_or_says_so(
    host: Host, tmp_path: Path, comes_back: bool
) -> None:
    tree = make_tree(tmp_path / "tree")
    host.run("snapshot", "files", tree)
    target = tmp_path / "back"
    deadline = 60 if comes_back else 1
    running = host.start("restore", "latest", "--to", target, *SLOWLY, deadline=deadline)
    try:
        while not any(path.is_file() for path in target.rglob("*")):
            assert running.poll() is None, "it ended before it could be disturbed"
            time.sleep(0.01)
        host.server.kill()
        code, err = (0, "") if comes_back else ended(running)[::2]
    finally:
        host.server.start()
    if comes_back:
        code, _, err = ended(running)
        assert code == DONE, err
        assert tree_content(target / "tree") == tree_content(tree)
    else:
        assert code == FAILED and ": gave up after " in err, err
    host.run("restore", "latest", "--to", tmp_path / "again")
    assert tree_content(tmp_path / "again" / "tree") == tree_content(tree)


@ON_EACH_SERVER
def test_two_writers_at_once_both_commit(host: Host, tmp_path: Path) -> None:
    trees = [make_tree(tmp_path / f"tree-{number}", seed=number % 2, count=25) for number in range(2)]
    running = [
        host.start("snapshot", "files", tree, name=f"host-{number}") for number, tree in enumerate(trees)
    ]
    for process in running:
        code, _, err = ended(process)
        assert code == DONE, err
    host.assert_restores(*map(tree_content, trees))
