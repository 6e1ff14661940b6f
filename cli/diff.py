"""holdfast diff: what changed between two manifests."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.long_answer import LongAnswer
from cli.options import Which, command
from cli.output import count, size
from cli.paths import parse_path

if TYPE_CHECKING:
    from engine.diff import Change, DiffTotals
    from engine.session import Session
    from repo_store.manifest import Manifest

_SIGNS = {"added": "+", "removed": "-", "type": "T", "content": "M", "metadata": "U"}


@command(
    app,
    "diff",
    examples="""
    holdfast diff 3f0c latest
    holdfast diff 3f0c 81d2 www/uploads --long
    holdfast diff 3f0c latest --series files:web:/srv/www --stat
    """,
)
def diff(
    call: Call,
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="A manifest id, a unique start of one, or `latest`.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The manifest to compare it with.")],
    which: Which,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Only these, with all below them.")
    ] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="With what changed of each path.")] = False,
    stat: Annotated[bool, typer.Option("--stat", help="Only the counts and bytes.")] = False,
) -> int:
    """Say what changed from one snapshot to another.

    Each line is a path, as `ls` prints it, behind a sign: + added, - removed, M content changed, U only metadata
    changed, T became another kind of thing. No content is read: the answer takes as long as the difference is large.
    """
    from engine.diff import DiffTotals, diff_manifests

    wanted = [parse_path(path) for path in paths or []]
    session = call.open()
    one, other = _find(call, session, which, before), _find(call, session, which, after)
    totals = DiffTotals()
    start = {"before": one.id.hex(), "after": other.id.hex()}
    with LongAnswer(call.output, start, "changes") as answer:
        for change in diff_manifests(session, one, other, wanted):
            totals.add(change)
            if not stat:
                answer.add(_document(change))
                call.output.line(_line(change, long))
        answer.end = _totals_document(totals)
    if stat:
        call.output.lines(_summary(totals))
    return DONE


def _find(call: Call, session: "Session", which: Which, named: str) -> "Manifest":
    """Return the manifest that is meant; --at is for the one that is named `latest`."""
    from engine.selection import LATEST

    return replace(which, at=which.at if named == LATEST else None).find(session, named, output=call.output)


def _line(change: "Change", long: bool) -> str:
    from engine.problems import printable_path

    line = f"{_SIGNS[change.kind]} {printable_path(change.path)}"
    if not long:
        return line
    entry = change.after or change.before
    if change.fields:
        details = [_detail(change, name) for name in change.fields]
    else:
        details = [] if entry is None or entry.kind not in _WITH_BYTES else [f"{entry.size} B"]
    return f"{line}  [{', '.join(details)}]" if details else line


_WITH_BYTES = (0, 6)


def _detail(change: "Change", name: str) -> str:
    before, after = change.before, change.after
    if before is not None and after is not None and name in ("size", "uid", "gid"):
        return f"{name} {getattr(before, name)} to {getattr(after, name)}"
    if before is not None and after is not None and name == "mode":
        return f"mode {before.mode:04o} to {after.mode:04o}"
    return name


def _document(change: "Change") -> dict[str, Any]:
    from engine.problems import printable_path

    return {
        "path": printable_path(change.path),
        "change": str(change.kind),
        "fields": list(change.fields),
        "size_before": None if change.before is None else change.before.size,
        "size_after": None if change.after is None else change.after.size,
    }


def _totals_document(totals: "DiffTotals") -> dict[str, Any]:
    from engine.diff import ChangeKind

    return {
        "counts": {str(kind): totals.paths[kind] for kind in ChangeKind},
        "bytes": {
            "added": totals.added_bytes,
            "removed": totals.removed_bytes,
            "changed_before": totals.changed_bytes_before,
            "changed_after": totals.changed_bytes_after,
        },
    }


def _summary(totals: "DiffTotals") -> list[str]:
    from engine.diff import ChangeKind

    paths = totals.paths
    changed = paths[ChangeKind.CONTENT] + paths[ChangeKind.TYPE]
    return [
        f"added     {count(paths[ChangeKind.ADDED], 'path')}, {size(totals.added_bytes)}",
        f"removed   {count(paths[ChangeKind.REMOVED], 'path')}, {size(totals.removed_bytes)}",
        f"changed   {count(changed, 'path')}, "
        f"{size(totals.changed_bytes_before)} to {size(totals.changed_bytes_after)}",
        f"metadata  {count(paths[ChangeKind.METADATA], 'path')}",
    ]
