"""Repositories in S3: requests of each command, transfer rates beside those of plain requests, and the start.

    python benchmarks/s3.py [--files 100000] [--mib 1024] [--folder DIR] [--only requests,rates,start]

The server is SeaweedFS on this machine, started for it (tests/support/seaweed.py). Every command runs in a process of
its own, as a user would call it. *Plain* is what the same number of objects of the size of a pack takes with the same
client library, a few at once; the fastest of a few rounds on both sides, taken in turn. *First byte* is the CPU time from
the start of Python until the first request leaves: on a machine that others use too the clock says little.
docs/benchmarks.md says what the figures mean; nothing here fails on a time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.s3_server import BUCKET  # noqa: E402
from support.seaweed import SeaweedServer  # noqa: E402

MIB = 1024 * 1024
OBJECT_BYTES = 32 * MIB
AT_ONCE = 4
ROUNDS = 3
PROGRAM = str(Path(sys.executable).with_name("holdfast"))
FIRST_BYTE = """
import sys, time
import repo_store.s3_client as client
send = client.S3Connection._on_send
def first(self, request, event_name, **more):
    if not self.requests:
        print(time.process_time(), time.perf_counter() - started, file=sys.stderr)
    return send(self, request, event_name, **more)
client.S3Connection._on_send = first
started = time.perf_counter()
from cli.main import main
sys.exit(main(sys.argv[1:]))
"""


class Bench:
    """A server, a folder, and the variables by which holdfast finds both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "server").mkdir()
        self.server = SeaweedServer(folder / "server")
        self.server.start()
        self.place = self.server.new_place().replace(" ", "-")
        self.environment = os.environ | self.server.environment() | self._settings("own")

    def _settings(self, host: str) -> dict[str, str]:
        return {
            "HOLDFAST_REPOSITORY": f"s3://{self.place}",
            "HOLDFAST_KEY_FILE": str(self.folder / f"key-{self.place.replace('/', '-')}"),
            "HOLDFAST_CACHE_DIR": str(self.folder / host / "cache"),
            "HOLDFAST_STATE_DIR": str(self.folder / host / "state"),
        }

    def fresh_repository(self) -> None:
        """Go on in a new place."""
        self.place = self.server.new_place().replace(" ", "-")
        self.environment |= self._settings("own")
        self.run("init", "-q")

    def run(self, *args: str, host: str = "own") -> dict[str, Any]:
        """Run a command; return its document."""
        environment = self.environment | self._settings(host)
        done = subprocess.run([PROGRAM, *args, "--json"], env=environment, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def client(self) -> Any:
        """Return a client as holdfast makes it, for plain requests."""
        return self.server.storage(self.place)._connection.client


@contextmanager
def seconds(into: list[float]) -> Iterator[None]:
    """Note the time that the block takes."""
    start = time.perf_counter()
    yield
    into.append(time.perf_counter() - start)


def make_small_files(folder: Path, count: int) -> Path:
    """Make text files of about 130 bytes, a thousand to a directory."""
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"file-{number:06}.txt"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"{number} of {count}\n" * 8)
    return folder


def measure_requests(bench: Bench, files: int) -> None:
    """Print what each command asks of the server."""
    source = make_small_files(bench.folder / "small", files)
    time.sleep(2.5)  # files that have just been written are read again by a snapshot
    rows: list[tuple[str, dict[str, int]]] = []
    bench.fresh_repository()
    for name in ("first snapshot", "unchanged snapshot", "unchanged again"):
        rows.append((name, bench.run("snapshot", "files", str(source))["requests"]))
    target = bench.folder / "restored"
    rows.append(("restore, cached", bench.run("restore", "latest", "--to", f"{target}-1")["requests"]))
    rows.append(
        ("restore, new host", bench.run("restore", "latest", "--to", f"{target}-2", host="new")["requests"])
    )
    rows.append(("verify", bench.run("verify")["requests"]))
    rows.append(("verify --data", bench.run("verify", "--data")["requests"]))
    rows.append(("stats", bench.run("stats")["requests"]))
    print(
        f"\n### Requests, {files:,} files\n\n| command | put, list | get, head | delete | all |\n|---|---|---|---|---|"
    )
    for name, found in rows:
        dear = sum(n for kind, n in found.items() if kind not in ("GetObject", "HeadObject", "DeleteObject"))
        cheap = found.get("GetObject", 0) + found.get("HeadObject", 0)
        print(f"| {name} | {dear} | {cheap} | {found.get('DeleteObject', 0)} | {sum(found.values())} |")
    for path in (source, Path(f"{target}-1"), Path(f"{target}-2")):
        shutil.rmtree(path)


