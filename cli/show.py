"""holdfast show: all that is known of one manifest."""

import shlex
from typing import TYPE_CHECKING, Any

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.manifest_document import manifest_document
from cli.options import ManifestArgument, Which, command
from cli.output import count, duration, local_time, size

if TYPE_CHECKING:
    from repo_store.manifest import Manifest


@command(
    app,
    "show",
    examples="""
    holdfast show latest
    holdfast show 3f0c --json
    """,
)
def show(call: Call, manifest: ManifestArgument, which: Which) -> int:
    """Show one snapshot: when, of what, with which options, and what could not be read."""
    session = call.open()
    found = which.find(session, manifest, output=call.output)
    forks = [
        other.id.hex()
        for other in session.read_manifests().live
        if other.id != found.id
        and (other.series, other.sequence, other.previous) == (found.series, found.sequence, found.previous)
    ]
    line = session.ring.roster.get(found.signer or b"")
    document = _document(found, forks) | {"signed_by": None if line is None else line.slot}
    call.output.document(document)
    for name, value in _lines(found, document):
        call.output.line(f"{name:<10}  {value}")
    return DONE


def _document(manifest: "Manifest", forks: list[str]) -> dict[str, Any]:
    from engine.problems import printable

    return manifest_document(manifest) | {
        "previous": None if manifest.previous is None else manifest.previous[0].hex(),
        "forks": forks,
        "roots": [{"name": printable(name), "path": printable(path)} for name, path in manifest.roots],
        "command": None if manifest.command is None else list(manifest.command),
        "exit_status": manifest.exit_status,
        "problems": [{"path": path, "message": message} for path, message in manifest.problems],
        "parameters": dict(manifest.parameters),
        "statistics": dict(manifest.statistics),
        "tools": dict(manifest.tools),
    }


def _lines(manifest: "Manifest", document: dict[str, Any]) -> list[tuple[str, str]]:
    statistics = manifest.statistics
    lines = [
        ("manifest", manifest.id.hex()),
        ("status", str(manifest.status)),
        ("series", f"{manifest.series}, number {manifest.sequence}"),
        ("source", f"{manifest.source} on {manifest.host}"),
    ]
    lines += [("root", f"{root['name']} from {root['path']}") for root in document["roots"]]
    if manifest.command is not None:
        lines.append(("command", f"{shlex.join(manifest.command)} (exit status {manifest.exit_status})"))
    lines += [
        ("time", f"{local_time(manifest.end)}, took {duration((manifest.end - manifest.start) / 1e9)}"),
        ("content", f"{count(statistics.get('files', 0), 'file')}, {size(statistics.get('bytes', 0))}"),
        (
            "added",
            f"{size(statistics.get('new_bytes', 0))} new, {size(statistics.get('stored_bytes', 0))} stored",
        ),
    ]
    if document["signed_by"]:
        lines.append(("signed by", f"slot {document['signed_by']}"))
    if manifest.tags:
        lines.append(("tags", ", ".join(manifest.tags)))
    if manifest.hold_until is not None:
        lines.append(("hold until", local_time(manifest.hold_until)))
    if manifest.previous is not None:
        lines.append(("previous", manifest.previous[0].hex()))
    lines += [("fork", f"{other} follows the same manifest") for other in document["forks"]]
    lines += [("problem", f"{path}: {message}") for path, message in manifest.problems]
    return lines
