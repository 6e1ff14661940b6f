"""Selection: which manifest a user means by an id, by `latest`, or by a time.

`latest` and a time mean one line of manifests: if what the user narrowed it down to still holds several series,
the answer is the list of them, never a guess. Only complete manifests count, and `latest` follows the sequence,
not the clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from repo_store.errors import UsageError
from repo_store.manifest import Manifest
from repo_store.manifest_store import ManifestList

LATEST = "latest"
_SERIES_SHOWN_MAX = 10
_TIME_NS_MAX = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What manifests must agree with; None or empty means any."""

    series: str | None = None
    source: str | None = None
    host: str | None = None
    tags: tuple[str, ...] = ()

    def matches(self, manifest: Manifest) -> bool:
        """Say whether `manifest` has all that was asked for."""
        return (
            self.series in (None, manifest.series)
            and self.source in (None, manifest.source)
            and self.host in (None, manifest.host)
            and set(self.tags) <= set(manifest.tags)
        )


def select_manifest(
    manifests: ManifestList, which: str, *, at_ns: int | None = None, selection: Selection | None = None
) -> Manifest:
    """Return the manifest that `which` (an id, its unique start, or `latest`) and `at_ns` mean.

    Raises UsageError if there is none, or more than one series to choose from.
    """
    selection = selection or Selection()
    if which != LATEST:
        if at_ns is not None:
            raise UsageError("a time is given beside a manifest id", hint="use `latest` with --at")
        return manifests.find(which)
    matching = [m for m in manifests.live if m.status == "complete" and selection.matches(m)]
    series = sorted({m.series for m in matching})
    if len(series) > 1:
        shown = "".join(f"\n  {name}" for name in series[:_SERIES_SHOWN_MAX])
        raise UsageError(
            f"{len(series)} series match; name one with --series:{shown}",
            hint="or narrow it down with --source, --host or --tag",
        )
    # By microseconds, as times are printed: the time that a list shows for a manifest must find it.
    in_time = [m for m in matching if at_ns is None or m.end // 1000 <= at_ns // 1000]
    if not in_time:
        raise UsageError(_nothing(matching, at_ns), hint="`holdfast manifests` lists what there is")
    return max(in_time, key=lambda m: (m.sequence, m.end, m.id))


def _nothing(matching: list[Manifest], at_ns: int | None) -> str:
    if not matching or at_ns is None:
        return "no complete manifest matches"
    first = rfc3339(min(m.end for m in matching))
    return f"no complete manifest had ended by {rfc3339(at_ns)}; the first ended at {first}"


def rfc3339(time_ns: int) -> str:
    """Return a time as text: RFC 3339, UTC, microseconds."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    return moment.isoformat().replace("+00:00", "Z")


def parse_time(text: str) -> int:
    """Return the nanoseconds since 1970 that `text` (RFC 3339; local time where no zone is given) means.

    Raises UsageError if it is no time, or none that a manifest can hold.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text}: not a time", hint="write it like 2026-11-22T10:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.astimezone()
    try:
        whole = int(moment.replace(microsecond=0).timestamp())
    except (OverflowError, ValueError):
        whole = -1
    time_ns = whole * 1_000_000_000 + moment.microsecond * 1000
    if not 0 <= time_ns <= _TIME_NS_MAX:
        raise UsageError(f"{text}: not between the years 1970 and 2262")
    return time_ns
