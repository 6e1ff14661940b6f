"""holdfast git: restore and verify git repositories."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import git_app
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE, INCOMPLETE
from cli.options import ManifestArgument, Which, command
from cli.output import count
from cli.paths import parse_path
from cli.progress import watched
from cli.snapshot_report import problem_document
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.git_restore import GitRestoreResult, RepositoryCheck
    from engine.session import Session
    from repo_store.manifest import Manifest

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="REPO", help="Only these, or those below a directory, like owner/name.git."),
]
_SOURCE = "git"


@command(
    git_app,
    "restore",
    examples="""
    holdfast git restore latest --to /srv/restored
    holdfast git restore latest --at 2026-11-22T10:00:00Z owner/name.git --to /srv/git
    """,
)
def git_restore(
    call: Call,
    manifest: ManifestArgument,
    which: Which,
    to: Annotated[
        str, typer.Option("--to", metavar="DIR", help="The directory that gets DIR/owner/name.git.")
    ],
    repositories: Names = None,
) -> int:
    """Restore git repositories, bare, each one proven by git before it takes its place.

    One that is in its place already is moved aside, never deleted, and stays untouched if the restore fails. A
    repository that had a working tree comes back as its .git directory; `git reset --hard` checks it out.
    """
    from engine.git_restore import restore_repositories

    names = [parse_path(name) for name in repositories or []]
    session = call.open()
    which.source = which.source or _SOURCE
    found = which.find(session, manifest, output=call.output)
    if found.status != "complete":
        call.output.warn(f"manifest {found.id.hex()[:12]} is {found.status}: not all of its source is in it")
    with watched(call.output, "restore", of="repo") as progress:
        result = restore_repositories(session, found, os.fsencode(to), names=names, progress=progress)
    return _report(call, [result], "restored", {"to": os.path.abspath(to)})


@command(
    git_app,
    "verify",
    examples="""
    holdfast git verify
    holdfast git verify latest owner/name.git --json
    """,
)
def git_verify(
    call: Call,
    which: Which,
    manifest: Annotated[
        str | None,
        typer.Argument(
            metavar="MANIFEST", help="A manifest id or `latest`; by default the newest of each series."
        ),
    ] = None,
    repositories: Names = None,
) -> int:
    """Prove that git repositories can be restored: make each in a temporary place, check all of it, compare the refs."""
    from engine.git_restore import verify_repositories

    names = [parse_path(name) for name in repositories or []]
    session = call.open()
    which.source = which.source or _SOURCE
    chosen = _newest(session, which) if manifest is None else [which.find(session, manifest)]
    with watched(call.output, "verify", of="repo") as progress:
        results = [verify_repositories(session, each, names=names, progress=progress) for each in chosen]
    return _report(call, results, "verified", {})


def _newest(session: "Session", which: Which) -> "list[Manifest]":
    """Return the newest complete manifest of each series that fits."""
    if which.at is not None:
        raise UsageError("a time is given without a manifest", hint="use `latest` with --at")
    selection = which.selection()
    manifests = session.read_manifests()
    series = sorted({each.series for each in manifests.live if selection.matches(each)})
    newest = [manifests.newest(each) for each in series]
    found = [each for each in newest if each is not None and selection.matches(each)]
    if not found:
        raise UsageError("no complete manifest matches", hint="`holdfast manifests` lists what there is")
    return found


def _report(call: Call, results: "list[GitRestoreResult]", done: str, document: dict[str, Any]) -> int:
    from engine.problems import printable_path

    output = call.output
    problems = [problem for result in results for problem in result.problems]
    checks = [each for result in results for each in result.repositories]
    for problem in problems:
        output.problem(printable_path(problem.path), problem.message, problem.kind)
    statuses = {result.status for result in results}
    status = next(each for each in ("damaged", "incomplete", "complete") if each in statuses)
    for each in checks:
        if each.aside is not None:
            output.remark(f"what was at {printable_path(each.name)} is now {os.fsdecode(each.aside)}")
    output.document(
        {
            "manifest": results[0].manifest.id.hex(),
            "manifests": [result.manifest.id.hex() for result in results],
            "status": "ok" if done == "verified" and status == "complete" else status,
            **document,
            "repositories": [_document(each) for each in checks],
            "problems": [problem_document(problem) for problem in problems],
            "requests": call.requests,
        }
    )
    good = sum(each.status in ("ok", "stale") for each in checks)
    output.remark(f"{done} {count(good, 'repository', 'repositories')} of {len(checks)}")
    return {"complete": DONE, "incomplete": INCOMPLETE, "damaged": DAMAGED}[status]


def _document(check: "RepositoryCheck") -> dict[str, Any]:
    from engine.problems import printable, printable_path

    return {
        "name": printable_path(check.name),
        "status": check.status,
        "refs_digest": check.refs_digest.hex() or None,
        "findings": list(check.findings),
        "aside": None if check.aside is None else printable(check.aside),
    }
