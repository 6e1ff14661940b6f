"""Suggested threads, compression level and chunk size for this machine, from measurements of this run.

    python benchmarks/suggest.py [--quick | --scale X] [--folder DIR]

Each candidate takes a first and a changed snapshot of the `tree` and `dump` samples in a repository of its own, with
all else at its default. The rules are few and stand here:

    level       go up while 1 % of repository size costs no more than 10 % of CPU time
    chunk size  the size with the smallest repository after both snapshots
    threads     the number with the least wall-clock time, unless a smaller one is within 5 %

What a user of the command line can set is said beside each: the level is an option, the other two are not.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from limits import run_step

QUICK_SCALE = 0.02
KINDS = ("tree", "dump")
LEVELS, CHUNK_KIB, THREADS = (1, 3, 6, 9), (16, 32, 64, 128), (1, 2, 4)
DEFAULT_LEVEL, DEFAULT_CHUNK_KIB, DEFAULT_THREADS = 3, 64, 2
CPU_PERCENT_FOR_ONE_OF_SIZE = 10
NEAR = 1.05


class Tried(NamedTuple):
    """A candidate: wall-clock and CPU seconds of all its snapshots, and bytes stored by them."""

    value: int
    seconds: float
    cpu: float
    stored: int


def sample(kind: str, folder: Path, scale: float, *flags: str) -> None:
    """Make or change a sample in a process of its own."""
    script = str(Path(__file__).with_name("sample_data.py"))
    subprocess.run([sys.executable, script, kind, str(folder), "--scale", str(scale), *flags], check=True)


def try_one(option: str, value: int, folder: Path, scale: float) -> Tried:
    """Take a first and a changed snapshot of each kind with `option` at `value`."""
    seconds = cpu = 0.0
    stored = 0
    for kind in KINDS:
        place = folder / kind
        place.mkdir()
        source = place / "source"
        sample(kind, source, scale)
        run_step([str(place), "init", str(source)])
        for flags in ((), ("--change",)):
            if flags:
                sample(kind, source, scale, *flags)
            _, output = run_step([str(place), "snapshot", str(source), option, str(value)])
            report = json.loads(output)
            seconds += report["seconds"]
            cpu += report["user"] + report["system"]
            stored += report["stored_bytes"]
        shutil.rmtree(place)
    return Tried(value, seconds, cpu, stored)


def best_level(tried: Sequence[Tried]) -> Tried:
    """Return the highest level that is worth its time. `tried` goes up."""
    best = tried[0]
    for each in tried[1:]:
        smaller = (1 - each.stored / best.stored) * 100
        slower = (each.cpu / best.cpu - 1) * 100
        if smaller > 0 and smaller * CPU_PERCENT_FOR_ONE_OF_SIZE >= slower:
            best = each
    return best


def best_chunk(tried: Sequence[Tried]) -> Tried:
    """Return the chunk size with the smallest repository."""
    return min(tried, key=lambda each: each.stored)


def best_threads(tried: Sequence[Tried]) -> Tried:
    """Return the smallest number of threads that is near the fastest. `tried` goes up."""
    fastest = min(each.seconds for each in tried)
    return next(each for each in tried if each.seconds <= fastest * NEAR)


class Question(NamedTuple):
    """Something to choose: what to try, how to choose, and what a user can do with the answer."""

    name: str
    option: str
    values: tuple[int, ...]
    default: int
    choose: Callable[[Sequence[Tried]], Tried]
    unit: str
    settable: str


QUESTIONS = (
    Question("threads", "--workers", THREADS, DEFAULT_THREADS, best_threads, "", "fixed, no option sets it"),
    Question(
        "level", "--level", LEVELS, DEFAULT_LEVEL, best_level, "", "`holdfast snapshot … --compression LEVEL`"
    ),
    Question(
        "chunk size",
        "--average",
        CHUNK_KIB,
        DEFAULT_CHUNK_KIB,
        best_chunk,
        " KiB",
        "fixed for a source, no option sets it",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Suggest threads, level and chunk size for this machine.")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the data")
    parser.add_argument("--scale", type=float, default=0.25, help="how much of the data (default: 0.25)")
    parser.add_argument("--folder", type=Path, help="where to work (default: among temporary files)")
    given = parser.parse_args()
    scale = QUICK_SCALE if given.quick else given.scale
    answers = []
    print(f"### Suggested for this machine ({os.cpu_count()} cores)\n")
    print("| | value | s | CPU s | stored MB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="holdfast-suggest-") as folder:
        for question in QUESTIONS:
            tried = []
            for value in question.values:
                each = try_one(question.option, value, Path(folder), scale)
                figures = f"{each.seconds:.2f} | {each.cpu:.2f} | {each.stored / 1e6:.2f}"
                print(f"| {question.name} | {value}{question.unit} | {figures} |", flush=True)
                tried.append(each)
            answers.append((question, question.choose(tried)))
    print()
    for question, best in answers:
        kept = "as by default" if best.value == question.default else f"the default is {question.default}"
        print(f"suggested {question.name}: {best.value}{question.unit} ({kept}; {question.settable})")


if __name__ == "__main__":
    main()
