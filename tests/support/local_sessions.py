"""Sessions over a repository in a real directory, for tests that want a real disk beneath."""

from dataclasses import dataclass
from pathlib import Path

from engine.session import Places, Session, init_repository, open_session
from repo_store.key_file import KeyFile, NewKeyFile


@dataclass
class LocalWorld:
    """A repository in `location`, its key, and the places of one host."""

    location: Path
    key_file: KeyFile
    places: Places

    def session(self, operation: str = "write") -> Session:
        """Open it again, on the same host."""
        return open_session(
            str(self.location), lambda storage: self.key_file, self.places, operation=operation
        )


def make_local_world(folder: Path) -> LocalWorld:
    """Make a repository below `folder`."""
    saved: list[KeyFile] = []
    places = Places(folder / "cache", folder / "state")
    init_repository(str(folder / "repository"), NewKeyFile(saved.append), places, label="test")
    return LocalWorld(folder / "repository", saved[0], places)
