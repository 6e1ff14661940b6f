"""One snapshot being made: what every source shares.

A run begins by looking at garbage collection, tables and the series' previous manifest, in this order; the
source then hands in entries and content; the run ends with one committed manifest, or with none. Nothing counts
as saved before `finish` returns. Checkpoints commit what there is as a manifest of status `partial`, so that a
long first upload is never lost to a kill nor starved by a prune (docs/invariants.md).
"""

import os
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from chunker import Algorithm, Chunker, Parameters
from engine.problems import Problem, ProblemKind, printable_path
from engine.progress import Progress
from engine.session import Session
from repo_store.commit import commit_manifest
from repo_store.dependencies import Rescuer
from repo_store.entry import Path
from repo_store.manifest import PROBLEMS_MAX, Manifest
from repo_store.repository_writer import RepositoryWriter
from repo_store.roles import OWNER
from repo_store.tree_builder import TreeBuilder
from repo_store.tree_node import TreeRoot

CHECKPOINT_SECONDS = 15 * 60
CHECKPOINT_BYTES = 8 * 1024**3
_ENDED, _UNENDED = ("complete", "incomplete"), ("partial",)
_COMMIT_REQUESTS = 7
"""What a commit takes: a pending that is put, dated and deleted, the config listed and read, gc/ listed once
again, the manifest."""
FILES_PARAMETERS = Parameters(Algorithm.PHTE64, 32 * 1024, 64 * 1024, 256 * 1024)


@dataclass(frozen=True, kw_only=True)
class SnapshotOptions:
    """What the user may choose for any source. Times in seconds, sizes in bytes."""

    series: str | None = None
    host: str | None = None
    tags: tuple[str, ...] = ()
    hold_until: int | None = None
    parameters: Parameters = FILES_PARAMETERS
    compression_level: int = 3
    full_read: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    checkpoint_bytes: int = CHECKPOINT_BYTES


@dataclass(frozen=True)
class SnapshotResult:
    """What a snapshot came to: the manifest as committed, and every problem met."""

    manifest: Manifest
    problems: list[Problem] = field(default_factory=list)


