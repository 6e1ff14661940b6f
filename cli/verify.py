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
    """,
)
def verify(
    call: Call,
    data: Annotated[bool, typer.Option("--data", help="Read every stored byte and check it.")] = False,
) -> int:
    """Check the repository.

    Without --data: is everything there that the snapshots need? With --data: is every byte of it what was stored?
    Each damaged object is named with the snapshots it hurts, and the exit code is 4. The next snapshot stores
    damaged content anew if its source still has it.
    """
    from engine.verify import verify_repository

    session = call.open("verify")
    with watched(call.output, "verify", of="manifest") as progress:
        report = verify_repository(session, data=data, progress=progress)
    call.output.document(
        {
            "status": report.status,
            "depth": str(report.depth),
            "manifests": report.manifests,
            "packs": report.packs,
            "read_bytes": report.read_bytes,
            "contents_read": report.contents_read,
            "damaged": [
                {"object": found.name, "reason": found.reason, "manifests": sorted(found.manifests)}
                for found in report.damaged.values()
            ],
            "notices": report.notices,
        }
    )
    _print(call, session, report)
    return DAMAGED if report.damaged else DONE


def _print(call: Call, session: "Session", report: "VerifyReport") -> None:
    output = call.output
    known = {manifest.id.hex(): manifest for manifest in session.read_manifests().live}
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
    depth = "every byte" if report.depth == "data" else "structure"
    verdict = f"{count(len(report.damaged), 'damaged object')}" if report.damaged else "no damage"
    output.remark(
        f"verified {depth} of {count(report.manifests, 'manifest')} in {count(report.packs, 'pack')}, "
        f"{size(report.read_bytes)} read: {verdict}"
    )
