"""Find: entries by name, path, kind, size and time, in one manifest or in all.

All trees are read as one (repo_store/tree_union.py): what many manifests share is read once, and what is held in
memory does not grow with the number of matches. engine/name_patterns.py says what patterns mean.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.name_patterns import PathPattern, name_pattern, shown_name
from engine.session import Session
from repo_store.entry import Entry, EntryKind, Path
from repo_store.manifest import Manifest
from repo_store.tree_union import LostNodes, union


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What an entry must have: one of the names or paths, and all of the rest.

    Sizes in bytes, times in nanoseconds, all bounds exclusive. None: anything.
    """

    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    ignore_case: bool = False
    kinds: frozenset[EntryKind] | None = None
    larger: int | None = None
    smaller: int | None = None
    newer_ns: int | None = None
    older_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """One version of what stands at a path, and the manifests that have it, newest first."""

    path: Path
    entry: Entry
    manifests: tuple[Manifest, ...]


OnLost = Callable[[LostNodes, Sequence[Manifest]], None]
"""Takes a tree node that could not be read, and the manifests that it belongs to."""


def find_entries(
    session: Session, manifests: Sequence[Manifest], criteria: Criteria, on_lost: OnLost
) -> Iterator[Match]:
    """Yield what matches in any of `manifests`, which are given oldest first: by path, newest version first.

    A damaged tree costs what it lost, and goes to `on_lost`. Raises UsageError for a pattern that cannot be one.
    """
    newest_first = list(reversed(manifests))

    def chosen(trees: int) -> tuple[Manifest, ...]:
        return tuple(manifest for at, manifest in enumerate(newest_first) if trees >> at & 1)

    roots = [manifest.root for manifest in newest_first]
    found = union(
        session.reader.get_node,
        roots,
        matcher(criteria),
        lambda lost: on_lost(lost, chosen(lost.trees)),
    )
    for path, versions in found:
        for entry, trees in versions:
            yield Match(path, entry, chosen(trees))


def matcher(criteria: Criteria) -> Callable[[Path, Entry], bool]:
    """Return the judge of an entry in the directory `parent`. Raises UsageError."""
    names = [name_pattern(text, ignore_case=criteria.ignore_case) for text in criteria.names]
    paths = [PathPattern(text, ignore_case=criteria.ignore_case) for text in criteria.paths]

    def is_wanted(parent: Path, entry: Entry) -> bool:
        if not _fits(criteria, entry):
            return False
        name = shown_name(entry.name)
        return any(pattern.match(name) for pattern in names) or any(
            pattern.matches(parent, name) for pattern in paths
        )

    return is_wanted


def _fits(criteria: Criteria, entry: Entry) -> bool:
    """Say whether the entry has what is asked for besides its name."""
    return (
        (criteria.kinds is None or entry.kind in criteria.kinds)
        and (criteria.larger is None or entry.size > criteria.larger)
        and (criteria.smaller is None or entry.size < criteria.smaller)
        and (criteria.newer_ns is None or entry.mtime_ns > criteria.newer_ns)
        and (criteria.older_ns is None or entry.mtime_ns < criteria.older_ns)
    )
