"""The tree of commands: its root and its groups. The modules that cli/main.py names add the commands."""

from typing import Annotated

import typer

from cli.call import Call
from cli.options import group, root

app = typer.Typer(rich_markup_mode=None, add_completion=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


@root(
    app,
    """holdfast keeps encrypted, deduplicated backups and gives every byte back, verified.

    A first backup: `holdfast init` makes a repository, `holdfast snapshot files PATH` stores files in it,
    `holdfast restore latest --to DIR` brings them back, `holdfast verify` proves that all is there.
    Every command has --help with examples.""",
)
def _root(
    _: Call,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options before the command."""


snapshot_app = group(
    app, "snapshot", text="Back something up: files, git repositories, a stream, what a command prints."
)
git_app = group(app, "git", text="Restore and verify git repositories.")
key_app = group(app, "key", text="See and change who can open the repository.")
