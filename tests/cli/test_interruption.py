"""Signals: the first asks a run to stop and keeps what it has, the second ends it at once."""

import json
import os
import random
import signal
import subprocess

import pytest
from support.cli import Cli

from cli.interruption import stopping
from engine.progress import Progress

BYTES = 24_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_snapshot_keeps_a_checkpoint_that_the_next_one_uses(cli: Cli, number: int) -> None:
    cli.init()
    data = random.Random(1).randbytes(BYTES)
    run = cli.start("snapshot", "stdin", "big", stdin=subprocess.PIPE)
    assert run.stdin is not None
    run.stdin.write(data)
    run.stdin.flush()  # the pipe is far smaller: nearly all was taken
    run.send_signal(number)
    out, err = run.communicate()
    (checkpoint,) = cli("manifests", "--json").document
    assert (run.returncode, out, err.decode()) == (
        130,
        b"",
        f"holdfast: interrupted; the checkpoint {checkpoint['manifest'][:12]} was kept\n"
        "hint: the next snapshot of this series goes on from there\n",
    )
    assert checkpoint["status"] == "partial"
    again = cli.call("snapshot", "stdin", "big", "--json", input=data).document
    assert (again["status"], again["bytes"]) == ("complete", BYTES)
    assert again["new_bytes"] < BYTES / 4


def test_the_document_of_an_interrupted_snapshot_names_the_checkpoint(cli: Cli) -> None:
    cli.init()
    command = ("sh", "-c", "seq 100000; exec sleep 60")
    run = cli.start("snapshot", "command", "big", "--json", "--events", "--", *command)
    assert run.stderr is not None
    assert json.loads(run.stderr.readline())["event"] == "progress"  # so the run is under way
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate()
    document = json.loads(out)
    (checkpoint,) = cli("manifests", "--json").document
    assert (run.returncode, document["exit_code"], document["checkpoint"]) == (
        130,
        130,
        checkpoint["manifest"],
    )


def test_an_interruption_outside_of_a_long_run_says_so_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.init()

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("engine.stats.repository_stats", interrupted)
    assert tuple(cli("stats")) == (130, "", "holdfast: interrupted\n")


def test_the_second_signal_ends_the_run_at_once() -> None:
    progress = Progress()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stopping(progress.stop):
        os.kill(os.getpid(), signal.SIGINT)
        assert progress.stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
