"""WAL goes only if no recovery that was promised needs it.

Method: a cluster lives through random timelines: it is promoted at random positions, which starts a new one; bases are
taken on any of them. The archive holds every segment of every timeline. Each recovery that is promised is then played:
from a base along the chain of timelines to a target. What the replay reads must be kept; what is condemned must be
outside of every range and before every starting point, asked plainly of each pair.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manifests import manifest

from engine.wal_retention import WalObject, WalRange, parse_wal_object, plan_wal, wal_ranges

SYSTEM = 7_123_456_789_012_345_678
LENGTH = 12


def name(timeline: int, position: int, system: int = SYSTEM, suffix: str = "") -> str:
    return f"wal/{system}/{timeline}/{timeline:08x}{position:016x}{suffix}"


def segments(timeline: int, *positions: int, system: int = SYSTEM) -> list[WalObject]:
    return [WalObject(name(timeline, at, system), system, timeline, at) for at in positions]


def base(end: int, timeline: int, first: int, last: int, **changes: object) -> WalRange:
    fields = {"system_id": SYSTEM, "series": "db", "usable": True, **changes}
    return WalRange(end_ns=end, timeline=timeline, first=first, last=last, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cluster:
    """Timelines as (parent, position of the switch), from 1; the first has none. And the bases taken."""

    switches: dict[int, tuple[int, int]]
    bases: list[WalRange]

    def chain(self, timeline: int) -> list[int]:
        """Return a timeline and its ancestors, newest first."""
        chain = [timeline]
        while chain[-1] in self.switches:
            chain.append(self.switches[chain[-1]][0])
        return chain

    def replayed(self, start: WalRange, timeline: int) -> set[WalObject]:
        """Return what recovery from a base to the end of `timeline` reads; nothing if it cannot go there."""
        chain = self.chain(timeline)
        if start.timeline not in chain:
            return set()
        read: set[WalObject] = set()
        end = LENGTH
        for each in chain[: chain.index(start.timeline) + 1]:
            begin = start.first if each == start.timeline else self.switches[each][1]
            read |= set(segments(each, *range(begin, end + 1)))
            end = self.switches[each][1] if each in self.switches else LENGTH
        reaches = all(self.switches[each][1] >= start.last for each in chain[: chain.index(start.timeline)])
        return read if reaches else set()


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    switches = {}
    for timeline in range(2, draw(st.integers(1, 5)) + 1):
        parent = draw(st.integers(1, timeline - 1))
        least = switches[parent][1] if parent in switches else 0
        switches[timeline] = (parent, draw(st.integers(least, LENGTH)))
    bases = []
    for _ in range(draw(st.integers(0, 5))):
        timeline = draw(st.integers(1, len(switches) + 1))
        first = draw(st.integers(switches.get(timeline, (0, 0))[1], LENGTH))
        bases.append(
            base(
                draw(st.integers(1, 40)),
                timeline,
                first,
                draw(st.integers(first, LENGTH)),
                series=draw(st.sampled_from(["db", "db", "clone"])),
                usable=draw(st.sampled_from([True, True, True, False])),
            )
        )
    return Cluster(switches, bases)


@settings(max_examples=settings.default.max_examples * 2)
@given(clusters(), st.integers(0, 45))
def test_every_promised_recovery_finds_its_wal(cluster: Cluster, window: int) -> None:
    archive = [s for t in range(1, len(cluster.switches) + 2) for s in segments(t, *range(LENGTH + 1))]
    gone = plan_wal(archive, cluster.bases, window)
    usable = [b for b in cluster.bases if b.usable]
    starts = [
        b
        for b in usable
        if b.end_ns > window
        or not any(o.series == b.series and b.end_ns < o.end_ns <= window for o in usable)
    ]
    for start in starts:
        for timeline in range(1, len(cluster.switches) + 2):
            assert not {s.name for s in cluster.replayed(start, timeline)} & gone
    for each in cluster.bases:
        assert not {s.name for s in segments(each.timeline, *range(each.first, each.last + 1))} & gone
    expected = {
        s.name
        for s in archive
        if starts
        and not any(b.timeline == s.timeline and b.first <= s.position <= b.last for b in cluster.bases)
        and not any(b.timeline <= s.timeline and b.first <= s.position for b in starts)
    }
    assert gone == expected


def test_old_bases_keep_start_to_stop_and_the_window_everything() -> None:
    ranges = [base(10, 1, 2, 3), base(20, 1, 5, 6), base(30, 1, 9, 9)]
    archive = segments(1, *range(12))
    kept = lambda window: [s.position for s in archive if s.name not in plan_wal(archive, ranges, window)]  # noqa: E731
    assert kept(25) == [2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert kept(35) == [2, 3, 5, 6, 9, 10, 11]
    assert kept(5) == kept(10) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert kept(None) == kept(5)


def test_clusters_do_not_answer_for_each_other() -> None:
    archive = segments(1, *range(9)) + segments(1, *range(9), system=4)
    gone = plan_wal(archive, [base(10, 1, 5, 6)], 20)
    assert gone == {s.name for s in segments(1, 0, 1, 2, 3, 4)}


def test_without_a_usable_base_nothing_goes() -> None:
    archive = segments(1, *range(9))
    assert plan_wal(archive, [], 20) == frozenset()
    assert plan_wal(archive, [base(10, 1, 5, 6, usable=False)], 20) == frozenset()


def test_a_base_that_is_not_whole_keeps_its_own_range_and_is_no_start() -> None:
    archive = segments(1, *range(9))
    ranges = [base(10, 1, 2, 3), base(15, 1, 6, 7, usable=False)]
    assert plan_wal(archive, ranges, 20) == {s.name for s in segments(1, 0, 1)}


@pytest.mark.parametrize(
    "given_name",
    [
        f"wal/{SYSTEM}/1/00000002.history",
        f"wal/{SYSTEM}/1/000000010000000000000001x",
        f"wal/{SYSTEM}/1/0000000100000000000001",
        f"wal/{SYSTEM}/000000010000000000000001",
        f"wal/{'9' * 21}/1/000000010000000000000001",
        "wal/x/1/000000010000000000000001",
        "packs/00/00",
    ],
)
def test_history_files_and_unknown_names_never_go(given_name: str) -> None:
    assert parse_wal_object(given_name) is None


def test_a_name_is_read_as_postgresql_counts() -> None:
    read = parse_wal_object(f"wal/{SYSTEM}/10/0000000A000000020000000f")
    assert read is not None
    assert (read.system_id, read.timeline, read.position) == (SYSTEM, 10, 0x20000000F)
    piece = parse_wal_object(name(1, 5, suffix=".00000000.piece"))
    assert piece is not None
    assert piece.position == 5


def test_ranges_come_from_manifests() -> None:
    row = (SYSTEM, 2, "000000020000000000000005", "000000020000000000000007")
    (found,) = wal_ranges([manifest(1, wal=[row], series="db"), manifest(2)])
    assert found == base(manifest(1).end, 2, 5, 7)


@pytest.mark.parametrize("last", ["000000030000000000000007", "nonsense", ""])
def test_a_range_that_makes_no_sense_keeps_everything_of_its_cluster(last: str) -> None:
    row = (SYSTEM, 2, "000000020000000000000005", last)
    for status in ("complete", "partial"):
        ranges = [base(2 * 10**9, 1, 8, 8), *wal_ranges([manifest(1, status, wal=[row], series="db")])]
        assert plan_wal(segments(1, *range(9)) + segments(3, 1), ranges, 10**12) == frozenset()
