"""Settings: where the repository is and what opens it.

For each of them the command line counts before the environment, and that before holdfast.toml. What opens the
repository is one setting, whatever its form: --key-file overrides HOLDFAST_PASSPHRASE. A passphrase itself is
taken from the environment, a file, a command or a terminal, never from the command line, where all can read it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cli.config_file import STORAGE_KEYS, ConfigFile, find_config_file, home_directory
from cli.given import GlobalOptions
from cli.rate import parse_rate
from repo_store.errors import UsageError
from repo_store.s3_options import S3Options

_NO_REPOSITORY_HINT = "use --repository, HOLDFAST_REPOSITORY, or `repository` in holdfast.toml"


class KeyForm(Enum):
    """What a KeySource is."""

    KEY_FILE = "key_file"
    PASSPHRASE = "passphrase"
    PASSPHRASE_FILE = "passphrase_file"
    PASSPHRASE_COMMAND = "passphrase_command"


@dataclass(frozen=True)
class KeySource:
    """Where the key or passphrase comes from; `where` is the setting that says so."""

    form: KeyForm
    value: str = field(repr=False)
    where: str


@dataclass(frozen=True)
class Settings:
    """What a command works with. `key` is None where nobody said: then the terminal is asked."""

    repository: str | None
    key: KeySource | None
    cache_dir: str
    state_dir: str
    storage: S3Options = field(default_factory=S3Options)
    """How the storage is reached; of a directory only the limits of transfer count."""
    warnings: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """The repository's location, a path made absolute. Raises UsageError if none is given."""
        if not self.repository:
            raise UsageError("no repository is given", hint=_NO_REPOSITORY_HINT)
        return self.repository if "://" in self.repository else os.path.abspath(self.repository)


def resolve(given: GlobalOptions, environment: Mapping[str, str]) -> Settings:
    """Return the settings. Raises UsageError, and Refused for a holdfast.toml that somebody else put there."""
    config = find_config_file(given.config, environment)

    def first(name: str) -> str | None:
        # An empty variable counts as none: that is how scripts unset one.
        option = getattr(given, name)
        return option or environment.get(_variable(name)) or config.values.get(name)

    return Settings(
        repository=first("repository"),
        key=_key(given, environment, config),
        cache_dir=first("cache_dir") or home_directory(environment, "XDG_CACHE_HOME", ".cache"),
        state_dir=first("state_dir") or home_directory(environment, "XDG_STATE_HOME", ".local/state"),
        storage=_storage({name: first(name) for name in STORAGE_KEYS}),
    )


def _storage(texts: Mapping[str, str | None]) -> S3Options:
    """Return how the storage is reached. Raises UsageError for what makes no sense."""

    def rate(name: str) -> int | None:
        text = texts[name]
        return parse_rate(text, name.replace("_", " ")) if text else None

    return S3Options(
        endpoint=texts["s3_endpoint"],
        region=texts["s3_region"],
        ca_bundle=texts["s3_ca_bundle"],
        storage_class=texts["s3_storage_class"],
        encryption=texts["s3_encryption"],
        kms_key_id=texts["s3_kms"],
        upload_bytes_per_second=rate("limit_upload"),
        download_bytes_per_second=rate("limit_download"),
    )


def _key(given: GlobalOptions, environment: Mapping[str, str], config: ConfigFile) -> KeySource | None:
    """Return what opens the repository, from the strongest place that names anything."""
    on_line = {form: getattr(given, form.value, None) for form in KeyForm}
    places = (
        [KeySource(form, value, _option(form.value)) for form, value in on_line.items() if value],
        [
            KeySource(form, environment[_variable(form.value)], _variable(form.value))
            for form in KeyForm
            if environment.get(_variable(form.value))
        ],
        [
            KeySource(form, config.values[form.value], f"{form.value} in {config.path}")
            for form in KeyForm
            if form.value in config.values
        ],
    )
    return only_one(next((sources for sources in places if sources), []))


def only_one(sources: list[KeySource]) -> KeySource | None:
    """Return the one source, or None. Raises UsageError for more: which one is meant nobody can tell."""
    if len(sources) > 1:
        raise UsageError(f"{sources[0].where} and {sources[1].where} are both given", hint="one is enough")
    return sources[0] if sources else None


def _variable(name: str) -> str:
    return f"HOLDFAST_{name.upper()}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
