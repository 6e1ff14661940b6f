"""One step of the end-to-end benchmark, in a process of its own, so that its time and memory are its own.

    python benchmarks/step.py FOLDER STEP SOURCE [--profile] [--level N] [--average KIB] [--workers N]

prints one JSON document: seconds of the step without the start of Python, CPU seconds and peak memory of the whole
process. FOLDER holds the repository, its key, cache and what is restored.
"""

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from chunker import Algorithm, Parameters
from engine.files_snapshot import snapshot_files
from engine.restore import restore_manifest
from engine.session import Places, Session, init_repository, open_session
from engine.snapshot_run import FILES_PARAMETERS, SnapshotOptions
from engine.stream_snapshot import snapshot_stdin
from engine.verify import verify_repository
from repo_store import repository_writer
from repo_store.key_file import NewKeyFile, read_key_file, write_key_file

PROFILE_LINES = 25
Report = dict[str, int]


class Bench:
    """A repository in a folder, as one host uses it."""

    def __init__(self, folder: Path, options: SnapshotOptions | None = None) -> None:
        self.options = options or SnapshotOptions(host="benchmark")
        self.repository, self.key, self.restored = folder / "repository", folder / "key", folder / "restored"
        self.places = Places(folder / "cache", folder / "state")

    def session(self, operation: str) -> Session:
        """Open the repository for `operation`."""
        key = read_key_file(self.key).key_file
        return open_session(str(self.repository), lambda _: key, self.places, operation=operation)

    def init(self, source: Path) -> Report:
        """Make the repository."""
        made = NewKeyFile(lambda key: write_key_file(self.key, key))
        init_repository(str(self.repository), made, self.places, label="benchmark")
        return {}

    def snapshot(self, source: Path) -> Report:
        """Back the source up: the first, an unchanged or a changed one, as it happens to be."""
        return self._snapshot(source, self.options)

    def again(self, source: Path) -> Report:
        """Read and look up everything, though nothing has changed."""
        return self._snapshot(source, replace(self.options, full_read=True))

    def stdin(self, source: Path) -> Report:
        """Back up standard input."""
        manifest = snapshot_stdin(self.session("write"), b"stream", sys.stdin.fileno()).manifest
        return dict(manifest.statistics)

    def restore(self, source: Path) -> Report:
        """Restore the newest manifest."""
        session = self.session("read")
        manifest = session.read_manifests().live[-1]
        result = restore_manifest(session, manifest, str(self.restored))
        assert not result.damaged, result.problems
        return {"files": result.files, "bytes": result.bytes}

    def verify(self, source: Path) -> Report:
        """Verify the structure."""
        return self._verify(data=False)

    def verify_data(self, source: Path) -> Report:
        """Verify every byte."""
        return self._verify(data=True)

    def _snapshot(self, source: Path, options: SnapshotOptions) -> Report:
        result = snapshot_files(self.session("write"), [str(source)], options=options)
        assert result.manifest.status == "complete", result.problems
        return dict(result.manifest.statistics)

    def _verify(self, *, data: bool) -> Report:
        report = verify_repository(self.session("verify"), data=data)
        assert report.status == "ok", report.damaged
        return {"bytes": report.read_bytes}


def peak_bytes() -> int:
    """Return the highest resident memory of this process, pages of mapped files included."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def profiled(work: Callable[[Path], Report], source: Path) -> Report:
    """Run `work` and print where the main thread spent its time, to standard error."""
    profile = cProfile.Profile()
    try:
        return profile.runcall(work, source)
    finally:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(PROFILE_LINES)


def options_of(given: argparse.Namespace) -> SnapshotOptions:
    """Return the options of the snapshots. The number of workers is a constant of the program; here it is changed."""
    if given.workers:
        repository_writer.WORKERS = given.workers
    parameters = FILES_PARAMETERS
    if given.average:
        average = given.average * 1024
        parameters = Parameters(Algorithm.PHTE64, average // 2, average, average * 4)
    return SnapshotOptions(host="benchmark", compression_level=given.level, parameters=parameters)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "step", choices=[name for name in vars(Bench) if name[0] != "_" and name != "session"]
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--level", type=int, default=SnapshotOptions.compression_level)
    parser.add_argument("--average", type=int, help="average chunk of files, in KiB")
    parser.add_argument("--workers", type=int, help="threads that compress")
    given = parser.parse_args()
    bench = Bench(given.folder, options_of(given))
    if bench.restored.exists():
        shutil.rmtree(bench.restored)
    work: Callable[[Path], Report] = getattr(bench, given.step)
    before, start = os.times(), time.perf_counter()
    report = profiled(work, given.source) if given.profile else work(given.source)
    seconds, times = time.perf_counter() - start, os.times()
    used = {"user": times.user - before.user, "system": times.system - before.system}
    print(json.dumps({"seconds": seconds, "peak": peak_bytes(), **used, **report}))


if __name__ == "__main__":
    main()
