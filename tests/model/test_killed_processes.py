"""Real processes that write, prune and forget in one repository and are killed lose nothing, on a disk and on S3.

Method: killed.py. The moments are drawn from a seed, but the order of things is the machine's own: what it finds may not
come again. The simulation (test_histories.py) is for that.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.seaweed import running_server

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261123


def _kill(location: str, folder: Path, kills: int, **environment: str) -> dict[str, int]:
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ended = subprocess.run(
        [
            sys.executable,
            "-P",
            str(ROOT / "tests/model/killed.py"),
            location,
            str(folder),
            str(kills),
            str(SEED),
        ],
        env=os.environ | paths | environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, int] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("kills", [60, pytest.param(10_000, marks=pytest.mark.full)])
def test_processes_killed_on_a_disk_lose_nothing(tmp_path: Path, kills: int) -> None:
    found = _kill(str(tmp_path / "repository"), tmp_path / "hosts", kills)
    assert found["kills"] >= kills
    assert found["ends"] >= kills / 10, "killed too early to have done anything"


@pytest.mark.parametrize("kills", [15, pytest.param(300, marks=pytest.mark.full)])
def test_processes_killed_on_an_s3_server_lose_nothing(tmp_path: Path, kills: int) -> None:
    server = running_server()
    found = _kill(f"s3://{server.new_place()}", tmp_path / "hosts", kills, **server.environment("owner"))
    assert found["kills"] >= kills
