"""Secrets come in by files, commands, the environment or the terminal, and go nowhere else."""

from collections.abc import Iterator
from pathlib import Path

import typer
from support.cli import Cli

from cli.main import _app

PASSPHRASE = "unmistakable passphrase"
BY_REFERENCE = ("FILE", "CMD")


def options(command: "typer.core.click.Command") -> Iterator[tuple[str, str | None]]:  # type: ignore[name-defined]
    """Yield (name, metavar) of every option of a command and of those below it."""
    for parameter in command.params:
        yield from ((name, parameter.metavar) for name in parameter.opts if name.startswith("--"))
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)


def test_no_option_takes_a_secret_by_value() -> None:
    named = {
        (name, metavar)
        for name, metavar in options(typer.main.get_command(_app()))
        if "pass" in name or "key" in name or "secret" in name
    }
    assert {"--key-file", "--passphrase-file", "--new-passphrase-command"} <= {name for name, _ in named}
    assert {(name, metavar) for name, metavar in named if metavar not in BY_REFERENCE} == set()


def test_a_passphrase_shows_in_no_answer_and_in_no_file(cli: Cli, home: Path) -> None:
    cli.write("tree/file", "content")
    environment = {"HOLDFAST_KEY_FILE": "", "HOLDFAST_PASSPHRASE": PASSPHRASE}
    told = []
    for command in (  # few: each derives the key anew
        ("init",),
        ("snapshot", "files", "tree", "--json"),
        ("verify", "--data", "--events"),
        ("key", "export"),
        ("show", "latest", "--config", "no such file"),
    ):
        answer = cli(*command, env=environment)
        told.append(answer.out + answer.err)
    assert all(told) and [text for text in told if PASSPHRASE in text] == []
    assert cli("manifests", env={**environment, "HOLDFAST_PASSPHRASE": PASSPHRASE[1:]}).code == 12
    for folder in (cli.directory, home):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert [path for path in files if PASSPHRASE.encode() in path.read_bytes()] == []
