"""Verify: is everything there that the manifests need, and is it still what was stored?

Structure, always: every object of the repository but packs is read and checked, every reference of every live manifest
resolves to a frame in a pack that is listed with its size. Trees that manifests share are walked once, so the work is
bounded by unique metadata. With `data`, packs are read whole meanwhile: their hash, their frames, their chunks. All of
them by default, and then nothing that the ledger says is believed; with a budget those whose turn it is
(engine/verify_selection.py), and then what earlier verifications found lost counts as lost.

What is damaged is named, with the manifests it hurts; an object of which another whole copy exists is damaged and
hurts nobody. What was found lost is written to the ledger, so that the next snapshot stores it anew, and what was found
good, so that the next verification knows whose turn it is.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress

from blake3 import blake3

from engine.collector import collecting_rarely
from engine.progress import Progress
from engine.series import series_notices
from engine.session import Session
from engine.verify_packs import PackReading
from engine.verify_report import DamagedObject, VerifyReport
from engine.verify_selection import ALL, Budget, plan_reading
from engine.verify_trees import TreeCheck
from engine.verify_walk import TreeWalk
from repo_store.bounded import get_sealed
from repo_store.config_chain import read_chain
from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing, StorageError
from repo_store.frame import FrameName
from repo_store.key_ops import list_slots
from repo_store.ledger import PACKS_TO_A_RECORD_MAX, Depth, LedgerRecord
from repo_store.ledger_store import Ledger
from repo_store.manifest import Manifest
from repo_store.manifest_store import ManifestList, read_manifests
from repo_store.pack import pack_name
from repo_store.pack_history import PackHistory
from repo_store.pack_reader import read_directory
from repo_store.sealed import Kind, open_any, seal_object
from repo_store.storage import ObjectInfo

_TABLE_BYTES_READ_MAX = 64 * 1024 * 1024
"""In a check of structure, tables are read again if they are smaller than this together."""

_SMALL_OBJECTS = (
    ("pending/", (Kind.PENDING,)),
    ("forgotten/", (Kind.FORGET,)),
    ("notes/", (Kind.NOTE,)),
    ("gc/", (Kind.MARK, Kind.SWEEP, Kind.DONE)),
)

__all__ = ["DamagedObject", "VerifyReport", "verify_repository"]


@collecting_rarely()
def verify_repository(
    session: Session,
    *,
    data: bool = False,
    budget: Budget = ALL,
    now_ns: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check the whole repository; of its data, if that is to be read, what `budget` says.

    `now_ns` is the time, for the ledger (None: the clock's). Damage is in the report; raises StorageError if the storage
    cannot be read, Interrupted if the run was asked to stop: what it had found good by then is recorded.
    """
    now = time.time_ns() if now_ns is None else now_ns
    return _Verification(session, progress or Progress(), budget if data else None, now).run()


