"""Keys, names and contents are nowhere in the clear but where they belong (tests/cli/test_secrets.py: passphrases)."""

import subprocess
from pathlib import Path

import pytest
from support.cli import Cli


def stored(*directories: Path) -> dict[Path, bytes]:
    """Return every file below the directories with its bytes."""
    return {path: path.read_bytes() for each in directories for path in each.rglob("*") if path.is_file()}


def test_a_key_is_in_its_file_and_on_the_sheet_only(cli: Cli, home: Path) -> None:
    assert "holdfast-key-1" in cli("init").out
    key = (cli.directory / "key").read_text().split()[3]
    cli.write("tree/a", "a")
    answers = [
        cli("snapshot", "files", "tree"),
        cli("key", "list", "--json"),
        cli("doctor"),
        cli("show", "0", env={"HOLDFAST_DEBUG": "1"}),
    ]
    assert [answer for answer in answers if key in answer.out + answer.err] == []
    files = stored(cli.directory, home)
    assert [path.name for path, data in files.items() if key.encode() in data] == ["key"]
    assert [path for path, data in files.items() if bytes.fromhex(key) in data] == []


def test_contents_names_and_tags_are_nowhere_in_the_clear(cli: Cli, home: Path) -> None:
    cli.init()
    cli.write("tree/a-telling-name", "a telling content" * 100)
    cli.snapshot("files", "tree", "--tag", "a-telling-tag")
    cli("ls", "latest")
    files = stored(cli.directory / "repository", home)
    assert [path for path, data in files.items() if b"telling" in data] == []


def test_a_passphrase_is_in_no_argument_list(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    original = subprocess.Popen.__init__

    def record(self: object, args: object, *rest: object, **more: object) -> None:
        started.append(args)
        original(self, args, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess.Popen, "__init__", record)
    monkeypatch.delenv("HOLDFAST_KEY_FILE")
    monkeypatch.setenv("HOLDFAST_PASSPHRASE", "secret")
    cli.init()
    assert cli("snapshot", "command", "x", "-q", "--", "true").code == 0
    assert started == [["true"]]
