"""holdfast find: in which manifests something is."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import app
from cli.byte_count import parse_bytes
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE
from cli.long_answer import LongAnswer
from cli.options import Which, command
from cli.output import count, local_time
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.find import Criteria, Match
    from engine.session import Session
    from repo_store.manifest import Manifest
    from repo_store.tree_union import LostNodes

_TYPES = {"f": (0, 6), "d": (1,), "l": (2,), "p": (3,), "c": (4,), "b": (5,)}
_KINDS = ("file", "directory", "symlink", "fifo", "character device", "block device", "stream")


@dataclass(kw_only=True)
class Wanted:
    """What is looked for."""

    name: Annotated[list[str], typer.Option(metavar="GLOB", help="A pattern of names; may be repeated.")] = (
        field(default_factory=list)
    )
    path: Annotated[
        list[str], typer.Option(metavar="GLOB", help="A pattern of paths, or of their ends; may be repeated.")
    ] = field(default_factory=list)
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", "-i", help="Capital letters are as good as small ones.")
    ] = False
    type: Annotated[
        list[str],
        typer.Option(
            metavar="f|d|l|p|c|b",
            help="Only files (and streams), directories, links, fifos, devices; may be repeated.",
        ),
    ] = field(default_factory=list)
    larger: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Only of more bytes, like 500K or 1.5G.")
    ] = None
    smaller: Annotated[str | None, typer.Option(metavar="SIZE", help="Only of fewer bytes.")] = None
    newer: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only modified after, like 2026-11-22T10:00:00Z.")
    ] = None
    older: Annotated[str | None, typer.Option(metavar="TIME", help="Only modified before.")] = None

    def criteria(self, patterns: list[str]) -> "Criteria":
        """Return what is looked for as the engine takes it. Raises UsageError."""
        from engine.find import Criteria
        from engine.selection import parse_time
        from repo_store.entry import EntryKind

        names = (*self.name, *(each for each in patterns if "/" not in each))
        paths = (*self.path, *(each for each in patterns if "/" in each))
        if not names and not paths:
            raise UsageError("no pattern is given", hint="`holdfast find '*.sql'`, or --name, or --path")
        kinds: set[EntryKind] = set()
        for each in self.type:
            if each not in _TYPES:
                raise UsageError(f"--type: {each!r} is none of {', '.join(_TYPES)}")
            kinds.update(map(EntryKind, _TYPES[each]))
        return Criteria(
            names=names,
            paths=paths,
            ignore_case=self.ignore_case,
            kinds=frozenset(kinds) or None,
            larger=None if self.larger is None else parse_bytes(self.larger, "--larger"),
            smaller=None if self.smaller is None else parse_bytes(self.smaller, "--smaller"),
            newer_ns=None if self.newer is None else parse_time(self.newer),
            older_ns=None if self.older is None else parse_time(self.older),
        )


@command(
    app,
    "find",
    examples="""
    holdfast find 'invoice-2026-*.pdf'
    holdfast find 'uploads/**/*.jpg' --larger 5M --host web
    holdfast find my.cnf -m latest --source files --json
    """,
)
def find(
    call: Call,
    wanted: Wanted,
    which: Which,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN", help="Like '*.sql' for names; with a slash for paths, `**` at any depth."
        ),
    ] = None,
    manifest: Annotated[
        list[str] | None,
        typer.Option(
            "--manifest", "-m", metavar="MANIFEST", help="Only in this one, or `latest`; may be repeated."
        ),
    ] = None,
) -> int:
    """Find files and directories in all snapshots, or in those that the options name.

    A pattern without a slash is one of names. One with a slash is for the end of a path, or for all of it if it begins
    with a slash. Each line is one version of what is there: its size, time and path, the newest snapshot that has it, and
    in how many it is.
    """
    from engine.find import find_entries

    criteria = wanted.criteria(patterns or [])
    session = call.open()
    chosen, damaged = _chosen(call, session, which, manifest)

    def lost(nodes: "LostNodes", manifests: "Sequence[Manifest]") -> None:
        nonlocal damaged
        damaged += 1
        of = ", ".join(each.id.hex()[:12] for each in manifests[:3]) + (", …" if len(manifests) > 3 else "")
        entries = count(nodes.node.entries, "entry", "entries")
        call.output.warn(f"{nodes.node.error}: {entries} of manifest {of} could not be looked at")

    with LongAnswer(call.output, {}, "matches") as answer:
        for match in find_entries(session, chosen, criteria, lost):
            answer.add(_document(match))
            call.output.line(_line(match))
        answer.end = {"damaged": damaged}
    return DAMAGED if damaged else DONE


def _chosen(
    call: Call, session: "Session", which: Which, named: list[str] | None
) -> "tuple[list[Manifest], int]":
    """Return the manifests to look in, oldest first, and how many cannot be read."""
    found = session.read_manifests()
    if named:
        wanted = {each.id for each in which.find_all(session, named)}
        return [each for each in found.live if each.id in wanted], 0
    if which.at is not None:
        raise UsageError("a time is given without a manifest", hint="use --manifest latest with --at")
    for name, reason in sorted(found.damaged.items()):
        call.output.warn(f"{name}: damaged: {reason}")
    selection = which.selection()
    return [each for each in found.live if selection.matches(each)], len(found.damaged)


def _line(match: "Match") -> str:
    from engine.problems import printable_path

    entry, newest = match.entry, match.manifests[0].id.hex()[:12]
    return (
        f"{entry.size:>12} {local_time(entry.mtime_ns)} {newest} {f'({len(match.manifests)})':<6}"
        f" {printable_path(match.path)}"
    )


def _document(match: "Match") -> dict[str, Any]:
    from engine.problems import printable_path
    from engine.selection import rfc3339

    return {
        "path": printable_path(match.path),
        "kind": _KINDS[match.entry.kind],
        "size": match.entry.size,
        "mtime": rfc3339(match.entry.mtime_ns),
        "manifests": [manifest.id.hex() for manifest in match.manifests],
    }
