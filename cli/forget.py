"""holdfast forget: give manifests up, by a policy or by their ids."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE, REFUSED
from cli.manifest_document import manifest_document
from cli.options import Filters, command
from cli.output import count, local_time, table
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.forget import ForgetPlan
    from engine.retention import Decision, Policy
    from engine.session import Session

_HEADER = ("", "MANIFEST", "END", "STATUS", "SERIES", "REASON")
_MANY = 1_000_000


def _keep(what: str) -> Any:
    return typer.Option(metavar="N", min=1, max=_MANY, help=f"Keep {what}.", show_default=False)


@dataclass(kw_only=True)
class Rules:
    """What to keep of each series."""

    keep_last: Annotated[int | None, _keep("the last N")] = None
    keep_hourly: Annotated[int | None, _keep("the newest of each of the last N hours that have any")] = None
    keep_daily: Annotated[int | None, _keep("the newest of each of N days")] = None
    keep_weekly: Annotated[int | None, _keep("the newest of each of N weeks, which begin on Monday")] = None
    keep_monthly: Annotated[int | None, _keep("the newest of each of N months")] = None
    keep_yearly: Annotated[int | None, _keep("the newest of each of N years")] = None
    keep_within: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Keep all from this time before the newest one: 36h, 14d, 8w, 6mo, 1y6mo; a month is 31 days.",
        ),
    ] = None
    keep_tag: Annotated[
        list[str], typer.Option(metavar="T", help="Keep all with this tag; may be repeated.")
    ] = field(default_factory=list)
    timezone: Annotated[
        str,
        typer.Option(
            metavar="ZONE", help="Whose hours, days … these are: UTC, local, or a name like Europe/Berlin."
        ),
    ] = "UTC"

    def policy(self) -> "Policy":
        """Return the rules as the engine takes them. Raises UsageError."""
        from engine.periods import parse_duration, parse_zone
        from engine.retention import Policy

        return Policy(
            last=self.keep_last or 0,
            hourly=self.keep_hourly or 0,
            daily=self.keep_daily or 0,
            weekly=self.keep_weekly or 0,
            monthly=self.keep_monthly or 0,
            yearly=self.keep_yearly or 0,
            within_ns=None if self.keep_within is None else parse_duration(self.keep_within),
            tags=tuple(dict.fromkeys(self.keep_tag)),
            zone=parse_zone(self.timezone),
        )


@command(
    app,
    "forget",
    examples="""
    holdfast forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
    holdfast forget --source files --keep-within 2d --keep-daily 14
    holdfast forget 3f0c81d2 9e77a001
    """,
)
def forget(
    call: Call,
    filters: Filters,
    rules: Rules,
    manifests: Annotated[
        list[str] | None, typer.Argument(metavar="MANIFEST", help="Forget these, by id or the start of one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and why.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it also if it is much, or takes the newest of a series.")
    ] = False,
    max_share: Annotated[
        int,
        typer.Option(
            metavar="PERCENT", min=1, max=100, help="More of the complete manifests at once needs --yes."
        ),
    ] = 50,
) -> int:
    """Give manifests up, by a policy for each series or by their ids. `holdfast prune` then frees the space.

    A rule keeps the newest complete manifest of each hour, day …; rules add up, and what none keeps is forgotten. Only
    complete manifests fill a rule; others stay until a later complete one does. What is held stays in any case.
    There is no way back: a forgotten manifest is restored by its whole id until a prune has run, and not after.
    """
    from engine.forget import run_forget

    now_ns = time.time_ns()
    session, plan = _plan(call, manifests or [], filters, rules, now_ns=now_ns, max_share=max_share)
    held = [] if dry_run else run_forget(session, plan, now_ns=now_ns, yes=yes)
    _report(call, plan, dry_run=dry_run, yes=yes)
    for manifest in held:
        call.output.warn(
            f"manifest {manifest.id.hex()} was held by somebody while it was being forgotten: "
            "restore it before the next prune"
        )
    return REFUSED if held else DONE


def _plan(
    call: Call, ids: list[str], filters: Filters, rules: Rules, *, now_ns: int, max_share: int
) -> "tuple[Session, ForgetPlan]":
    from engine.forget import plan_forget, plan_forget_ids

    policy, selected = rules.policy(), filters.selection().matches
    if ids:
        if not policy.keeps_nothing or filters != Filters():
            raise UsageError("manifests are named beside a rule or a filter", hint="use one or the other")
        session = call.open("prune")
        return session, plan_forget_ids(session, ids, now_ns=now_ns)
    if policy.keeps_nothing:
        raise UsageError("nothing says what to keep", hint="like --keep-daily 7 --keep-weekly 5")
    session = call.open("prune")
    return session, plan_forget(session, policy, now_ns=now_ns, selected=selected, share_max=max_share)


def _report(call: Call, plan: "ForgetPlan", *, dry_run: bool, yes: bool) -> None:
    output, retention = call.output, plan.retention
    output.document(
        {
            "dry_run": dry_run,
            "forgotten": [*map(_document, retention.forgotten), *map(_damaged_document, plan.damaged)],
            "kept": [*map(_document, retention.kept)],
            "refused": list(plan.refusals),
        }
    )
    shown = retention.decisions if dry_run else retention.forgotten
    if shown:
        output.lines(table(_HEADER, map(_row, shown)))
    done = "would forget" if dry_run else "forgot"
    output.remark(f"{done} {count(len(plan.ids), 'manifest')}, kept {len(retention.kept):,}")
    if dry_run and not yes:
        for refusal in plan.refusals:
            output.warn(f"this needs --yes: {refusal}")


def _document(decision: "Decision") -> dict[str, Any]:
    return manifest_document(decision.manifest) | {"reasons": list(decision.reasons)}


def _damaged_document(manifest_id: str) -> dict[str, Any]:
    return {"manifest": manifest_id, "status": "damaged", "series": None, "end": None, "reasons": ["named"]}


def _row(decision: "Decision") -> tuple[str, ...]:
    manifest = decision.manifest
    return (
        "keep" if decision.keep else "forget",
        manifest.id.hex()[:12],
        local_time(manifest.end),
        str(manifest.status),
        manifest.series,
        "; ".join(decision.reasons),
    )
