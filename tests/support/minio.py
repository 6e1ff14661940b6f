"""Another real S3 server for tests: MinIO, where it can be had.

Taken is a `minio` on the path, else the one built before, else, only where the tests run with --full and Go is there,
one is built from its module, at a fixed version, through the module proxy: that takes minutes and 2 GB, which are given
back. It lies in .venv/cache and goes with it. Where there is none, a test is skipped and says why.
"""

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.s3_server import S3Server

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
BUILD_SECONDS_MAX = 3600
_CACHE = Path(sys.prefix) / "cache"
_BUILT = _CACHE / f"minio-{VERSION}"


class MinioServer(S3Server):
    """One server in `folder`; "owner" may do everything, there are no other roles."""

    NAME = "MinIO"
    PORTS = ("s3", "console")

    def __init__(self, folder: Path, program: str) -> None:
        super().__init__(folder)
        self._program = program

    def command(self) -> list[str]:
        """Return what starts it."""
        addresses = [f"--address=127.0.0.1:{self._ports['s3']}"]
        addresses.append(f"--console-address=127.0.0.1:{self._ports['console']}")
        return [self._program, "server", "--quiet", *addresses, "data"]

    def variables(self) -> dict[str, str]:
        """Return its account, and that it is to call nobody."""
        account = {"MINIO_ROOT_USER": "owner", "MINIO_ROOT_PASSWORD": "owner-secret"}
        return account | {"MINIO_UPDATE": "off", "MINIO_BROWSER": "off", "MINIO_CALLHOME_ENABLE": "off"}


def _build() -> str | None:
    """Build it; return why not."""
    go = shutil.which("go")
    if go is None:
        return "no minio on the path, and no Go to build one"
    _CACHE.mkdir(exist_ok=True)
    with (
        open(_CACHE / "minio.lock", "w") as lock,
        tempfile.TemporaryDirectory(dir=_CACHE, prefix="minio-") as folder,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _BUILT.exists():
            return None  # by another process of this run
        places = {"GOPATH": f"{folder}/go", "GOCACHE": f"{folder}/cache", "GOBIN": folder}
        flags = {"GOFLAGS": "-modcacherw", "CGO_ENABLED": "0"}
        done = subprocess.run(
            [go, "install", f"github.com/minio/minio@{VERSION}"],
            env=os.environ | places | flags,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
        )
        if done.returncode:
            return f"minio cannot be built: {done.stderr.strip().splitlines()[-1]}"
        Path(folder, "minio").rename(_BUILT)
    return None


def _start(*, may_build: bool) -> MinioServer | str:
    """Start the server of this process; return why if there can be none."""
    program = shutil.which("minio")
    if program is None:
        if not _BUILT.exists():
            reason = _build() if may_build else "no minio on the path; the tests build one with --full"
            if reason is not None:
                return reason
        program = str(_BUILT)
    server = MinioServer(Path(tempfile.mkdtemp(prefix="holdfast-minio-")), program)
    atexit.register(server.remove)
    server.start()
    return server


_started: dict[bool, MinioServer | str] = {}


def running_minio(*, may_build: bool = False) -> MinioServer:
    """Return the server of this test process, or skip the test where none can run."""
    if may_build not in _started:
        _started[may_build] = _start(may_build=may_build)
        _started[False] = _started[may_build]
    server = _started[may_build]
    if isinstance(server, str):
        pytest.skip(server)
    return server
