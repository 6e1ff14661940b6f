"""Key files: one line of text that opens one slot of one repository.

    holdfast-key-1 <repository, 64 hex> <slot, 16 hex> <key, 64 hex> <check, 8 hex>

docs/format.md, section 4, is the authority. The line may have been typed from paper, so it carries a check and
is read whatever the spacing and case. A key file is created with mode 0600 and never overwritten.
"""

import hmac
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from repo_store.errors import Refused, WrongKey
from repo_store.key_ring import derive
from repo_store.os_errors import failing

KEY_BYTES = 32
_FORMAT = 1
_FILE_BYTES_MAX = 4096
_CHECK_DIGITS = 8
_LINE = re.compile(r"holdfast-key-(\d{1,9}) (.*)", re.ASCII)
_REST = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{16}) ([0-9a-f]{64}) ([0-9a-f]{8})", re.ASCII)
_HINT = "a key file is one line that starts with holdfast-key-1; compare it with the recovery sheet"


@dataclass(frozen=True)
class KeyFile:
    """The key of one slot: `repository` is the identity (32 bytes), `slot` its name, `key` 32 bytes."""

    repository: bytes
    slot: str
    key: bytes = field(repr=False)

    @property
    def line(self) -> str:
        """The line that stands in the file and on the recovery sheet, without the line end. A secret."""
        body = f"holdfast-key-{_FORMAT} {self.repository.hex()} {self.slot} {self.key.hex()}"
        return f"{body} {_check(body)}"

    def kek(self, salt: bytes) -> bytes:
        """Return the key that wraps the slot."""
        return derive("slot key file", self.key + salt)


@dataclass(frozen=True)
class NewKeyFile:
    """Asks for a slot with a new key file. `save` is called with it before anything that needs it is written,
    so no crash can leave a slot whose key nobody has; if it raises, nothing is written."""

    save: Callable[[KeyFile], None] = field(repr=False)


class KeyFileRead(NamedTuple):
    """A key file as read, and what a person should be told about it."""

    key_file: KeyFile
    warnings: tuple[str, ...]


def parse_key_file(text: str, *, where: str = "the key file") -> KeyFile:
    """Return the key file that `text` is. Raises WrongKey if it is none, Refused if it is of a later format."""
    line = " ".join(text.lower().split())
    start = _LINE.fullmatch(line)
    if start is None:
        raise WrongKey(f"{where}: not a key file of holdfast", hint=_HINT)
    if int(start[1]) != _FORMAT:
        raise Refused(f"{where}: has format {start[1]}; this version reads up to {_FORMAT}")
    rest = _REST.fullmatch(start[2])
    if rest is None:
        raise WrongKey(f"{where}: not a whole key file: something is missing or mistyped", hint=_HINT)
    if not hmac.compare_digest(_check(line[: -_CHECK_DIGITS - 1]), rest[4]):
        raise WrongKey(f"{where}: its check does not fit: something in it is mistyped or damaged", hint=_HINT)
    return KeyFile(bytes.fromhex(rest[1]), rest[2], bytes.fromhex(rest[3]))


def read_key_file(path: str | os.PathLike[str]) -> KeyFileRead:
    """Return the key file at `path`, with a warning if others can read it.

    Raises StorageError if it cannot be read, WrongKey and Refused as `parse_key_file`.
    """
    where = os.fspath(path)
    with failing("read", where), open(where, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = file.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise WrongKey(f"{where}: not a key file of holdfast", hint=_HINT)
    key_file = parse_key_file(data.decode("ascii", "replace"), where=where)
    shared = stat.S_ISREG(mode) and mode & 0o077
    warning = f"{where}: others than its owner may read it (mode {stat.S_IMODE(mode):04o}): chmod 600 it"
    return KeyFileRead(key_file, (warning,) if shared else ())


def write_key_file(path: str | os.PathLike[str], key_file: KeyFile) -> None:
    """Create the file at `path`, mode 0600, durable on return. Raises Refused if it exists, StorageError."""
    where = os.fspath(path)
    with failing("write", where):
        try:
            file = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Refused(
                f"{where}: exists already, and a key file is never overwritten",
                hint="choose another name, or remove it if you know that no repository needs it",
            ) from None
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(f"{key_file.line}\n".encode())
                stream.flush()
                os.fsync(stream.fileno())
            _sync_folder(os.path.dirname(where) or ".")
        except OSError:
            # A torn key file must not stand where the user will look for a good one.
            with suppress(OSError):
                os.unlink(where)
            raise


def recovery_sheet(location: str, repository: bytes, slot: str, key_file: KeyFile | None) -> str:
    """Return the text to print and keep on paper; `key_file` is None for a slot that a passphrase opens."""
    if key_file is None:
        secret = "passphrase  ______________________________ (write it here, by hand)"
        use = "It asks for the passphrase, or takes it from HOLDFAST_PASSPHRASE."
    else:
        secret = f"key         {key_file.line}"
        use = "Put the key, as one line, into a file and name that with --key-file or HOLDFAST_KEY_FILE."
    return "\n".join(
        (
            "holdfast recovery sheet",
            "",
            f"location    {location}",
            f"repository  {repository.hex()}",
            f"slot        {slot}",
            secret,
            "",
            "Keep this apart from the machine that is backed up: whoever has it can do what this slot can.",
            "To restore, install holdfast and name the location with --repository.",
            use,
            "If every key and passphrase of the repository is lost, so are the backups: holdfast keeps no",
            "other way in and nobody can recover them.",
            "",
        )
    )


def _check(body: str) -> str:
    return blake3(body.encode()).hexdigest()[:_CHECK_DIGITS]


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
