"""holdfast stats: what a repository holds and what it costs."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.options import command
from cli.output import count, size

if TYPE_CHECKING:
    from engine.stats import RepositoryStats


@command(app, "stats", examples="holdfast stats\nholdfast stats --requests\nholdfast stats --json")
def stats(
    call: Call,
    requests: Annotated[
        bool,
        typer.Option(
            "--requests", help="Also how many requests to S3 this call and the last snapshots made."
        ),
    ] = False,
) -> int:
    """Show how much is backed up and how much space it takes."""
    from engine.stats import repository_stats

    session = call.open()
    found = repository_stats(session)
    call.output.document(
        {
            "manifests": found.manifests,
            "series": found.series,
            "logical_bytes": found.logical_bytes,
            "stored_bytes": found.stored_bytes,
            "ratio": round(found.ratio, 3),
            "chunks": found.chunks,
            "frames": found.frames,
            "prunable_bytes": found.prunable_bytes,
            "objects": found.objects,
            "object_bytes": found.object_bytes,
            "requests": call.requests,
            "snapshot_requests": found.snapshot_requests,
        }
    )
    _print(call, found)
    if requests:
        _print_requests(call, found)
    return DONE


def _print(call: Call, found: "RepositoryStats") -> None:
    objects = sum(found.objects.values())
    for name, value in (
        (
            "backed up",
            f"{size(found.logical_bytes)} in {count(found.manifests, 'manifest')} of {found.series} series",
        ),
        ("stored", f"{size(found.stored_bytes)} in {count(objects, 'object')}"),
        ("ratio", f"{found.ratio:.1f} bytes can be restored for each byte stored"),
        ("chunks", f"{found.chunks:,} in {count(found.frames, 'frame')}"),
    ):
        call.output.line(f"{name:<10}  {value}")
    if found.prunable_bytes:
        call.output.line(f"prunable    {size(found.prunable_bytes)} that the next prune may free")
    for folder, number in sorted(found.objects.items()):
        call.output.line(f"  {folder:<10}  {number:>8,}  {size(found.object_bytes[folder]):>10}")


def _print_requests(call: Call, found: "RepositoryStats") -> None:
    if not call.requests:
        call.output.line("requests    none: a directory needs no server")
        return
    call.output.line(f"requests    {count(sum(call.requests.values()), 'request')} of this call")
    for kind, number in call.requests.items():
        call.output.line(f"  {kind:<26}{number:>8,}")
    if found.snapshot_requests:
        call.output.line("            of the last snapshot of each series")
    for series, number in found.snapshot_requests.items():
        call.output.line(f"  {series:<26}{number:>8,}")
