"""LocalStorage: a repository in a directory of a local (or mounted) file system.

An object `packs/ab/abcd` is the read-only file of that path below the root. What makes it keep the contract:

1. A name never leads to a torn file: bytes are synced before the name is made (whole_file.py).
2. A name is never made over another file: link(), or renameat2(RENAME_NOREPLACE); without both, Refused.
3. After `barrier` a name stays: every folder that was changed, and every folder above it, is synced.
   Above as well, because the folder itself may be new, and not only by our own doing: another process
   may have made it and not yet passed its barrier.
4. A failed sync is final for the instance. The kernel reports lost bytes once and then forgets them, so
   a second fsync that succeeds proves nothing (PostgreSQL's "fsyncgate").
5. No path leaves the root (object_names.py, rooted_tree.py).

tests/repo_store/test_local_storage.py attacks each. Files whose names are no object names (lost+found, a
README, .tmp) are left alone and never listed. A symbolic link, pipe or socket under an object's name is an
error even for `list`: left out of a listing, the object would be taken for deleted.
"""

import builtins
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from repo_store.errors import NoRepository, ObjectConflict, ObjectMissing, Refused, StorageError
from repo_store.object_names import check_name, check_prefix, is_name
from repo_store.os_errors import failing, reason
from repo_store.rooted_tree import Folders, RootedTree, make_root, require_regular
from repo_store.storage import Buffer, ObjectInfo
from repo_store.whole_file import WAYS, NoWay, SyncFailed, WholeFiles, sync

_COMPARE_BYTES = 1024 * 1024
_PUT_ATTEMPTS_MAX = 8


