"""Passphrases from every place they can come from, and what is wrong with some."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import HOLDFAST, Cli

from cli.keys import read_credential
from cli.output import Output
from cli.settings import KeyForm, KeySource
from repo_store.errors import UsageError
from repo_store.passphrase import Passphrase


def passphrase(form: KeyForm, value: str) -> str:
    credential = read_credential(KeySource(form, value, form.value), Output())
    assert isinstance(credential, Passphrase)
    return credential.text


def refusal(form: KeyForm, value: str) -> str:
    with pytest.raises(UsageError) as caught:
        passphrase(form, value)
    return str(caught.value)


def test_from_the_environment_a_file_and_a_command(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (" my secret ", " my secret \n", " my secret \r\n"):
        path.write_bytes(content.encode())
        path.chmod(0o600)
        assert passphrase(KeyForm.PASSPHRASE_FILE, str(path)) == " my secret "
    assert passphrase(KeyForm.PASSPHRASE, " my secret ") == " my secret "
    assert passphrase(KeyForm.PASSPHRASE_COMMAND, "printf ' my $secret \n'") == " my $secret "


def test_what_cannot_be_a_passphrase(tmp_path: Path) -> None:
    file, command = KeyForm.PASSPHRASE_FILE, KeyForm.PASSPHRASE_COMMAND
    path = tmp_path / "file"
    assert refusal(file, str(path)) == (
        f"{path}: the passphrase file cannot be read: no such file or directory"
    )
    path.touch(0o600)
    for content, reason in (
        (b"", "the passphrase is empty"),
        (b"a\nb\n", "passphrase_file: the passphrase has more than one line"),
        (b"\xff", "passphrase_file: the passphrase is not valid text in UTF-8"),
        (bytes(70_000), "passphrase_file: the passphrase is longer than 65536 bytes"),
    ):
        path.write_bytes(content)
        assert refusal(file, str(path)) == reason
    assert refusal(command, "sh -c 'echo secret; exit 2'") == "passphrase_command: sh: exited with status 2"
    assert refusal(command, "sh -c 'kill -9 $$'") == "passphrase_command: sh: died of signal 9"
    assert refusal(command, "no-such-program") == (
        "passphrase_command: no-such-program: cannot be started: no such file or directory"
    )
    assert refusal(command, "'open") == "passphrase_command: no closing quotation"
    assert refusal(command, " ") == "passphrase_command: is empty"


def test_a_file_that_others_can_read_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_text("secret")
    path.chmod(0o644)
    assert passphrase(KeyForm.PASSPHRASE_FILE, str(path)) == "secret"
    assert capsys.readouterr().err == (
        f"holdfast: warning: {path}: others than its owner may read it (mode 0644): chmod 600 it\n"
    )


def on_a_terminal(directory: Path, answers: list[bytes], *args: str) -> tuple[int, str]:
    """Run holdfast on a terminal of its own, answer its questions in order; return its exit code and all it shows."""
    become = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    here, there = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "HOLDFAST_KEY_FILE"}
    run = subprocess.Popen(
        [sys.executable, "-c", become, HOLDFAST, *args],
        cwd=directory,
        env=environment,
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    shown, answered = b"", 0
    with open(here, "r+b", buffering=0) as terminal:
        while select.select([terminal], [], [], 60)[0]:
            try:
                part = terminal.read(4096)
            except OSError:  # how Linux says that the last program left the terminal
                break
            shown += part
            if shown.endswith(b": ") and answers[answered:]:
                terminal.write(answers[answered] + b"\n")
                answered += 1
    return run.wait(60), shown.decode().replace("\r\n", "\n")


def test_a_terminal_is_asked_twice_for_a_new_passphrase_and_once_for_an_old_one(cli: Cli) -> None:
    code, shown = on_a_terminal(cli.directory, [b"secret", b"secrte"], "init")
    assert (code, shown) == (
        2,
        "new passphrase: \nonce more: \nholdfast: the two passphrases differ\n",
    )
    code, shown = on_a_terminal(cli.directory, [b"secret", b"secret"], "init")
    assert (code, shown.splitlines()[:2]) == (0, ["new passphrase: ", "once more: "])
    assert "secret\n" not in shown
    code, shown = on_a_terminal(cli.directory, [b"secret"], "verify", "--quiet")
    assert (code, shown) == (0, "passphrase: \n")


def test_a_bar_is_shown_on_a_terminal_and_gone_when_it_is_done(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", bytes(1000))
    code, shown = on_a_terminal(
        cli.directory, [], "snapshot", "files", "tree", "--key-file", str(cli.directory / "key")
    )
    assert code == 0
    assert "snapshot" in shown.partition("\x1b[2K")[2]
    assert shown.rpartition("\x1b[2K")[2].startswith("snapshot ")
