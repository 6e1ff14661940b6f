"""The exit codes. docs/exit-codes.md is the authority; scripts depend on these numbers, so none ever changes."""

from typing import Final

from repo_store.errors import (
    HoldfastError,
    NoRepository,
    ObjectConflict,
    ObjectDamaged,
    ObjectMissing,
    Refused,
    UsageError,
    WrongKey,
)

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INCOMPLETE: Final = 3
DAMAGED: Final = 4
NO_REPOSITORY: Final = 10
REFUSED: Final = 11
WRONG_KEY: Final = 12
INTERRUPTED: Final = 130

# The first that fits counts: ObjectMissing and ObjectConflict are StorageErrors, which are plain failures.
_BY_CLASS: tuple[tuple[type[HoldfastError], int], ...] = (
    (UsageError, USAGE),
    (NoRepository, NO_REPOSITORY),
    (Refused, REFUSED),
    (ObjectConflict, REFUSED),
    (WrongKey, WRONG_KEY),
    (ObjectDamaged, DAMAGED),
    (ObjectMissing, DAMAGED),
)


def exit_code_of(error: HoldfastError) -> int:
    """Return the exit code that an error ends holdfast with."""
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), FAILED)
