"""What can go wrong, sorted by whose problem it is.

A class exists only where a caller handles it differently; everything a person needs to know stands
in the message: lower case, what and where, no period. `hint` says what to do about it. This module
imports nothing from the project.
"""


class HoldfastError(Exception):
    """Base of every error that holdfast raises on purpose."""

    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class UsageError(HoldfastError):
    """The command as given makes no sense: wrong name, no match, more than one match."""


class NoRepository(HoldfastError):
    """There is no repository at the location."""


class Refused(HoldfastError):
    """Doing it would break something, so it was not done: `init` twice, an unsafe storage, an unknown flag."""


class WrongKey(HoldfastError):
    """The passphrase or key file opens no slot of this repository."""


class SourceError(HoldfastError):
    """What was to be backed up cannot be: a root is missing, a command failed."""


class StorageError(HoldfastError):
    """The storage failed: no space, no permission, an I/O error, a deadline passed."""


class ObjectMissing(StorageError):
    """The storage has no object of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: no such object")
        self.name = name


class ObjectConflict(StorageError):
    """An object of this name exists with other bytes; it was left as it is."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: exists with other content")
        self.name = name


class ObjectDamaged(HoldfastError):
    """An object does not have the bytes it was stored with, or was not made by who it says."""

    hint = "run `holdfast verify` to see all damage"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: damaged: {reason}")
        self.name = name
        self.reason = reason
