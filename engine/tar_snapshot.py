"""Snapshot of a tar stream, split into its members: each becomes an entry below the name of the archive.

Contents are cut and stored as they stream by, as those of files are, so what a file snapshot holds already is not
stored again. Only entries wait, in a spool (engine/member_spool.py), until the archive has ended and they go into the
tree in order. A member that no manifest can hold is left out and named, which makes the snapshot incomplete; a stream
that is damaged or breaks off raises, and there is no manifest (engine/sources/tar_stream.py).
"""

import tarfile
import time
from hashlib import blake2b

from engine.cutting import cut_sparse
from engine.member_spool import MemberSpool
from engine.problems import Problem, ProblemKind, printable_path
from engine.progress import Interrupted
from engine.snapshot_run import SnapshotRun
from engine.sources.tar_members import (
    ACL_PREFIX,
    LABEL_TYPE,
    MemberOwners,
    Unfit,
    member_entry,
    member_kind,
    member_path,
    raw,
)
from engine.sources.tar_stream import ReadInto, TarStream
from repo_store.content import ContentBuilder
from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import SourceError
from repo_store.tree_builder import TreeBuilder
from repo_store.tree_node import TreeRoot


def store_members(run: SnapshotRun, name: bytes, read: ReadInto, *, end_marked: bool = True) -> None:
    """Read a tar stream to its end into the run's tree, below `name`; keep a checkpoint if the run is interrupted.

    Raises SourceError if it is no whole tar stream, Interrupted.
    """
    spool = MemberSpool()
    try:
        members = _Members(run, name, spool, TarStream(read, end_marked=end_marked))
        try:
            members.store()
        except Interrupted as interrupted:
            kept = run.checkpoint(members.tree_so_far)
            interrupted.manifest = None if kept is None else kept.id.hex()
            raise
        members.build(run.tree)
    finally:
        spool.close()
    run.details["owners"] = members.owners.as_detail()


class _Members:
    """The members of one archive on their way into the spool."""

    def __init__(self, run: SnapshotRun, name: bytes, spool: MemberSpool, stream: TarStream) -> None:
        self._run, self._name, self._spool, self._stream = run, name, spool, stream
        self._cut_key = run.session.ring.tree_cut_key
        self._said_acl = self._said_absolute = False
        self.owners = MemberOwners()

    def store(self) -> None:
        """Store every member."""
        run = self._run
        for member in self._stream.members():
            if run.tick():
                run.writer.data.finish_frame()
                run.checkpoint(self.tree_so_far)
            if member.type == LABEL_TYPE:
                continue
            path: Path = (self._name, raw(member.name))
            try:
                path = member_path(self._name, member.name)
                run.progress.current = printable_path(path)
                self._note_what_is_lost(path, member)
                entry = self._linked(path, member) if member.islnk() else self._entry(path, member)
                if len(path) == 1 and entry.kind != EntryKind.DIRECTORY:
                    raise Unfit("it has no name")
            except Unfit as unfit:
                self._left_out(path, str(unfit))
                continue
            self._keep(path, entry)
        if self._spool.get((self._name,)) is None:
            now = time.time_ns()
            empty = Entry(self._name, int(EntryKind.DIRECTORY), 0o755, 0, 0, now, 0, 0, 0, None, None)
            self._spool.add((self._name,), empty)

    def build(self, tree: TreeBuilder) -> None:
        """Hand all entries to `tree`, in order."""
        for path, entry in self._spool.entries():
            try:
                tree.add(path[:-1], entry)
            except SourceError as error:
                self._left_out(path, str(error))

    def tree_so_far(self) -> TreeRoot | None:
        """Return a tree of the members that were stored whole."""
        tree = TreeBuilder(self._cut_key, self._run.writer.put_node)
        self.build(tree)
        return tree.finish()

    def _entry(self, path: Path, member: tarfile.TarInfo) -> Entry:
        kind = member_kind(member)
        member_entry(member, path, kind)  # what cannot be an entry need not be stored
        if kind != EntryKind.FILE:
            return self._with_owners(member, member_entry(member, path, kind))
        run = self._run
        content = ContentBuilder(self._cut_key, run.writer.put_node)
        extents = self._stream.extents()
        cut_sparse(
            run.writer.data,
            run.chunker,
            content,
            lambda view, place: self._read(view),
            extents,
            member.size,
            tick=run.tick,
            checkpoint=lambda: _discard(run.checkpoint(self.tree_so_far)),
        )
        run.progress.files += 1
        run.progress.bytes += member.size - sum(end - start for start, end in extents)
        return self._with_owners(member, member_entry(member, path, kind, *content.finish()))

    def _with_owners(self, member: tarfile.TarInfo, entry: Entry) -> Entry:
        self.owners.add(member)
        return entry

    def _read(self, view: memoryview) -> int:
        count = self._stream.read_into(view)
        self._run.progress.bytes += count
        return count

    def _linked(self, path: Path, member: tarfile.TarInfo) -> Entry:
        """Return the entry of a hard link: what its target is at this point of the archive."""
        target = member_path(self._name, member.linkname)
        entry = self._spool.get(target)
        if entry is None or entry.kind == EntryKind.DIRECTORY:
            raise Unfit(f"it is a hard link to {printable_path(target)}, which is no file before it")
        if target == path:
            raise Unfit("it is a hard link to itself")
        extra = entry.extra or {}
        if "link" not in extra:
            entry = entry._replace(extra={**extra, "link": _group(target)})
            self._spool.add(target, entry)
        self._run.progress.files += entry.kind == EntryKind.FILE
        self._run.progress.bytes += entry.size
        return entry._replace(name=path[-1])

    def _keep(self, path: Path, entry: Entry) -> None:
        for lost in self._spool.add(path, entry):
            self._left_out(lost, f"it gave way to {printable_path(path)}, which comes later in the archive")

    def _left_out(self, path: Path, why: str) -> None:
        self._run.report(Problem(path, f"left out: {why}", ProblemKind.INCOMPLETE))

    def _note_what_is_lost(self, path: Path, member: tarfile.TarInfo) -> None:
        """Say once of each thing that members have and no entry can keep."""
        if not self._said_absolute and member.name.startswith("/"):
            self._said_absolute = True
            note = "absolute names of the archive are stored without the leading slash"
            self._run.report(Problem(path, note, ProblemKind.NOTE))
        if not self._said_acl and any(key.startswith(ACL_PREFIX) for key in member.pax_headers):
            self._said_acl = True
            note = "access control lists of the archive are not stored"
            self._run.report(Problem(path, note, ProblemKind.NOTE))


def _group(target: Path) -> int:
    """Return a number for a group of hard links: the same for the same archive, so that its leaves stay identical."""
    return int.from_bytes(blake2b(b"\0".join(target), digest_size=8).digest(), "big") >> 1


def _discard(_: object) -> None:
    """Take a result that nobody needs."""
