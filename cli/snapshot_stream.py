"""holdfast snapshot stdin, holdfast snapshot command: back up one stream."""

import os
import sys
from typing import Annotated

import typer

from cli.app import snapshot_app
from cli.call import Call
from cli.options import command
from cli.progress import watched
from cli.snapshot_report import SnapshotChoices, report_snapshot
from repo_store.errors import UsageError

Tar = Annotated[
    bool, typer.Option("--tar", help="Split a tar stream: every member is stored and restored by itself.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the stream, like app.sql.")]


@command(
    snapshot_app,
    "stdin",
    examples="""
    mysqldump app | holdfast snapshot stdin app.sql
    holdfast snapshot stdin app.sql <dump.sql
    docker export web | holdfast snapshot stdin web.tar --tar
    """,
)
def stdin(call: Call, choices: SnapshotChoices, name: Name, tar: Tar = False) -> int:
    """Back up what is read from standard input.

    If the program before the pipe fails, holdfast cannot know it; `holdfast snapshot command` can.
    With --tar a stream that is damaged or breaks off makes no snapshot.
    """
    from engine.stream_snapshot import snapshot_stdin

    if sys.stdin is None:
        raise UsageError("standard input is closed")
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", hint="pipe something into it")
    options = choices.options()
    session = call.open("write")
    with watched(call.output, f"snapshot of {name}") as progress:
        result = snapshot_stdin(
            session, os.fsencode(name), sys.stdin.fileno(), tar=tar, options=options, progress=progress
        )
    return report_snapshot(call, result)


@command(
    snapshot_app,
    "command",
    examples="""
    holdfast snapshot command app.sql -- pg_dump -Fc app
    holdfast snapshot command settings.tar --tar -- tar -c /etc
    """,
)
def run_command(
    call: Call,
    choices: SnapshotChoices,
    name: Name,
    argv: Annotated[list[str], typer.Argument(metavar="-- CMD", help="The command and its arguments.")],
    tar: Tar = False,
) -> int:
    """Run a command and back up what it prints.

    If the command fails or is killed, there is no snapshot and the exit
    code is 1: half a dump never looks like a backup. What it says on standard error is passed through.
    """
    from engine.stream_snapshot import snapshot_command

    options = choices.options()
    session = call.open("write")
    with watched(call.output, f"snapshot of {name}") as progress:
        result = snapshot_command(
            session, os.fsencode(name), argv, tar=tar, options=options, progress=progress
        )
    return report_snapshot(call, result)
