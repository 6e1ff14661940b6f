"""What the S3 servers of the tests share: a process of its own with real credentials, and a folder that goes with it.

    server.environment("owner")               what boto needs to reach it, as variables
    server.new_place()                        "bucket/prefix", where nothing is yet
    server.kill(); server.start()             kill -9; afterwards it is the same server with the same objects

One for each process of pytest-xdist: nothing is shared, so a test may kill it. The kernel ends it if pytest is killed.
"""

import ctypes
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from repo_store.s3_model import shared_loader
from repo_store.s3_options import S3Options
from repo_store.s3_storage import S3Storage

if TYPE_CHECKING:
    from botocore.session import Session

BUCKET = "backups"
START_SECONDS_MAX = 60
START_ATTEMPTS = 3
QUICK = S3Options(deadline_seconds=20, greeting_seconds=20, read_seconds=20)
"""Patience for tests: long enough for a server that starts, too short to wait for a test that hangs."""

_PR_SET_PDEATHSIG = 1


class S3Server(ABC):
    """One server in `folder`. A subclass says how it is started."""

    NAME: ClassVar[str]
    PORTS: ClassVar[Sequence[str]]
    """What it listens on; one of them is "s3"."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._places = (f"{BUCKET}/place {number}" for number in itertools.count(1))
        (folder / "data").mkdir()

    @abstractmethod
    def command(self) -> list[str]:
        """Return what starts it, on `self._ports`, with its objects in the directory `data` below its folder."""

    def variables(self) -> dict[str, str]:
        """Return what it needs in its environment."""
        return {}

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self._ports["s3"]

    @property
    def pid(self) -> int:
        """The number of its process, which runs."""
        assert self._process is not None
        return self._process.pid

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
            session.register_component("data_loader", shared_loader())
            session.set_config_variable("config_file", str(path))
        return self._sessions[role, endpoint]

    def storage(
        self, place: str, options: S3Options = QUICK, *, role: str = "owner", endpoint: str | None = None
    ) -> S3Storage:
        """Return a storage in `place` (a bucket, or bucket/prefix), with connections of its own."""
        return S3Storage(f"s3://{place}", options, session=self.session(role, endpoint))

    def new_place(self) -> str:
        """Return a bucket and a prefix that nobody uses. All share one bucket: each costs some servers room, of which
        they have little."""
        return next(self._places)

    def start(self) -> None:
        """Start it, or start it again, and return once it serves."""
        tries = START_ATTEMPTS if not self._ports else 1
        for attempt in range(tries):
            if tries > 1:
                self._ports = free_ports(self.PORTS)
            environment = {name: str(self._folder) for name in ("HOME", "TMPDIR")}
            environment |= {"PATH": os.environ.get("PATH", "")} | self.variables()
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(),
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    preexec_fn=_die_with_parent,
                )
            if self._serves():
                return
            self.kill()
            assert attempt < tries - 1, f"{self.NAME} does not start:\n{self.log[-3000:]}"

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


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return ports that are free now. The one called admin also takes the one 10,000 above its own."""
    chosen: dict[str, int] = {}
    while len(chosen) < len(names):
        port = random.randrange(20_000, 32_000)
        name = names[len(chosen)]
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
