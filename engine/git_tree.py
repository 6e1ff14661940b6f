"""A git repository as entries of a manifest (docs/git.md): the repository there and back, without git and storage.

    owner/name.git                     directory; extra "git": object format, refs digest, whether the refs were moving
    owner/name.git/HEAD                link to what HEAD says: `ref: refs/heads/main`, or an id
    owner/name.git/files/…             config, description, hooks, info, LFS objects, as they are
    owner/name.git/packfiles/000001    packfiles in the order in which they are to be indexed
    owner/name.git/refs/heads/main     link to the id, or to `ref: ` and the name of another ref

Refs are entries, so that one that moves costs the leaf it is in and thousands that do not cost nothing, and so that a
writer, who cannot read contents, knows what was packed before.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.sources.git_refs import Ref, Refs
from repo_store.entry import Entry, EntryKind, Path
from repo_store.errors import ObjectDamaged

_DIRECTORY, _FILE, _LINK = int(EntryKind.DIRECTORY), int(EntryKind.FILE), int(EntryKind.SYMLINK)
HEAD, FILES, PACKFILES, REFS = b"HEAD", b"files", b"packfiles", b"refs"
_KEY = "git"
_FORMATS = ("sha1", "sha256")


@dataclass(frozen=True)
class RepositoryTree:
    """One repository in a manifest: all below its entry, by the path from there."""

    entry: Entry
    entries: dict[Path, Entry] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What the repository's own entry says of it."""
        facts: dict[str, Any] = (self.entry.extra or {})[_KEY]
        return facts

    @property
    def object_format(self) -> str:
        """`sha1` or `sha256`. Raises ObjectDamaged for another."""
        known: str = self.facts.get("object_format", "")
        if known not in _FORMATS:
            raise ObjectDamaged("the entry of the repository", f"an object format {known!r} is not known")
        return known

    @property
    def digest(self) -> bytes:
        """The digest of the refs."""
        digest: bytes = self.facts.get("refs_digest", b"")
        return digest

    @property
    def shallow(self) -> bytes:
        """The digest of what says where history is cut off; empty for a repository with all of it."""
        shallow: bytes = self.facts.get("shallow", b"")
        return shallow

    @property
    def is_stale(self) -> bool:
        """Whether it could not be read and is an earlier state."""
        return bool(self.facts.get("stale"))

    @property
    def packfiles(self) -> list[tuple[Path, Entry]]:
        """The packfiles in order, with their paths from the repository on."""
        return [(path, entry) for path, entry in sorted(self.entries.items()) if _is_packfile(path, entry)]

    def files(self) -> Iterator[tuple[Path, Entry]]:
        """Yield what stands below `files`, paths from there on, directories first."""
        for path, entry in sorted(self.entries.items()):
            if path[0] == FILES and len(path) > 1:
                yield path[1:], entry

    def refs(self) -> Refs:
        """Return the refs as they were read. Raises ObjectDamaged if there is no HEAD."""
        head = self.entries.get((HEAD,))
        if head is None or _target(head) is None:
            raise ObjectDamaged("the entry of the repository", "it has no HEAD")
        refs = [
            Ref(b"/".join(path), target)
            for path, entry in self.entries.items()
            if path[0] == REFS and (target := _target(entry)) is not None
        ]
        return Refs(_target(head) or b"", tuple(sorted(refs)), moving=bool(self.facts.get("moving")))


def is_repository(entry: Entry) -> bool:
    """Say whether an entry is that of a git repository."""
    return entry.kind == _DIRECTORY and isinstance((entry.extra or {}).get(_KEY), dict)


def repository_entry(
    name: bytes, mode: int, uid: int, gid: int, *, object_format: str, refs: Refs, shallow: bytes
) -> Entry:
    """Return the entry that stands for a whole repository; `shallow` says where its history is cut off, if it is."""
    facts: dict[str, Any] = {
        "moving": refs.moving,
        "object_format": object_format,
        "refs_digest": refs.digest,
    }
    if shallow:
        facts["shallow"] = shallow
    return Entry(name, _DIRECTORY, mode, uid, gid, 0, 0, 0, 0, None, {_KEY: facts})


def as_stale(entry: Entry) -> Entry:
    """Return the entry of a repository that could not be read and is kept as it was before."""
    extra = entry.extra or {}
    return entry._replace(extra={**extra, _KEY: {**extra[_KEY], "stale": True}})


def ref_entries(refs: Refs) -> dict[Path, Entry]:
    """Return the entries of HEAD and all refs, without the directories above them."""
    entries: dict[Path, Entry] = {(HEAD,): link(HEAD, refs.head)}
    for ref in refs.refs:
        path = tuple(ref.name.split(b"/"))
        entries[path] = link(path[-1], ref.value)
    return entries


def packfile_path(number: int) -> Path:
    """Return the path of the packfile with this number, from 1."""
    return PACKFILES, b"%06d" % number


def link(name: bytes, target: bytes, mode: int = 0o777) -> Entry:
    """Return an entry that holds only a name of something else."""
    return Entry(name, _LINK, mode, 0, 0, 0, 0, 0, 0, None, {"target": target})


def directory(name: bytes) -> Entry:
    """Return the entry of a directory that is only there to hold others."""
    return Entry(name, _DIRECTORY, 0o755, os.getuid(), os.getgid(), 0, 0, 0, 0, None, None)


def with_directories(entries: dict[Path, Entry], have: Iterable[Path] = ()) -> list[tuple[Path, Entry]]:
    """Return `entries` in order, with the directories above each that are not among them or in `have`."""
    known = set(have)
    whole = dict(entries)
    for path in entries:
        for depth in range(len(path) - 1, 0, -1):
            above = path[:depth]
            if above in known:
                break
            known.add(above)
            whole.setdefault(above, directory(above[-1]))
    return sorted(whole.items())


def _is_packfile(path: Path, entry: Entry) -> bool:
    return path[0] == PACKFILES and len(path) == 2 and entry.kind == _FILE


def _target(entry: Entry) -> bytes | None:
    target = (entry.extra or {}).get("target")
    return target if entry.kind == _LINK and isinstance(target, bytes) else None
