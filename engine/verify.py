"""Verify: is everything there that the manifests need, and is it still what was stored?

Structure, by default: every object of the repository but packs is read and checked, every reference of every live
manifest resolves to a frame in a pack that is listed with its size. Trees that manifests share are walked once, so the
work is bounded by unique metadata. With `data`, every pack is read whole first: its hash, its frames, its chunks.

What is damaged is named, with the manifests it hurts; an object of which another whole copy exists is damaged and
hurts nobody. What was found lost is written to the ledger, so that the next snapshot stores it anew.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from blake3 import blake3

from engine.collector import collecting_rarely
from engine.progress import Progress
from engine.series import series_notices
from engine.session import Session
from engine.verify_trees import TreeCheck
from repo_store.bounded import get_sealed
from repo_store.config_chain import read_chain
from repo_store.errors import ObjectDamaged, ObjectMissing, StorageError
from repo_store.frame import FrameName
from repo_store.key_ops import list_slots
from repo_store.ledger import Depth, LedgerRecord
from repo_store.manifest import Manifest
from repo_store.manifest_store import ManifestList, read_manifests
from repo_store.pack import pack_name
from repo_store.pack_check import PackCheck, verify_pack
from repo_store.pack_reader import read_directory
from repo_store.sealed import Kind, open_any, seal_object

_THREADS = 2
_TABLE_BYTES_READ_MAX = 64 * 1024 * 1024
"""In a check of structure, tables are read again if they are smaller than this together."""

_SMALL_OBJECTS = (
    ("pending/", (Kind.PENDING,)),
    ("forgotten/", (Kind.FORGET,)),
    ("notes/", (Kind.NOTE,)),
    ("gc/", (Kind.MARK, Kind.SWEEP, Kind.DONE)),
    ("ledger/", (Kind.LEDGER,)),
)


@dataclass
class DamagedObject:
    """An object that is not as it should be, and the ids of the live manifests that cannot be restored whole for it."""

    name: str
    reason: str
    manifests: set[str] = field(default_factory=set)


@dataclass
class VerifyReport:
    """What a verification found. Sizes in bytes."""

    depth: Depth
    manifests: int = 0
    packs: int = 0
    read_bytes: int = 0
    contents_read: bool = True
    """False where the key cannot read contents: then only hashes and directories of data packs were checked."""
    damaged: dict[str, DamagedObject] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    """What is no damage and still worth a look: manifests that others follow and that are not there."""

    @property
    def status(self) -> str:
        """ "ok" or "damaged"."""
        return "damaged" if self.damaged else "ok"

    def add(self, name: str, reason: str, *, manifest: str | None = None) -> None:
        """Take damage; `manifest` is one that it hurts."""
        found = self.damaged.setdefault(name, DamagedObject(name, reason))
        if manifest is not None:
            found.manifests.add(manifest)


@collecting_rarely()
def verify_repository(
    session: Session, *, data: bool = False, progress: Progress | None = None
) -> VerifyReport:
    """Check the whole repository. Damage is in the report; raises StorageError if the storage cannot be read."""
    return _Verification(session, progress or Progress(), data=data).run()


class _Verification:
    def __init__(self, session: Session, progress: Progress, *, data: bool) -> None:
        self._session = session
        self._storage, self._ring, self._index = session.storage, session.ring, session.index
        self._progress = progress
        self._data = data
        self._report = VerifyReport(Depth.DATA if data else Depth.STRUCTURE)
        self._bad_packs: set[bytes] = set()
        self._bad_frames: dict[FrameName, set[bytes]] = {}
        self._lost_frames: set[FrameName] = set()
        self._good_packs: list[bytes] = []

    def run(self) -> VerifyReport:
        # Manifests first: what they need was stored before them, so it must be in the listings that follow.
        manifests = read_manifests(self._storage, self._ring, None)
        self._index.refresh()
        listed = {info.name: info.size for info in self._storage.list("packs/")}
        self._check_small_objects()
        self._check_tables()
        self._check_packs(listed)
        if self._data:
            self._read_packs(listed)
        self._lost_frames = self._frames_without_copy()
        self._index.set_absent(self._bad_packs, [name.pack() for name in self._lost_frames])
        self._check_manifests(manifests)
        for name, reason in self._session.reader.damage.items():
            self._report.add(name, reason)
        self._write_ledger()
        return self._report

    def _check_small_objects(self) -> None:
        self._progress.phase = "small objects"
        for problem in self._key_problems():
            name, _, reason = problem.partition(": ")
            self._report.add(name, reason or problem)
        for prefix, kinds in _SMALL_OBJECTS:
            for info in self._storage.list(prefix):
                with suppress(ObjectMissing):  # removed meanwhile by whoever may
                    try:
                        open_any(self._ring, kinds, info.name, get_sealed(self._storage, info.name))
                    except ObjectDamaged as error:
                        self._report.add(error.name, error.reason)

    def _key_problems(self) -> list[str]:
        """Return a line, "object: reason", for each damaged part of the config chain and the key slots."""
        repository = self._session.repository
        # Nothing remembered: the whole chain is looked at, whatever this machine saw before.
        chain = read_chain(self._storage, None, repository=self._ring.repository, look_at_both=True)
        slots = list_slots(repository)
        return [*chain.warnings, *(problem for slot in slots for problem in slot.problems)]

    def _check_tables(self) -> None:
        for problem in self._index.problems:
            self._report.add(problem.name, problem.reason)
        tables = list(self._storage.list("tables/"))
        if not self._data and sum(info.size for info in tables) > _TABLE_BYTES_READ_MAX:
            return
        for info in tables:
            with suppress(ObjectMissing):
                data = self._storage.get(info.name)
                self._report.read_bytes += len(data)
                if f"tables/{blake3(data).hexdigest()}" != info.name:
                    self._report.add(info.name, "its bytes have another hash than its name")

    def _check_packs(self, listed: dict[str, int]) -> None:
        """Compare the packs that tables know with those that are there; read the directories of unknown ones."""
        self._progress.phase = "packs"
        for pack, size in self._index.packs():
            name = pack_name(pack)
            found = listed.get(name)
            if found != size:
                self._bad_packs.add(pack)
                self._report.add(name, "missing" if found is None else f"has {found} bytes instead of {size}")
        hashes = [bytes.fromhex(name[-64:]) for name in listed]
        for pack in self._index.unindexed(hashes):
            name = pack_name(pack)
            with suppress(ObjectMissing):
                try:
                    directory = read_directory(self._storage, self._ring, pack, listed[name])
                    self._index.add_pack(pack, listed[name], directory)
                except ObjectDamaged as error:
                    self._bad_packs.add(pack)
                    self._report.add(name, error.reason)
        self._report.packs = len(listed)

    def _read_packs(self, listed: dict[str, int]) -> None:
        self._progress.phase = "reading packs"
        self._progress.bytes_total = sum(listed.values())
        with ThreadPoolExecutor(_THREADS) as pool:
            for name, check in pool.map(self._read_pack, self._until_stopped(listed)):
                self._progress.bytes += listed[name]
                self._report.read_bytes += listed[name]
                if check is not None:
                    self._take_check(bytes.fromhex(name[-64:]), check)
        self._progress.check_stop()  # what was not read must not look as if it had been

    def _until_stopped(self, listed: dict[str, int]) -> Iterator[str]:
        for name in sorted(listed):
            if self._progress.stop.is_set():
                return
            yield name

    def _read_pack(self, name: str) -> tuple[str, PackCheck | None]:
        self._progress.check_stop()
        try:
            reader = self._session.reader
            return name, verify_pack(self._storage, self._ring, bytes.fromhex(name[-64:]), reader.frame)
        except ObjectMissing:
            return name, None

    def _take_check(self, pack: bytes, check: PackCheck) -> None:
        if check.whole:
            self._good_packs.append(pack)
            self._report.contents_read &= check.contents
            return
        if check.problem is not None:
            self._report.add(check.name, check.problem)
        if not check.frames:
            self._bad_packs.add(pack)
        for frame, reason in check.damaged.items():
            self._bad_frames.setdefault(frame, set()).add(pack)
            self._report.add(check.name, reason)

    def _frames_without_copy(self) -> set[FrameName]:
        """Return the frames of which no whole copy is left."""
        return {
            name
            for name, packs in self._bad_frames.items()
            if all(
                where.pack in packs or where.pack in self._bad_packs for where in self._index.find_frame(name)
            )
        }

    def _check_manifests(self, manifests: ManifestList) -> None:
        self._progress.phase = "manifests"
        for name, reason in manifests.damaged.items():
            self._report.add(name, reason, manifest=name.removeprefix("manifests/"))
        self._report.notices += series_notices(manifests.live, self._forgotten())
        trees = TreeCheck(self._index, self._session.reader, exact=self._data)
        for manifest in manifests.live:
            self._progress.check_stop()
            self._progress.files += 1
            for name, reason in self._hurt(trees, manifest):
                self._report.add(name, reason, manifest=manifest.id.hex())
        self._report.manifests = len(manifests.live)
        self._lost_frames |= trees.false_frames

    def _forgotten(self) -> set[bytes]:
        names = (info.name.removeprefix("forgotten/") for info in self._storage.list("forgotten/"))
        return {bytes.fromhex(name) for name in names}

    def _hurt(self, trees: TreeCheck, manifest: Manifest) -> Iterator[tuple[str, str]]:
        if manifest.root is not None:
            yield from trees.damage_of(manifest.root)

    def _write_ledger(self) -> None:
        """Record what was read, and what is lost, if this key may. A storage that takes no writes is no failure."""
        found = self._data or self._bad_packs or self._lost_frames
        if not found or not self._ring.may_sign(Kind.LEDGER):
            return
        record = LedgerRecord(
            id=os.urandom(16),
            time=time.time_ns(),
            depth=self._report.depth,
            packs=tuple(self._good_packs),
            damaged_packs=tuple(sorted(self._bad_packs)),
            damaged_frames=tuple(sorted(name.pack() for name in self._lost_frames)),
        )
        name = f"ledger/{record.id.hex()}"
        with suppress(StorageError):
            self._storage.put(name, seal_object(self._ring, Kind.LEDGER, record.to_body(), subject=name))
            self._storage.barrier()
