"""Commands on a real S3 server behind a line on which things go wrong.

Method: the storage's own tests show that a request survives each fault; here whole commands are run. A fault that passes
must not show in the answer at all. Then every command is cut off at each of its requests in turn, for good: it ends with 1
and one line that names what failed, and afterwards, on a whole line, every manifest that is listed restores, and the
same command succeeds. One that is cut off after its commit may say that it succeeded; then it has.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cli import Answer, Cli
from support.faulty_proxy import ALWAYS, Fault, FaultyProxy
from support.seaweed import running_server
from support.sessions import content_of, tree_content, write_tree

from engine.session import Places, open_session
from repo_store import s3_retry
from repo_store.key_file import read_key_file
from repo_store.pack_writer import PackWriter
from repo_store.s3_options import S3Options

FILES = {f"{folder}/{number}": f"{folder} {number}".encode() * 40 for folder in "ab" for number in range(30)}
FILES["large"] = random.Random(1).randbytes(4_000_000)


@dataclass
class Scene:
    """A repository in a bucket, reached through a proxy by the commands and directly by who checks."""

    cli: Cli
    proxy: FaultyProxy
    place: str

    def __call__(self, *args: str) -> Answer:
        return self.cli(*args)

    def forget(self) -> None:
        """Make the line whole."""
        self.proxy.forget()

    def assert_all_restore(self, *states: dict[str, bytes]) -> int:
        """Check by a line of its own, with nothing cached, that each manifest has one of `states`; return how many."""
        server = running_server()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            folder = self.cli.directory / f"checks-{len(list(self.cli.directory.glob('checks-*')))}"
            key = read_key_file(str(self.cli.directory / "key")).key_file
            places = Places(folder / "cache", folder / "state")
            session = open_session(f"s3://{self.place}", lambda _: key, places)
            manifests = session.read_manifests()
            assert not manifests.damaged
            for manifest in manifests.live:
                assert manifest.status == "complete"
                assert content_of(session, manifest) in states
        return len(manifests.live)


@pytest.fixture(scope="module")
def line() -> Iterator[FaultyProxy]:
    with FaultyProxy(running_server().port) as proxy:
        yield proxy


@pytest.fixture
def scene(cli: Cli, line: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    place = running_server().new_place()
    for name, value in running_server().environment(endpoint=line.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOLDFAST_REPOSITORY", f"s3://{place}")
    monkeypatch.setattr(s3_retry, "PAUSE_SECONDS_MIN", 0.01)
    quick = {"read_seconds": 20.0, "deadline_seconds": 20.0, "greeting_seconds": 20.0}
    for function, values in (
        (S3Options.__init__, quick),
        (PackWriter.__init__, {"pack_bytes": 3 << 20, "in_flight_bytes_max": 32_000_000}),
    ):
        for name, value in values.items():
            monkeypatch.setitem(function.__kwdefaults__, name, value)
    line.forget()
    yield Scene(cli, line, place)
    line.forget()


@contextmanager
def cut_off(scene: Scene, fault: Fault, after: int) -> Iterator[None]:
    """Let `after` requests pass and no more, and commands lose their patience quickly; afterwards the line is whole."""
    scene.forget()
    scene.proxy.fail(fault, "", times=ALWAYS, skip=after)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("deadline_seconds", "greeting_seconds"):
            patch.setitem(S3Options.__init__.__kwdefaults__, name, 0.1)
        yield
    scene.forget()


PASSING: dict[str, Callable[[FaultyProxy], None]] = {
    "each request is reset once": lambda proxy: each_other(proxy, Fault.RESET_BEFORE),
    "each answer is lost once": lambda proxy: each_other(proxy, Fault.RESET_AFTER),
    "each request fails once with 500": lambda proxy: each_other(proxy, Fault.STATUS, status=500),
    "each put meets somebody else": lambda proxy: each_other(
        proxy, Fault.STATUS, "PUT", status=409, code="ConditionalRequestConflict"
    ),
    "each put is said to exist": lambda proxy: each_other(
        proxy, Fault.STATUS, "PUT", status=412, code="PreconditionFailed"
    ),
    "each body is cut off once": lambda proxy: each_other(proxy, Fault.CUT, "GET"),
    "each answer is slow": lambda proxy: proxy.fail(Fault.SLOW, "", times=ALWAYS, seconds=0.02),
}


def each_other(
    proxy: FaultyProxy, fault: Fault, method: str = "", *, status: int = 500, code: str = "InternalError"
) -> None:
    """Let a fault strike every second request of a kind: the first, the third …"""
    for number in range(400):
        proxy.fail(fault, method, times=1, skip=number, status=status, code=code)


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_shows_in_no_answer(scene: Scene, tmp_path: Path, fault: str) -> None:
    tree = write_tree(tmp_path / "tree", FILES)
    strike = PASSING[fault]
    strike(scene.proxy)
    assert scene("init", "-q").code == 0
    for args in (
        ("snapshot", "files", "tree", "-q"),
        ("restore", "latest", "--to", "back", "-q"),
        ("verify", "--data", "-q"),
    ):
        scene.forget()
        strike(scene.proxy)
        answer = scene(*args)
        assert (answer.code, answer.err) == (0, ""), answer
        assert scene.proxy.seen
    assert tree_content(tmp_path / "back/tree") == tree_content(tree)
    scene.forget()
    assert scene.assert_all_restore(tree_content(tree)) == 1


REQUESTS_MAX = 90
FOR_GOOD = [
    Fault.RESET_BEFORE,
    pytest.param(Fault.RESET_AFTER, marks=pytest.mark.full),
    pytest.param(Fault.STATUS, marks=pytest.mark.full),
]


def cut_off_at_each_request(
    scene: Scene, fault: Fault, step: int, command: Callable[[int], tuple[str, ...]]
) -> int:
    """Run a command again and again, cut off after 0, `step`, 2 × `step` … requests, until it is not cut off any more;
    return how often it failed. `command` gives its arguments for each time."""
    failures = 0
    for number in range(REQUESTS_MAX // step):
        with cut_off(scene, fault, number * step):
            answer = scene(*command(number))
            whole = len(scene.proxy.seen) <= number * step
        if answer.code == 0:
            if whole:
                return failures
            continue
        failures += 1
        first, *rest = answer.err.splitlines()
        assert answer.code == 1 and answer.out == ""
        assert first.startswith(f"holdfast: s3://{scene.place}/") and ": gave up after " in first
        assert not rest or (len(rest) == 1 and rest[0].startswith("hint: "))
        # Else each run reads what all before it left, and what it asks grows as fast as it is let go on.
        assert scene(*command(1000 + number)).code == 0
    raise AssertionError("it asks without end")


@pytest.fixture
def step(request: pytest.FixtureRequest) -> int:
    """Quickly, every third request is cut off; the long form cuts off each."""
    return 1 if request.config.getoption("--full") else 3


@pytest.mark.parametrize("fault", FOR_GOOD)
def test_a_snapshot_cut_off_anywhere_leaves_only_what_restores(
    scene: Scene, tmp_path: Path, fault: Fault, step: int
) -> None:
    tree = write_tree(tmp_path / "tree", FILES)
    assert scene("init", "-q").code == 0
    assert scene("snapshot", "files", "tree", "-q").code == 0
    states = [tree_content(tree)]

    def command(number: int) -> tuple[str, ...]:
        (tree / "changing").write_bytes(b"%d " % number * 30_000)
        states.append(tree_content(tree))
        return "snapshot", "files", "tree", "-q"

    assert cut_off_at_each_request(scene, fault, step, command) * step > 15
    assert scene.assert_all_restore(*states) >= 5


@pytest.mark.parametrize("fault", FOR_GOOD)
def test_a_restore_cut_off_anywhere_says_so_and_the_next_one_is_whole(
    scene: Scene, tmp_path: Path, fault: Fault, step: int
) -> None:
    tree = write_tree(tmp_path / "tree", FILES)
    assert scene("init", "-q").code == 0
    assert scene("snapshot", "files", "tree", "-q").code == 0

    def command(number: int) -> tuple[str, ...]:
        fresh = ("--cache-dir", f"cache-{number}")  # so that as much as can be is asked of the server
        return "restore", "latest", "--to", f"back-{number}", "-q", *fresh

    assert cut_off_at_each_request(scene, fault, step, command) * step > 10
    assert tree_content(tmp_path / "back-1000/tree") == tree_content(tree)


@pytest.mark.parametrize("fault", FOR_GOOD)
def test_a_verify_cut_off_anywhere_calls_nothing_damaged(
    scene: Scene, tmp_path: Path, fault: Fault, step: int
) -> None:
    write_tree(tmp_path / "tree", FILES)
    assert scene("init", "-q").code == 0
    assert scene("snapshot", "files", "tree", "-q").code == 0
    command = ("verify", "--data", "-q")
    # Each turn leaves up to two ledger records, which the next one reads: so it must be let go on faster than by two.
    assert cut_off_at_each_request(scene, fault, max(4, 2 * step), lambda number: command) * step > 4


@pytest.mark.parametrize("fault", FOR_GOOD)
def test_an_init_cut_off_anywhere_leaves_a_repository_or_nothing(
    scene: Scene, fault: Fault, step: int
) -> None:
    for number in range(0, 400, 20 * step):
        key = str(scene.cli.directory / f"key-{number}")
        with cut_off(scene, fault, number):
            answer = scene("init", "-q", "--key-file", key)
            whole = len(scene.proxy.seen) <= number
        manifests = scene("manifests", "--key-file", key, "-q")
        assert (answer.code, manifests.code) in ((1, 10), (1, 0), (0, 0), (11, 10), (1, 1)), (
            answer,
            manifests,
        )
        if manifests.code == 0:
            assert whole or answer.code == 1
            return
    raise AssertionError("it never came to be")


def test_an_object_that_is_said_to_exist_and_never_does_is_a_named_failure(
    scene: Scene, tmp_path: Path
) -> None:
    write_tree(tmp_path / "tree", FILES)
    assert scene("init", "-q").code == 0
    scene.proxy.fail(Fault.STATUS, "PUT", "/manifests/", times=ALWAYS, status=412, code="PreconditionFailed")
    answer = scene("snapshot", "files", "tree", "-q")
    assert answer.code == 1
    assert answer.err.endswith(": cannot write: the object comes and goes\n"), answer.err
    scene.forget()
    assert scene.assert_all_restore() == 0
    assert scene("snapshot", "files", "tree", "-q").code == 0
    assert scene.assert_all_restore(tree_content(tmp_path / "tree")) == 1


# What a command asks, and with which headers


def test_an_unchanged_snapshot_takes_twenty_requests_at_most(scene: Scene, tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", FILES)
    assert scene("init", "-q").code == 0
    for _ in range(3):
        scene.forget()
        requests = scene("snapshot", "files", "tree", "--json").document["requests"]
        assert sum(requests.values()) == len(scene.proxy.seen), "each is counted"
        if _:
            assert sum(requests.values()) <= 20, requests
        snapshot_requests = scene("stats", "--json").document["snapshot_requests"]
        assert list(snapshot_requests.values()) == [sum(requests.values())]
    scene.forget()
    restored = scene("restore", "latest", "--to", "back", "--json").document["requests"]
    assert sum(restored.values()) == len(scene.proxy.seen)
    scene.forget()
    shown = scene("stats", "--requests").out
    assert f"requests    {len(scene.proxy.seen)} requests of this call\n" in shown
    scene.forget()
    verified = scene("verify", "--json").document["requests"]
    assert sum(verified.values()) == len(scene.proxy.seen)


def test_class_and_encryption_are_asked_for_with_every_object(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "tree", {"large": FILES["large"]})
    assert scene("init", "-q").code == 0
    scene.forget()
    chosen = ("--s3-storage-class", "STANDARD_IA", "--s3-encryption", "aws:kms", "--s3-kms", "alias/x")
    scene.proxy.fail(Fault.STATUS, "PUT", times=ALWAYS, status=403, code="AccessDenied")
    assert scene("snapshot", "files", "tree", "-q", *chosen).code == 1
    puts = [
        headers
        for line, (_, headers) in zip(scene.proxy.seen, scene.proxy.headers, strict=True)
        if line.startswith("PUT")
    ]
    assert puts
    for headers in puts:
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/x"
        large = int(headers["content-length"]) >= 128 * 1024
        assert headers.get("x-amz-storage-class") == ("STANDARD_IA" if large else None)
        assert headers["if-none-match"] == "*"
    assert any("x-amz-storage-class" in headers for headers in puts)


def test_endpoint_and_region_come_by_options_as_well(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scene("init", "-q").code == 0
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "elsewhere-1")
    scene.forget()
    answer = scene("manifests", "-q", "--s3-endpoint", scene.proxy.endpoint, "--s3-region", "eu-central-1")
    assert answer.code == 0, answer
    signatures = [headers["authorization"] for _, headers in scene.proxy.headers]
    assert signatures and all("/eu-central-1/s3/aws4_request" in each for each in signatures)
