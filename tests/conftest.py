"""What holds for every test: which run, with how many examples, in which environment, and where the time went.

Tiers. `make test` leaves out what is marked `full`; `--full` (`make test-full`) runs everything, and hypothesis
tries ten times as many examples. A property that needs fewer or more than others says so in proportion, which
keeps both tiers apart: `@settings(max_examples=settings.default.max_examples // 4)`.

Environment. A test sees no setting of whoever runs it: HOME and the XDG folders are empty and its own,
HOLDFAST_*, AWS_* and PG* are gone. HOLDFAST_CDC_KERNEL stays: it runs the suite on another kernel.
"""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES, EXAMPLES_FULL = 100, 1000
FOREIGN_PREFIXES = ("HOLDFAST_", "AWS_", "PG")
KEPT = {"HOLDFAST_CDC_KERNEL"}
HOMES = {
    "HOME": "",
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="run the tests marked full, and 10 times the examples"
    )


def pytest_configure(config: pytest.Config) -> None:
    for full, examples in ((False, EXAMPLES), (True, EXAMPLES_FULL)):
        settings.register_profile(
            "full" if full else "quick",
            max_examples=examples,
            deadline=None,  # a shared machine is slow at moments; slowness is for the benchmarks
            derandomize=not full and bool(os.environ.get("CI")),  # a red run must be red again
            suppress_health_check=[HealthCheck.too_slow],
            print_blob=True,
        )
    settings.load_profile("full" if config.getoption("--full") else "quick")
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) and name not in KEPT:
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="holdfast-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ.update(_home_variables(Path(home)))


def _home_variables(home: Path) -> dict[str, str]:
    return {variable: str(home / folder) for variable, folder in HOMES.items()}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home of the test's own, so that no cache of another test can help or harm it."""
    with tempfile.TemporaryDirectory(prefix="holdfast-home-", ignore_cleanup_errors=True) as folder:
        for variable, value in _home_variables(Path(folder)).items():
            monkeypatch.setenv(variable, value)
        yield Path(folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `full`, unless --full or a -m expression that speaks of it wants it."""
    if config.getoption("--full") or "full" in config.getoption("-m"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes that do not print by their length: a page of escapes helps nobody, and random bytes would give
    every process of a run other names for the same tests."""
    if isinstance(val, bytes) and not (val.isascii() and val.decode("ascii").isprintable()):
        return f"{len(val)} bytes"
    return None


@dataclass
class Spent:
    """What the tests of one folder cost."""

    tests: int = 0
    seconds: float = 0.0


_spent_by_folder: defaultdict[str, Spent] = defaultdict(Spent)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    spent = _spent_by_folder[report.nodeid.partition("::")[0].rpartition("/")[0]]
    spent.tests += report.when == "call"
    spent.seconds += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _spent_by_folder:
        return
    terminalreporter.section("time per folder, summed over processes")
    for folder, spent in sorted(_spent_by_folder.items()):
        terminalreporter.line(f"{folder:<40} {spent.tests:>7} tests {spent.seconds:>9.1f} s")
