"""Verify selection: which packs a verification of the data reads this time.

    --data                       all of them
    --within DAYS                those that were not found good within so many days
    --sample N%                  of those (or of all) as many as make N% of the bytes of all packs

Oldest first: packs that nobody ever read, then by when they were read last, whatever came of it. The pack that reaches the
share is the last one, so a run reads at least its share, and at least one pack. Hence ⌈100/N⌉ runs read every pack that
was there before the first of them, as long as what is stored meanwhile, which comes first, does not take their share:
each needs as many runs more as that is shares. Judgement only: nothing here touches storage or looks at a clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from repo_store.errors import UsageError
from repo_store.pack_history import PackHistory

_DAY_NS = 86_400 * 10**9
_DAYS_MAX = 36_500
_PARTS = 10**6
"""Shares are counted in millionths."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the user asked for. `within_ns`: how long a pack found good need not be read; `sample`: millionths."""

    within_ns: int | None = None
    sample: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether everything is to be read, whatever the ledger says."""
        return self.within_ns is None and self.sample is None


ALL = Budget()


@dataclass(frozen=True)
class ReadingPlan:
    """The packs to read, oldest first (hash and size in bytes), and how many that are due are left for another run."""

    chosen: tuple[tuple[bytes, int], ...]
    left: int

    @property
    def bytes(self) -> int:
        """The bytes to be read."""
        return sum(size for _, size in self.chosen)


def plan_reading(packs: Mapping[bytes, int], history: PackHistory, budget: Budget) -> ReadingPlan:
    """Choose among `packs` (hash → size in bytes)."""
    due = [pack for pack in packs if _is_due(pack, history, budget.within_ns)]
    due.sort(key=lambda pack: (history.looked.get(pack, -1), pack))
    if budget.sample is None:
        return ReadingPlan(tuple((pack, packs[pack]) for pack in due), 0)
    share = -(-sum(packs.values()) * budget.sample // _PARTS)
    chosen: list[tuple[bytes, int]] = []
    read = 0
    for pack in due:
        if chosen and read >= share:
            break
        chosen.append((pack, packs[pack]))
        read += packs[pack]
    return ReadingPlan(tuple(chosen), len(due) - len(chosen))


def _is_due(pack: bytes, history: PackHistory, within_ns: int | None) -> bool:
    if within_ns is None:
        return True
    good = history.good.get(pack)
    # One that was read later and was not whole is due, however lately it had been good before.
    return good is None or good <= history.now_ns - within_ns or history.looked[pack] > good


def budget_of(*, within_days: float | None, sample: str | None) -> Budget:
    """Return the budget for DAYS and N% as a user writes them. Raises UsageError."""
    within = None
    if within_days is not None:
        if not 0 < within_days <= _DAYS_MAX:
            raise UsageError(f"{within_days:g}: not a number of days", hint="like --within 30")
        within = int(within_days * _DAY_NS)
    return Budget(within_ns=within, sample=None if sample is None else _millionths(sample))


def _millionths(text: str) -> int:
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        share = float(number) if percent else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        raise UsageError(f"{text}: not a share of the packs", hint="a percentage, like --sample 5%")
    return max(1, round(share * _PARTS / 100))
