"""holdfast restore: bring files back, into a new directory or over what is there."""

import os
from dataclasses import dataclass
from enum import StrEnum
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
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.restore import RestoreResult


class OverwriteChoice(StrEnum):
    """What becomes of a file that is there already; as in engine/overwrite.py, which a start need not import."""

    NEVER = "never"
    CHANGED = "changed"
    ALWAYS = "always"


@dataclass(kw_only=True)
class Over:
    """What becomes of what is there."""

    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="To the paths that the snapshot was made of, over what is there."),
    ] = False
    overwrite: Annotated[
        OverwriteChoice | None,
        typer.Option(
            help="DIR may have files in it: never touch them; rewrite those whose size, time or content is "
            "another (the default with --in-place); or compare the content of all."
        ),
    ] = None
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", help="Delete what is there and not in the snapshot, below restored paths only."
        ),
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; list what would be written and deleted.")
    ] = False

    def checked(self, to: str | None) -> "Over":
        """Return this, if it makes sense together with --to. Raises UsageError."""
        if self.in_place == (to is not None):
            raise UsageError("give either --to or --in-place")
        if (self.delete or self.dry_run) and not self.is_wanted:
            option = "--delete" if self.delete else "--dry-run"
            raise UsageError(f"{option} needs --in-place or --overwrite")
        return self

    @property
    def is_wanted(self) -> bool:
        """Whether anything that is there may be looked at."""
        return self.in_place or self.overwrite is not None


@command(
    app,
    "restore",
    examples="""
    holdfast restore latest --to /tmp/restored
    holdfast restore latest --at 2026-11-22T10:00:00Z --to /tmp/restored
    holdfast restore 3f0c www/uploads/cat.jpg www/index.html --to /tmp/restored
    holdfast restore latest www/uploads --in-place --delete --dry-run
    """,
)
def restore(
    call: Call,
    manifest: ManifestArgument,
    which: Which,
    over: Over,
    to: Annotated[
        str | None, typer.Option("--to", metavar="DIR", help="A new directory, or an empty one.")
    ] = None,
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
    """Restore a snapshot, or some of it, into a new directory or over what is there.

    Unless --in-place or --overwrite is given nothing is overwritten. Nothing is written outside of the directories
    restored to, and a file is replaced as a whole or not at all. Every byte is checked before it is written.
    What is damaged in the repository is named, everything else is restored, and the exit code is 4; it is 3 if
    something could not be written as it was.
    """
    import time

    from engine.restore import restore_manifest
    from engine.target import TargetOptions

    over.checked(to)
    wanted = [parse_path(path) for path in paths or []]
    started = time.monotonic()
    session = call.open()
    found = which.find(session, manifest, output=call.output)
    if found.status != "complete":
        call.output.warn(f"manifest {found.id.hex()[:12]} is {found.status}: not all of its source is in it")
    options = TargetOptions(numeric_ids=numeric_ids, xattrs=not no_xattrs)
    if over.is_wanted:
        from cli.restore_over import restore_over

        return restore_over(call, session, found, wanted, options, to, over, started)
    assert to is not None
    with watched(call.output, "restore") as progress:
        result = restore_manifest(
            session, found, os.fsencode(to), paths=wanted, options=options, progress=progress
        )
    return _report(call, result, to, time.monotonic() - started)


def _report(call: Call, result: "RestoreResult", to: str, seconds: float) -> int:
    from engine.problems import printable

    place = printable(os.fsencode(to))
    document: dict[str, object] = {"to": printable(os.fsencode(os.path.abspath(to)))}
    text = (
        f"restored manifest {result.manifest.id.hex()[:12]} to {place}: "
        f"{count(result.files, 'file')}, {size(result.bytes)}, in {duration(seconds)}"
    )
    return report_restore(call, result, document, text)


def report_restore(call: Call, result: "RestoreResult", document: dict[str, object], text: str) -> int:
    """Print what a restore came to: problems, the document with the keys of `document`, `text`; return the exit code."""
    from engine.problems import ProblemKind, printable_path

    output = call.output
    serious = [problem for problem in result.problems if problem.kind != ProblemKind.NOTE]
    status = "damaged" if result.damaged else "incomplete" if serious else "complete"
    for problem in result.problems:
        output.problem(printable_path(problem.path), problem.message, problem.kind)
    output.document(
        {
            "manifest": result.manifest.id.hex(),
            "status": status,
            **document,
            "files": result.files,
            "bytes": result.bytes,
            "problems": [problem_document(problem) for problem in result.problems],
            "requests": call.requests,
        }
    )
    output.remark(text)
    if serious:
        output.warn(f"the restore is {status}: {count(len(serious), 'problem')}")
    return {"complete": DONE, "incomplete": INCOMPLETE, "damaged": DAMAGED}[status]
