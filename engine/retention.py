"""Retention: which manifests a policy keeps, and why. Pure: manifests and a time in, decisions out.

Each series is judged by itself, its manifests in the order of their sequence; times say only which hour, day, week …
a manifest belongs to. So a clock that was put back reorders nothing and makes nothing older than it is.

    complete    fills the places of the policy: the newest of each of the last 7 days, and so on
    incomplete  fills none; kept until a later complete one is kept, and where it stands in for a day without one
    partial     fills none; kept until a later complete one is kept

A manifest dated later than now, or than its storage dated it, was made under a wrong clock. It is no less a backup, and
takes no place from others: such manifests are judged among themselves, and one whose date is still to come is kept.
`within` counts back from the newest complete manifest, not from now: when snapshots stop, nothing more is forgotten.
What has a hold that has not ended, one of the policy's tags, or a note that cannot be read, is kept whatever it is.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Final

from engine.periods import DAY_NS, HOUR_NS, PERIODS, Bucket, in_zone
from engine.selection import rfc3339
from repo_store.manifest import Manifest

CLOCK_TOLERANCE_NS: Final = 15 * 60 * 10**9
"""Clocks differ by so much without anything being wrong; S3 refuses requests whose clock differs by more."""
SHARE_MAX: Final = 50
"""Percent of the complete manifests that a policy may forget at once, unless somebody says yes."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What to keep of each series: so many of the last, of hours, days …, the time behind the newest one, and tags."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within_ns: int | None = None
    tags: tuple[str, ...] = ()
    zone: tzinfo | None = UTC
    """Whose days; None: those of this machine's clock."""

    @property
    def keeps_nothing(self) -> bool:
        """Whether nothing at all was said to be kept."""
        counted = self.last or any(count for _, count in self.periods())
        return not counted and self.within_ns is None and not self.tags

    def periods(self) -> list[tuple[str, int]]:
        """Return (name, how many) of the rules that go by the calendar."""
        return [(name, getattr(self, name)) for name in PERIODS if getattr(self, name)]

    def __str__(self) -> str:
        rules = [("last", self.last), *self.periods()]
        words = [f"{name} {count}" for name, count in rules if count]
        words += [] if self.within_ns is None else [within_text(self.within_ns)]
        return ", ".join([*words, *(f"tag {tag}" for tag in self.tags)])


@dataclass(frozen=True)
class Decision:
    """What becomes of one manifest, and why."""

    manifest: Manifest
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Retention:
    """The decisions, oldest manifest first, and why they should not be carried out unless somebody says yes."""

    decisions: tuple[Decision, ...]
    refusals: tuple[str, ...] = ()

    @property
    def kept(self) -> list[Decision]:
        """Those that stay."""
        return [each for each in self.decisions if each.keep]

    @property
    def forgotten(self) -> list[Decision]:
        """Those that go."""
        return [each for each in self.decisions if not each.keep]


def plan_retention(
    manifests: Sequence[Manifest],
    policy: Policy,
    *,
    now_ns: int,
    selected: Callable[[Manifest], bool] = lambda manifest: True,
    unreadable: Collection[bytes] = (),
    share_max: int = SHARE_MAX,
) -> Retention:
    """Return what `policy` does to those of the live `manifests` that are `selected`; the others stay, unmentioned.

    `unreadable` are the ids of manifests that have a note which cannot be read; `share_max` is in percent.
    """
    lines: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        lines.setdefault(manifest.series, []).append(manifest)
    judged = {
        series: _Line(line, policy, now_ns, selected, unreadable).judge() for series, line in lines.items()
    }
    by_id = {each.manifest.id: each for decisions in judged.values() for each in decisions}
    decisions = tuple(by_id[manifest.id] for manifest in manifests if manifest.id in by_id)
    refusals = [*_without_newest(judged, now_ns), *_too_many(decisions, share_max)]
    return Retention(decisions, tuple(refusals))


def hold_reason(manifest: Manifest, now_ns: int) -> str | None:
    """Return why nobody may forget a manifest now, or None."""
    if manifest.hold_until is None or manifest.hold_until <= now_ns:
        return None
    return f"held until {rfc3339(manifest.hold_until)}"


def is_misdated(manifest: Manifest, now_ns: int) -> bool:
    """Say whether a manifest says that it ended later than now, or than the storage dated it."""
    latest = now_ns if manifest.storage_date is None else min(now_ns, manifest.storage_date)
    return manifest.end > latest + CLOCK_TOLERANCE_NS


def moment_of(manifest: Manifest) -> int:
    """Return when a manifest ended, as far as its own clock and the storage's agree."""
    return manifest.end if manifest.storage_date is None else min(manifest.end, manifest.storage_date)


