"""holdfast ls: list the entries of a manifest."""

import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.options import ManifestArgument, Which, command
from cli.output import Output, local_time, to_json
from cli.paths import parse_path
from repo_store.errors import HoldfastError

if TYPE_CHECKING:
    from repo_store.entry import Entry, Path
    from repo_store.manifest import Manifest

_KINDS = ("file", "directory", "symlink", "fifo", "character device", "block device", "stream")
_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG)


@command(
    app,
    "ls",
    examples="""
    holdfast ls latest
    holdfast ls latest www/uploads -l
    holdfast ls 3f0c --json
    """,
)
def ls(
    call: Call,
    manifest: ManifestArgument,
    which: Which,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Only these, with all below them.")
    ] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="With mode, owner, size and time.")] = False,
) -> int:
    """List what is in a snapshot.

    Names are printed so that each is one line; what is printed can be given to restore, cat and ls.
    """
    from engine.reading_back import list_entries

    wanted = [parse_path(path) for path in paths or []]
    session = call.open()
    found = which.find(session, manifest, output=call.output)
    entries = list_entries(session, found, wanted)
    if call.output.json:
        _write_document(call.output, found, entries)
        return DONE
    owners = _Owners(found)
    for path, entry in entries:
        call.output.line(_long_line(path, entry, owners) if long else _shown(path))
    return DONE


def _shown(path: "Path") -> str:
    from engine.problems import printable_path

    return printable_path(path)


class _Owners:
    """The names that ids had on the host."""

    def __init__(self, manifest: "Manifest") -> None:
        from engine.problems import printable

        kinds = (manifest.owners.get(kind, ()) for kind in ("users", "groups"))
        self.users, self.groups = ({number: printable(name) for number, name in kind} for kind in kinds)


def _long_line(path: "Path", entry: "Entry", owners: _Owners) -> str:
    from engine.problems import printable

    extra = entry.extra or {}
    user = owners.users.get(entry.uid, str(entry.uid))
    group = owners.groups.get(entry.gid, str(entry.gid))
    target = f" -> {printable(extra['target'])}" if "target" in extra else ""
    return (
        f"{stat.filemode(_TYPES[entry.kind] | entry.mode)} {user:<8} {group:<8} {entry.size:>12} "
        f"{local_time(entry.mtime_ns)} {_shown(path)}{target}"
    )


def _write_document(output: Output, manifest: "Manifest", entries: Iterable[tuple["Path", "Entry"]]) -> None:
    """Write one document while the entries come in: there may be millions. An error on the way ends it as "error"."""
    owners = _Owners(manifest)
    write = output.write
    started = False

    def start() -> None:
        nonlocal started
        if not started:
            write(f'{{"manifest": "{manifest.id.hex()}", "entries": [')
            started = output.answered = True

    separator = "\n"
    try:
        for path, entry in entries:
            start()
            write(separator + to_json(_entry_document(path, entry, owners)))
            separator = ",\n"
    except HoldfastError as error:
        if started:
            write(f'\n], "error": {to_json(str(error))}}}\n')
        raise
    start()
    write("\n]}\n")


def _entry_document(path: "Path", entry: "Entry", owners: _Owners) -> dict[str, Any]:
    from engine.problems import printable
    from engine.selection import rfc3339

    document: dict[str, Any] = {
        "path": _shown(path),
        "kind": _KINDS[entry.kind],
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": owners.users.get(entry.uid),
        "group": owners.groups.get(entry.gid),
        "mtime": rfc3339(entry.mtime_ns),
    }
    if entry.extra:
        if "target" in entry.extra:
            document["target"] = printable(entry.extra["target"])
        if entry.extra.get("unstable"):
            document["changed_while_reading"] = True
    return document
