"""What every kind of snapshot takes, and what it answers."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.call import Call
from cli.exit_codes import DONE, INCOMPLETE
from cli.manifest_document import manifest_document
from cli.options import checked_text
from cli.output import count, duration, size
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.git_snapshot import GitSnapshotResult
    from engine.problems import Problem
    from engine.snapshot_run import SnapshotOptions, SnapshotResult

LEVEL_MIN, LEVEL_MAX = 1, 19


@dataclass(kw_only=True)
class SnapshotChoices:
    """The options of every snapshot."""

    series: Annotated[
        str | None,
        typer.Option(
            metavar="S", help="The line of snapshots this one continues; by default source, host and name."
        ),
    ] = None
    host: Annotated[
        str | None, typer.Option(metavar="H", help="The host to put down; by default this one.")
    ] = None
    tag: Annotated[list[str], typer.Option(metavar="T", help="A tag; may be repeated.")] = field(
        default_factory=list
    )
    hold_until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not to be forgotten before, like 2027-01-31.")
    ] = None
    compression: Annotated[
        int,
        typer.Option(metavar="LEVEL", min=LEVEL_MIN, max=LEVEL_MAX, help="zstd's level; higher is slower."),
    ] = 3

    def options(self, *, full_read: bool = False) -> "SnapshotOptions":
        """Return the options as the engine takes them. Raises UsageError."""
        from engine.selection import parse_time
        from engine.snapshot_run import SnapshotOptions

        hold_until = None if self.hold_until is None else parse_time(self.hold_until)
        if hold_until is not None and hold_until <= time.time_ns():
            raise UsageError(f"--hold-until: {self.hold_until} is past")
        for tag in self.tag:
            if not checked_text(tag, "--tag"):
                raise UsageError("--tag: an empty tag")
        return SnapshotOptions(
            series=checked_text(self.series, "--series"),
            host=checked_text(self.host, "--host"),
            tags=tuple(dict.fromkeys(self.tag)),
            hold_until=hold_until,
            compression_level=self.compression,
            full_read=full_read,
        )


def report_snapshot(
    call: Call,
    result: "SnapshotResult | GitSnapshotResult",
    more: "dict[str, Any] | None" = None,
    *,
    of: tuple[str, str] = ("file", "files"),
) -> int:
    """Print what a snapshot came to, with the keys of `more` and its files called `of`; return the exit code."""
    from engine.problems import CHANGED_WHILE_READ, ProblemKind, printable_path

    manifest, output = result.manifest, call.output
    changed = [problem for problem in result.problems if problem.message == CHANGED_WHILE_READ]
    problems = [problem for problem in result.problems if problem.message != CHANGED_WHILE_READ]
    for problem in result.problems:
        output.problem(printable_path(problem.path), problem.message, problem.kind)
    document = manifest_document(manifest) | {
        "problems": [problem_document(problem) for problem in problems],
        "changed_while_reading": [printable_path(problem.path) for problem in changed],
        "requests": call.requests,
        **(more or {}),
    }
    output.document(document)
    statistics = manifest.statistics
    output.remark(
        f"snapshot {manifest.id.hex()[:12]}: {count(statistics['files'], *of)}, {size(statistics['bytes'])}; "
        f"{size(statistics['new_bytes'])} new, {size(statistics['stored_bytes'])} stored, "
        f"in {duration((manifest.end - manifest.start) / 1e9)}"
    )
    if manifest.status == "complete":
        return DONE
    incomplete = sum(problem.kind != ProblemKind.NOTE for problem in problems)
    output.warn(f"the snapshot is incomplete: {count(incomplete, 'problem')}")
    return INCOMPLETE


def problem_document(problem: "Problem") -> dict[str, Any]:
    """Return a problem as --json gives it."""
    from engine.problems import printable_path

    return {
        "path": printable_path(problem.path),
        "message": problem.message,
        "kind": str(problem.kind),
    }
