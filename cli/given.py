"""The global options, as given on the command line: they may stand before or after any command."""

from dataclasses import dataclass, fields
from typing import Annotated

import typer

GLOBAL_PANEL = "Global options, anywhere on the line"


def _option(*names: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:
    option = typer.Option(*names, help=help, metavar=metavar, rich_help_panel=GLOBAL_PANEL)
    assert isinstance(option, typer.models.OptionInfo)
    return option


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """None, or False, where an option was not given."""

    repository: Annotated[
        str | None,
        _option("--repository", "-r", metavar="PATH", help="The repository. [HOLDFAST_REPOSITORY]"),
    ] = None
    key_file: Annotated[
        str | None,
        _option("--key-file", metavar="FILE", help="The key file that opens it. [HOLDFAST_KEY_FILE]"),
    ] = None
    passphrase_file: Annotated[
        str | None,
        _option(
            "--passphrase-file",
            metavar="FILE",
            help="A file that holds the passphrase. [HOLDFAST_PASSPHRASE_FILE]",
        ),
    ] = None
    passphrase_command: Annotated[
        str | None,
        _option(
            "--passphrase-command",
            metavar="CMD",
            help="A command that prints the passphrase. [HOLDFAST_PASSPHRASE_COMMAND]",
        ),
    ] = None
    config: Annotated[
        str | None,
        _option(
            "--config",
            metavar="FILE",
            help="Settings; by default ./holdfast.toml or ~/.config/holdfast/holdfast.toml.",
        ),
    ] = None
    cache_dir: Annotated[
        str | None,
        _option(
            "--cache-dir",
            metavar="DIR",
            help="What can be made again; ~/.cache/holdfast. [HOLDFAST_CACHE_DIR]",
        ),
    ] = None
    state_dir: Annotated[
        str | None,
        _option(
            "--state-dir",
            metavar="DIR",
            help="What this machine remembers; ~/.local/state/holdfast. [HOLDFAST_STATE_DIR]",
        ),
    ] = None
    json: Annotated[bool, _option("--json", help="Answer with one JSON document on stdout.")] = False
    events: Annotated[bool, _option("--events", help="Write stderr as JSON, one event a line.")] = False
    quiet: Annotated[bool, _option("--quiet", "-q", help="No progress, no summary, no notes.")] = False

    def overridden_by(self, later: "GlobalOptions") -> "GlobalOptions":
        """Return these options with those that `later` has in their place."""
        names = (each.name for each in fields(self))
        return GlobalOptions(**{name: getattr(later, name) or getattr(self, name) for name in names})
