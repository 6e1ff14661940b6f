"""Deleting: what is there and not in the manifest, found by walking the one in step with the other.

Both come in the order of raw names, so neither has to be held: the tree of the manifest is read once more by a cursor, and
memory does not grow with the number of files. Only directories that the manifest has as such are looked into: where
`never` has left a directory in the place of a file, all that is in it stays.
"""

import stat
from collections.abc import Iterator, Sequence

from engine.existing_directories import ExistingDirectories
from engine.problems import OnProblem, Problem, reason
from engine.progress import Progress
from engine.removal import Removal
from engine.session import Session
from engine.sources.sorted_names import sorted_names
from engine.target_directories import Unrestorable
from repo_store.entry import EntryKind, Path
from repo_store.manifest import Manifest
from repo_store.tree_reader import Cursor


def delete_extras(
    session: Session,
    manifest: Manifest,
    paths: Sequence[Path],
    directories: ExistingDirectories,
    removal: Removal,
    progress: Progress,
) -> None:
    """Remove what lies below `paths` (or all roots) and is not in the manifest. Raises ObjectDamaged, Interrupted.

    A damaged tree raises before anything behind the damage is looked at.
    """
    if manifest.root is None:
        return
    cursor = Cursor(session.reader.get_node, manifest.root)
    starts: Sequence[Path] = sorted(paths) if paths else [(name,) for name, _ in sorted(manifest.roots)]
    for start in starts:
        entry = cursor.advance(start)
        if entry is None or entry.kind != EntryKind.DIRECTORY or not _is_directory(directories, start):
            continue
        waiting: list[tuple[Path, Iterator[bytes]]] = [
            (start, _names(directories, start, removal.on_problem))
        ]
        while waiting:
            progress.check_stop()
            parent, names = waiting[-1]
            name = next(names, None)
            if name is None:
                waiting.pop()
                continue
            path = (*parent, name)
            entry = cursor.advance(path)
            if entry is None:
                removal.remove(directories.fd(parent), path, name)
            elif entry.kind == EntryKind.DIRECTORY and _is_directory(directories, path):
                waiting.append((path, _names(directories, path, removal.on_problem)))


def _is_directory(directories: ExistingDirectories, path: Path) -> bool:
    found = directories.status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _names(directories: ExistingDirectories, path: Path, on_problem: OnProblem) -> Iterator[bytes]:
    try:
        return sorted_names(directories.fd(path))
    except (OSError, Unrestorable) as error:
        on_problem(Problem(path, f"nothing below it is deleted: {reason(error)}"))
        return iter(())