@dataclass
class _Line:
    """One series being judged."""

    line: Sequence[Manifest]
    policy: Policy
    now_ns: int
    selected: Callable[[Manifest], bool]
    unreadable: Collection[bytes]
    reasons: dict[bytes, list[str]] = field(default_factory=dict)

    def judge(self) -> list[Decision]:
        newest_first = sorted(self.line, key=_place, reverse=True)
        chosen = [manifest for manifest in newest_first if self.selected(manifest)]
        self.reasons = {manifest.id: [] for manifest in chosen}
        for manifest in chosen:
            self._keep_unconditionally(manifest)
        complete = [manifest for manifest in chosen if manifest.status == "complete"]
        incomplete = [manifest for manifest in chosen if manifest.status == "incomplete"]
        self._fill([m for m in complete if not is_misdated(m, self.now_ns)], incomplete)
        self._fill([m for m in complete if is_misdated(m, self.now_ns)], [])
        later = self._newest_kept_complete(newest_first)
        return [self._decide(manifest, later) for manifest in chosen]

    def _keep_unconditionally(self, manifest: Manifest) -> None:
        held = hold_reason(manifest, self.now_ns)
        if held is not None:
            self._keep(manifest, held)
        for tag in self.policy.tags:
            if tag in manifest.tags:
                self._keep(manifest, f"tag {tag}")
        if manifest.id in self.unreadable:
            self._keep(manifest, "a note of it cannot be read")
        if moment_of(manifest) > self.now_ns + CLOCK_TOLERANCE_NS:
            self._keep(manifest, "dated in the future")

    def _fill(self, complete: Sequence[Manifest], incomplete: Sequence[Manifest]) -> None:
        """Let manifests, newest first, take the places of the policy."""
        for manifest in complete[: self.policy.last]:
            self._keep(manifest, f"last {self.policy.last}")
        for name, count in self.policy.periods():
            self._fill_period(name, count, complete, incomplete)
        if self.policy.within_ns is not None and complete:
            since = moment_of(complete[0]) - self.policy.within_ns
            for manifest in (*complete, *incomplete):
                if moment_of(manifest) >= since:
                    self._keep(manifest, within_text(self.policy.within_ns))

    def _fill_period(
        self, name: str, count: int, complete: Sequence[Manifest], incomplete: Sequence[Manifest]
    ) -> None:
        taken: set[Bucket] = set()
        for manifest in complete:
            bucket = self._bucket(name, manifest)
            if bucket not in taken and len(taken) < count:
                taken.add(bucket)
                self._keep(manifest, f"{name} {bucket.label}")
        reach = min(taken).key if len(taken) == count else ()
        for manifest in incomplete:
            bucket = self._bucket(name, manifest)
            if bucket not in taken and bucket.key >= reach:
                taken.add(bucket)
                self._keep(manifest, f"{name} {bucket.label}, which has no complete one")

    def _bucket(self, name: str, manifest: Manifest) -> Bucket:
        return PERIODS[name](in_zone(moment_of(manifest), self.policy.zone))

    def _keep(self, manifest: Manifest, reason: str) -> None:
        self.reasons[manifest.id].append(reason)

    def _newest_kept_complete(self, newest_first: Iterable[Manifest]) -> Manifest | None:
        for manifest in newest_first:
            stays = manifest.id not in self.reasons or self.reasons[manifest.id]
            if manifest.status == "complete" and stays:
                return manifest
        return None

    def _decide(self, manifest: Manifest, later: Manifest | None) -> Decision:
        """Return the decision; `later` is the newest complete manifest of the series that stays."""
        reasons = self.reasons[manifest.id]
        if reasons:
            return Decision(manifest, True, tuple(reasons))
        if manifest.status == "complete":
            return Decision(manifest, False, ("no rule keeps it",))
        if later is None or later.sequence <= manifest.sequence:
            return Decision(manifest, True, (f"{manifest.status}, with no complete one since",))
        return Decision(manifest, False, (f"{manifest.status}, and {later.id.hex()[:12]} is complete",))


def _place(manifest: Manifest) -> tuple[int, int, bytes]:
    return manifest.sequence, manifest.end, manifest.id


def _without_newest(judged: dict[str, list[Decision]], now_ns: int) -> Iterable[str]:
    """Yield a line for every series that would lose the newest complete manifest."""
    for series, decisions in sorted(judged.items()):
        complete = [each for each in decisions if each.manifest.status == "complete"]
        dated = [each for each in complete if not is_misdated(each.manifest, now_ns)] or complete
        newest = max(dated, key=lambda each: _place(each.manifest), default=None)
        if newest is not None and not newest.keep:
            shown = newest.manifest.id.hex()[:12]
            yield f"{series}: its newest complete manifest, {shown}, would be forgotten"


def _too_many(decisions: Iterable[Decision], share_max: int) -> Iterable[str]:
    complete = [each for each in decisions if each.manifest.status == "complete"]
    gone = sum(not each.keep for each in complete)
    if gone * 100 > len(complete) * share_max:
        yield f"{gone} of {len(complete)} complete manifests would be forgotten, more than {share_max} %"


def within_text(duration_ns: int) -> str:
    """Return "within 14d" or "within 36h"."""
    days, rest = divmod(duration_ns, DAY_NS)
    return f"within {days}d" if not rest else f"within {duration_ns // HOUR_NS}h"
