"""holdfast.toml: settings that stay.

    repository = "/srv/backups"
    key_file = "~/.config/holdfast/key"

Paths in it are relative to its own directory, so it means the same wherever holdfast is called. A file that is
merely found in the working directory is believed only if it belongs to the caller or to root: it can name
a command to run.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from repo_store.errors import Refused, UsageError

FILE_NAME = "holdfast.toml"
_PATHS = ("repository", "key_file", "passphrase_file", "cache_dir", "state_dir", "s3_ca_bundle")
STORAGE_KEYS = (
    "limit_upload",
    "limit_download",
    "s3_endpoint",
    "s3_region",
    "s3_ca_bundle",
    "s3_storage_class",
    "s3_encryption",
    "s3_kms",
)
_KEYS = (*dict.fromkeys((*_PATHS, "passphrase_command", *STORAGE_KEYS)),)
_FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True)
class ConfigFile:
    """The settings of one file, and where it is; nothing if there is none."""

    path: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


def find_config_file(given: str | None, environment: Mapping[str, str]) -> ConfigFile:
    """Return the file `given`, or the first that lies where one may.

    Raises UsageError if it cannot be read or has a setting that is unknown, Refused if it is not to be trusted.
    """
    if given is not None:
        return read_config_file(given)
    if os.path.lexists(FILE_NAME):
        _require_own(FILE_NAME)
        return read_config_file(FILE_NAME)
    path = os.path.join(home_directory(environment, "XDG_CONFIG_HOME", ".config"), FILE_NAME)
    return read_config_file(path) if os.path.exists(path) else ConfigFile()


def read_config_file(path: str) -> ConfigFile:
    """Return the settings in the file `path`. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(text) > _FILE_BYTES_MAX:
        raise UsageError(f"{path}: is larger than {_FILE_BYTES_MAX} bytes")
    try:
        found = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error)
        raise UsageError(f"{path}: is not TOML: {reason[:1].lower()}{reason[1:]}") from None
    for key, value in found.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: unknown setting {key!r}", hint=f"known are {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value:
            raise UsageError(f"{path}: {key} is not a text in quotes")
    folder = os.path.dirname(os.path.abspath(path))
    return ConfigFile(path, {key: _settled(folder, key, value) for key, value in found.items()})


def _settled(folder: str, key: str, value: str) -> str:
    if key not in _PATHS or "://" in value:
        return value
    try:
        return os.path.join(folder, Path(value).expanduser())
    except RuntimeError:
        raise UsageError(f"{key}: {value}: there is no such home directory") from None


def home_directory(environment: Mapping[str, str], variable: str, folder: str) -> str:
    """Return holdfast's directory below an XDG base directory, which counts only if it is absolute."""
    base = environment.get(variable, "")
    if not os.path.isabs(base):
        try:
            base = os.path.join(Path.home(), folder)
        except RuntimeError:
            raise UsageError("this user has no home directory", hint=f"set HOME or {variable}") from None
    return os.path.join(base, "holdfast")


def _require_own(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return  # reading it will say why
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise Refused(
            f"{os.path.abspath(path)}: others than you may write to it, so it is not read by itself",
            hint=f"use `--config {path}` if you trust it",
        )
