"""Keys and passphrases on their way from the user to the engine. Nothing here is ever printed or put into argv."""

import getpass
import os
import shlex
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

from cli.output import Output
from cli.settings import KeyForm, KeySource
from repo_store.errors import UsageError
from repo_store.passphrase import Passphrase

if TYPE_CHECKING:
    from repo_store.key_file import KeyFile
    from repo_store.slot import Credential, Secret

_SECRET_BYTES_MAX = 64 * 1024
_HOW_TO_GIVE = "use --key-file, --passphrase-file or --passphrase-command, or set HOLDFAST_PASSPHRASE"


def read_credential(source: KeySource | None, output: Output) -> "Credential":
    """Return what opens the repository. Raises UsageError if there is nothing and nobody to ask."""
    if source is None:
        return Passphrase(_ask("passphrase", _HOW_TO_GIVE))
    if source.form is not KeyForm.KEY_FILE:
        return Passphrase(_passphrase_from(source, output))
    from repo_store.key_file import read_key_file

    read = read_key_file(source.value)
    for warning in read.warnings:
        output.warn(warning)
    return read.key_file


def new_secret(source: KeySource | None, output: Output, *, hint: str = _HOW_TO_GIVE) -> "Secret":
    """Return what a new slot shall open with: a key file that will be created, or a passphrase."""
    if source is None:
        return Passphrase(_ask_twice(hint))
    if source.form is not KeyForm.KEY_FILE:
        return Passphrase(_passphrase_from(source, output))
    from repo_store.key_file import NewKeyFile, write_key_file

    path = source.value

    def save(key_file: "KeyFile") -> None:
        write_key_file(path, key_file)

    return NewKeyFile(save)


def _passphrase_from(source: KeySource, output: Output) -> str:
    if source.form is KeyForm.PASSPHRASE:
        return source.value
    if source.form is KeyForm.PASSPHRASE_FILE:
        return _without_line_end(_read_file(source, output), source)
    return _without_line_end(_run(source), source)


def _read_file(source: KeySource, output: Output) -> bytes:
    path = source.value
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_SECRET_BYTES_MAX + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: the passphrase file cannot be read: {reason}") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        output.warn(
            f"{path}: others than its owner may read it (mode {stat.S_IMODE(mode):04o}): chmod 600 it"
        )
    return data


def _run(source: KeySource) -> bytes:
    """Return what the command prints. No shell: words are split as a shell would, nothing is expanded."""
    try:
        words = shlex.split(source.value)
        if not words:
            raise UsageError(f"{source.where}: is empty")
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    except ValueError as error:
        raise UsageError(f"{source.where}: {str(error).lower()}") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{source.where}: {words[0]}: cannot be started: {reason}") from None
    if done.returncode:
        ended = f"exited with status {done.returncode}"
        if done.returncode < 0:
            ended = f"died of signal {-done.returncode}"
        raise UsageError(f"{source.where}: {words[0]}: {ended}")
    return done.stdout


def _without_line_end(data: bytes, source: KeySource) -> str:
    if len(data) > _SECRET_BYTES_MAX:
        raise UsageError(f"{source.where}: the passphrase is longer than {_SECRET_BYTES_MAX} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{source.where}: the passphrase is not valid text in UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if "\n" in text:
        raise UsageError(f"{source.where}: the passphrase has more than one line")
    return text


def _ask(what: str, hint: str) -> str:
    """Ask on the terminal. Raises UsageError if nobody is there, which a terminal on stderr tells."""
    if not sys.stderr.isatty() or not os.access("/dev/tty", os.R_OK | os.W_OK):
        raise UsageError("no key or passphrase is given, and there is no terminal to ask on", hint=hint)
    try:
        # Not on stdin, which may be the stream to back up.
        return getpass.getpass(f"{what}: ")
    except EOFError:
        raise UsageError("no passphrase was entered") from None


def _ask_twice(hint: str) -> str:
    text = _ask("new passphrase", hint)
    if _ask("once more", hint) != text:
        raise UsageError("the two passphrases differ")
    return text
