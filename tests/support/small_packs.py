"""The program holdfast, made to have many moments worth dying in; run by support/processes.py in processes of their own.

    python -P small_packs.py PAUSE_MS CHECKPOINT_BYTES USER REPORT ARGUMENT…

Packs are closed at 3 MiB instead of 32, checkpoints come after so many bytes, and before every change of the
storage there is a pause, so that a kill finds each step of the protocol about as often as any other. 0 leaves a
number as it is. A USER other than 0 is whom it becomes once all is imported: Python itself may lie where that user must
not go. At its end it writes its peak of resident memory, in KiB, to the file REPORT ("-": nowhere).
"""

import contextlib
import importlib
import io
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cli
import engine
import repo_store
from cli.main import main
from engine.snapshot_run import SnapshotOptions
from repo_store.local_storage import LocalStorage
from repo_store.pack_writer import PackWriter

PACK_BYTES = 3 * 1024 * 1024
IN_FLIGHT_BYTES_MAX = 32_000_000


def _pause_before_changes(seconds: float) -> None:
    def paused(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            time.sleep(seconds)
            return method(*args, **options)

        return call

    for name in ("put", "barrier", "delete"):
        setattr(LocalStorage, name, paused(getattr(LocalStorage, name)))


def _defaults(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = function.__kwdefaults__
    return found


def _become(user: int) -> None:
    for package in (cli, engine, repo_store):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    importlib.import_module("ctypes")
    with contextlib.redirect_stdout(io.StringIO()):
        main(["completion", "bash"])  # typer imports when it runs
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _peak_memory_kib() -> str:
    """Return VmHWM, not ru_maxrss: a child inherits the latter from whoever forked it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM:"))


def run(pause_ms: int, checkpoint_bytes: int, user: int, report: str, args: list[str]) -> int:
    """Change the numbers and run one command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may have ignored it
    if pause_ms:
        _pause_before_changes(pause_ms / 1000)
    if checkpoint_bytes:
        _defaults(SnapshotOptions.__init__)["checkpoint_bytes"] = checkpoint_bytes
        _defaults(PackWriter.__init__).update(pack_bytes=PACK_BYTES, in_flight_bytes_max=IN_FLIGHT_BYTES_MAX)
    if user:
        _become(user)
    code = main(args)
    if report != "-":
        Path(report).write_text(_peak_memory_kib())
    return code


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
