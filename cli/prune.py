"""holdfast prune: free the space of what no manifest needs any more."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import app
from cli.byte_count import scaled
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE
from cli.options import command
from cli.output import count, size
from cli.progress import watched
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.progress import Progress
    from engine.prune import PrunePlan, PruneResult
    from engine.session import Session

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s?([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_GENERATIONS_MAX = 3
"""One that another host left open, and the two that --at-once takes."""


@command(
    app,
    "prune",
    examples="""
    holdfast prune --dry-run
    holdfast prune
    holdfast prune --max-repack 20G
    holdfast prune --compact --at-once
    """,
)
def prune(
    call: Call,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Rewrite what is left of frames mostly unneeded; takes a key that reads contents.",
        ),
    ] = False,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="Free now what is found unneeded only now. Safe; a snapshot running meanwhile may have to be run again.",
        ),
    ] = False,
    max_repack: Annotated[
        str | None,
        typer.Option(
            "--max-repack",
            "--repack-bytes-max",
            metavar="SIZE",
            help="Move no more than this in one run, such as 20G; 0 moves nothing. [default: 64G]",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Free the space of what no manifest needs any more, beside any number of snapshots and other prunes.

    What is found unneeded for the first time is only written down, and freed by the next run: so a snapshot that is
    running loses nothing. Packs that are mostly unneeded are repacked. A run that was killed is finished by the next
    one, on any host. If anything that a manifest needs is missing, nothing is freed and the exit code is 4.
    """
    from engine.prune import REPACK_BYTES_MAX, require_prune_key

    bytes_max = REPACK_BYTES_MAX if max_repack is None else parse_size(max_repack)
    session = call.open("prune")
    require_prune_key(session)
    with watched(call.output, "prune", of="manifest") as progress:
        if dry_run:
            plan = _plan(session, progress, compact=compact, bytes_max=bytes_max)
        else:
            results = _run(session, progress, compact=compact, bytes_max=bytes_max, at_once=at_once)
    if dry_run:
        _report_plan(call, plan)
        return DONE
    result = _sum(results)
    call.output.document(_document(result))
    _report(call, result)
    return DAMAGED if result.damaged else DONE


def parse_size(text: str) -> int:
    """Return the bytes that a person means by "20G", in units of 1024. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--max-repack: {text!r} is not a size", hint="such as 500M or 20G (20 GiB)")
    return scaled(match[1], match[2])


def _plan(session: "Session", progress: "Progress", *, compact: bool, bytes_max: int) -> "PrunePlan":
    from engine.prune import plan_prune

    return plan_prune(session, compact=compact, repack_bytes_max=bytes_max, progress=progress)


def _run(
    session: "Session", progress: "Progress", *, compact: bool, bytes_max: int, at_once: bool
) -> "list[PruneResult]":
    """Run one generation, after one that another run left open, and with `at_once` one more."""
    from engine.prune import run_prune

    results: list[PruneResult] = []
    for _ in range(_GENERATIONS_MAX):
        plan = _plan(session, progress, compact=compact, bytes_max=bytes_max)
        results.append(run_prune(session, plan, progress=progress))
        own = sum(not result.adopted for result in results)
        if own and (own > 1 or not (at_once and results[-1].bytes_next)):
            break
    return results


def _sum(results: "list[PruneResult]") -> "PruneResult":
    """Return what several generations did together."""
    added = {
        name: sum(getattr(result, name) for result in results)
        for name in (
            *("packs_deleted", "packs_repacked", "packs_stored", "bytes_freed", "tables_merged"),
            *("manifests_removed", "pendings_removed", "wal_removed", "frames_compacted", "packs_spared"),
        )
    }
    damaged = {name: reason for result in results for name, reason in result.damaged.items()}
    return replace(results[-1], **added, damaged=damaged, adopted=any(each.adopted for each in results))


def _document(result: "PruneResult") -> dict[str, Any]:
    return {
        "dry_run": False,
        "generation": result.generation,
        "adopted": result.adopted,
        "packs_deleted": result.packs_deleted,
        "packs_repacked": result.packs_repacked,
        "packs_stored": result.packs_stored,
        "packs_spared": result.packs_spared,
        "bytes_freed": result.bytes_freed,
        "bytes_left": result.bytes_left,
        "bytes_next": result.bytes_next,
        "tables_merged": result.tables_merged,
        "manifests_removed": result.manifests_removed,
        "pendings_removed": result.pendings_removed,
        "wal_removed": result.wal_removed,
        "sparse_frames": result.sparse_frames,
        "frames_compacted": result.frames_compacted,
        "damaged": [{"object": name, "reason": reason} for name, reason in result.damaged.items()],
    }


def _report(call: Call, result: "PruneResult") -> None:
    output = call.output
    for name, reason in result.damaged.items():
        output.warn(
            f"{name}: damaged: {reason}; it was left as it is, and `holdfast verify` says what it hurts"
        )
    if result.adopted:
        output.remark("finished what another run had begun")
    output.line(f"{size(result.bytes_freed)} freed in {count(result.packs_deleted, 'pack')}")
    if result.packs_repacked or result.frames_compacted:
        frames = f", {count(result.frames_compacted, 'frame')} compacted" if result.frames_compacted else ""
        output.line(f"{count(result.packs_repacked, 'pack')} repacked{frames}")
    if result.manifests_removed or result.tables_merged:
        output.remark(
            f"{count(result.manifests_removed, 'forgotten manifest')} removed, "
            f"{count(result.tables_merged, 'table')} merged"
        )
    output.line(f"{size(result.bytes_left)} in packs now")
    if result.bytes_next:
        output.line(f"{size(result.bytes_next)} of them are no longer needed: the next prune frees them")


def _report_plan(call: Call, plan: "PrunePlan") -> None:
    unneeded = sum(plan.unneeded.values())
    call.output.document(
        {
            "dry_run": True,
            "generation": plan.generation,
            "adopted": plan.adopts,
            "packs_deleted": len(plan.condemned),
            "packs_repacked": len(plan.repack.packs),
            "bytes_freed": plan.condemned_bytes,
            "bytes_left": plan.pack_bytes - plan.condemned_bytes,
            "bytes_next": unneeded,
            "bytes_needed": plan.live_bytes,
            "bytes_to_carry": plan.repack.carried_bytes,
            "packs_left_for_later": plan.repack.left,
            "tables_merged": sum(map(len, plan.merges)),
            "manifests_removed": len(plan.manifests),
            "pendings_removed": len(plan.pendings),
            "wal_removed": len(plan.wal),
            "sparse_frames": len(plan.sparse),
        }
    )
    line = call.output.line
    if plan.adopts:
        line(f"generation {plan.generation} is open: the next prune finishes it first")
        return
    line(f"would free {size(plan.condemned_bytes)} in {count(len(plan.condemned), 'pack')}")
    line(f"would repack {count(len(plan.repack.packs), 'pack')}, moving {size(plan.repack.carried_bytes)}")
    if plan.repack.left:
        line(f"would leave {count(plan.repack.left, 'pack')} for later runs: --max-repack is reached")
    line(f"would remove {count(len(plan.manifests), 'forgotten manifest')}")
    line(f"would merge {count(sum(map(len, plan.merges)), 'table')}")
    line(f"{size(unneeded)} would be left for the run after")
    if plan.sparse:
        hint = "" if plan.compact else "; --compact would rewrite them"
        line(f"{count(len(plan.sparse), 'frame')} of which less than half is needed{hint}")
