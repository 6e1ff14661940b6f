"""holdfast completion: let the shell complete commands and options."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.options import command


class Shell(StrEnum):
    """A shell that holdfast has a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command(
    app,
    "completion",
    examples="""
    holdfast completion bash >~/.local/share/bash-completion/completions/holdfast
    holdfast completion zsh >~/.zfunc/_holdfast
    holdfast completion fish >~/.config/fish/completions/holdfast.fish
    """,
)
def completion(call: Call, shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish")]) -> int:
    """Print a script that lets the shell complete holdfast's commands and options."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # has no public name

    script = get_completion_script(prog_name="holdfast", complete_var="_HOLDFAST_COMPLETE", shell=shell.value)
    call.output.lines(script.splitlines())
    return DONE
