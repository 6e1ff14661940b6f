"""`make simulate`: histories by the thousand, on all cores; the seeds that fail are printed last.

    python -P tests/model/simulate.py NUMBER [FIRST]      that many histories, from this seed on
    python -P tests/model/simulate.py seed SEED           one history again, with how each process ended

It runs itself again in processes whose hash seed is fixed (inline.py says why), one for each core.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRESS_EVERY = 100


def start(first: int, number: int, step: int = 1, fault: str = "") -> "subprocess.Popen[str]":
    """Start a process that runs the histories first, first + step … and prints one line of JSON for each.

    With a `fault` planted (faults.py) it stops at the first history that fails.
    """
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    if "TMPDIR" not in environment and os.access("/dev/shm", os.W_OK):
        environment["TMPDIR"] = "/dev/shm"
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "worker"]
    return subprocess.Popen(
        [*command, str(first), str(number), str(step), fault],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def outcomes(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """Yield what the histories of a process came to. Raises AssertionError if it died."""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            yield json.loads(line)
    assert process.returncode == 0, f"{process.args!r}: exited with {process.returncode}"


def work(first: int, number: int, step: int, fault: str) -> None:
    """Run histories in this process."""
    from model.faults import FAULTS
    from model.history import History, simulated_world

    with simulated_world() as world, ExitStack() as planted:
        for each in FAULTS[fault]() if fault else ():
            planted.enter_context(each)
        for seed in range(first, first + number * step, step):
            outcome = History(world, seed).run()
            print(json.dumps(asdict(outcome)), flush=True)
            if fault and outcome.failure:
                return


def simulate(number: int, first: int) -> int:
    """Run `number` histories on all cores, say how far it is; return how many failed."""
    cores = os.cpu_count() or 1
    started = time.monotonic()
    running = [start(first + core, -(-(number - core) // cores), cores) for core in range(min(cores, number))]
    failed: dict[int, str] = {}
    count = requests = commits = cuts = 0
    lock = threading.Lock()

    def read(process: "subprocess.Popen[str]") -> None:
        nonlocal count, requests, commits, cuts
        for outcome in outcomes(process):
            with lock:
                count += 1
                requests += outcome["requests"]
                commits += outcome["commits"]
                cuts += outcome["cuts"]
                if outcome["failure"]:
                    failed[outcome["seed"]] = outcome["failure"]
                    print(f"seed {outcome['seed']}: {outcome['failure']}", flush=True)
                if count % PROGRESS_EVERY == 0:
                    rate = count / (time.monotonic() - started)
                    print(f"{count} of {number} histories, {rate:.1f}/s, {len(failed)} failed", flush=True)

    threads = [threading.Thread(target=read, args=(process,)) for process in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        f"{count} histories: {requests} requests, {commits} commits, {cuts} power cuts, {len(failed)} failed"
    )
    for seed, failure in sorted(failed.items()):
        print(f"make simulate SEED={seed}    # {failure}")
    return len(failed) + (count != number)


def main(args: list[str]) -> int:
    """Do what the command line asks for; return 1 if a history failed."""
    if args[:1] == ["worker"]:
        work(int(args[1]), int(args[2]), int(args[3]), args[4] if len(args) > 4 else "")
        return 0
    if args[:1] == ["seed"]:
        (outcome,) = outcomes(start(int(args[1]), 1))
        print(*outcome["ended"], sep="\n")
        print(outcome["failure"] or "nothing was lost", f"(digest {outcome['digest']})")
        return bool(outcome["failure"])
    return bool(simulate(int(args[0]), int(args[1]) if len(args) > 1 else 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
