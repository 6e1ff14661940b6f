"""A session: one repository, opened with one key, ready to be read and written.

Everything a command needs to know where and with what it works: the storage, the opened keys, the index, the
reader. What can be rebuilt is kept below `cache_dir`; what this machine must remember of a repository (the
newest config it has seen) below `state_dir`.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from repo_store.chunk_reader import ChunkReader
from repo_store.config import DEDUP_ALL
from repo_store.config_chain import list_configs
from repo_store.errors import NoRepository, Refused, UsageError
from repo_store.generations import Generations, read_generations
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.limited_local_storage import LimitedLocalStorage
from repo_store.local_storage import LocalStorage
from repo_store.manifest_store import ManifestList, manifest_cache, read_manifests
from repo_store.note_store import NoteList, apply_notes, read_notes
from repo_store.os_errors import cache_failing
from repo_store.probe import require_safe
from repo_store.rate_limit import RateLimit
from repo_store.repository import Created, Repository, create_repository, open_repository
from repo_store.s3_options import SCHEME, S3Options
from repo_store.s3_storage import S3Storage
from repo_store.sealed_cache import SealedCache
from repo_store.slot import Credential, Secret
from repo_store.storage import Storage, requests_of


@dataclass(frozen=True)
class Places:
    """Where this machine keeps what belongs to a repository: a cache that may be deleted, and a state that should not."""

    cache_dir: Path
    state_dir: Path


@dataclass
class Session:
    """An open repository. `places` may be None for one that must leave no trace on this machine."""

    repository: Repository
    index: Index
    reader: ChunkReader
    cache_dir: Path
    warnings: list[str] = field(default_factory=list)
    generations: Generations | None = None
    """What `gc/` said just before the index was brought up to date, for the first writer of the session."""

    @property
    def storage(self) -> Storage:
        """The storage of the repository."""
        return self.repository.storage

    @property
    def ring(self) -> KeyRing:
        """The opened keys."""
        return self.repository.ring

    @property
    def requests(self) -> Counter[str]:
        """What was asked of the storage's server so far: kind of request → how often."""
        return requests_of(self.storage)

    @property
    def manifest_cache(self) -> SealedCache:
        """Where this machine keeps manifests as they were stored."""
        return manifest_cache(self.cache_dir)

    def read_manifests(self, *, notes: bool = True) -> ManifestList:
        """Return the live manifests as they are now, oldest first, with the tags and holds that `notes` gave them.

        A note that cannot be read stands among what is damaged. A snapshot needs none of them and leaves them out.
        """
        manifests = read_manifests(self.storage, self.ring, self.cache_dir)
        if not notes:
            return manifests
        return apply_notes(manifests, self.read_notes())

    def read_notes(self) -> NoteList:
        """Return the notes as they are now."""
        return read_notes(self.storage, self.ring, self.cache_dir)


def open_storage(location: str, options: S3Options | None = None) -> Storage:
    """Return the storage at `location`, a path or s3://bucket/prefix. Of the options only the limits count for a path.

    Raises NoRepository if there is no such directory, UsageError for another scheme.
    """
    if location.startswith(SCHEME):
        return S3Storage(location, options)
    path = _local_path(location)
    if options is None or not options.is_limited:
        return LocalStorage(path)
    upload, download = (
        RateLimit(options.upload_bytes_per_second),
        RateLimit(options.download_bytes_per_second),
    )
    return LimitedLocalStorage(path, upload=upload, download=download)


def open_session(
    location: str,
    credential: Callable[[Storage], Credential],
    places: Places,
    *,
    operation: str = "read",
    options: S3Options | None = None,
) -> Session:
    """Open the repository at `location` for `operation` ("read", "write", "verify", "key" …).

    `credential` is asked once it is known that there is a repository: a passphrase is prompted for only then.
    """
    storage = open_storage(location, options)
    return session_of(open_at(storage, credential, places, operation=operation), places, operation=operation)


def open_at(
    storage: Storage, credential: Callable[[Storage], Credential], places: Places, *, operation: str
) -> Repository:
    """Open the keys of the repository in `storage`, nothing more. Raises NoRepository, WrongKey, Refused."""
    configs = list_configs(storage)
    if not configs:
        raise NoRepository(f"{storage.location}: no repository there", hint="`holdfast init` makes one")
    state_dir = str(places.state_dir)
    return open_repository(storage, credential(storage), state_dir, operation=operation, configs=configs)


def session_of(repository: Repository, places: Places, *, operation: str = "read") -> Session:
    """Return a session of an open repository, its index up to date.

    Whose rows a writer builds on is a rule of the repository; a reader computes every id again and takes all.
    """
    cache_dir = places.cache_dir / repository.ring.repository.hex()[:32]
    with cache_failing("make", str(cache_dir)):
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_only = operation == "write" and repository.config.dedup != DEDUP_ALL
    trusted = {repository.ring.signer} if own_only else None
    # Before the tables, as a writer must: what is condemned later than this is looked for again at the commit.
    generations = read_generations(repository.storage, repository.ring) if operation == "write" else None
    index = Index.open(repository.storage, repository.ring, str(cache_dir / "index"), trusted=trusted)
    reader = ChunkReader(repository.storage, repository.ring, index)
    warnings = [*repository.warnings, *(str(problem) for problem in index.problems)]
    return Session(repository, index, reader, cache_dir, warnings, generations)


def init_repository(
    location: str, secret: Secret, places: Places, *, label: str, options: S3Options | None = None
) -> Created:
    """Make a repository at `location`, after probing what the storage really does.

    Raises Refused if there is one already, or if the storage cannot keep one safe.
    """
    storage = _create_storage(location, options)
    if next(iter(storage.list("config/")), None) is not None:
        raise Refused(f"{location}: a repository exists there already")
    require_safe(storage, lambda: open_storage(location, options))
    return create_repository(
        storage, secret=secret, label=label, now_ns=time.time_ns(), state_dir=str(places.state_dir)
    )


def _create_storage(location: str, options: S3Options | None) -> Storage:
    """Return the storage at `location`; a directory is made. A bucket is not: whose it is and who may do what in it
    is to be thought about first (docs/s3.md)."""
    if location.startswith(SCHEME):
        return open_storage(location, options)
    created = LocalStorage.create(_local_path(location))
    return open_storage(location, options) if options is not None and options.is_limited else created


def _local_path(location: str) -> str:
    scheme, separator, _ = location.partition("://")
    if separator:
        raise UsageError(
            f"{location}: storage of the kind {scheme!r} is not known to this version",
            hint="give the path of a directory, or s3://bucket/prefix",
        )
    if not location:
        raise UsageError("no repository is given", hint="use --repository or HOLDFAST_REPOSITORY")
    return location
