"""holdfast in real processes: started, watched, killed, and what they leave behind judged.

host = make_host(folder)                     a repository, its key, and one user's cache and state
running = host.start("snapshot", "files", tree, pause_ms=20)
wait_for_objects(running, host.location, "packs", 3)
running.kill()
host.assert_nothing_lies({"tree": …})        by a host that has never seen the repository
"""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from blake3 import blake3
from support.local_sessions import LocalWorld, make_local_world
from support.sessions import content_of

from engine.files_snapshot import snapshot_files
from engine.session import Places, Session, open_session
from engine.verify import verify_repository
from repo_store.key_file import write_key_file
from repo_store.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "support" / "small_packs.py"
HANG_SECONDS = 120
"""No process may take this long; it says nothing about how long one should."""

MIB = 1024 * 1024
_OBJECT = re.compile(
    r"config/\d+(\.copy)?|keys/[0-9a-f]{16}[-.]\d+(\.copy)?|packs/([0-9a-f]{2})/\3[0-9a-f]{62}"
    r"|tables/[0-9a-f]{64}|(pending|manifests|forgotten|ledger)/[0-9a-f]{32}"
)

Content = Mapping[str, bytes]


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    def lines(self) -> list[str]:
        """Return what it said on stderr, without the hint."""
        return [line for line in self.err.splitlines() if not line.startswith("hint: ")]


@dataclass
class Running:
    """A process under way."""

    process: "subprocess.Popen[str]"

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        self.process.send_signal(number)

    def kill(self) -> Ended:
        """End it as the kernel does when memory is short."""
        self.process.kill()
        return self.wait()

    def wait(self) -> Ended:
        """Wait for its end."""
        try:
            out, err = self.process.communicate(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()  # not read to its end: a child that was left behind may hold it
            raise AssertionError(f"{self.process.args!r}: did not end") from None
        return Ended(self.process.returncode, out, err)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.process.poll() is not None


@dataclass
class Host:
    """One user on one machine who works with a repository."""

    folder: Path
    world: LocalWorld
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def location(self) -> Path:
        """The directory of the repository."""
        return self.world.location

    @property
    def key(self) -> Path:
        """The key file."""
        return self.folder / "key"

    def copy(self, folder: Path) -> "Host":
        """Return another machine with a copy of everything."""
        shutil.copytree(self.folder, folder)
        world = replace(self.world, location=folder / "repository", places=_places(folder))
        return Host(folder, world, dict(self.environment))

    def beside(self, name: str) -> "Host":
        """Return another host of the same repository, with a cache and a state of its own."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copy(self.key, folder / "key")
        return Host(folder, replace(self.world, places=_places(folder)), dict(self.environment))

    def start(
        self,
        *args: str | Path,
        pause_ms: int = 0,
        checkpoint_bytes: int = 6 * MIB,
        user: int = 0,
        report: str | Path = "-",
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        **options: Any,
    ) -> Running:
        """Start a command of holdfast, as another user if asked to; with `checkpoint_bytes` 0, packs are as usual."""
        settings = {
            "HOLDFAST_REPOSITORY": str(self.location),
            "HOLDFAST_KEY_FILE": str(self.key),
            "HOLDFAST_CACHE_DIR": str(self.world.places.cache_dir),
            "HOLDFAST_STATE_DIR": str(self.world.places.state_dir),
            "PYTHONPATH": str(ROOT),
        }
        program = [sys.executable, "-P", str(PROGRAM), str(pause_ms), str(checkpoint_bytes), str(user)]
        process = subprocess.Popen(
            [*program, str(report), *map(str, args)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | settings | self.environment,
            **options,
        )
        return Running(process)

    def run(self, *args: str | Path, **options: Any) -> Ended:
        """Run a command of holdfast to its end."""
        return self.start(*args, **options).wait()

    def snapshot(self, *trees: Path) -> Manifest:
        """Back up trees from within this process, which saves the start of another."""
        return snapshot_files(self.world.session(), [str(tree) for tree in trees]).manifest

    def fresh_session(self, operation: str = "verify") -> Session:
        """Open the repository as a host that has never seen it."""
        folder = self.folder / f"fresh-{os.urandom(4).hex()}"
        places = Places(folder / "cache", folder / "state")
        return open_session(
            str(self.location), lambda storage: self.world.key_file, places, operation=operation
        )

    def assert_nothing_lies(self, states: Sequence[Content], *, prefixes: bool = False) -> list[Manifest]:
        """Check everything that a dead or failed process may have spoilt; return the live manifests.

        Every manifest gives back one of `states`, or a part of one if it is partial (with `prefixes` also parts of
        files: the checkpoint of a stream); every object is whole; verify reads every byte and agrees.
        """
        _assert_objects_are_whole(self.location)
        session = self.fresh_session()
        manifests = session.read_manifests()
        assert not manifests.damaged
        for manifest in manifests.live:
            content = content_of(session, manifest)
            assert any(_is_state(content, state, manifest, prefixes) for state in states), (
                f"{manifest.status} manifest {manifest.id.hex()} holds something that never was"
            )
        report = verify_repository(session, data=True)
        assert report.status == "ok", report.damaged
        return manifests.live


def _is_state(content: Content, state: Content, manifest: Manifest, prefixes: bool) -> bool:
    if manifest.status != "partial":
        return content == state
    return all(
        state.get(name) == data or (prefixes and state.get(name, b"").startswith(data))
        for name, data in content.items()
    )


def _assert_objects_are_whole(location: Path) -> None:
    """Every file is an object, none is a leftover, and those named by their hash have it."""
    for path in location.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(location))
            assert _OBJECT.fullmatch(name), f"{name}: left behind"
            if name.startswith(("packs/", "tables/")):
                assert blake3(path.read_bytes()).hexdigest() == path.name, f"{name}: not whole"


def _places(folder: Path) -> Places:
    return Places(folder / "cache", folder / "state")


def make_host(folder: Path) -> Host:
    """Make a repository and a host that uses it."""
    world = make_local_world(folder)
    write_key_file(str(folder / "key"), world.key_file)
    return Host(folder, world)


def objects(location: Path, kind: str) -> dict[str, int]:
    """Return name → size of the objects of a kind ("packs", "tables" …) that can be seen now."""
    found = {}
    for folder, _, names in os.walk(location / kind):
        for name in names:
            found[name] = os.stat(os.path.join(folder, name)).st_size
    return found


def wait_for_objects(running: Running, location: Path, kind: str, count: int, before: int = 0) -> bool:
    """Wait until `count` objects of a kind have come beside the `before`; say if they did before the process ended."""
    while len(objects(location, kind)) < before + count:
        if running.ended:
            return False
        time.sleep(0.001)
    return True


def random_files(seed: int, count: int, sizes: Sequence[int] = (0, 900, 30_000, 150_000, 900_000)) -> Content:
    """Return the files of a tree that does not compress."""
    source = random.Random(seed)
    return {f"d{n % 7}/f{n}": source.randbytes(source.choice(sizes)) for n in range(count)}
