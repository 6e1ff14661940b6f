"""The git repositories of a manifest, one after the other, each with all of its entries; the tree is read once."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.git_tree import RepositoryTree, is_repository
from repo_store.entry import Path
from repo_store.errors import ObjectDamaged
from repo_store.tree_node import Get, TreeRoot
from repo_store.tree_reader import LostNode, subtree


@dataclass(frozen=True)
class Stored:
    """A repository as a manifest has it, and what was lost of the tree among or right behind its entries."""

    name: Path
    tree: RepositoryTree
    lost: tuple[LostNode, ...] = ()


def stored_repositories(
    get: Get, root: TreeRoot | None, below: Path = (), lost: list[LostNode] | None = None
) -> Iterator[Stored]:
    """Yield the repositories at and below a path, in order. What is lost of the tree is entered into `lost`."""
    every = [] if lost is None else lost
    counted = len(every)
    entries = () if root is None else subtree(get, root, below, on_damage=every.append)
    current: Stored | None = None
    for path, entry in entries:
        if current is not None and path[: len(current.name)] == current.name:
            current.tree.entries[path[len(current.name) :]] = entry
            continue
        if current is not None:
            yield Stored(current.name, current.tree, tuple(every[counted:]))
        counted = len(every)
        current = Stored(path, RepositoryTree(entry, {})) if is_repository(entry) else None
    if current is not None:
        yield Stored(current.name, current.tree, tuple(every[counted:]))


class PreviousRepositories:
    """The repositories of the previous snapshot, looked at in step with those of this one."""

    def __init__(self, get: Get, root: TreeRoot | None) -> None:
        self._stored = stored_repositories(get, root)
        self._next = next(self._stored, None)

    def advance(self, name: Path) -> RepositoryTree | None:
        """Return the repository `name`, None if there is none or not all of it can be read. Names must not go back."""
        while self._next is not None and self._next.name < name:
            self._next = next(self._stored, None)
        found = self._next
        if found is None or found.name != name or found.lost:
            return None
        try:
            found.tree.refs()
        except ObjectDamaged:
            return None
        return found.tree