class _Verification:
    def __init__(self, session: Session, progress: Progress, budget: Budget | None, now_ns: int) -> None:
        self._session = session
        self._storage, self._ring, self._index = session.storage, session.ring, session.index
        self._progress = progress
        self._budget = budget
        self._now_ns = now_ns
        self._report = VerifyReport(Depth.STRUCTURE if budget is None else Depth.DATA)
        self._ledger = Ledger(self._storage, self._ring)
        opens = all(keys.data_private is not None for keys in self._ring.epochs.values())
        self._history = PackHistory(now_ns, contents=opens)
        self._packs: dict[bytes, int] = {}
        self._bad_packs: set[bytes] = set()
        self._lost_frames: set[FrameName] = set()

    def run(self) -> VerifyReport:
        # Manifests first: what they need was stored before them, so it must be in the listings that follow.
        manifests = read_manifests(self._storage, self._ring, None)
        self._index.refresh()
        self._packs = _packs(self._storage.list("packs/"))
        self._check_small_objects()
        self._check_tables()
        self._check_packs()
        plan = None if self._budget is None else plan_reading(self._packs, self._history, self._budget)
        self._count_absent([])
        self._progress.phase = "manifests" if plan is None else "reading packs"
        reading = PackReading(self._session, self._report, self._progress, plan.chosen if plan else ())
        try:
            with reading:
                whole = TreeWalk(self._index, self._session.reader).is_whole(manifests.live, self._progress)
            reading.wait()
        except HoldfastError:
            self._write_ledger(reading)
            raise
        self._check_manifests(manifests, reading, whole=whole)
        for name, reason in self._session.reader.damage.items():
            self._report.add(name, reason)
        self._report.packs_left = None if plan is None else plan.left
        self._write_ledger(reading)
        self._state_ages(reading)
        return self._report

    @property
    def _reads_all(self) -> bool:
        return self._budget is not None and self._budget.is_all

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
        for entry in self._ledger.entries():
            self._history.add(entry.record, entry.dated_ns)
        for name, reason in self._ledger.damaged.items():
            self._report.add(name, reason)

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
        if not self._reads_all and sum(info.size for info in tables) > _TABLE_BYTES_READ_MAX:
            return
        for info in tables:
            with suppress(ObjectMissing):
                data = self._storage.get(info.name)
                self._report.read_bytes += len(data)
                if f"tables/{blake3(data).hexdigest()}" != info.name:
                    self._report.add(info.name, "its bytes have another hash than its name")

    def _check_packs(self) -> None:
        """Compare the packs that tables know with those that are there; read the directories of unknown ones."""
        self._progress.phase = "packs"
        for pack, size in self._index.packs():
            found = self._packs.get(pack)
            if found != size:
                self._bad_packs.add(pack)
                reason = "missing" if found is None else f"has {found} bytes instead of {size}"
                self._report.add(pack_name(pack), reason)
        for pack in self._index.unindexed(self._packs):
            with suppress(ObjectMissing):
                try:
                    directory = read_directory(self._storage, self._ring, pack, self._packs[pack])
                    self._index.add_pack(pack, self._packs[pack], directory)
                except ObjectDamaged as error:
                    self._bad_packs.add(pack)
                    self._report.add(pack_name(pack), error.reason)
        self._report.packs = len(self._packs)

    def _count_absent(self, good_now: list[bytes]) -> None:
        """Tell the index what is lost: by this run, and, unless it reads everything itself, by earlier ones."""
        packs, frames = set(self._bad_packs), {name.pack() for name in self._lost_frames}
        if not self._reads_all:
            known, good = self._history, set(good_now)
            packs.update(
                pack
                for pack, when in known.lost_packs.items()
                if pack not in good and not known.found_good_since([pack], when)
            )
            for frame, when in known.lost_frames.items():
                holders = [where.pack for where in self._index.find_frame(FrameName.unpack(frame))]
                if good.isdisjoint(holders) and not known.found_good_since(holders, when):
                    frames.add(frame)
        self._index.set_absent(packs, frames)

    def _check_manifests(self, manifests: ManifestList, reading: PackReading, *, whole: bool) -> None:
        """Name damaged manifests and what hurts others; `whole` is what a quick walk said before all was read."""
        self._progress.phase = "manifests"
        for name, reason in manifests.damaged.items():
            self._report.add(name, reason, manifest=name.removeprefix("manifests/"))
        self._report.notices += series_notices(manifests.live, self._forgotten())
        self._report.manifests = len(manifests.live)
        truthful = reading.rows_agree(all_packs=self._reads_all)
        if whole and truthful and reading.whole:
            return
        self._bad_packs |= reading.bad_packs
        self._lost_frames = self._frames_without_copy(reading)
        self._count_absent(reading.good_packs)
        trees = TreeCheck(self._index, self._session.reader, exact=self._reads_all or not truthful)
        for manifest in manifests.live:
            self._progress.check_stop()
            self._check_manifest(trees, manifest)
        self._lost_frames |= trees.false_frames

    def _check_manifest(self, trees: TreeCheck, manifest: Manifest) -> None:
        if manifest.root is not None:
            for name, reason in trees.damage_of(manifest.root):
                self._report.add(name, reason, manifest=manifest.id.hex())

    def _frames_without_copy(self, reading: PackReading) -> set[FrameName]:
        """Return the frames of which no whole copy is left."""
        return {
            name
            for name, packs in reading.bad_frames.items()
            if all(
                where.pack in packs or where.pack in self._bad_packs for where in self._index.find_frame(name)
            )
        }

    def _forgotten(self) -> set[bytes]:
        names = (info.name.removeprefix("forgotten/") for info in self._storage.list("forgotten/"))
        return {bytes.fromhex(name) for name in names}

    def _write_ledger(self, reading: PackReading) -> None:
        """Record what was read, and what is lost, if this key may. A storage that takes no writes is no failure."""
        good = reading.good_packs
        if not (good or reading.faulty_packs or self._bad_packs or self._lost_frames):
            return
        if not self._ring.may_sign(Kind.LEDGER):
            if not self._reads_all:
                self._report.notices.append(
                    "this key records nothing: the next run begins with the same packs"
                )
            return
        try:
            for at in range(0, max(1, len(good)), PACKS_TO_A_RECORD_MAX):
                self._put_record(reading, good[at : at + PACKS_TO_A_RECORD_MAX], damage=at == 0)
            self._storage.barrier()
        except StorageError as error:
            self._report.notices.append(f"what was verified could not be recorded: {error}")

    def _put_record(self, reading: PackReading, good: list[bytes], *, damage: bool) -> None:
        record = LedgerRecord(
            id=os.urandom(16),
            time=self._now_ns,
            depth=self._report.depth,
            packs=tuple(good),
            damaged_packs=tuple(sorted(self._bad_packs)) if damage else (),
            damaged_frames=tuple(sorted(name.pack() for name in self._lost_frames)) if damage else (),
            faulty_packs=tuple(sorted(reading.faulty_packs)) if damage else (),
            contents=self._report.contents_read,
        )
        name = f"ledger/{record.id.hex()}"
        self._storage.put(name, seal_object(self._ring, Kind.LEDGER, record.to_body(), subject=name))

    def _state_ages(self, reading: PackReading) -> None:
        """State how long ago the packs that are there were found good, this run included."""
        good = {**self._history.good, **dict.fromkeys(reading.good_packs, self._now_ns)}
        ages = [good[pack] for pack in self._packs if pack in good]
        self._report.packs_never_checked = len(self._packs) - len(ages)
        self._report.oldest_check = min(ages, default=None)


def _packs(listed: Iterable[ObjectInfo]) -> dict[bytes, int]:
    """Return the size of each pack by its hash; names that are none of a pack are left out."""
    found = {}
    for info in listed:
        with suppress(ValueError):
            hash_ = bytes.fromhex(info.name[-64:])
            if pack_name(hash_) == info.name:
                found[hash_] = info.size
    return found
