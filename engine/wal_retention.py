"""WAL retention: which WAL objects may go, judged by the ranges that manifests name. Pure: names in, names out.

A base backup that may be restored names the WAL from its start to its stop; to replay further than that takes every
segment after it. So of each cluster (its system id)

    start..stop      of every manifest stays
    everything after the start of a *starting point* stays: of every usable base that ended inside the window for
                     recovery in time, and, in each series, of the newest one that had ended when the window began
    history files    stay for ever, and so does whatever is not the name of a segment

"After" goes by position, and by timeline: a timeline's number is higher than those of its ancestors, and replay never
goes back in position, so what a starting point on timeline T at position P can ever need lies on T or a later timeline,
at P or behind it. That needs no history file, and keeps at most the WAL of branches that nobody asks for. A cluster
that no manifest names keeps everything: its first base backup may be under way. So does one without a window.

Prune must hand in the ranges of pendings with those of live manifests (docs/format.md, section 10).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from repo_store.body import NUMBER_MAX
from repo_store.manifest import Manifest

_SEGMENT: Final = re.compile(r"wal/(\d{1,20})/[^/]+/([0-9a-fA-F]{8})([0-9a-fA-F]{16})(\..*)?")
_FILE_NAME: Final = re.compile(r"([0-9a-fA-F]{8})([0-9a-fA-F]{16})")


class WalObject(NamedTuple):
    """A stored WAL segment or a piece of one: its object's name, cluster, timeline, and position on the timeline."""

    name: str
    system_id: int
    timeline: int
    position: int


@dataclass(frozen=True, kw_only=True)
class WalRange:
    """The WAL that one manifest names, on one timeline. `end_ns` is when the manifest ended."""

    system_id: int
    timeline: int
    first: int
    last: int
    series: str
    end_ns: int
    usable: bool
    """Whether a restore can start there: the manifest is complete."""

    def holds(self, segment: WalObject) -> bool:
        """Say whether a segment lies in the range."""
        return segment.timeline == self.timeline and self.first <= segment.position <= self.last

    def leads_to(self, segment: WalObject) -> bool:
        """Say whether replay that starts here may come to a segment."""
        return segment.timeline >= self.timeline and segment.position >= self.first


def parse_wal_object(name: str) -> WalObject | None:
    """Return the segment that the object `name` holds; None for a history file and all else, which never goes."""
    match = _SEGMENT.fullmatch(name)
    if match is None:
        return None
    system_id, timeline, position, _ = match.groups()
    return WalObject(name, int(system_id), int(timeline, 16), int(position, 16))


def wal_ranges(manifests: Iterable[Manifest]) -> list[WalRange]:
    """Return the ranges that manifests name.

    A range whose file names are on several timelines, or are none, has no bounds: nothing of its cluster goes.
    """
    return [_range(manifest, row) for manifest in manifests for row in manifest.wal]


def _range(manifest: Manifest, row: tuple[int, int, str, str]) -> WalRange:
    system_id, timeline, first, last = row
    bounds = [_FILE_NAME.fullmatch(each) for each in (first, last)]
    positions = [int(match[2], 16) for match in bounds if match and int(match[1], 16) == timeline]
    whole = len(positions) == len(bounds)
    return WalRange(
        system_id=system_id,
        timeline=timeline if whole else 0,
        first=positions[0] if whole else 0,
        last=positions[1] if whole else 2**64,
        series=manifest.series,
        end_ns=manifest.end if whole else NUMBER_MAX,
        usable=manifest.status == "complete" or not whole,
    )


def plan_wal(
    objects: Iterable[WalObject], ranges: Sequence[WalRange], window_start: int | None
) -> frozenset[str]:
    """Return the names of those of `objects` that may go.

    `window_start`, in nanoseconds since 1970, is the earliest moment to which recovery must be possible; None says that
    nobody has stated one, and then all WAL behind the oldest usable base stays.
    """
    by_system: dict[int, list[WalRange]] = {}
    for each in ranges:
        by_system.setdefault(each.system_id, []).append(each)
    needs = {system_id: _Needs(own, window_start) for system_id, own in by_system.items()}
    return frozenset(
        segment.name
        for segment in objects
        if segment.system_id in needs and not needs[segment.system_id].include(segment)
    )


def wal_to_condemn(
    names: Iterable[str], manifests: Iterable[Manifest], window_start: int | None
) -> tuple[str, ...]:
    """Return those of the object names that may go as far as `manifests` need them, sorted; unknown names stay."""
    stored = [each for each in map(parse_wal_object, names) if each is not None]
    return tuple(sorted(plan_wal(stored, wal_ranges(manifests), window_start))) if stored else ()


class _Needs:
    """What one cluster needs, made so that a million segments are asked for quickly."""

    def __init__(self, ranges: Sequence[WalRange], window_start: int | None) -> None:
        self._all = True
        self._starts: dict[int, WalRange] = {}
        for each in _starting_points(ranges, window_start):
            self._all = False
            known = self._starts.get(each.timeline)
            if known is None or each.first < known.first:
                self._starts[each.timeline] = each
        self._ranges: dict[int, set[WalRange]] = {}
        for each in ranges:
            self._ranges.setdefault(each.timeline, set()).add(each)

    def include(self, segment: WalObject) -> bool:
        return (
            self._all
            or any(start.leads_to(segment) for start in self._starts.values())
            or any(each.holds(segment) for each in self._ranges.get(segment.timeline, ()))
        )


def _starting_points(ranges: Sequence[WalRange], window_start: int | None) -> list[WalRange]:
    """Return the ranges from which everything must be kept; none where no base is usable: then nothing goes."""
    usable = [each for each in ranges if each.usable]
    if window_start is None:
        return usable
    inside = [each for each in usable if each.end_ns > window_start]
    before: dict[str, list[WalRange]] = {}
    for each in usable:
        if each.end_ns <= window_start:
            before.setdefault(each.series, []).append(each)
    newest = [each for own in before.values() for each in own if each.end_ns == max(r.end_ns for r in own)]
    return [*inside, *newest]
