"""Two copies: the few objects without which nothing opens are written twice, as `<name>` and `<name>.copy`.

The first name decides (its creation is the commit, where there is one); the copy is only there to be read
when the first is damaged, missing or unreadable. Both hold the same bytes and are checked alike.
"""

from collections.abc import Callable
from typing import TypeVar

from repo_store.errors import HoldfastError, ObjectDamaged, ObjectMissing, Refused, StorageError
from repo_store.storage import Storage

T = TypeVar("T")
COPY = ".copy"


def put_both(storage: Storage, name: str, data: bytes) -> None:
    """Put an object and its copy. Raises as Storage.put."""
    storage.put(name, data)
    storage.put(name + COPY, data)


def read_either(
    storage: Storage,
    name: str,
    parse: Callable[[str, bytes], T],
    *,
    bytes_max: int,
    look_at_both: bool = False,
) -> tuple[T, tuple[str, ...]]:
    """Return what `parse(name, bytes)` makes of the object or, if that fails, of its copy; and what was wrong.

    The copy is read only when it is needed, or to `look_at_both`. Raises what was wrong if neither can be used:
    ObjectDamaged, Refused, or StorageError if the storage failed.
    """
    found: list[T] = []
    problems: list[HoldfastError] = []
    for each in (name, name + COPY):
        if found and not look_at_both:
            break
        try:
            found.append(parse(each, storage.get(each, 0, bytes_max + 1)))
        except ObjectMissing:
            problems.append(ObjectDamaged(each, "is missing"))
        except (ObjectDamaged, Refused, StorageError) as error:
            problems.append(error)
    if found:
        return found[0], tuple(str(problem) for problem in problems)
    raise _worst(name, problems)


def _worst(name: str, problems: list[HoldfastError]) -> HoldfastError:
    """Return the problem that tells most: a failing storage is no damage, and "missing" says least."""
    for kind in (StorageError, Refused):
        for problem in problems:
            if isinstance(problem, kind):
                return problem
    for problem in problems:
        if isinstance(problem, ObjectDamaged) and problem.reason != "is missing":
            return problem
    return ObjectDamaged(name, "it and its copy are missing")
