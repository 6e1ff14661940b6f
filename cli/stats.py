"""holdfast stats: what a repository holds and what it costs."""

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.options import command
from cli.output import count, size


@command(app, "stats", examples="holdfast stats\nholdfast stats --json")
def stats(call: Call) -> int:
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
            "objects": found.objects,
            "object_bytes": found.object_bytes,
        }
    )
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
    for folder, number in sorted(found.objects.items()):
        call.output.line(f"  {folder:<10}  {number:>8,}  {size(found.object_bytes[folder]):>10}")
    return DONE
