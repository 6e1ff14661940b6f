"""Retention keeps what it says, in every history, and never the wrong one.

Method: random histories of several series, with forks, clocks that jump, dates to come, holds and tags, are judged by the
product and by tests/support/slow_retention.py, which asks every question of the whole list again. What nobody may ever
get wrong is stated as properties of its own, and what a person expects as examples.
"""

from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manifests import DAY, HOUR, SECOND, manifest
from support.slow_retention import is_wrong, slow_kept

from engine.retention import Policy, Retention, plan_retention
from engine.selection import parse_time
from repo_store.manifest import Manifest

NOW = parse_time("2026-11-23T12:00:00Z")
ZONES: list[tzinfo] = [
    UTC,
    *map(
        ZoneInfo,
        ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"),
    ),
]
EDGES = [  # around changes of the clock, of the day and of the year, in the zones above
    parse_time(text)
    for text in (
        "2026-10-25T00:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-04-04T15:00:00Z",
        "2011-12-30T10:00:00Z",
        "2026-01-01T00:00:00Z",
        "2025-12-29T00:00:00Z",
        "2026-11-23T12:00:00Z",
    )
]

moments = st.one_of(
    st.builds(lambda edge, by: edge + by * 600 * SECOND, st.sampled_from(EDGES), st.integers(-200, 200)),
    st.integers(0, 400).map(lambda days: NOW - days * DAY // 3),
)
policies = st.builds(
    Policy,
    last=st.integers(0, 3),
    hourly=st.integers(0, 4),
    daily=st.integers(0, 4),
    weekly=st.integers(0, 3),
    monthly=st.integers(0, 3),
    yearly=st.integers(0, 3),
    within_ns=st.none() | st.sampled_from([HOUR, 2 * DAY, 40 * DAY]),
    tags=st.sampled_from([(), ("keep",), ("keep", "other")]),
    zone=st.sampled_from(ZONES),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Manifest]:
    made: list[Manifest] = []
    for series in ("one", "two")[: draw(st.integers(1, 2))]:
        end = draw(moments)
        sequence = 1
        for _ in range(draw(st.integers(0, 14))):
            end = draw(st.one_of(moments, st.integers(1, 3 * DAY).map(lambda by, end=end: end + by)))
            sequence += draw(st.sampled_from([1, 1, 1, 0, 3]))
            made.append(
                manifest(
                    len(made) + 1,
                    draw(st.sampled_from(["complete", "complete", "complete", "incomplete", "partial"])),
                    series=series,
                    sequence=sequence,
                    end=end,
                    storage_date=draw(st.sampled_from([None, end, end + HOUR, max(0, end - 30 * DAY), NOW])),
                    hold_until=draw(st.sampled_from([None] * 8 + [NOW, NOW + 1, 5])),
                    tags=draw(st.sampled_from([()] * 6 + [("keep",), ("nightly",)])),
                )
            )
    return made


def judged(
    manifests: list[Manifest], *, unreadable: set[bytes] | None = None, share_max: int = 100, **rules: Any
) -> Retention:
    policy = rules["policy"] if "policy" in rules else Policy(**rules)
    return plan_retention(manifests, policy, now_ns=NOW, unreadable=unreadable or set(), share_max=share_max)


def kept(manifests: list[Manifest], **rules: Any) -> list[int]:
    """Return the numbers of the manifests that stay."""
    return [int.from_bytes(each.manifest.id, "big") for each in judged(manifests, **rules).kept]


@given(histories(), policies, st.sampled_from(["all", "series", "tag"]), st.data())
def test_any_history_is_judged_as_the_reference_does(
    history: list[Manifest], policy: Policy, chosen: str, data: st.DataObject
) -> None:
    selected = {
        "all": lambda m: True,
        "series": lambda m: m.series == "one",
        "tag": lambda m: "nightly" in m.tags or m.sequence % 2,
    }[chosen]
    unreadable = (
        data.draw(st.sets(st.sampled_from([m.id for m in history]), max_size=1)) if history else set()
    )
    found = plan_retention(history, policy, now_ns=NOW, selected=selected, unreadable=unreadable)
    assert {d.manifest.id for d in found.decisions} == {m.id for m in history if selected(m)}
    assert {d.manifest.id for d in found.kept} == slow_kept(history, policy, NOW, selected, unreadable)
    assert all(d.reasons for d in found.decisions)


@settings(max_examples=settings.default.max_examples // 4)
@given(histories(), policies)
def test_what_may_never_happen_does_not(history: list[Manifest], policy: Policy) -> None:
    found = judged(history, policy=policy, share_max=50)
    gone = {d.manifest.id for d in found.forgotten}
    for m in history:
        if m.hold_until is not None and m.hold_until > NOW:
            assert m.id not in gone, "held"
    complete = [m for m in history if m.status == "complete"]
    for series in {m.series for m in complete}:
        own = [m for m in complete if m.series == series]
        assert found.refusals or any(m.id not in gone for m in own), "a series lost all without a word"
    if len(gone & {m.id for m in complete}) * 2 > len(complete):
        assert any("more than 50 %" in refusal for refusal in found.refusals)


@settings(max_examples=settings.default.max_examples // 4)
@given(histories(), policies, st.integers(1, 5))
def test_manifests_dated_to_come_push_out_no_other(
    history: list[Manifest], policy: Policy, ahead: int
) -> None:
    """With any number of them, from a host whose clock runs years ahead, all that stayed without them stays: but for
    others of wrong date, which they are judged with."""
    before = {d.manifest.id for d in judged(history, policy=policy).kept}
    top = max((m.sequence for m in history), default=0)
    dated = [
        manifest(900 + n, sequence=top + n, end=NOW + n * 365 * DAY, storage_date=NOW - 40 * DAY + n * HOUR)
        for n in range(1, ahead + 1)
    ]
    after = judged(history + dated, policy=policy)
    lost = before - {d.manifest.id for d in after.kept}
    assert [m for m in history if m.id in lost and m.status == "complete" and not is_wrong(m, NOW)] == []


@settings(max_examples=settings.default.max_examples // 4)
@given(histories(), policies)
def test_to_forget_twice_forgets_no_more(history: list[Manifest], policy: Policy) -> None:
    first = judged(history, policy=policy)
    again = judged([d.manifest for d in first.kept], policy=policy)
    complete = [d.manifest.id for d in again.forgotten if d.manifest.status == "complete"]
    assert complete == []


def days(*numbers: int, **changes: Any) -> list[Manifest]:
    """Return one complete manifest a day, `numbers` days after a Monday."""
    monday = parse_time("2026-10-05T03:00:00Z")
    return [manifest(n + 1, end=monday + n * DAY, **changes) for n in numbers]


def test_rules_add_up_and_each_keeps_the_newest_of_its_period() -> None:
    assert kept(days(*range(28)), last=2) == [27, 28]
    assert kept(days(*range(28)), weekly=3) == [14, 21, 28]
    assert kept(days(*range(28)), daily=2, weekly=2, monthly=5) == [21, 27, 28]
    found = judged(days(*range(28)), daily=2, weekly=2, monthly=2)
    assert [d.reasons for d in found.kept] == [
        ("weekly 2026-W43",),
        ("daily 2026-10-31", "monthly 2026-10"),
        ("daily 2026-11-01", "weekly 2026-W44", "monthly 2026-11"),
    ]


def test_days_without_any_do_not_count() -> None:
    assert kept(days(0, 1, 9, 20), daily=3) == [2, 10, 21]


def test_within_counts_from_the_newest_and_not_from_now() -> None:
    """Nothing more is forgotten after the snapshots have stopped, or by a host whose clock runs ahead."""
    history = days(*range(10))
    assert kept(history, within_ns=2 * DAY) == [8, 9, 10]
    late = plan_retention(history, Policy(within_ns=2 * DAY), now_ns=NOW + 3000 * DAY)
    assert len(late.kept) == 3


def test_series_do_not_take_each_others_places() -> None:
    other = [manifest(100 + n, series="two", sequence=n, end=NOW - n * HOUR) for n in range(1, 4)]
    assert kept(days(0, 1, 2) + other, last=1) == [3, 103]


def test_a_clock_that_was_put_back_makes_nothing_older() -> None:
    """Number 4 to 6 were made after a clock fell back by three weeks: they are the newest all the same."""
    monday = parse_time("2026-10-26T03:00:00Z")
    history = [manifest(n, end=monday + n * DAY) for n in (1, 2, 3)]
    history += [manifest(n, end=monday + n * DAY - 21 * DAY) for n in (4, 5, 6)]
    assert kept(history, last=2) == [5, 6]
    assert kept(history, daily=4) == [3, 4, 5, 6]
    assert kept(history, monthly=1) == [6]
    assert kept(history, within_ns=HOUR) == [1, 2, 3, 6]


def test_a_date_to_come_counts_for_nothing_and_is_kept() -> None:
    history = [*days(0, 1, 2, 3), manifest(5, end=NOW + 300 * DAY), manifest(6, end=NOW - DAY)]
    assert kept(history, last=3) == [3, 4, 5, 6]
    (decision,) = (d for d in judged(history, last=3).kept if d.manifest.sequence == 5)
    assert decision.reasons == ("dated in the future", "last 3")


def test_hosts_whose_clock_runs_ahead_are_thinned_among_themselves() -> None:
    """The storage knows better when they were made; else their manifests would stay for ever."""
    ahead = [manifest(n, end=NOW + n * DAY, storage_date=NOW - 30 * DAY + n * DAY) for n in range(1, 11)]
    assert kept(ahead, last=2) == [9, 10]
    assert kept([*ahead, manifest(20, end=NOW - DAY), manifest(21, end=NOW)], last=2) == [9, 10, 20, 21]


def test_a_clock_that_is_off_by_minutes_is_none_that_is_wrong() -> None:
    history = [*days(0, 1), manifest(9, end=NOW + 600 * SECOND, storage_date=NOW)]
    assert kept(history, last=2) == [2, 9]


def test_checkpoints_stay_until_a_later_complete_one_stays() -> None:
    partial = [manifest(n, "partial", end=NOW - DAY + n) for n in (2, 3)]
    assert kept([*days(0), *partial], last=1) == [1, 2, 3]
    assert kept([*days(0), *partial, manifest(4, end=NOW)], last=1) == [4]
    # A complete one beside it, of a run at the same time, is not later.
    assert kept([*partial, manifest(4, sequence=3, end=NOW)], last=1) == [3, 4]
    # One that goes by the same policy does not count.
    assert kept([*partial, manifest(4, end=NOW), manifest(5, tags=("x",), sequence=1)], tags=("x",)) == [
        2,
        3,
        5,
    ]


def test_an_incomplete_one_fills_no_place_and_stands_in_where_there_is_no_other() -> None:
    monday, tuesday, wednesday = days(0, 1, 2)
    failing = [manifest(n, "incomplete", end=tuesday.end + n) for n in (2, 3)]
    history = [monday, *failing, manifest(4, end=wednesday.end)]
    assert kept(history, daily=3) == [1, 3, 4]
    assert kept(history, daily=2) == [1, 3, 4]
    assert kept(history, daily=1) == [4], "before what the rule reaches"
    assert kept(history, last=2) == [1, 4]
    assert kept([monday, *failing], last=1) == [1, 2, 3], "no complete one since"
    assert kept([monday, manifest(2, "incomplete", end=monday.end + HOUR), wednesday], daily=5) == [1, 3]


@pytest.mark.parametrize("status", ["complete", "incomplete", "partial"])
def test_holds_tags_and_notes_that_cannot_be_read_keep_whatever_they_are_on(status: str) -> None:
    end = {"end": NOW - DAY}
    history = [
        manifest(1, status, hold_until=NOW + 1, **end),
        manifest(2, status, hold_until=NOW, **end),
        manifest(3, status, tags=("a", "b"), **end),
        manifest(4, status, **end),
        *days(40),
    ]
    found = judged(history, unreadable={history[3].id}, last=1, tags=("b",), zone=UTC)
    assert [d.reasons for d in found.kept][:3] == [
        ("held until 2026-11-23T12:00:00Z",),
        ("tag b",),
        ("a note of it cannot be read",),
    ]
    assert [d.manifest.sequence for d in found.forgotten] == [2]


def test_a_policy_that_takes_the_newest_or_too_much_is_refused() -> None:
    history = days(*range(10))
    assert judged(history, last=5, share_max=50).refusals == ()
    assert judged(history, last=4, share_max=50).refusals == (
        "6 of 10 complete manifests would be forgotten, more than 50 %",
    )
    assert judged(history, tags=("none",), share_max=100).refusals == (
        f"one: its newest complete manifest, {history[-1].id.hex()[:12]}, would be forgotten",
    )


def test_checkpoints_do_not_count_as_a_share() -> None:
    """A long first upload leaves a hundred of them; to forget them is no alarm."""
    partial = [manifest(n, "partial", end=NOW - DAY + n) for n in range(1, 100)]
    found = judged([*partial, manifest(100, end=NOW)], last=1, share_max=10)
    assert (len(found.forgotten), found.refusals) == (99, ())


def test_a_policy_says_what_it_is() -> None:
    assert Policy().keeps_nothing
    policy = Policy(last=3, daily=7, within_ns=36 * HOUR, tags=("x",))
    assert not policy.keeps_nothing
    assert str(policy) == "last 3, daily 7, within 36h, tag x"
    assert not any(Policy(**{rule: 1}).keeps_nothing for rule in ("last", "hourly", "yearly", "within_ns"))
