"""A call of holdfast: what one command line gives to the command that it names."""

import os
from functools import cached_property
from typing import TYPE_CHECKING

from cli.given import GlobalOptions
from cli.output import Output
from cli.settings import Settings, resolve

if TYPE_CHECKING:
    from engine.session import Places, Session


class Call:
    """The options given so far, the output, and from them the settings and the open repository."""

    def __init__(self, output: Output) -> None:
        self.given = GlobalOptions()
        self.output = output
        self._session: Session | None = None

    def take(self, given: GlobalOptions) -> None:
        """Take the global options that stood at one place of the command line; those further right come later."""
        self.given = self.given.overridden_by(given)
        self.output.json, self.output.events = self.given.json, self.given.events
        self.output.quiet = self.given.quiet

    @cached_property
    def settings(self) -> Settings:
        """Options, environment and holdfast.toml as one. Raises UsageError for what makes no sense."""
        settings = resolve(self.given, os.environ)
        for warning in settings.warnings:
            self.output.warn(warning)
        return settings

    @property
    def places(self) -> "Places":
        """Where this machine keeps what belongs to a repository."""
        from pathlib import Path

        from engine.session import Places

        return Places(Path(self.settings.cache_dir), Path(self.settings.state_dir))

    def open(self, operation: str = "read") -> "Session":
        """Open the repository with what the user has given, and say what was found damaged on the way."""
        from cli.keys import read_credential
        from engine.session import open_session

        settings = self.settings
        session = open_session(
            settings.location,
            lambda _: read_credential(settings.key, self.output),
            self.places,
            operation=operation,
            options=settings.storage,
        )
        for warning in session.warnings:
            self.output.warn(warning)
        self._session = session
        return session

    @property
    def requests(self) -> dict[str, int]:
        """What this call has asked of the storage's server, by kind; nothing of a directory."""
        return {} if self._session is None else dict(sorted(self._session.requests.items()))
