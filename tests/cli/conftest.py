"""holdfast in an empty directory, in UTC, on a host with a short name."""

import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.cli import Cli

from repo_store.passphrase import COSTS_LEAST, Passphrase


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Calls of holdfast with the repository `repository` and the key file `key`, neither made yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_REPOSITORY", str(tmp_path / "repository"))
    monkeypatch.setenv("HOLDFAST_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(socket, "gethostname", lambda: "vm")
    # New slots cost the least that is allowed; processes of their own take the real price.
    monkeypatch.setattr("cli.keys.Passphrase", partial(Passphrase, costs=COSTS_LEAST))
    time.tzset()
    yield Cli(tmp_path, capsys, monkeypatch)
    monkeypatch.undo()
    time.tzset()
