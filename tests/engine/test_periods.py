"""Hours, days, weeks … are those of the calendar in a zone, also where clocks are put forward and back."""

from datetime import tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manifests import DAY, HOUR, SECOND, manifest

from engine.periods import PERIODS, in_zone, parse_duration, parse_zone
from engine.retention import Policy, plan_retention
from engine.selection import parse_time
from repo_store.errors import UsageError

BERLIN = parse_zone("Europe/Berlin")


def label(period: str, time: str, zone: tzinfo | None) -> str:
    return PERIODS[period](in_zone(parse_time(time), zone)).label


def kept(times: list[str], policy: Policy) -> list[str]:
    manifests = [manifest(n, end=parse_time(time)) for n, time in enumerate(times, 1)]
    found = plan_retention(manifests, policy, now_ns=parse_time("2027-01-01T00:00:00Z"), share_max=100)
    return [times[each.manifest.sequence - 1] for each in found.kept]


@pytest.mark.parametrize(
    ("period", "time", "zone", "expected"),
    [
        ("hourly", "2026-11-23T10:59:59Z", "UTC", "2026-11-23 10:00"),
        ("hourly", "2026-11-23T10:59:59Z", "Asia/Kathmandu", "2026-11-23 16:00+05:45"),
        ("daily", "2026-11-23T23:30:00Z", "UTC", "2026-11-23"),
        ("daily", "2026-11-23T23:30:00Z", "Europe/Berlin", "2026-11-24"),
        ("weekly", "2026-11-22T23:59:59Z", "UTC", "2026-W47"),
        ("weekly", "2026-11-23T00:00:00Z", "UTC", "2026-W48"),
        ("weekly", "2027-01-01T00:00:00Z", "UTC", "2026-W53"),
        ("monthly", "2026-11-30T23:30:00Z", "Europe/Berlin", "2026-12"),
        ("yearly", "2026-12-31T23:30:00Z", "Europe/Berlin", "2027"),
        ("yearly", "2026-12-31T23:30:00Z", "America/New_York", "2026"),
    ],
)
def test_a_moment_lies_in_the_period_that_the_clock_of_the_zone_shows(
    period: str, time: str, zone: str, expected: str
) -> None:
    assert label(period, time, parse_zone(zone)) == expected


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    """In Berlin on 25 October 2026 the clock goes from 3:00 back to 2:00."""
    times = ["2026-10-25T00:30:00Z", "2026-10-25T00:50:00Z", "2026-10-25T01:10:00Z", "2026-10-25T01:40:00Z"]
    assert kept(times, Policy(hourly=9, zone=BERLIN)) == [times[1], times[3]]
    labels = [label("hourly", time, BERLIN) for time in times]
    assert labels == ["2026-10-25 02:00+02:00"] * 2 + ["2026-10-25 02:00+01:00"] * 2


def test_half_an_hour_that_comes_twice_is_an_hour_of_its_own() -> None:
    """On Lord Howe Island the clock goes back by half an hour, from 2:00 to 1:30."""
    zone = parse_zone("Australia/Lord_Howe")
    times = ["2026-04-04T14:10:00Z", "2026-04-04T14:40:00Z", "2026-04-04T15:10:00Z", "2026-04-04T15:40:00Z"]
    assert kept(times, Policy(hourly=9, zone=zone)) == [times[1], times[2], times[3]]


@pytest.mark.parametrize(
    ("first", "hours"),
    [("2026-10-24T22:00:00Z", 25), ("2026-03-28T23:00:00Z", 23), ("2026-06-30T22:00:00Z", 24)],
)
def test_a_day_has_23_24_or_25_hours(first: str, hours: int) -> None:
    start = parse_time(first)
    days = [PERIODS["daily"](in_zone(start + n * HOUR, BERLIN)).label for n in range(-1, hours + 1)]
    assert len(set(days[1:-1])) == 1
    assert days[0] < days[1] < days[-1]


def test_a_day_that_a_zone_left_out_is_no_bucket() -> None:
    """Samoa had no 30 December 2011."""
    zone = parse_zone("Pacific/Apia")
    start = parse_time("2011-12-30T09:59:59Z")
    assert [PERIODS["daily"](in_zone(start + n * SECOND, zone)).label for n in (0, 1)] == [
        "2011-12-29",
        "2011-12-31",
    ]


@given(
    st.sampled_from(sorted(PERIODS)),
    st.integers(0, 2**63 - 1),
    st.integers(0, 800 * DAY),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "local"]),
)
def test_later_moments_lie_in_later_buckets_or_the_same(period: str, at: int, by: int, zone: str) -> None:
    later = min(at + by, 2**63 - 1)
    first, second = (PERIODS[period](in_zone(each, parse_zone(zone))).key for each in (at, later))
    assert first <= second


def test_local_is_the_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        assert label("daily", "2026-11-23T23:30:00Z", parse_zone("local")) == "2026-11-24"
    time.tzset()


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/Nowhere", "../../etc/passwd", "/etc/localtime", "CET\0"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no such time zone"):
        parse_zone(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("36h", 36 * HOUR), ("7d", 7 * DAY), ("2w", 14 * DAY), ("1mo", 31 * DAY), ("1y6mo", (366 + 186) * DAY)],
)
def test_a_duration_is_what_it_says(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 d", "7D", "-7d", "1m", "7d ", "0d", "9999y", "7.5d", "999999y9h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)
