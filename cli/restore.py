"""holdfast restore: bring files back."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE, INCOMPLETE
from cli.options import ManifestArgument, Which, command
from cli.output import count, duration, size
from cli.paths import parse_path
from cli.progress import watched
from cli.snapshot_report import problem_document

if TYPE_CHECKING:
    from engine.restore import RestoreResult


@command(
    app,
    "restore",
    examples="""
    holdfast restore latest --to /tmp/restored
    holdfast restore latest --at 2026-11-22T10:00:00Z --to /tmp/restored
    holdfast restore 3f0c www/uploads/cat.jpg www/index.html --to /tmp/restored
    """,
)
def restore(
    call: Call,
    manifest: ManifestArgument,
    which: Which,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="A new directory, or an empty one.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Only these, as `holdfast ls` prints them, with all below them."),
    ] = None,
    numeric_ids: Annotated[
        bool, typer.Option("--numeric-ids", help="Owners by number, whatever they are called here.")
    ] = False,
    no_xattrs: Annotated[
        bool, typer.Option("--no-xattrs", help="Leave out extended attributes and ACLs.")
    ] = False,
) -> int:
    """Restore a snapshot, or some of it, into a new directory.

    Nothing is ever overwritten and nothing is written outside of DIR. Every byte is checked before it is written.
    What is damaged in the repository is named, everything else is restored, and the exit code is 4; it is 3 if
    something could not be written as it was.
    """
    import time

    from engine.restore import restore_manifest
    from engine.target import TargetOptions

    wanted = [parse_path(path) for path in paths or []]
    started = time.monotonic()
    session = call.open()
    found = which.find(session, manifest)
    if found.status != "complete":
        call.output.warn(f"manifest {found.id.hex()[:12]} is {found.status}: not all of its source is in it")
    with watched(call.output, "restore") as progress:
        result = restore_manifest(
            session,
            found,
            os.fsencode(to),
            paths=wanted,
            options=TargetOptions(numeric_ids=numeric_ids, xattrs=not no_xattrs),
            progress=progress,
        )
    return _report(call, result, to, time.monotonic() - started)


def _report(call: Call, result: "RestoreResult", to: str, seconds: float) -> int:
    from engine.problems import ProblemKind, printable, printable_path

    output = call.output
    serious = [problem for problem in result.problems if problem.kind != ProblemKind.NOTE]
    status = "damaged" if result.damaged else "incomplete" if serious else "complete"
    for problem in result.problems:
        output.problem(printable_path(problem.path), problem.message, problem.kind)
    output.document(
        {
            "manifest": result.manifest.id.hex(),
            "status": status,
            "to": printable(os.fsencode(os.path.abspath(to))),
            "files": result.files,
            "bytes": result.bytes,
            "problems": [problem_document(problem) for problem in result.problems],
        }
    )
    output.remark(
        f"restored manifest {result.manifest.id.hex()[:12]} to {printable(os.fsencode(to))}: "
        f"{count(result.files, 'file')}, {size(result.bytes)}, in {duration(seconds)}"
    )
    if serious:
        output.warn(f"the restore is {status}: {count(len(serious), 'problem')}")
    return {"complete": DONE, "incomplete": INCOMPLETE, "damaged": DAMAGED}[status]
