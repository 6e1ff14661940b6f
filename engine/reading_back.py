"""Reading back: what is in a manifest, and the bytes of one file or stream, without restoring anything."""

from collections.abc import Iterator, Sequence

from engine.problems import printable_path
from engine.session import Session
from repo_store.content import content_pairs
from repo_store.entry import HOLE, Entry, EntryKind, Path
from repo_store.errors import HoldfastError, ObjectDamaged, UsageError
from repo_store.manifest import Manifest
from repo_store.tree_reader import lookup, subtree

_TOGETHER = 256
_ZEROS = bytes(1024 * 1024)


def list_entries(
    session: Session, manifest: Manifest, paths: Sequence[Path] = ()
) -> Iterator[tuple[Path, Entry]]:
    """Yield the entries of a manifest in order, all of them or those at and below `paths`.

    Raises UsageError if a path is not there, ObjectDamaged where the tree is damaged.
    """
    if manifest.root is None:
        if paths:
            raise not_there(manifest, paths[0])
        return
    get = session.reader.get_node
    for path in paths or ((),):
        found = False
        for item in subtree(get, manifest.root, path):
            found = True
            yield item
        if not found and path:
            raise not_there(manifest, path)


def find_entry(session: Session, manifest: Manifest, path: Path) -> Entry:
    """Return the entry at `path`. Raises UsageError if there is none."""
    entry = None if manifest.root is None else lookup(session.reader.get_node, manifest.root, path)
    if entry is None:
        raise not_there(manifest, path)
    return entry


def read_content(session: Session, manifest: Manifest, path: Path) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the file or stream at `path`, in order.

    Raises UsageError if it is not a file, ObjectDamaged at the first byte that is lost.
    """
    entry = find_entry(session, manifest, path)
    if entry.kind not in (EntryKind.FILE, EntryKind.STREAM):
        raise UsageError(f"{printable_path(path)}: not a file, so it has no bytes")
    gathered: list[tuple[bytes, int]] = []
    for pair in content_pairs(session.reader.get_node, entry):
        gathered.append(pair)
        if len(gathered) == _TOGETHER:
            yield from _read_in_order(session, gathered, path)
            gathered = []
    yield from _read_in_order(session, gathered, path)


def _read_in_order(
    session: Session, pairs: Sequence[tuple[bytes, int]], path: Path
) -> Iterator[bytes | memoryview]:
    wanted = list(dict.fromkeys(chunk_id for chunk_id, _ in pairs if chunk_id != HOLE))
    found = dict(session.reader.read_chunks(wanted))
    for chunk_id, length in pairs:
        if chunk_id == HOLE:
            yield from _zeros(length)
            continue
        data = found[chunk_id]
        if isinstance(data, HoldfastError):
            raise data
        if len(data) != length:
            raise ObjectDamaged(printable_path(path), f"a chunk has {len(data)} bytes where {length} belong")
        yield data


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield _ZEROS[: min(length, len(_ZEROS))]
        length -= len(_ZEROS)


def not_there(manifest: Manifest, path: Path) -> UsageError:
    """Return the error for a path that a manifest has not got."""
    return UsageError(
        f"{printable_path(path)}: not in manifest {manifest.id.hex()[:12]}",
        hint="`holdfast ls` prints what is",
    )
