"""The whole program on whole trees: first, unchanged and changed snapshot, restore and verify, beside the limits.

    python benchmarks/end_to_end.py [--quick | --scale X] [--only tree,small,…] [--folder DIR] [--profile]

Each step runs in a process of its own. A row says what it took and what the limit took in the same run: `zstd -3 -T2` of a
tar of the same tree followed by a sync, `zstd -d`, `cp -r`, BLAKE3 on one core. The ratio is limit / step, once by the
clock and once by CPU time; on a machine that others use too only the second means much. Nothing here fails on a time.
docs/benchmarks.md says what the figures mean.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from limits import (
    Cost,
    blake3_rate,
    compress,
    copy,
    decompress,
    make_tar,
    rates,
    run_step,
    slower,
)
from sample_data import KINDS, change_sample, make_sample

QUICK_SCALE = 0.05
MEMORY_BYTES_MAX = 300_000_000
HEAD = "| step | s | CPU s | MB/s | peak MB | limit | s | CPU s | ratio | by CPU | target | next |"


class Target(NamedTuple):
    """The least ratio to the limit: of the issue that made the engine, and of the one after it."""

    now: float | None = None
    next: float | None = None


TARGETS = {
    "first": Target(0.5, 0.65),
    "first of what does not compress": Target(),
    "again, all read": Target(None, 0.35),
    "restore": Target(None, 0.6),
    "verify --data": Target(None, 0.6),
}


class Limits(NamedTuple):
    """What bounds the steps on one sample: writing, reading, copying, hashing; and the size of the compressed tar."""

    compress: Cost
    decompress: Cost
    copy: Cost
    hash: Cost
    compressed_bytes: int


class Row(NamedTuple):
    """One line of a table."""

    step: str
    cost: Cost
    report: dict[str, float]
    limit: str
    limit_cost: Cost | None


def measure_limits(source: Path, folder: Path, hash_rate: float) -> Limits:
    """Measure what bounds the steps on the sample `source`."""
    archive, compressed = folder / "sample.tar", folder / "sample.tar.zst"
    make_tar(source, archive)
    packed = compress(archive, compressed)
    limits = Limits(
        packed,
        decompress(compressed),
        copy(source, folder / "copy"),
        blake3_rate(hash_rate, archive.stat().st_size),
        compressed.stat().st_size,
    )
    archive.unlink()
    compressed.unlink()
    return limits


def measure_steps(kind: str, source: Path, folder: Path, limits: Limits, flags: list[str]) -> Iterator[Row]:
    """Run every step on the sample and yield what it took."""

    def run(step: str, shown: str, limit: str, limit_cost: Cost | None) -> Row:
        cost, output = run_step([str(folder), step, str(source), *flags])
        return Row(shown, cost, json.loads(output), limit, limit_cost)

    first = "first of what does not compress" if kind == "random" else "first"
    run("init", "init", "", None)
    yield run("snapshot", first, "zstd -3 -T2, sync", limits.compress)
    yield run("snapshot", "unchanged", "", None)
    yield run("again", "again, all read", "BLAKE3, one core", limits.hash)
    yield run("restore", "restore", "slower of zstd -d, cp -r", slower(limits.decompress, limits.copy))
    yield run("verify", "verify", "", None)
    yield run("verify_data", "verify --data", "zstd -d", limits.decompress)
    change_sample(kind, source)
    yield run("snapshot", "changed", "", None)


def figure(value: float | None, form: str = ".2f") -> str:
    """Return a number for a table, nothing for None."""
    return "" if value is None else format(value, form)


def line(row: Row) -> str:
    """Return a row of the table."""
    cost, limit, target = row.cost, row.limit_cost, TARGETS.get(row.step, Target())
    ratio = None if limit is None else limit.seconds / cost.seconds
    by_cpu = None if limit is None else limit.cpu / cost.cpu
    shown = [
        row.step,
        figure(cost.seconds),
        figure(cost.cpu),
        figure(row.report.get("bytes", 0) / cost.seconds / 1e6, ".0f"),
        figure(row.report["peak"] / 1e6, ".0f") + (" (!)" if row.report["peak"] > MEMORY_BYTES_MAX else ""),
        row.limit,
        figure(None if limit is None else limit.seconds),
        figure(None if limit is None else limit.cpu),
        figure(ratio),
        figure(by_cpu),
        figure(target.now),
        figure(target.next),
    ]
    return f"| {' | '.join(shown)} |"


def run_sample(kind: str, scale: float, folder: Path, hash_rate: float, flags: list[str]) -> None:
    """Make one sample, measure everything on it, print its table, and remove it."""
    folder.mkdir()
    source = make_sample(kind, folder / kind, scale)
    limits = measure_limits(source, folder, hash_rate)
    print(f"\n### {kind}\n\n{HEAD}\n{'|---' * HEAD.count(' | ')}|---|", flush=True)
    stored = 0.0
    for row in measure_steps(kind, source, folder, limits, flags):
        print(line(row), flush=True)
        if row.step.startswith("first"):
            stored = row.report["stored_bytes"]
            whole = row.report["bytes"]
    print(
        f"\n{whole / 1e6:,.0f} MB of files; the first snapshot stored {stored / 1e6:,.1f} MB, "
        f"{stored / limits.compressed_bytes:.2f} of the compressed tar ({limits.compressed_bytes / 1e6:,.1f} MB)"
    )
    shutil.rmtree(folder)


def print_rates(measured: dict[str, float]) -> None:
    """Print the table of what one core does."""
    print("### One core\n\n| stage | GB/s | of memcpy | target |\n|---|---|---|---|")
    targets = {"gear64": "0.5", "phte64 (vaes512)": "0.2"}
    for name, rate in measured.items():
        share = rate / measured["memcpy"]
        print(f"| {name} | {rate / 1e9:.2f} | {share:.2f} | {targets.get(name, '')} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure holdfast beside the limits of this machine.")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the data")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the data (default: 1)")
    parser.add_argument("--only", default=",".join(KINDS), help="which samples, with commas between them")
    parser.add_argument(
        "--folder", type=Path, help="where to work (default: a new one among temporary files)"
    )
    parser.add_argument(
        "--profile", action="store_true", help="profile the main thread of each step, to stderr"
    )
    given = parser.parse_args()
    measured = rates()
    print_rates(measured)
    flags = ["--profile"] if given.profile else []
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="holdfast-benchmark-") as folder:
        for kind in given.only.split(","):
            scale = QUICK_SCALE if given.quick else given.scale
            hash_rate = measured["BLAKE3, 64 KiB at a time"]
            run_sample(kind, scale, Path(folder) / kind, hash_rate, flags)


if __name__ == "__main__":
    main()
