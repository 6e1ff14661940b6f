"""The benchmark scripts run, on the least data that means something, and say what they promise. No time is judged."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def script(name: str, *arguments: object) -> str:
    """Run a script of benchmarks/ and return what it printed."""
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text: str, first: str) -> list[list[str]]:
    """Return the cells of the table rows whose first cell is `first`."""
    lines = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [cells for cells in lines if cells[0] == first]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules of benchmarks/ importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_peers_measures_every_step_of_holdfast_and_restores_all(tmp_path: Path) -> None:
    saved = tmp_path / "run"
    out = script(
        "peers.py", "--scale", "0.0005", "--rounds", "1", "--with", "holdfast", "--only", "small",
        "--folder", tmp_path, "--save", saved,
    )  # fmt: skip
    found = json.loads(saved.read_text())["found"]
    assert {each["step"] for each in found} == {
        "init", "first", "unchanged", "changed", "restore", "check", "prune",
    }  # fmt: skip
    assert not [each for each in found if "failed" in each]
    assert len(rows(out, "small")) == 3 * 7 + 3  # three measures of seven steps, three sizes
    assert script("peers.py", "--from", saved) == out
    assert list(tmp_path.iterdir()) == [saved]


def test_scale_prints_a_row_for_each_size_and_plots_them(tmp_path: Path) -> None:
    out = script(
        "scale.py", "--divide", "50000", "--only", "bytes", "--folder", tmp_path, "--svg", tmp_path / "svg"
    )
    assert [row[2] for row in rows(out, "bytes")] == ["200", "2,000", "20,000", "200,000"]
    for name in ("time", "memory"):
        lines = ElementTree.parse(tmp_path / "svg" / f"{name}.svg").iter(
            "{http://www.w3.org/2000/svg}polyline"
        )
        assert [len(line.attrib["points"].split()) for line in lines] == [4]


@pytest.mark.usefixtures("benchmarks")
def test_the_tables_of_a_synthetic_repository_are_those_of_its_index(tmp_path: Path) -> None:
    import scale
    from step import Bench

    bench = Bench(tmp_path)
    bench.init(tmp_path)
    before: int = bench.session("write").index.count()
    scale.fill_tables(tmp_path, 3 * 512)
    session = bench.session("write")
    assert session.index.problems == []
    assert session.index.count() - before >= 3 * 512


@pytest.mark.usefixtures("benchmarks")
def test_a_row_says_who_is_first_and_by_how_much() -> None:
    import peer_tables

    def found(seconds: float) -> dict[str, Any]:
        return {"usage": [seconds, seconds, 1], "stored": 1}

    best = {
        ("small", "first", "holdfast"): found(3.0),
        ("small", "first", "restic"): found(2.0),
        ("small", "first", "borg"): {"failed": "exit code 2"},
        ("small", "check", "holdfast"): found(1.0),
        ("small", "check", "restic"): found(4.0),
    }
    lines = peer_tables.table(best, ["holdfast", "restic", "borg"], peer_tables.MEASURES["Time, s"])
    assert lines[2:] == [
        "| small | first | 3.00 | 2.00 | failed | **1.50** (restic) |",
        "| small | check | 1.00 | 4.00 |  | 0.25 |",
    ]


@pytest.mark.usefixtures("benchmarks")
def test_suggestions_follow_their_rules() -> None:
    from suggest import Tried, best_chunk, best_level, best_threads

    levels = [Tried(1, 1, 10, 1000), Tried(3, 1, 12, 900), Tried(6, 1, 30, 895), Tried(9, 1, 60, 2000)]
    assert best_level(levels).value == 3
    threads = [Tried(1, 10, 1, 1), Tried(2, 6.2, 1, 1), Tried(4, 6, 1, 1)]
    assert best_threads(threads).value == 2
    assert best_chunk([Tried(16, 1, 1, 9), Tried(64, 1, 1, 7), Tried(128, 1, 1, 8)]).value == 64
