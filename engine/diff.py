"""Diff: what changed between two manifests.

An entry has changed if a restore of the two would differ: kind, content, mode, owner, modification time and what
`extra` holds. What only serves the next snapshot (ctime, inode, the number of a group of hard links) does not count.
Content is compared by the ids of its chunks: no content is read. So where two snapshots cut chunks of different sizes the
same bytes count as changed. The cost is that of the tree nodes that differ (repo_store/tree_pairs.py).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.reading_back import not_there
from engine.session import Session
from repo_store.entry import Entry, Path
from repo_store.manifest import Manifest
from repo_store.tree_pairs import differing
from repo_store.tree_reader import lookup


class ChangeKind(StrEnum):
    """What became of a path; of several the first in this list."""

    ADDED = "added"
    REMOVED = "removed"
    TYPE = "type"
    """A file became a directory, a link, or the like."""
    CONTENT = "content"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs. `fields` names what does: "content", "size", "mode", "uid", "xattrs" …"""

    path: Path
    kind: ChangeKind
    before: Entry | None
    after: Entry | None
    fields: tuple[str, ...] = ()


@dataclass
class DiffTotals:
    """How many paths changed in which way, and the bytes of what was added, removed, and of changed content then and now."""

    paths: Counter[ChangeKind] = field(default_factory=Counter)
    added_bytes: int = 0
    removed_bytes: int = 0
    changed_bytes_before: int = 0
    changed_bytes_after: int = 0

    def add(self, change: Change) -> None:
        """Count a change."""
        before = 0 if change.before is None else change.before.size
        after = 0 if change.after is None else change.after.size
        self.paths[change.kind] += 1
        if change.kind == ChangeKind.ADDED:
            self.added_bytes += after
        elif change.kind == ChangeKind.REMOVED:
            self.removed_bytes += before
        elif change.kind != ChangeKind.METADATA:
            self.changed_bytes_before += before
            self.changed_bytes_after += after


def diff_manifests(
    session: Session, before: Manifest, after: Manifest, paths: Sequence[Path] = ()
) -> Iterator[Change]:
    """Yield what changed from `before` to `after`, in the order of paths: all of it, or at and below `paths`.

    Raises UsageError for a path that neither has, ObjectDamaged or ObjectMissing where a tree cannot be read.
    """
    get = session.reader.get_node
    for path in paths:
        if not any(each.root is not None and lookup(get, each.root, path) for each in (before, after)):
            raise not_there(after, path)
    for path in _apart(paths) or [()]:
        for each, one, other in differing(get, before.root, after.root, path):
            change = _change(each, one, other)
            if change is not None:
                yield change


def _apart(paths: Sequence[Path]) -> list[Path]:
    """Return the paths in order, without those below another: nothing is to be named twice."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not kept or path[: len(kept[-1])] != kept[-1]:
            kept.append(path)
    return kept


def _change(path: Path, before: Entry | None, after: Entry | None) -> Change | None:
    if before is None:
        return Change(path, ChangeKind.ADDED, None, after)
    if after is None:
        return Change(path, ChangeKind.REMOVED, before, None)
    fields = tuple(changed_fields(before, after))
    if not fields:
        return None
    kind = ChangeKind.METADATA
    if "kind" in fields:
        kind = ChangeKind.TYPE
    elif "content" in fields or "target" in fields:
        kind = ChangeKind.CONTENT
    return Change(path, kind, before, after, fields)


def changed_fields(before: Entry, after: Entry) -> Iterator[str]:
    """Yield the names of what a restore of the two would give back differently."""
    if before.kind != after.kind:
        yield "kind"
    if before.content != after.content:
        yield "content"
    for name in ("size", "mode", "uid", "gid"):
        if getattr(before, name) != getattr(after, name):
            yield name
    if before.mtime_ns != after.mtime_ns:
        yield "mtime"
    one, other = _restored(before.extra), _restored(after.extra)
    yield from sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _restored(extra: dict[str, Any] | None) -> dict[str, Any]:
    """Return what of `extra` a restore gives back; of a hard link, that it is one."""
    kept = {name: value for name, value in (extra or {}).items() if name != "unstable"}
    if "link" in kept:
        kept["link"] = True
    return kept
