"""Memory does not grow with what is backed up: peak resident memory of real snapshot processes, small input and large.

Method: `holdfast snapshot` in a process of its own, with packs of the usual size, writes down the peak of its resident
memory (VmHWM) when it ends. Streams that do not compress, so that every buffer is used; files, so that every index is.
"""

import os
import random
import threading
from pathlib import Path

import pytest
from support.processes import MIB, Host, make_host
from support.trees import compare_trees

SNAPSHOT_BYTES_MAX = 300 * 1000 * 1000
"""The bound for a snapshot, whatever its size; the small inputs here must stay below it as well."""
GROWTH_MAX = 1.2
_SEED = 20261128


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path / "host")


def _feed(fd: int, size: int) -> None:
    """Write `size` bytes that do not compress and repeat nothing, and close."""
    source = random.Random(_SEED)
    with os.fdopen(fd, "wb") as pipe:
        for _ in range(size // MIB):
            pipe.write(source.randbytes(MIB))


def _peak_of_stream(host: Host, name: str, size: int) -> int:
    """Return the peak memory, in bytes, of backing up a stream of `size` bytes."""
    report = host.folder / f"{name}.report"
    reader, writer = os.pipe()
    feeder = threading.Thread(target=_feed, args=(writer, size))
    with os.fdopen(reader, "rb") as stdin:
        running = host.start("snapshot", "stdin", name, stdin=stdin, checkpoint_bytes=0, report=report)
    feeder.start()
    ended = running.wait()
    feeder.join()
    assert ended.code == 0, ended
    return int(report.read_text()) * 1024


def _peak_of_files(host: Host, tree: Path) -> int:
    report = host.folder / f"{tree.name}.report"
    ended = host.run("snapshot", "files", tree, checkpoint_bytes=0, report=report)
    assert ended.code == 0, ended
    return int(report.read_text()) * 1024


def _make_files(tree: Path, count: int) -> Path:
    source = random.Random(_SEED)
    for number in range(count):
        folder = tree / f"d{number // 500:04}"
        if number % 500 == 0:
            folder.mkdir(parents=True)
        (folder / f"a file with a name of usual length {number}").write_bytes(source.randbytes(300))
    return tree


def test_a_stream_stays_below_the_bound(host: Host) -> None:
    peak = _peak_of_stream(host, "stream", 256 * MIB)
    assert peak <= SNAPSHOT_BYTES_MAX, f"{peak / 1e6:.0f} MB"
    print(f"{peak / 1e6:.0f} MB")


@pytest.mark.full
def test_a_stream_that_is_there_already_needs_no_more(host: Host) -> None:
    first, second = (_peak_of_stream(host, "stream", 48 * MIB) for _ in range(2))
    assert second <= first * GROWTH_MAX, f"{first / 1e6:.0f} MB, then {second / 1e6:.0f} MB"


@pytest.mark.full
def test_a_stream_eight_times_as_long_needs_no_more(host: Host) -> None:
    small = _peak_of_stream(host, "small", 256 * MIB)
    large = _peak_of_stream(host, "large", 2048 * MIB)
    assert large <= small * GROWTH_MAX, f"{small / 1e6:.0f} MB for 256 MiB, {large / 1e6:.0f} MB for 2 GiB"
    assert large <= SNAPSHOT_BYTES_MAX


@pytest.mark.full
def test_eight_times_as_many_files_need_no_more(host: Host, tmp_path: Path) -> None:
    few, many = _make_files(tmp_path / "few", 15_000), _make_files(tmp_path / "many", 120_000)
    small, large = _peak_of_files(host, few), _peak_of_files(host, many)
    print(f"{small / 1e6:.0f} MB for 15,000 files, {large / 1e6:.0f} MB for 120,000")
    assert large <= SNAPSHOT_BYTES_MAX
    again = _peak_of_files(host, many)
    assert again <= SNAPSHOT_BYTES_MAX, "nor does the walk in step with the previous manifest"
    assert host.run("restore", "latest", "--series", _series(host, few), "--to", tmp_path / "out").code == 0
    assert compare_trees(few, tmp_path / "out" / "few") == []


def _series(host: Host, tree: Path) -> str:
    return next(m.series for m in host.fresh_session().read_manifests().live if m.series.endswith(str(tree)))
