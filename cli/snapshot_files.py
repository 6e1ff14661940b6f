"""holdfast snapshot files: back up file trees."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import snapshot_app
from cli.call import Call
from cli.options import command
from cli.progress import watched
from cli.snapshot_report import SnapshotChoices, report_snapshot
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.sources.files import WalkOptions


@dataclass(kw_only=True)
class WalkChoices:
    """What to leave out of a walk."""

    exclude: Annotated[
        list[str],
        typer.Option(metavar="PATTERN", help="Leave out what matches, as in .gitignore; may be repeated."),
    ] = field(default_factory=list)
    exclude_from: Annotated[
        list[str], typer.Option(metavar="FILE", help="Patterns from a file, one a line; may be repeated.")
    ] = field(default_factory=list)
    exclude_if_present: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Of directories that hold a file NAME, store that file only; may be repeated.",
        ),
    ] = field(default_factory=list)
    exclude_caches: Annotated[
        bool, typer.Option("--exclude-caches", help="The same for directories with a CACHEDIR.TAG.")
    ] = False
    one_file_system: Annotated[
        bool, typer.Option("--one-file-system", help="Store mount points as empty directories.")
    ] = False
    no_xattrs: Annotated[
        bool, typer.Option("--no-xattrs", help="Leave out extended attributes and ACLs.")
    ] = False

    def options(self) -> "WalkOptions":
        """Return the options as the engine takes them. Raises UsageError if a file of patterns cannot be read."""
        from engine.sources.excludes import read_patterns
        from engine.sources.files import WalkOptions

        patterns: list[bytes | str] = [*self.exclude]
        for path in self.exclude_from:
            patterns += read_patterns(path)
        return WalkOptions(
            patterns=patterns,
            exclude_if_present=[_name(name) for name in self.exclude_if_present],
            exclude_caches=self.exclude_caches,
            one_file_system=self.one_file_system,
            xattrs=not self.no_xattrs,
        )


def _name(text: str) -> bytes:
    name = os.fsencode(text)
    if not name or b"/" in name:
        raise UsageError(f"--exclude-if-present: {text!r} is not the name of a file")
    return name


@command(
    snapshot_app,
    "files",
    examples="""
    holdfast snapshot files /etc /srv/uploads
    holdfast snapshot files ~ --exclude '*.iso' --exclude-caches --tag laptop
    holdfast snapshot files --as uploads=/srv/releases/current/uploads --json
    """,
)
def snapshot_files(
    call: Call,
    choices: SnapshotChoices,
    walk: WalkChoices,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="What to back up, with all below it.")
    ] = None,
    as_name: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="NAME=PATH", help="Store PATH under another name; may be repeated."),
    ] = None,
    full_read: Annotated[
        bool, typer.Option("--full-read", help="Read every file, also those that look unchanged.")
    ] = False,
) -> int:
    """Back up files and directories with all metadata.

    Each PATH is stored under its last name: /srv/www comes back as DIR/www. Files that have not changed since the
    previous snapshot of the same paths are not read again. What cannot be read is named, the rest is stored, and
    the exit code is 3.
    """
    from engine.files_snapshot import snapshot_files as run

    if not paths and not as_name:
        raise UsageError("no path is given", hint="see `holdfast snapshot files --help`")
    names = _names(as_name or [])
    options, walk_options = choices.options(full_read=full_read), walk.options()
    session = call.open("write")
    with watched(call.output, "snapshot") as progress:
        result = run(session, paths or [], names=names, walk=walk_options, options=options, progress=progress)
    return report_snapshot(call, result)


def _names(texts: list[str]) -> dict[bytes | str, bytes | str]:
    """Return name → path of NAME=PATH. Raises UsageError."""
    names: dict[bytes | str, bytes | str] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--as: {text!r} is not NAME=PATH")
        if name in names:
            raise UsageError(f"--as: the name {name!r} is given twice")
        names[name] = path
    return names
