"""holdfast hold: protect manifests from being forgotten before a date."""

import time
from typing import Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.manifest_document import manifest_document
from cli.options import ManifestArguments, Which, command
from cli.output import local_time
from repo_store.errors import UsageError


@command(
    app,
    "hold",
    examples="""
    holdfast hold 3f0c81d2 --until 2027-12-31
    holdfast hold latest --source files --until 2027-01-31T00:00:00Z
    holdfast hold 3f0c81d2 --lift
    """,
)
def hold(
    call: Call,
    manifests: ManifestArguments,
    which: Which,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not to be forgotten before; local time without a zone."),
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="End the hold.")] = False,
) -> int:
    """Hold manifests until a time: no policy and no id forgets them before.

    Another hold takes the place of the one before; only an owner's key may make it shorter or lift it.
    """
    from engine.notes import Change, change_notes
    from engine.selection import parse_time

    if lift == (until is not None):
        raise UsageError("give either --until or --lift")
    now_ns = time.time_ns()
    hold_until = None if until is None else parse_time(until)
    if hold_until is not None and hold_until <= now_ns:
        raise UsageError(f"--until: {until} is past", hint="--lift ends a hold")
    session = call.open("write")
    found = which.find_all(session, manifests)
    change = Change(sets_hold=True, hold_until=hold_until)
    changed = change_notes(session, found, change, now_ns=now_ns)
    call.output.document([manifest_document(manifest) for manifest in changed])
    for manifest in changed:
        held = (
            "is not held"
            if manifest.hold_until is None
            else f"is held until {local_time(manifest.hold_until)}"
        )
        call.output.remark(f"manifest {manifest.id.hex()[:12]} {held}")
    return DONE
