"""Forget: manifests that are not wanted any more get a marker. Nothing is deleted here; prune does that.

    plan    what a policy or a list of ids comes to, with the reason for every manifest; no storage is changed
    run     markers, barrier, and then a look at the holds that came meanwhile

Whoever holds a manifest writes the note and then looks for a marker (engine/notes.py); who forgets it writes the marker
and then looks for notes. Whatever the order in which these four happen, one of the two is told.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from engine.retention import SHARE_MAX, Decision, Policy, Retention, hold_reason, plan_retention
from engine.session import Session
from repo_store.errors import Refused, UsageError
from repo_store.forget_marker import forget_marker_name, list_forgotten, put_forget_marker
from repo_store.manifest import Manifest
from repo_store.manifest_store import ManifestList, read_forgotten
from repo_store.markers import ForgetMarker
from repo_store.sealed import Kind

_WRITERS = 8
_ID_DIGITS = 32
_PREFIX_DIGITS_MIN: Final = 4
"""A shorter start of an id, or an empty variable of a script, must not forget anything."""
_NOTE_OF = re.compile(r"notes/([0-9a-f]{32})\.")


@dataclass(frozen=True)
class ForgetPlan:
    """What is to be forgotten. `damaged` are the ids, in hex, of manifests that cannot be read, asked for by id."""

    retention: Retention
    why: str
    """What the markers say: the policy, or that somebody named the manifest."""
    damaged: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why it is not carried out unless somebody says yes."""
        lost = tuple(f"manifest {name[:12]} cannot be read, so it may be held" for name in self.damaged)
        return (*self.retention.refusals, *lost)

    @property
    def ids(self) -> list[bytes]:
        """The manifests that get a marker, oldest first."""
        forgotten = [each.manifest.id for each in self.retention.forgotten]
        return [*forgotten, *map(bytes.fromhex, self.damaged)]


def plan_forget(
    session: Session,
    policy: Policy,
    *,
    now_ns: int,
    selected: Callable[[Manifest], bool] = lambda manifest: True,
    share_max: int = SHARE_MAX,
) -> ForgetPlan:
    """Return what `policy` comes to for the live manifests that are `selected`.

    Raises UsageError for a policy that says nothing.
    """
    if policy.keeps_nothing:
        raise UsageError("nothing says what to keep", hint="like --keep-daily 7 --keep-weekly 5")
    manifests = session.read_manifests()
    retention = plan_retention(
        manifests.live,
        policy,
        now_ns=now_ns,
        selected=selected,
        unreadable=_with_unreadable_notes(manifests),
        share_max=share_max,
    )
    return ForgetPlan(retention, f"keep {policy}")


def plan_forget_ids(session: Session, ids: Sequence[str], *, now_ns: int) -> ForgetPlan:
    """Return what it comes to to forget the manifests `ids`, each an id or the start of one.

    One that cannot be read has to be named in full. Raises UsageError if one is not there, Refused if one is held.
    """
    manifests = session.read_manifests()
    unreadable = _with_unreadable_notes(manifests)
    found: dict[bytes, Manifest] = {}
    damaged: dict[str, None] = {}
    for which in ids:
        if f"manifests/{which.lower()}" in manifests.damaged:
            damaged[which.lower()] = None
            continue
        manifest = _named(session, manifests, which)
        held = hold_reason(manifest, now_ns)
        if held is not None:
            shown = manifest.id.hex()[:12]
            raise Refused(f"manifest {shown} is {held}", hint=f"`holdfast hold {shown} --lift` ends that")
        found[manifest.id] = manifest
    decisions = tuple(Decision(m, False, ("named",)) for m in manifests.live if m.id in found)
    refusals = tuple(
        f"a note of manifest {m.id.hex()[:12]} cannot be read, so it may be held"
        for m in found.values()
        if m.id in unreadable
    )
    return ForgetPlan(Retention(decisions, refusals), "named by its id", tuple(damaged))


def run_forget(session: Session, plan: ForgetPlan, *, now_ns: int, yes: bool = False) -> list[Manifest]:
    """Create the markers; return the manifests that somebody held while they were being forgotten.

    On return the markers are durable; after an error or a kill some may be there, and another run completes the work.
    Raises Refused if the plan must not be carried out without `yes`, or if this key may not forget.
    """
    if plan.refusals and not yes:
        raise Refused("; ".join(plan.refusals), hint="look at it with --dry-run; --yes does it all the same")
    session.repository.refresh("prune")
    if not session.ring.may_sign(Kind.FORGET):
        raise Refused(
            f"slot {session.ring.slot} has the role {session.ring.role}, which may not forget manifests"
        )
    if not plan.ids:
        return []
    markers = [ForgetMarker(id=each, time=now_ns, reason=plan.why) for each in plan.ids]
    with ThreadPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(lambda marker: put_forget_marker(session.storage, session.ring, marker), markers):
            pass
    session.storage.barrier(forget_marker_name(marker.id) for marker in markers)
    return _held_meanwhile(session, [each.manifest for each in plan.retention.forgotten], now_ns)


def find_forgotten(session: Session, which: str) -> Manifest | None:
    """Return the forgotten manifest whose full id is `which`, as long as no prune has removed it, else None."""
    if re.fullmatch(r"[0-9a-f]{32}", which.lower()) is None:
        return None
    return read_forgotten(session.storage, session.ring, bytes.fromhex(which))


def _named(session: Session, manifests: ManifestList, which: str) -> Manifest:
    if len(which) < _PREFIX_DIGITS_MIN:
        raise UsageError(f"{which!r}: too short to forget a manifest by", hint="give the whole id")
    try:
        return manifests.find(which)
    except UsageError:
        if any(name.startswith(which.lower()) for name in list_forgotten(session.storage)):
            raise UsageError(f"{which}: is forgotten already") from None
        raise


def _held_meanwhile(session: Session, forgotten: Sequence[Manifest], now_ns: int) -> list[Manifest]:
    """Return those of `forgotten` that have a hold now."""
    notes = session.read_notes()
    return [m for m in forgotten if hold_reason(notes.noted(m), now_ns) and not hold_reason(m, now_ns)]


def _with_unreadable_notes(manifests: ManifestList) -> set[bytes]:
    found = map(_NOTE_OF.match, manifests.damaged)
    return {bytes.fromhex(match[1]) for match in found if match is not None}
