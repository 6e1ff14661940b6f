"""holdfast cat: the bytes of one file or stream."""

from typing import Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.options import ManifestArgument, Which, command
from cli.paths import parse_path
from repo_store.errors import UsageError


@command(
    app,
    "cat",
    examples="""
    holdfast cat latest app.sql --source command | psql app
    holdfast cat 3f0c etc/fstab
    """,
)
def cat(
    call: Call,
    manifest: ManifestArgument,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A file or stream, as `holdfast ls` prints it.")
    ],
    which: Which,
) -> int:
    """Write a file or stream from a snapshot to standard output.

    Every byte is checked before it is written. If a part of the content is lost it ends there, with exit code 4.
    """
    from engine.reading_back import read_content

    call.output.answered = True  # stdout belongs to the content
    if call.output.json:
        raise UsageError("cat writes the bytes themselves, so it has no --json")
    wanted = parse_path(path)
    session = call.open()
    for data in read_content(session, which.find(session, manifest, output=call.output), wanted):
        call.output.write_bytes(data)
    return DONE
