"""A real S3 server for tests: SeaweedFS.

    server = running_server()                 the one of this test process, started when first asked for

Roles: owner (everything), writer (reads, writes and lists, deletes nothing), reader. Telemetry to the vendor is off.
"""

import atexit
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from support.s3_server import BUCKET, QUICK, S3Server

__all__ = ["BUCKET", "QUICK", "ROLES", "SeaweedServer", "running_server"]

WEED = Path(sys.executable).with_name("weed")
ROLES = {
    "owner": ["Admin", "Read", "Write", "List", "Tagging"],
    "writer": ["Read", "Write", "List"],
    "reader": ["Read", "List"],
}


class SeaweedServer(S3Server):
    """One server in `folder`."""

    NAME = "SeaweedFS"
    PORTS = (
        *("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc"),
        "admin",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        identities = [
            {
                "name": role,
                "credentials": [{"accessKey": role, "secretKey": f"{role}-secret"}],
                "actions": may,
            }
            for role, may in ROLES.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    def command(self) -> list[str]:
        """Return what starts it."""
        ports = [f"-{name.replace('.grpc', '.port.grpc') if '.grpc' in name else name + '.port'}={port}"
                 for name, port in self._ports.items()]  # fmt: skip
        return [
            str(WEED), "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            "-webdav=false", "-admin.ui=false", "-s3.config=s3.json", "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={self._folder}/s3.sock",
            f"-filer.localSocket={self._folder}/filer.sock", *ports,
        ]  # fmt: skip


@cache
def _start() -> SeaweedServer | str:
    """Start the server of this process; return why if there can be none."""
    if not WEED.exists():
        return "no SeaweedFS: tools/setup.sh installs it"
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
