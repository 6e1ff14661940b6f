"""Retention as it would be explained to a person, one manifest at a time: the reference for engine/retention.py.

Nothing is shared with the product but the Manifest and the Policy. Every question is asked of the whole list again.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.retention import Policy
from repo_store.manifest import Manifest

TOLERANCE = 15 * 60 * 10**9


def slow_kept(
    manifests: Sequence[Manifest],
    policy: Policy,
    now: int,
    selected: Callable[[Manifest], bool],
    unreadable: Collection[bytes],
) -> set[bytes]:
    """Return the ids of the selected manifests that stay."""
    by_rule = {
        m.id
        for m in manifests
        if selected(m) and _rule_keeps(manifests, m, policy, now, selected, unreadable)
    }
    stays = {m.id for m in manifests if m.status == "complete" and (m.id in by_rule or not selected(m))}
    return by_rule | {
        m.id
        for m in manifests
        if selected(m)
        and m.status != "complete"
        and not any(c.id in stays and c.series == m.series and c.sequence > m.sequence for c in manifests)
    }


def _rule_keeps(
    manifests: Sequence[Manifest],
    m: Manifest,
    policy: Policy,
    now: int,
    selected: Callable[[Manifest], bool],
    unreadable: Collection[bytes],
) -> bool:
    if m.hold_until is not None and m.hold_until > now:
        return True
    if set(policy.tags) & set(m.tags) or m.id in unreadable or _when(m) > now + TOLERANCE:
        return True
    others = [o for o in manifests if selected(o) and o.series == m.series]
    if m.status == "complete":
        peers = [o for o in others if o.status == "complete" and is_wrong(o, now) == is_wrong(m, now)]
        return _complete_keeps(peers, m, policy)
    if m.status == "incomplete":
        peers = [o for o in others if o.status == "complete" and not is_wrong(o, now)]
        return _incomplete_keeps(peers, [o for o in others if o.status == "incomplete"], m, policy)
    return False


def _complete_keeps(peers: Sequence[Manifest], m: Manifest, policy: Policy) -> bool:
    later = [o for o in peers if _after(o, m)]
    if len(later) < policy.last or _within(peers, m, policy):
        return True
    for period, count in _rules(policy):
        places = {_place(period, o, policy) for o in later}
        if _place(period, m, policy) not in places and len(places) < count:
            return True
    return False


def _incomplete_keeps(
    complete: Sequence[Manifest], incomplete: Sequence[Manifest], m: Manifest, policy: Policy
) -> bool:
    if complete and _within(complete, m, policy):
        return True
    for period, count in _rules(policy):
        if not count:
            continue
        taken: list[Any] = []
        for o in sorted(complete, key=_order, reverse=True):
            place = _place(period, o, policy)
            if place not in taken and len(taken) < count:
                taken.append(place)
        place = _place(period, m, policy)
        first = not any(_after(o, m) and _place(period, o, policy) == place for o in incomplete)
        if first and place not in taken and (len(taken) < count or place > min(taken)):
            return True
    return False


def _within(peers: Sequence[Manifest], m: Manifest, policy: Policy) -> bool:
    newest = max(peers, key=_order)
    return policy.within_ns is not None and _when(m) >= _when(newest) - policy.within_ns


def _rules(policy: Policy) -> list[tuple[str, int]]:
    return [
        ("hour", policy.hourly),
        ("day", policy.daily),
        ("week", policy.weekly),
        ("month", policy.monthly),
        ("year", policy.yearly),
    ]


def _place(period: str, m: Manifest, policy: Policy) -> Any:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=_when(m) // 1000)).astimezone(
        policy.zone
    )
    day = local.date()
    if period == "hour":
        offset = local.utcoffset()
        assert offset is not None
        return (local.strftime("%Y-%m-%d %H"), -offset.total_seconds())
    if period == "week":
        return str(day - timedelta(days=day.weekday()))
    return str(day)[: {"day": 10, "month": 7, "year": 4}[period]]


def _when(m: Manifest) -> int:
    return m.end if m.storage_date is None or m.storage_date > m.end else m.storage_date


def is_wrong(m: Manifest, now: int) -> bool:
    """Say whether a manifest was made under a wrong clock."""
    return m.end > now + TOLERANCE or (m.storage_date is not None and m.end > m.storage_date + TOLERANCE)


def _order(m: Manifest) -> tuple[int, int, bytes]:
    return m.sequence, m.end, m.id


def _after(o: Manifest, m: Manifest) -> bool:
    return _order(o) > _order(m)
