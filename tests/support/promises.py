"""Promises: the contract of Storage about power cuts, as the plainest bookkeeping that can state it.

Each call is noted with the moments at which it began and returned, in any unit that only grows. After a power
cut at a moment, a name may hold the value of its last change that a finished barrier covers, or of any later
change that had begun. A barrier covers what the same connection did before it, and everything about `names`.
A call that confirmed a value (a put of the same bytes, a delete of what was gone) counts as a change to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Change:
    value: bytes | None  # None: deleted
    who: int
    began: int
    returned: int


@dataclass(frozen=True)
class _Barrier:
    who: int
    names: frozenset[str]
    began: int
    returned: int


class Promises:
    """What was done, and so what must and may be found."""

    def __init__(self, found: dict[str, bytes] | None = None) -> None:
        """Start with the objects `found`, all durable."""
        self._start = dict(found or {})
        self._changes: dict[str, list[_Change]] = {}
        self._barriers: list[_Barrier] = []

    def changed(self, name: str, value: bytes | None, *, who: int, began: int, returned: int) -> None:
        self._changes.setdefault(name, []).append(_Change(value, who, began, returned))

    def barrier(self, names: Iterable[str], *, who: int, began: int, returned: int) -> None:
        self._barriers.append(_Barrier(who, frozenset(names), began, returned))

    def now(self) -> dict[str, bytes]:
        """Return what a reader must see while the power is on."""
        now: dict[str, bytes | None] = dict(self._start)
        now |= {name: changes[-1].value for name, changes in self._changes.items()}
        return {name: value for name, value in now.items() if value is not None}

    def broken_by(self, found: dict[str, bytes], moment: int) -> list[str]:
        """Return the names whose state after a power cut at `moment` breaks a promise."""
        names = self._start.keys() | self._changes.keys() | found.keys()
        return sorted(name for name in names if found.get(name) not in self._allowed(name, moment))

    def _allowed(self, name: str, moment: int) -> list[bytes | None]:
        allowed = [self._start.get(name)]
        for change in self._changes.get(name, []):
            if change.began >= moment:
                break
            if any(self._covers(barrier, name, change, moment) for barrier in self._barriers):
                allowed = []
            allowed.append(change.value)
        return allowed

    def _covers(self, barrier: _Barrier, name: str, change: _Change, moment: int) -> bool:
        known = barrier.who == change.who or name in barrier.names
        return known and change.returned <= barrier.began and barrier.returned <= moment