class SnapshotRun:
    """One run. Use as a context manager: leaving it without `finish` stores no manifest."""

    def __init__(
        self, session: Session, *, source: str, name: str, options: SnapshotOptions, progress: Progress
    ) -> None:
        self.session = session
        self.options = options
        self.progress = progress
        self.problems: list[Problem] = []
        self.start_ns = time.time_ns()
        self.host = options.host or socket.gethostname()
        self.source = source
        self.series = options.series or f"{source}:{self.host}:{name}"
        self.writer = RepositoryWriter(
            session.storage,
            session.ring,
            session.index,
            session.reader.get_node,
            level=options.compression_level,
            generations=session.generations,
            cache_dir=session.cache_dir,
        )
        for name, reason in self.writer.unread_ledger.items():
            self.report(
                Problem((), f"{name}: {reason}: what it says of damage is not known", ProblemKind.NOTE)
            )
        session.generations = None  # a second run of the session looks anew
        try:
            manifests = session.read_manifests(notes=False)
            self.previous = manifests.newest(self.series, statuses=_ENDED + _UNENDED)
            self.base = manifests.newest(
                self.series, statuses=_ENDED, signed_by=self._is_trusted
            ) or manifests.newest(self.series, statuses=_UNENDED, signed_by=self._is_trusted)
            session.reader.walks = self.base is not None
            self.chunker = Chunker(options.parameters, session.ring.chunker_key)
            self.tree = TreeBuilder(session.ring.tree_cut_key, self.writer.put_node)
        except BaseException:
            self.writer.close()
            raise
        self._checkpoint_at = time.monotonic() + options.checkpoint_seconds
        self._checkpoint_bytes = options.checkpoint_bytes
        self.details: dict[str, Any] = {}
        self.walk_parameters: dict[str, int] = {}
        """What a source must know of its previous snapshot before it takes anything over from it."""

    def _is_trusted(self, signer: bytes | None) -> bool:
        """Whether content may be taken over unread from a manifest of this signer: this slot's own, or an owner's.

        Any holder can name any series; what another writer calls unchanged is read again instead.
        """
        line = self.session.ring.roster.get(signer or b"")
        return signer == self.session.ring.signer or (line is not None and line.role == OWNER)

    def __enter__(self) -> "SnapshotRun":
        return self

    def __exit__(self, *exc: object) -> None:
        self.writer.close()

    def report(self, problem: Problem) -> None:
        """Take a problem; an incomplete one makes the whole snapshot incomplete."""
        self.problems.append(problem)

    def tick(self) -> bool:
        """Say whether a checkpoint is due. Raises Interrupted if the run was asked to stop."""
        self.progress.check_stop()
        return self.writer.data.new_bytes >= self._checkpoint_bytes or time.monotonic() >= self._checkpoint_at

    def checkpoint(self, tree: Callable[[], TreeRoot | None] | None = None) -> Manifest | None:
        """Commit what has been stored so far as a partial manifest, if there is anything; go on afterwards."""
        root = (tree or self.tree.checkpoint)()
        self.writer.settle()
        self._checkpoint_at = time.monotonic() + self.options.checkpoint_seconds
        self._checkpoint_bytes = self.writer.data.new_bytes + self.options.checkpoint_bytes
        return None if root is None else self._commit(root, "partial")

    def finish(self) -> SnapshotResult:
        """Make everything durable and commit the manifest."""
        root = self.tree.finish()
        self.writer.settle()
        incomplete = any(problem.kind != ProblemKind.NOTE for problem in self.problems)
        manifest = self._commit(root, "incomplete" if incomplete else "complete")
        return SnapshotResult(manifest, self.problems)

    def _commit(self, root: TreeRoot | None, status: str) -> Manifest:
        """Each commit follows the one before it, so that a series is one chain of checkpoints and results."""
        manifest = self._manifest(root, status)
        session = self.session
        rescuer = Rescuer(session.storage, session.ring, session.index, session.reader, self.writer, root)
        committed = commit_manifest(
            session.storage,
            session.ring,
            manifest,
            seen=self.writer.generations,
            rescue=rescuer.rescue,
            recheck=lambda: session.repository.refresh("write"),
            keep=session.manifest_cache.put,
        )
        self.previous = committed
        return committed

    def _manifest(self, root: TreeRoot | None, status: str) -> Manifest:
        parameters = self.options.parameters
        previous = self.previous
        manifest = Manifest(
            id=os.urandom(16),
            series=self.series,
            sequence=1 if previous is None else previous.sequence + 1,
            previous=None if previous is None else (previous.id, previous.hash),
            start=self.start_ns,
            end=time.time_ns(),
            storage_date=None,
            host=self.host,
            source=self.source,
            signer=self.session.ring.signer,
            status=status,
            root=root,
            parameters={
                "algorithm": int(parameters.algorithm),
                "size_min": parameters.size_min,
                "size_avg": parameters.size_avg,
                "size_max": parameters.size_max,
                **self.walk_parameters,
            },
            statistics={
                "files": self.progress.files,
                "bytes": self.progress.bytes,
                "new_bytes": self.writer.data.new_bytes,
                "stored_bytes": self.writer.stored_bytes,
                **self._requests(),
            },
            problems=[
                (printable_path(problem.path), problem.message)
                for problem in self.problems
                if problem.kind != ProblemKind.NOTE
            ][:PROBLEMS_MAX],
            tags=list(self.options.tags),
            hold_until=self.options.hold_until,
            tools={"holdfast": VERSION, "python": platform.python_version()},
        )
        return replace(manifest, **self.details)

    def _requests(self) -> dict[str, int]:
        """Return the requests of this run, its last ones counted in: those that store the manifest itself."""
        so_far = self.session.requests.total()
        return {"requests": so_far + _COMMIT_REQUESTS} if so_far else {}


VERSION = "0.1.0"


def path_below(directory: Path, name: bytes) -> Path:
    """Return the path of the entry `name` in `directory`."""
    return (*directory, name)
