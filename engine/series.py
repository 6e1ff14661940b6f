"""Series: is each line of manifests as its writers left it?

Every manifest names the one it follows, by id and by hash. A storage, or a thief of a key, that removes manifests
leaves names that lead nowhere; who replaces one leaves a hash that does not fit. A prune removes manifests too, after
somebody asked for it, so a missing one is worth a look and no proof of harm.
"""

from collections.abc import Collection, Sequence

from repo_store.manifest import Manifest


def series_notices(live: Sequence[Manifest], forgotten: Collection[bytes]) -> list[str]:
    """Return a line for every manifest that one of `live` follows and that is not there, or is another."""
    by_id = {manifest.id: manifest for manifest in live}
    notices = []
    for manifest in live:
        if manifest.previous is None or manifest.previous[0] in forgotten:
            continue
        previous_id, previous_hash = manifest.previous
        before = by_id.get(previous_id)
        told = f"{manifest.series}: manifest {manifest.id.hex()[:12]} follows {previous_id.hex()[:12]}"
        if before is None:
            notices.append(f"{told}, which is not there")
        elif before.hash != previous_hash:
            notices.append(f"{told}, which is not the one it followed then")
    return notices
