"""holdfast restore --in-place, or --to DIR --overwrite: over what is there."""

import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.call import Call
from cli.output import count, duration, size
from cli.progress import watched
from cli.restore import Over, OverwriteChoice, report_restore
from cli.settings import KeyForm
from engine.existing_directories import Tops, tops_below, tops_in_place
from engine.overwrite import Change, Overwrite, OverwriteOptions, OverwriteResult
from engine.overwriting import overwrite_tree
from engine.problems import printable, printable_path
from engine.target import TargetOptions
from repo_store.entry import Path
from repo_store.errors import Refused
from repo_store.manifest import Manifest

if TYPE_CHECKING:
    from engine.session import Session

LISTED_MAX = 100_000
"""Changes listed in a JSON document; "counts" has the number of all."""


def restore_over(
    call: Call,
    session: "Session",
    manifest: Manifest,
    paths: Sequence[Path],
    target: TargetOptions,
    to: str | None,
    over: Over,
    started: float,
) -> int:
    """Restore and report; return the exit code. Raises Refused for a manifest of another host in place."""
    listed: list[dict[str, str]] = []

    def on_change(change: Change, path: Path) -> None:
        if over.dry_run and call.output.json:
            if len(listed) < LISTED_MAX:
                listed.append({"action": change.value, "path": printable_path(path)})
        elif over.dry_run:
            call.output.line(f"{change.value:8}  {printable_path(path)}")

    options = OverwriteOptions(
        overwrite=Overwrite((over.overwrite or OverwriteChoice.CHANGED).value),
        delete=over.delete,
        dry_run=over.dry_run,
        target=target,
        protected=_protected(call),
    )
    tops = _tops(manifest, to)
    with watched(call.output, "restore") as progress:
        result = overwrite_tree(
            session, manifest, tops, paths=paths, options=options, progress=progress, on_change=on_change
        )
    document: dict[str, object] = {
        "to": None if to is None else printable(os.path.abspath(os.fsencode(to))),
        "dry_run": over.dry_run,
        "restored": result.files,
        "unchanged": result.unchanged,
        "deleted": result.deleted,
        "skipped": result.skipped,
        "counts": {change.value: result.changes.get(change, 0) for change in Change},
    }
    if over.dry_run:
        document["changes"] = listed
    return report_restore(call, result, document, _text(result, to, over.dry_run, time.monotonic() - started))


def _text(result: OverwriteResult, to: str | None, dry_run: bool, seconds: float) -> str:
    place = "in place" if to is None else f"to {printable(os.fsencode(to))}"
    done = "would restore" if dry_run else "restored"
    return (
        f"{done} manifest {result.manifest.id.hex()[:12]} {place}: {count(result.files, 'file')} written, "
        f"{size(result.bytes)}, {result.unchanged} unchanged, {result.deleted} deleted, {result.skipped} skipped, "
        f"in {duration(seconds)}"
    )


def _tops(manifest: Manifest, to: str | None) -> Tops:
    roots = dict(manifest.roots)
    if to is not None:
        return tops_below(os.fsencode(to))
    if not roots:
        raise Refused(
            f"manifest {manifest.id.hex()[:12]} is of a {manifest.source} stream, which has no place of its own",
            hint="use --to DIR, or `holdfast cat`",
        )
    if manifest.host != socket.gethostname():
        raise Refused(
            f"manifest {manifest.id.hex()[:12]} is of host {manifest.host}, and this is {socket.gethostname()}",
            hint="to restore it over this host's files all the same, use --to DIR --overwrite changed",
        )
    return tops_in_place(roots)


def _protected(call: Call) -> list[str]:
    """Return what is never touched, even where it lies in what is restored: without it nothing can be restored."""
    settings = call.settings
    known = [settings.cache_dir, settings.state_dir]
    if "://" not in settings.location:
        known.append(settings.location)
    if settings.key is not None and settings.key.form in (KeyForm.KEY_FILE, KeyForm.PASSPHRASE_FILE):
        known.append(settings.key.value)
    return known
