"""A manifest as --json gives it, everywhere with the same keys."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repo_store.manifest import Manifest


def manifest_document(manifest: "Manifest") -> dict[str, Any]:
    """Return what scripts want to know of a manifest. Times are RFC 3339 in UTC, sizes bytes."""
    from engine.selection import rfc3339

    statistics = manifest.statistics
    return {
        "manifest": manifest.id.hex(),
        "status": str(manifest.status),
        "start": rfc3339(manifest.start),
        "end": rfc3339(manifest.end),
        "source": manifest.source,
        "host": manifest.host,
        "series": manifest.series,
        "sequence": manifest.sequence,
        "tags": list(manifest.tags),
        "hold_until": None if manifest.hold_until is None else rfc3339(manifest.hold_until),
        "files": statistics.get("files", 0),
        "bytes": statistics.get("bytes", 0),
        "new_bytes": statistics.get("new_bytes", 0),
        "stored_bytes": statistics.get("stored_bytes", 0),
    }
