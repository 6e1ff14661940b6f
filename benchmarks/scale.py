"""What the next snapshot costs as the work, or the repository, grows tenfold and tenfold again.

    python benchmarks/scale.py [--quick | --divide N] [--only chunks,files,bytes,manifests] [--folder DIR] [--svg DIR]

    chunks      a repository that knows so many chunks already, up to 15 million; a snapshot of 2,000 new files
    files       trees of so many small files, up to 5 million: first snapshot, and unchanged
    bytes       streams that do not compress, up to 10 GB
    manifests   a repository with so many manifests of one series, up to 10,000; the next one, and `verify`

The chunks are rows in tables, made with the real classes and signed with the repository's key: random ids, in frames
of 16, packs of 32 frames and tables of 512 packs. The packs that they name do not exist: a snapshot of new files looks
every chunk up and opens none of them. Everything else is real, made by the program. At full size it needs 25 GB and
6 million inodes in its folder, and an hour or more; each size removes what it made. Every step runs in a process of its
own; *peak* is the highest resident memory of it, pages of mapped files included. Nothing here fails on a time.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from curves import svg_plot, text_plot
from limits import run_step

QUICK_DIVIDE = 1_000
MEMORY_BYTES_MAX = 300_000_000
FILES_IN_A_FOLDER = 1_000
NEW_FILES = 2_000


class Row(NamedTuple):
    """One step at one size: wall-clock and CPU seconds, peak memory in bytes."""

    axis: str
    step: str
    amount: int
    seconds: float
    cpu: float
    peak: int


class Axis(NamedTuple):
    """Something that grows: its full sizes, and what measures one of them in a new folder."""

    sizes: tuple[int, ...]
    measure: Callable[[Path, int], Iterator[Row]]


def step(axis: str, shown: str, amount: int, arguments: list[str], stdin: int | None = None) -> Row:
    """Run benchmarks/step.py and return what it took."""
    cost, output = run_step(arguments, stdin=stdin)
    return Row(axis, shown, amount, cost.seconds, cost.cpu, int(json.loads(output)["peak"]))


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Do preparations in another process, so that their memory is gone afterwards."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"scale: {work.__name__} failed")


def make_files(folder: Path, count: int, word: str) -> None:
    """Make `count` files of a few bytes, each with its own content."""
    for number in range(count):
        directory = folder / f"{number // (FILES_IN_A_FOLDER * 100):03}" / f"{number // FILES_IN_A_FOLDER:05}"
        if number % FILES_IN_A_FOLDER == 0:
            directory.mkdir(parents=True)
        fd = os.open(directory / f"file{number:08}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"%s %d\n" % (word.encode(), number))
        os.close(fd)


def fill_tables(folder: Path, rows: int) -> None:
    """Put tables of `rows` data chunks into the repository in `folder`."""
    from bench_index import batches
    from step import Bench

    from repo_store.table import build_table, table_name

    session = Bench(folder).session("write")
    for batch, _ in batches(rows, random.Random(rows)):
        data = build_table(session.ring, batch)
        session.storage.put(table_name(data), data)


def fill_manifests(folder: Path, source: Path, count: int) -> None:
    """Commit `count` manifests of a series, each with one file changed."""
    from step import Bench

    bench = Bench(folder)
    for number in range(count):
        (source / "changing").write_text(f"{number}\n")
        bench.snapshot(source)


def measure_chunks(folder: Path, amount: int) -> Iterator[Row]:
    """A snapshot by a host that has no cache, and by one that has."""
    source = folder / "source"
    make_files(source, NEW_FILES, "first")
    run_step([str(folder), "init", str(source)])
    apart(fill_tables, folder, amount)
    yield step("chunks", "snapshot, no cache", amount, [str(folder), "snapshot", str(source)])
    shutil.rmtree(source)
    make_files(source, NEW_FILES, "second")
    yield step("chunks", "snapshot, cache", amount, [str(folder), "snapshot", str(source)])


def measure_files(folder: Path, amount: int) -> Iterator[Row]:
    """First snapshot of a tree, and an unchanged one."""
    source = folder / "source"
    make_files(source, amount, "file")
    run_step([str(folder), "init", str(source)])
    yield step("files", "first", amount, [str(folder), "snapshot", str(source)])
    yield step("files", "unchanged", amount, [str(folder), "snapshot", str(source)])


def measure_bytes(folder: Path, amount: int) -> Iterator[Row]:
    """A stream, once."""
    run_step([str(folder), "init", str(folder)])
    script = Path(__file__).with_name("sample_data.py")
    feeding = [sys.executable, str(script), "random", "-", "--bytes", str(amount)]
    with subprocess.Popen(feeding, stdout=subprocess.PIPE) as feeder:
        assert feeder.stdout is not None
        yield step("bytes", "stream", amount, [str(folder), "stdin", str(folder)], feeder.stdout.fileno())


def measure_manifests(folder: Path, amount: int) -> Iterator[Row]:
    """The next manifest, and verifying them all."""
    source = folder / "source"
    make_files(source, 10, "file")
    run_step([str(folder), "init", str(source)])
    apart(fill_manifests, folder, source, amount)
    yield step("manifests", "snapshot", amount, [str(folder), "snapshot", str(source)])
    yield step("manifests", "verify", amount, [str(folder), "verify", str(source)])


AXES = {
    "chunks": Axis((150_000, 1_500_000, 15_000_000), measure_chunks),
    "files": Axis((5_000, 50_000, 500_000, 5_000_000), measure_files),
    "bytes": Axis((10**7, 10**8, 10**9, 10**10), measure_bytes),
    "manifests": Axis((10, 100, 1_000, 10_000), measure_manifests),
}


def line(row: Row, before: Row | None) -> str:
    """Return a row of the table; its growth is the CPU time by that of the size before."""
    growth = "" if before is None else f"{row.cpu / before.cpu:.2f}"
    over = " (!)" if row.step != "verify" and row.peak > MEMORY_BYTES_MAX else ""
    each = row.cpu / row.amount * 1e6
    return (
        f"| {row.axis} | {row.step} | {row.amount:,} | {row.seconds:.2f} | {row.cpu:.2f} | {each:.3g} "
        f"| {growth} | {row.peak / 1e6:.0f}{over} |"
    )


def run(axes: list[str], divide: int, folder: Path, saved: Path | None) -> list[Row]:
    """Measure the axes at all sizes, printing each row as it comes, and return the rows."""
    print("| axis | step | amount | s | CPU s | CPU µs each | CPU, times the row before | peak MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows: list[Row] = []
    latest: dict[tuple[str, str], Row] = {}
    for axis in axes:
        for size in AXES[axis].sizes:
            amount = max(size // divide, 1)
            place = folder / f"{axis}{amount}"
            place.mkdir()
            for row in AXES[axis].measure(place, amount):
                print(line(row, latest.get((row.axis, row.step))), flush=True)
                latest[row.axis, row.step] = row
                rows.append(row)
                if saved:
                    saved.write_text(json.dumps(rows))
            shutil.rmtree(place)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what holdfast costs as the work grows.")
    parser.add_argument("--quick", action="store_true", help=f"sizes divided by {QUICK_DIVIDE}")
    parser.add_argument("--divide", type=int, default=1, help="divide every size by this")
    parser.add_argument("--only", default=",".join(AXES), help="which axes, with commas between them")
    parser.add_argument("--folder", type=Path, help="where to work (default: among temporary files)")
    parser.add_argument("--svg", type=Path, help="write the plots into this folder, too")
    parser.add_argument("--save", type=Path, help="write the rows to this file, as JSON")
    given = parser.parse_args()
    divide = QUICK_DIVIDE if given.quick else given.divide
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="holdfast-scale-") as folder:
        rows = run(given.only.split(","), divide, Path(folder), given.save)
    plots = {
        "time": ("CPU seconds by amount", lambda row: row.cpu),
        "memory": ("peak MB by amount", lambda row: row.peak / 1e6),
    }
    for name, (unit, figure) in plots.items():
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            curves.setdefault(f"{row.axis}: {row.step}", []).append((row.amount, figure(row)))
        print(f"\n{text_plot(curves, unit)}")
        if given.svg:
            given.svg.mkdir(parents=True, exist_ok=True)
            (given.svg / f"{name}.svg").write_text(svg_plot(curves, unit))


if __name__ == "__main__":
    main()
