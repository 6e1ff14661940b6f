"""Statistics: what a repository holds and what it costs, from listings, manifests and the index."""

from dataclasses import dataclass, field

from engine.session import Session
from repo_store.generations import read_generations
from repo_store.pack import pack_name

_FOLDERS = (
    "packs",
    "tables",
    "manifests",
    "pending",
    "forgotten",
    "notes",
    "gc",
    "keys",
    "config",
    "wal",
    "ledger",
)


@dataclass
class RepositoryStats:
    """Counts of objects and bytes; `logical_bytes` is what all live manifests would restore together."""

    manifests: int = 0
    series: int = 0
    logical_bytes: int = 0
    stored_bytes: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    object_bytes: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    frames: int = 0
    prunable_bytes: int = 0
    """Packs that the last prune found unneeded and the next one may take, at most."""
    snapshot_requests: dict[str, int] = field(default_factory=dict)
    """Series → the requests of its last snapshot, where that was made through a server."""

    @property
    def ratio(self) -> float:
        """How many bytes can be restored for each byte stored; 0 for an empty repository."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 0.0


def repository_stats(session: Session) -> RepositoryStats:
    """Return the statistics of a repository. Requests: a listing of everything, and manifests not yet cached."""
    stats = RepositoryStats()
    unneeded = {pack_name(pack) for pack in read_generations(session.storage, session.ring).unreferenced}
    for info in session.storage.list(""):
        folder = info.name.partition("/")[0]
        folder = folder if folder in _FOLDERS else "other"
        stats.objects[folder] = stats.objects.get(folder, 0) + 1
        stats.object_bytes[folder] = stats.object_bytes.get(folder, 0) + info.size
        stats.stored_bytes += info.size
        stats.prunable_bytes += info.size if info.name in unneeded else 0
    manifests = session.read_manifests()
    stats.manifests = len(manifests.live)
    stats.series = len({manifest.series for manifest in manifests.live})
    stats.logical_bytes = sum(manifest.statistics.get("bytes", 0) for manifest in manifests.live)
    for manifest in manifests.live:  # the oldest first
        if "requests" in manifest.statistics:
            stats.snapshot_requests[manifest.series] = manifest.statistics["requests"]
    stats.frames = sum(1 for _ in session.index.locations())
    stats.chunks = session.index.count() - stats.frames
    return stats
