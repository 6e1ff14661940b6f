"""Periods of the calendar: in which hour, day, week, month or year of a time zone does a moment lie?

The calendar is that of the zone: a day is what lies between two midnights there, be it 23, 24 or 25 hours; the hour
that comes twice when a clock is put back is two hours. Weeks are those of ISO 8601, which begin on Monday. Nothing
here looks at a clock.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from repo_store.errors import UsageError

HOUR_NS: Final = 3600 * 10**9
DAY_NS: Final = 24 * HOUR_NS
DURATION_NS_MAX: Final = 1000 * 366 * DAY_NS
LOCAL: Final = "local"

# Months and years are as long as the longest: a duration never covers less than its words say.
_UNITS: Final = {"h": HOUR_NS, "d": DAY_NS, "w": 7 * DAY_NS, "mo": 31 * DAY_NS, "y": 366 * DAY_NS}
_PARTS = re.compile(r"(\d{1,6})(h|d|w|mo|y)")
_DURATION_HINT = "write it like 36h, 14d, 8w, 6mo or 1y6mo"


class Bucket(NamedTuple):
    """One hour, day, week, month or year. Buckets of one period sort by time."""

    key: tuple[int, ...]
    label: str
    """As a person writes it: 2026-11-23, 2026-W48."""


def hour_of(moment: datetime) -> Bucket:
    """Return the hour that a moment lies in."""
    start = moment.replace(minute=0, second=0, microsecond=0)
    # By the moment at which it began: the two hours of one name, when the clock is put back, differ in that.
    into = timedelta(minutes=moment.minute, seconds=moment.second, microseconds=moment.microsecond)
    began = (moment.astimezone(UTC) - into - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return Bucket((began,), start.isoformat(" ", "minutes").removesuffix("+00:00"))


def day_of(moment: datetime) -> Bucket:
    """Return the day that a moment lies in."""
    return Bucket((moment.year, moment.month, moment.day), moment.strftime("%Y-%m-%d"))


def week_of(moment: datetime) -> Bucket:
    """Return the ISO week that a moment lies in."""
    year, week, _ = moment.isocalendar()
    return Bucket((year, week), f"{year}-W{week:02}")


def month_of(moment: datetime) -> Bucket:
    """Return the month that a moment lies in."""
    return Bucket((moment.year, moment.month), moment.strftime("%Y-%m"))


def year_of(moment: datetime) -> Bucket:
    """Return the year that a moment lies in."""
    return Bucket((moment.year,), moment.strftime("%Y"))


PERIODS: Final[dict[str, Callable[[datetime], Bucket]]] = {
    "hourly": hour_of,
    "daily": day_of,
    "weekly": week_of,
    "monthly": month_of,
    "yearly": year_of,
}


def in_zone(time_ns: int, zone: tzinfo | None) -> datetime:
    """Return a time of nanoseconds since 1970 as the clocks of `zone` show it; None is the zone of this machine."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return moment.astimezone(zone)


def parse_zone(text: str) -> tzinfo | None:
    """Return the zone called `text`, None for `local`. Raises UsageError if there is no such zone."""
    if text == LOCAL:
        return None
    if text.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):  # a directory, a path, no such file
        raise UsageError(
            f"{text}: no such time zone on this machine", hint="write it like Europe/Berlin, UTC or local"
        ) from None


def parse_duration(text: str) -> int:
    """Return the nanoseconds that `text` ("36h", "14d", "1y6mo") means. Raises UsageError."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{text}: not a duration", hint=_DURATION_HINT)
    duration_ns = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < duration_ns <= DURATION_NS_MAX:
        raise UsageError(f"{text}: not between an hour and a thousand years", hint=_DURATION_HINT)
    return duration_ns