def plain_put(client: Any, prefix: str, blocks: Sequence[bytes]) -> None:
    """Put every block as an object, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(
            lambda item: client.put_object(
                Bucket=BUCKET, Key=f"{prefix}/{item[0]}", Body=item[1], IfNoneMatch="*"
            ),
            enumerate(blocks),
        ):
            pass


def plain_get(client: Any, prefix: str, count: int, target: Path) -> None:
    """Get every object into a file of its own, a few at once, as a restore has to write, too."""
    target.mkdir()

    def get(number: int) -> None:
        data = client.get_object(Bucket=BUCKET, Key=f"{prefix}/{number}")["Body"].read()
        (target / str(number)).write_bytes(data)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(get, range(count)):
            pass
    shutil.rmtree(target)


def measure_rates(bench: Bench, mib: int) -> None:
    """Print the rates of a first snapshot and a restore of what does not compress, and of plain requests."""
    count = max(1, mib * MIB // OBJECT_BYTES)
    blocks = [os.urandom(OBJECT_BYTES) for _ in range(count)]
    source = bench.folder / "random"
    source.mkdir()
    for number, block in enumerate(blocks):
        (source / str(number)).write_bytes(block)
    client = bench.client()
    taken: dict[str, list[float]] = {name: [] for name in ("put", "snapshot", "get", "restore")}
    for number in range(ROUNDS):
        with seconds(taken["put"]):
            plain_put(client, f"plain-{number}", blocks)
        bench.fresh_repository()
        with seconds(taken["snapshot"]):
            bench.run("snapshot", "files", str(source))
        with seconds(taken["get"]):
            plain_get(client, f"plain-{number}", count, bench.folder / "plain")
        with seconds(taken["restore"]):
            bench.run("restore", "latest", "--to", str(bench.folder / "back"))
        shutil.rmtree(bench.folder / "back")
        for each in range(count):
            client.delete_object(Bucket=BUCKET, Key=f"plain-{number}/{each}")
    print(f"\n### Rates, {count} × {OBJECT_BYTES // MIB} MiB, best of {ROUNDS}\n")
    print("| command | MiB/s | plain MiB/s | ratio | target |\n|---|---|---|---|---|")
    for name, plain in (("snapshot", "put"), ("restore", "get")):
        ours, theirs = (count * OBJECT_BYTES / MIB / min(taken[each]) for each in (name, plain))
        print(f"| {name} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} | 0.7 |")


def measure_start(bench: Bench) -> None:
    """Print how long it takes until the first request leaves."""
    bench.fresh_repository()
    cpu, clock = [], []
    for _ in range(4 * ROUNDS):
        done = subprocess.run(
            [sys.executable, "-P", "-c", FIRST_BYTE, "manifests", "-q"],
            env=bench.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        first, second = done.stderr.split()
        cpu.append(float(first))
        clock.append(float(second))
    print("\n### Start to first byte\n\n| | best | median | target |\n|---|---|---|---|")
    for name, found in (("CPU s", sorted(cpu)), ("clock s", sorted(clock))):
        print(f"| {name} | {found[0]:.2f} | {found[len(found) // 2]:.2f} | 0.6 |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure repositories in S3.")
    parser.add_argument(
        "--files", type=int, default=100_000, help="files of the tree whose requests are counted"
    )
    parser.add_argument("--mib", type=int, default=1024, help="MiB that are transferred for the rates")
    parser.add_argument("--folder", type=Path, help="where to work (default: among temporary files)")
    parser.add_argument(
        "--only", default="requests,rates,start", help="which parts, with commas between them"
    )
    given = parser.parse_args()
    parts: dict[str, Callable[[Bench], None]] = {
        "requests": lambda bench: measure_requests(bench, given.files),
        "rates": lambda bench: measure_rates(bench, given.mib),
        "start": measure_start,
    }
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="holdfast-s3-") as folder:
        bench = Bench(Path(folder))
        try:
            for name in given.only.split(","):
                parts[name](bench)
        finally:
            bench.server.kill()


if __name__ == "__main__":
    main()
