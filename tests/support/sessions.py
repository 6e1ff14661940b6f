"""Sessions over a simulated disk, and the content of manifests as plain dictionaries, for tests of the engine."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.repositories import make_repository
from support.simulated_storage import Faults, SimulatedDisk, SimulatedStorage

from engine.reading_back import list_entries, read_content
from engine.session import Places, Session, session_of
from repo_store.entry import EntryKind
from repo_store.key_file import KeyFile
from repo_store.manifest import Manifest
from repo_store.repository import open_repository

_numbers = itertools.count()


@dataclass
class World:
    """A disk with a repository on it, the key, and a place for caches: each session gets a fresh one."""

    disk: SimulatedDisk
    key_file: KeyFile
    folder: Path

    def session(
        self, disk: SimulatedDisk | None = None, *, faults: Faults | None = None, operation: str = "write"
    ) -> Session:
        """Open the repository on `disk` (this world's, if not given) as a host that has never seen it."""
        storage = SimulatedStorage(disk or self.disk, faults)
        places = self.places()
        repository = open_repository(storage, self.key_file, str(places.state_dir), operation=operation)
        return session_of(repository, places, operation=operation)

    def places(self) -> Places:
        """Return new, empty places for cache and state."""
        folder = self.folder / f"host-{next(_numbers)}"
        return Places(folder / "cache", folder / "state")


def make_world(folder: Path) -> World:
    """Return a world with an empty repository."""
    made = make_repository()
    return World(made.storage.disk, made.key_file, folder)


def storage_of(session: Session) -> SimulatedStorage:
    """Return the storage of a session as what it is in these tests."""
    storage = session.storage
    assert isinstance(storage, SimulatedStorage)
    return storage


def content_of(session: Session, manifest: Manifest) -> dict[str, bytes]:
    """Return path → bytes of every file and stream of a manifest. Raises if any byte is lost."""
    return {
        b"/".join(path).decode(): b"".join(read_content(session, manifest, path))
        for path, entry in list_entries(session, manifest)
        if entry.kind in (EntryKind.FILE, EntryKind.STREAM)
    }


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files (path below `folder` → bytes) and return `folder`."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tree_content(folder: Path) -> dict[str, bytes]:
    """Return what `content_of` gives for a snapshot of `folder`."""
    return {
        f"{folder.name}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
