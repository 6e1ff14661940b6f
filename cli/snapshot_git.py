"""holdfast snapshot git: back up git repositories."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import snapshot_app
from cli.call import Call
from cli.options import command
from cli.output import count
from cli.progress import watched
from cli.snapshot_report import SnapshotChoices, report_snapshot
from repo_store.errors import UsageError

if TYPE_CHECKING:
    from engine.git_snapshot import RepositoryResult

_DEPTH = 16  # as engine/sources/git_find.py has it, which a start need not import


@command(
    snapshot_app,
    "git",
    examples="""
    holdfast snapshot git /srv/git/app.git ~/src/tool
    holdfast snapshot git --under /srv/git --json
    """,
)
def snapshot_git(
    call: Call,
    choices: SnapshotChoices,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="A repository, bare or with a working tree.")
    ] = None,
    under: Annotated[
        str | None, typer.Option("--under", metavar="DIR", help="All repositories below this directory.")
    ] = None,
    depth: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="How many levels below DIR are looked at.")
    ] = _DEPTH,
    full_read: Annotated[
        bool, typer.Option("--full-read", help="Pack every repository anew, as a whole.")
    ] = False,
) -> int:
    """Back up git repositories through git: refs, all that they reach, configuration, hooks and LFS objects.

    Repositories may be pushed to meanwhile. One that has not changed since the previous snapshot costs next to nothing,
    another what is new in it. Every packfile is proven before it is stored. A repository that fails is named, the
    others are stored, and the exit code is 3. Not stored: working trees, reflogs, what no ref reaches, repositories
    of submodules inside others.
    """
    from engine.git_snapshot import snapshot_git as run

    if not paths and under is None:
        raise UsageError("no repository is given", hint="give paths, or --under DIR")
    options = choices.options(full_read=full_read)
    session = call.open("write")
    with watched(call.output, "snapshot", of="repo") as progress:
        result = run(session, paths or [], under=under, depth=depth, options=options, progress=progress)
    for each in result.repositories:
        if each.status in ("new", "changed"):
            call.output.remark(_line(each))
    documents = [_document(each) for each in result.repositories]
    return report_snapshot(call, result, {"repositories": documents}, of=("repository", "repositories"))


def _line(result: "RepositoryResult") -> str:
    from engine.problems import printable_path

    return f"{printable_path(result.name)}: {result.status}, {count(result.new_objects, 'new object')}"


def _document(result: "RepositoryResult") -> dict[str, Any]:
    from engine.problems import printable_path

    return {
        "name": printable_path(result.name),
        "status": result.status,
        "refs_digest": None if result.refs_digest is None else result.refs_digest.hex(),
        "refs": None if result.refs_digest is None else "moving" if result.moving else "settled",
        "new_objects": result.new_objects,
    }