class LocalStorage:
    """Storage in a directory. See repo_store.storage.Storage for the contract."""

    def __init__(self, path: str | os.PathLike[str], *, ways: Sequence[str] = WAYS) -> None:
        """Open the directory `path`. Raises NoRepository if there is none.

        `ways` of creating files (whole_file.WAYS) are tried in this order; the tests force single ones.
        """
        self.location = os.fspath(path)
        with failing("open", self.location):
            try:
                self._tree = RootedTree(self.location)
            except (FileNotFoundError, NotADirectoryError):
                raise NoRepository(f"{self.location}: no such directory") from None
        self._files = WholeFiles(self._tree.root, ways)
        self._failed_sync: SyncFailed | None = None
        self._touched: set[Folders] = set()  # folders changed since the last barrier
        self._touched_lock = threading.Lock()
        self._barrier_lock = threading.Lock()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "LocalStorage":
        """Make the directory, and those above it, so that they survive a power cut; open it.

        A directory that exists is taken as it is: whether it may be used is the caller's question.
        """
        with failing("create", os.fspath(path)):
            make_root(Path(path).absolute())
        return cls(path)

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """Create an object; see Storage.put. Raises Refused where the file system cannot do it safely."""
        folders, leaf = _split(name)
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        with self._changing("write", name), self._tree.open_folder(folders, make=True) as folder:
            self._create_or_compare(name, folder, leaf, parts)
            self._touch(folders)

    def barrier(self, names: Iterable[str] = ()) -> None:
        """Make durable what was changed through this instance, and the objects `names`; see Storage.barrier.

        Syncs the folders of both and those above; of `names` also the bytes, whatever program wrote them.
        """
        named = {name: _split(name) for name in names}
        # One at a time: a second caller must not find nothing left to do while the first still waits for the disk.
        with self._barrier_lock:
            with self._touched_lock:
                touched, self._touched = self._touched, set()
            try:
                for name, (folders, leaf) in named.items():
                    with self._changing("sync", name), self._object(name, folders, leaf) as file:
                        sync(file)
                    touched.add(folders)
                for each in sorted({above for folders in touched for above in _with_those_above(folders)}):
                    with self._changing("sync", "/".join(each)), self._tree.open_folder(each) as folder:
                        sync(folder)
                self._refuse_after_failed_sync("sync")  # also one in a put of another thread, meanwhile
            except BaseException:
                with self._touched_lock:
                    self._touched |= touched  # they still wait for a barrier
                raise

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object; see Storage.get."""
        assert length is None or length >= 0
        folders, leaf = _split(name)
        with failing("read", self._path(name)), self._object(name, folders, leaf) as file:
            size = os.fstat(file).st_size
            start = offset if offset >= 0 else max(0, size + offset)
            available = max(0, size - start)
            return _read(file, start, available if length is None else min(length, available))

    def info(self, name: str) -> ObjectInfo:
        """Return size and date of an object; see Storage.info."""
        folders, leaf = _split(name)
        with failing("read", self._path(name)), self._object(name, folders, leaf) as file:
            return _info(name, os.fstat(file))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose name starts with `prefix`; see Storage.list."""
        *folders, stem = check_prefix(prefix).split("/")
        return self._walk(tuple(folders), stem)

    def delete(self, name: str) -> None:
        """Remove an object; see Storage.delete."""
        folders, leaf = _split(name)
        with (
            self._changing("delete", name),
            suppress(FileNotFoundError),
            self._tree.open_folder(folders) as folder,
        ):
            with suppress(FileNotFoundError):
                os.unlink(leaf, dir_fd=folder)
            # Also where it was gone already: whoever removed it may not have passed a barrier.
            self._touch(folders)

    def replace(self, name: str, data: Buffer) -> None:
        """Put `data` in place of a damaged object; see Storage.replace."""
        folders, leaf = _split(name)
        with self._changing("replace", name), self._tree.open_folder(folders, make=True) as folder:
            self._files.replace(folder, leaf, [data])
            self._touch(folders)

    def clean(self) -> int:
        """Remove what processes that died left behind a day ago or earlier; return how many files that were."""
        with self._changing("clean", ""):
            return self._files.clean()

    def _create_or_compare(self, name: str, folder: int, leaf: str, parts: Sequence[Buffer]) -> None:
        folders, _ = _split(name)
        for _ in range(_PUT_ATTEMPTS_MAX):
            try:
                return self._files.create(folder, leaf, parts)
            except FileExistsError:
                # Missing: it was deleted before we could look, and the name is free again.
                with suppress(ObjectMissing), self._object(name, folders, leaf) as file:
                    if not _has_bytes(file, parts):
                        raise ObjectConflict(name) from None
                    return sync(file)  # whoever wrote it may not have
        raise StorageError(f"{self._path(name)}: cannot write: the object comes and goes")

    def _walk(self, folders: Folders, stem: str) -> Iterator[ObjectInfo]:
        objects, inner = self._scan(folders, stem)
        yield from objects
        for part in inner:
            yield from self._walk((*folders, part), "")

    def _scan(self, folders: Folders, stem: str) -> tuple[builtins.list[ObjectInfo], builtins.list[str]]:
        """Return the objects in a folder, and the names of the folders in it, that start with `stem`."""
        objects, inner = [], []
        with failing("list", self._path("/".join(folders))):
            try:
                entries = self._tree.scan(folders)
            except FileNotFoundError:
                return [], []  # nothing was put there yet
        for entry, status in entries:
            name = "/".join((*folders, entry))
            if not entry.startswith(stem) or not is_name(name):
                continue
            if stat.S_ISDIR(status.st_mode):
                inner.append(entry)
            else:
                with failing("list", self._path(name)):
                    objects.append(_info(name, status))
        return objects, inner

    @contextmanager
    def _object(self, name: str, folders: Folders, leaf: str) -> Iterator[int]:
        """Open an object for reading. Raises ObjectMissing."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self._tree.open_file(folders, leaf))
            except FileNotFoundError:
                raise ObjectMissing(name) from None
            yield file

    @contextmanager
    def _changing(self, verb: str, name: str) -> Iterator[None]:
        """Refuse after a failed sync, remember one, and turn OSError into what a person can use."""
        self._refuse_after_failed_sync(verb)
        with failing(verb, self._path(name)):
            try:
                yield
            except SyncFailed as error:
                self._failed_sync = error
                raise
            except NoWay:
                raise Refused(
                    f"{self.location}: the file system can create a file neither by link nor by a rename that "
                    "never replaces, so two writers could overwrite each other",
                    hint="use a file system that can, such as ext4, xfs, btrfs or zfs",
                ) from None

    def _refuse_after_failed_sync(self, verb: str) -> None:
        if self._failed_sync is not None:
            raise StorageError(
                f"{self.location}: cannot {verb}: an earlier sync failed: {reason(self._failed_sync)}",
                hint="what was written since the last barrier may be lost: check the disk, then start again",
            )

    def _touch(self, folders: Folders) -> None:
        # After the change, never before: a barrier in between would take the mark away and sync too early.
        with self._touched_lock:
            self._touched.add(folders)

    def _path(self, name: str) -> str:
        return os.path.join(self.location, name).rstrip("/")


def _split(name: str) -> tuple[Folders, str]:
    """Return the folders of an object and its name in the last of them. Raises Refused for what is no name."""
    *folders, leaf = check_name(name).split("/")
    return tuple(folders), leaf


def _with_those_above(folders: Folders) -> Iterator[Folders]:
    return (folders[:depth] for depth in range(len(folders) + 1))


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    """Return a file as listed. Raises NotRegular."""
    require_regular(status)
    return ObjectInfo(name, status.st_size, status.st_mtime_ns)


def _read(file: int, start: int, length: int) -> bytes:
    """Return `length` bytes of an open file, fewer only if it ends before."""
    pieces = []
    while length > 0 and (piece := os.pread(file, length, start)):
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _has_bytes(file: int, parts: Sequence[Buffer]) -> bool:
    """Return whether an open file holds exactly `parts` joined, reading a little at a time."""
    views = [memoryview(part).cast("B") for part in parts]
    if os.fstat(file).st_size != sum(len(view) for view in views):
        return False
    start = 0
    for view in views:
        for at in range(0, len(view), _COMPARE_BYTES):
            wanted = view[at : at + _COMPARE_BYTES]
            if _read(file, start, len(wanted)) != wanted:
                return False
            start += len(wanted)
    return True
