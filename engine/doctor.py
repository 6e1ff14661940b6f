"""Doctor: is this repository in a state in which one would want to find it when it is needed?

Looks at what no backup run looks at: what the storage really does, how many keys there are and whether both copies
of each are whole, what dead runs left behind. Changes nothing but removing temporary files of the storage that
are a day old. It judges; `verify` proves.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from engine.session import Session, open_storage
from repo_store.errors import HoldfastError
from repo_store.key_ops import OK, list_slots
from repo_store.local_storage import LocalStorage
from repo_store.probe import probe
from repo_store.s3_options import S3Options
from repo_store.storage import Storage

_PENDING_OLD_NS = 24 * 60 * 60 * 1_000_000_000
_CLOCK_APART_NS = 5 * 60 * 1_000_000_000


class Verdict(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, how it stands, and what to do about it."""

    what: str
    verdict: Verdict
    detail: str = ""
    hint: str | None = None


def examine(session: Session, location: str, options: S3Options | None = None) -> list[Finding]:
    """Return what there is to say about the repository, the good included. Raises StorageError if it is unreachable."""
    return [
        *_storage(session, lambda: open_storage(location, options)),
        *_keys(session),
        *_leftovers(session),
        *(Finding("opening", Verdict.WARNING, warning) for warning in session.warnings),
    ]


def _storage(session: Session, open_again: Callable[[], Storage]) -> list[Finding]:
    findings = []
    for result in probe(session.storage, open_again):
        verdict = Verdict.OK if result.ok else Verdict.PROBLEM
        findings.append(Finding(f"storage: {result.what}", verdict, result.detail))
    newest = max((info.modified_ns for info in session.storage.list("config/")), default=0)
    ahead = newest - time.time_ns()
    if ahead > _CLOCK_APART_NS:
        findings.append(
            Finding(
                "clock", Verdict.WARNING, f"the storage's clock is {ahead // 10**9} s ahead of this host's"
            )
        )
    return findings


def _keys(session: Session) -> list[Finding]:
    try:
        slots = list_slots(session.repository)
    except HoldfastError as error:
        return [Finding("keys", Verdict.PROBLEM, str(error), error.hint)]
    findings = [
        Finding(
            f"key slot {slot.slot}",
            Verdict.OK if slot.state == OK else Verdict.PROBLEM,
            "; ".join(slot.problems) or f"{slot.role}, opened by a {slot.method}",
            None if slot.state == OK else "add a new slot and remove this one while it still opens",
        )
        for slot in slots
    ]
    if len(slots) == 1:
        findings.append(
            Finding(
                "number of key slots",
                Verdict.WARNING,
                "there is only one: if its secret or its slot is lost, so is every backup, and nobody can help",
                "add a second with `holdfast key add`, and keep it in another place",
            )
        )
    return findings


def _leftovers(session: Session) -> list[Finding]:
    findings = []
    storage = session.storage
    now = time.time_ns()
    dead = [info for info in storage.list("pending/") if now - info.modified_ns > _PENDING_OLD_NS]
    if dead:
        detail = f"{len(dead)} runs of more than a day ago never committed"
        findings.append(Finding("pending manifests", Verdict.WARNING, detail))
    listed = {bytes.fromhex(info.name[-64:]) for info in storage.list("packs/")}
    unindexed = session.index.unindexed(listed)
    if unindexed:
        detail = f"{len(unindexed)} packs of interrupted runs are in no table; the next snapshot uses them"
        findings.append(Finding("unindexed packs", Verdict.OK, detail))
    missing = [pack for pack, _ in session.index.packs() if pack not in listed]
    if missing:
        detail = f"{len(missing)} packs are missing"
        findings.append(
            Finding("packs", Verdict.PROBLEM, detail, "run `holdfast verify` to see what they hurt")
        )
    if isinstance(storage, LocalStorage):
        removed = storage.clean()
        if removed:
            findings.append(
                Finding("temporary files", Verdict.OK, f"{removed} left by dead runs were removed")
            )
    return findings
