"""holdfast manifests: list what has been backed up."""

from typing import TYPE_CHECKING

from cli.app import app
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE
from cli.manifest_document import manifest_document
from cli.options import Filters, command
from cli.output import local_time, size, table

if TYPE_CHECKING:
    from repo_store.manifest import Manifest

_HEADER = ("MANIFEST", "END", "FILES", "SIZE", "STATUS", "SERIES", "TAGS")


@command(
    app,
    "manifests",
    examples="""
    holdfast manifests
    holdfast manifests --host db1 --source command
    holdfast manifests --json | jq -r '.[-1].manifest'
    """,
)
def manifests(call: Call, filters: Filters) -> int:
    """List the snapshots in the repository, oldest first.

    The status is `complete`, `incomplete` (some files could not be read) or `partial` (a checkpoint of a run that was
    interrupted, or went on).
    """
    session = call.open()
    selection = filters.selection()
    found = session.read_manifests()
    chosen = [manifest for manifest in found.live if selection.matches(manifest)]
    for name, reason in sorted(found.damaged.items()):
        call.output.warn(f"{name}: damaged: {reason}")
    call.output.document([manifest_document(manifest) for manifest in chosen])
    if chosen:
        call.output.lines(table(_HEADER, map(_row, chosen), right=("FILES", "SIZE")))
    return DAMAGED if found.damaged else DONE


def _row(manifest: "Manifest") -> tuple[str, ...]:
    return (
        manifest.id.hex()[:12],
        local_time(manifest.end),
        f"{manifest.statistics.get('files', 0):,}",
        size(manifest.statistics.get("bytes", 0)),
        str(manifest.status),
        manifest.series,
        ", ".join(manifest.tags),
    )
