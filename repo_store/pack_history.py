"""Pack history: when each pack was last read and found good, as far as the ledger tells and can be believed.

Clocks. A record says when it was made by the clock of its signer; the storage says when it was put. The earlier of the two
counts: a clock that runs ahead, or a copy of the repository whose dates are all new, makes no pack look younger. A record
whose time lies ahead of now even so counts for nothing: taken for now it would keep its packs from being read for ever,
taken at its word for as long as it says. So a wrong clock, on whichever side, costs a second reading and never leaves
one out.

What a pack was found to be lately decides, but a pack that is not whole is looked at in its turn like every other: one that
cannot be mended must not use up every night's share. This module touches no storage.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from repo_store.ledger import Depth, LedgerRecord
from repo_store.ledger_store import LedgerEntry

SKEW_NS_MAX = 600 * 10**9
"""How far a record may lie ahead of our clock and still count, as made now: clocks are never quite alike."""


def counted_time(record: LedgerRecord, dated_ns: int, now_ns: int) -> int | None:
    """Return when a verification counts as made, ns since 1970; None if that cannot be believed."""
    earlier = min(record.time, dated_ns)
    return None if earlier > now_ns + SKEW_NS_MAX else min(earlier, now_ns)


@dataclass
class PackHistory:
    """What the ledger tells of packs, by hash. Times are ns since 1970.

    `good` is when a pack was last found whole, `looked` when it was last read, whatever came of it; `lost_packs` and
    `lost_frames` are what was found lost, and when. Without `contents`, for a holder who cannot open packs himself, the
    checks of others who could not either count as well.
    """

    now_ns: int
    contents: bool = True
    good: dict[bytes, int] = field(default_factory=dict)
    looked: dict[bytes, int] = field(default_factory=dict)
    lost_packs: dict[bytes, int] = field(default_factory=dict)
    lost_frames: dict[bytes, int] = field(default_factory=dict)

    def add(self, record: LedgerRecord, dated_ns: int) -> None:
        """Take a record that the storage dates `dated_ns`."""
        when = counted_time(record, dated_ns, self.now_ns)
        # Damage needs no clock to be believed: of a time that cannot be, it stands until it is disproved.
        self._later(self.lost_packs, record.damaged_packs, self.now_ns if when is None else when)
        self._later(self.lost_frames, record.damaged_frames, self.now_ns if when is None else when)
        if when is None or record.depth != Depth.DATA:
            return
        self._later(self.looked, record.faulty_packs, when)
        self._later(self.looked, record.damaged_packs, when)
        if record.contents or not self.contents:
            self._later(self.good, record.packs, when)
            self._later(self.looked, record.packs, when)

    def found_good_since(self, packs: Iterable[bytes], when: int) -> bool:
        """Return whether one of `packs` was found whole after `when`."""
        return any(self.good.get(pack, 0) > when for pack in packs)

    @staticmethod
    def _later(times: dict[bytes, int], packs: Iterable[bytes], when: int) -> None:
        for pack in packs:
            if times.get(pack, -1) < when:
                times[pack] = when


def superseded(
    entries: Collection[LedgerEntry], packs: frozenset[bytes], frames: frozenset[bytes], now_ns: int
) -> list[str]:
    """Return the names of the records that nobody needs any more: only prune may remove them.

    `packs` and `frames` are those that the repository still has. A record is needed while it names damage in one of them,
    or is the last that found a pack good, or not whole. What history tells of these packs stays exactly as it was.
    """
    last: dict[tuple[bytes, bool, bool], tuple[int, str]] = {}
    for entry in entries:
        when = counted_time(entry.record, entry.dated_ns, now_ns)
        if when is None or entry.record.depth != Depth.DATA:
            continue
        for found, whole in ((entry.record.packs, True), (entry.record.faulty_packs, False)):
            for pack in packs & frozenset(found):
                told = pack, whole, entry.record.contents
                last[told] = max(last.get(told, (-1, "")), (when, entry.name))
    needed = {name for _, name in last.values()}
    needed |= {
        entry.name
        for entry in entries
        if not packs.isdisjoint(entry.record.damaged_packs)
        or not frames.isdisjoint(entry.record.damaged_frames)
    }
    return sorted(entry.name for entry in entries if entry.name not in needed)
