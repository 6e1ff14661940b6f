"""holdfast verify: prove that everything is there."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE
from cli.options import command
from cli.output import count, local_time, size
from cli.progress import watched

if TYPE_CHECKING:
    from engine.session import Session
    from engine.verify import VerifyReport


@command(
    app,
    "verify",
    examples="""
    holdfast verify
    holdfast verify --data --json
    holdfast verify --data --within 30 --sample 5%
    """,
)
def verify(
    call: Call,
    data: Annotated[bool, typer.Option("--data", help="Read every stored byte and check it.")] = False,
    sample: Annotated[
        str | None,
        typer.Option(metavar="N%", help="Read this share of the stored bytes, those read longest ago first."),
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Read only what was not found good within so many days."),
    ] = None,
) -> int:
    """Check the repository.

    Without --data: is everything there that the snapshots need? With --data: is every byte of it what was stored?
    Each damaged object is named with the snapshots it hurts, and the exit code is 4. The next snapshot stores
    damaged content anew if its source still has it.

    --within and --sample, which imply --data, spread the reading over many runs; the repository keeps a record of
    what was found good, and when. --within says what is due, --sample how much of it one run reads at most.
    """
    from engine.selection import rfc3339
    from engine.verify import verify_repository
    from engine.verify_selection import budget_of

    budget = budget_of(within_days=within, sample=sample)
    data = data or not budget.is_all
    session = call.open("verify")
    with watched(call.output, "verify", of="manifest") as progress:
        report = verify_repository(session, data=data, budget=budget, progress=progress)
    call.output.document(
        {
            "status": report.status,
            "depth": str(report.depth),
            "manifests": report.manifests,
            "packs": report.packs,
            "packs_checked": report.packs_checked,
            "packs_left": report.packs_left,
            "packs_never_checked": report.packs_never_checked,
            "oldest_check": None if report.oldest_check is None else rfc3339(report.oldest_check),
            "read_bytes": report.read_bytes,
            "contents_read": report.contents_read,
            "damaged": [
                {"object": found.name, "reason": found.reason, "manifests": sorted(found.manifests)}
                for found in report.damaged.values()
            ],
            "notices": report.notices,
            "requests": call.requests,
        }
    )
    _print(call, session, report)
    return DAMAGED if report.damaged else DONE


def _print(call: Call, session: "Session", report: "VerifyReport") -> None:
    output = call.output
    live = session.read_manifests().live if report.damaged else []  # only to name what is hurt
    known = {manifest.id.hex(): manifest for manifest in live}
    for found in report.damaged.values():
        output.line(f"damaged: {found.name}: {found.reason}")
        for manifest_id in sorted(found.manifests):
            manifest = known.get(manifest_id)
            of = f" of {manifest.series}, {local_time(manifest.end)}" if manifest else ""
            output.line(f"  hurts manifest {manifest_id[:12]}{of}")
    for notice in report.notices:
        output.line(f"notice: {notice}")
    if not report.contents_read:
        output.warn("this key reads no contents: only the bytes as stored were checked")
    partly = report.depth == "data" and report.packs_checked < report.packs
    what = "every byte" if report.depth == "data" and not partly else "structure"
    of_them = f" and every byte of {report.packs_checked:,} of them" if partly else ""
    verdict = f"{count(len(report.damaged), 'damaged object')}" if report.damaged else "no damage"
    output.remark(
        f"verified {what} of {count(report.manifests, 'manifest')} in {count(report.packs, 'pack')}{of_them}, "
        f"{size(report.read_bytes)} read: {verdict}"
    )
    if report.packs_left:
        output.remark(f"{count(report.packs_left, 'pack')} left to the next run")
