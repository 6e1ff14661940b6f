"""Whose turn it is: the choice of packs to read, against a slow reference, and against clocks and records that lie."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.verify_selection import ALL, Budget, budget_of, plan_reading
from repo_store.errors import UsageError
from repo_store.ledger import Depth, LedgerRecord
from repo_store.ledger_store import LedgerEntry
from repo_store.pack_history import SKEW_NS_MAX, PackHistory, superseded

DAY = 86_400 * 10**9
NOW = 20_000 * DAY
PACKS = [bytes([number]) * 32 for number in range(12)]
_ids = itertools.count()


def record(*packs: bytes, time: int, **more: object) -> LedgerRecord:
    plain = LedgerRecord(id=next(_ids).to_bytes(16, "big"), time=time, depth=Depth.DATA, packs=packs)
    return replace(plain, **more)  # type: ignore[arg-type]


def history(*records: tuple[LedgerRecord, int], now: int = NOW, contents: bool = True) -> PackHistory:
    made = PackHistory(now, contents=contents)
    for each, dated in records:
        made.add(each, dated)
    return made


RECORDS = st.builds(
    lambda good, faulty, time, dated, contents, depth: (
        record(*good, time=time, faulty_packs=tuple(faulty), contents=contents, depth=depth),
        dated,
    ),
    st.lists(st.sampled_from(PACKS), unique=True),
    st.lists(st.sampled_from(PACKS), unique=True),
    st.integers(0, 40).map(lambda days: NOW + (3 - days) * DAY),
    st.integers(0, 40).map(lambda days: NOW + (3 - days) * DAY),
    st.booleans(),
    st.sampled_from(Depth),
)


def slowly(
    packs: dict[bytes, int],
    records: list[tuple[LedgerRecord, int]],
    contents: bool,
    days: int | None,
    share: int | None,
) -> tuple[set[bytes], int]:
    """Choose as the documentation says it, one pack after the other, everything worked out anew for each."""

    def times(pack: bytes, *, good_only: bool) -> list[int]:
        found = []
        for each, dated in records:
            when = min(each.time, dated)
            if when > NOW + SKEW_NS_MAX or each.depth != Depth.DATA:
                continue
            if pack in each.packs and (each.contents or not contents):
                found.append(min(when, NOW))
            if pack in each.faulty_packs and not good_only:
                found.append(min(when, NOW))
        return found

    def is_due(pack: bytes) -> bool:
        good, looked = times(pack, good_only=True), times(pack, good_only=False)
        if days is None or not good or max(looked) > max(good):
            return True
        return NOW - max(good) >= days * DAY

    due = {pack for pack in packs if is_due(pack)}
    chosen: set[bytes] = set()
    while due - chosen:
        if (
            share is not None
            and chosen
            and sum(packs[p] for p in chosen) * 100 >= sum(packs.values()) * share
        ):
            break
        never = [pack for pack in due - chosen if not times(pack, good_only=False)]
        chosen.add(min(never or due - chosen, key=lambda p: (max(times(p, good_only=False), default=0), p)))
    return chosen, len(due - chosen)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.dictionaries(st.sampled_from(PACKS), st.integers(1, 1000)),
    st.lists(RECORDS, max_size=6),
    st.booleans(),
    st.none() | st.integers(1, 30),
    st.none() | st.integers(1, 100),
)
def test_the_choice_is_that_of_the_slow_reference(
    packs: dict[bytes, int],
    records: list[tuple[LedgerRecord, int]],
    contents: bool,
    days: int | None,
    share: int | None,
) -> None:
    budget = budget_of(within_days=days, sample=None if share is None else f"{share}%")
    plan = plan_reading(packs, history(*records, contents=contents), budget)
    assert (set(dict(plan.chosen)), plan.left) == slowly(packs, records, contents, days, share)
    assert all(packs[pack] == size for pack, size in plan.chosen)
    looked = history(*records, contents=contents).looked
    ages = [looked.get(pack, -1) for pack, _ in plan.chosen]
    assert ages == sorted(ages), "oldest first"


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=40),
    st.integers(1, 100),
    st.sets(st.integers(0, 39)),
)
def test_as_many_runs_as_there_are_shares_read_every_pack_even_if_some_are_not_whole(
    sizes: list[int], share: int, broken: set[int]
) -> None:
    packs = {bytes([number]) * 32: size for number, size in enumerate(sizes)}
    faulty = {pack for number, pack in enumerate(packs) if number in broken}
    records: list[tuple[LedgerRecord, int]] = []
    read: set[bytes] = set()
    runs = math.ceil(100 / share)
    for night in range(runs):
        now = NOW + night * DAY
        plan = plan_reading(
            packs, history(*records, now=now), budget_of(within_days=None, sample=f"{share}%")
        )
        assert plan.bytes * 100 >= sum(sizes) * share
        chosen = set(dict(plan.chosen))
        read |= chosen
        done = record(*(chosen - faulty), time=now, faulty_packs=tuple(chosen & faulty))
        records.append((done, now))
    assert read == set(packs)


def test_both_options_read_of_what_is_due_no_more_than_the_share() -> None:
    packs = dict.fromkeys(PACKS, 10)
    known = history(
        (record(*PACKS[:4], time=NOW - 5 * DAY), NOW), (record(*PACKS[4:8], time=NOW - 40 * DAY), NOW)
    )
    plan = plan_reading(packs, known, budget_of(within_days=30, sample="50%"))
    assert [pack for pack, _ in plan.chosen] == PACKS[8:] + PACKS[4:6]
    assert plan.left == 2
    assert plan_reading(packs, known, ALL).chosen[-4:] == tuple((pack, 10) for pack in PACKS[:4])


@pytest.mark.parametrize("ahead", [SKEW_NS_MAX + 1, DAY, 40 * DAY, 10_000 * DAY])
def test_a_record_from_the_future_exempts_nothing_now_and_nothing_when_its_time_has_come(ahead: int) -> None:
    packs, within = dict.fromkeys(PACKS, 10), Budget(within_ns=30 * DAY)
    lie = record(*PACKS, time=NOW + ahead)
    assert plan_reading(packs, history((lie, NOW + ahead)), within).left == 0
    assert len(plan_reading(packs, history((lie, NOW + ahead)), within).chosen) == len(PACKS)
    come = plan_reading(packs, history((lie, NOW), now=NOW + ahead), within)
    assert len(come.chosen) == (len(PACKS) if ahead >= 30 * DAY else 0), (
        "the storage's date is believed where it is the earlier one"
    )


def test_copies_whose_dates_are_all_new_make_no_pack_look_younger() -> None:
    packs, within = dict.fromkeys(PACKS, 10), Budget(within_ns=30 * DAY)
    old = record(*PACKS, time=NOW - 40 * DAY)
    assert len(plan_reading(packs, history((old, NOW)), within).chosen) == len(PACKS)


def test_our_own_clock_set_back_reads_again_and_leaves_nothing_out() -> None:
    packs, within = dict.fromkeys(PACKS, 10), Budget(within_ns=30 * DAY)
    fresh = record(*PACKS, time=NOW)
    assert plan_reading(packs, history((fresh, NOW)), within).chosen == ()
    assert len(plan_reading(packs, history((fresh, NOW), now=NOW - 100 * DAY), within).chosen) == len(PACKS)


def test_a_clock_a_little_behind_the_storage_believes_what_was_just_recorded() -> None:
    known = history((record(*PACKS, time=NOW), NOW + SKEW_NS_MAX))
    assert plan_reading(dict.fromkeys(PACKS, 10), known, Budget(within_ns=DAY)).chosen == ()


def test_a_pack_found_damaged_is_due_however_lately_it_was_good() -> None:
    known = history(
        (record(*PACKS, time=NOW - 2 * DAY), NOW),
        (record(time=NOW - DAY, faulty_packs=(PACKS[3],), damaged_packs=(PACKS[3],)), NOW),
    )
    plan = plan_reading(dict.fromkeys(PACKS, 10), known, Budget(within_ns=30 * DAY))
    assert [pack for pack, _ in plan.chosen] == [PACKS[3]]


@pytest.mark.parametrize("text", ["5", "", "%", "0%", "-1%", "101%", "nan%", "inf%", "five%"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a share of the packs"):
        budget_of(within_days=None, sample=text)


@pytest.mark.parametrize("days", [0.0, -1.0, 1e9, float("nan")])
def test_days_that_are_none_are_refused(days: float) -> None:
    with pytest.raises(UsageError, match="not a number of days"):
        budget_of(within_days=days, sample=None)


@settings(max_examples=settings.default.max_examples // 2)
@given(st.lists(RECORDS, max_size=8), st.sets(st.sampled_from(PACKS)))
def test_records_that_are_superseded_can_go_and_nothing_is_forgotten(
    records: list[tuple[LedgerRecord, int]], stored: set[bytes]
) -> None:
    entries = [LedgerEntry(f"ledger/{each.id.hex()}", each, dated) for each, dated in records]
    gone = set(superseded(entries, frozenset(stored), frozenset(), NOW))
    kept = [(entry.record, entry.dated_ns) for entry in entries if entry.name not in gone]
    for contents in (True, False):
        before, after = (history(*some, contents=contents) for some in (records, kept))
        for pack in stored:
            assert before.good.get(pack) == after.good.get(pack)
            assert before.looked.get(pack) == after.looked.get(pack)
    last = [entry.name for entry in entries if not entry.record.packs and not entry.record.faulty_packs]
    assert set(last) <= gone


def test_damage_on_record_stays_while_what_it_names_is_there() -> None:
    frame = bytes(20)
    lost = record(time=NOW, damaged_packs=(PACKS[0],), damaged_frames=(frame,))
    entries = [
        LedgerEntry("ledger/a", lost, NOW),
        LedgerEntry("ledger/b", record(*PACKS, time=NOW + 1), NOW + 1),
    ]
    assert superseded(entries, frozenset(PACKS), frozenset(), NOW + 1) == []
    assert superseded(entries, frozenset(PACKS[1:]), frozenset({frame}), NOW + 1) == []
    assert superseded(entries, frozenset(PACKS[1:]), frozenset(), NOW + 1) == ["ledger/a"]
