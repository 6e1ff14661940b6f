"""Storage: what the repository asks of a disk, a server, or a test.

Storage keeps objects: named byte strings that never change. It knows nothing of chunks, keys or
manifests. Each implementation passes the same tests (tests/repo_store/test_storage_contract.py).

The order in which the repository writes is what keeps it valid, so durability is explicit: `put`
makes an object visible at once and whole or not at all, `barrier` makes everything put so far survive
a power cut. A caller puts packs, passes a barrier, puts the tables that name them, passes another
barrier, and only then the manifest (docs/format.md, "Order of writing").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as listed: its name, its size in bytes, and when the storage says it was made (ns, Unix)."""

    name: str
    size: int
    modified_ns: int


class Storage(Protocol):
    """Named, immutable byte strings.

    Names are lower-case ASCII letters, digits, ".", "-" and "_" in parts joined by "/"; a part never
    starts with ".", a name never starts or ends with "/" (object_names.py), and no name is a folder of
    another ("a" beside "a/b"). All methods may be called from several threads at once. All raise
    StorageError (or a subclass) and nothing else when the storage fails; implementations retry what is
    worth retrying before they do.
    """

    location: str
    """The location as a user wrote it, for messages."""

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """Create the object `name` from `data` (a sequence is written joined).

        Create-only and atomic: other readers see nothing or the whole; an existing object is never
        changed. If `name` already has exactly these bytes, that is success (a lost acknowledgement);
        other bytes raise ObjectConflict. Visible on return, durable after the next `barrier`. Even before
        the barrier a power cut leaves the whole object or none, never a torn one.
        """

    def barrier(self, names: Iterable[str] = ()) -> None:
        """Make every object put through this instance so far, and the objects `names`, whoever put them,
        survive a power cut. Raises if that cannot be promised: a failed sync is never retried as if new."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes of the object from `offset`, or all from there if None.

        A negative offset counts from the end, and from the start if the object is shorter. Fewer bytes come back
        only if the object ends there: none at or past its end. Raises ObjectMissing.
        """

    def info(self, name: str) -> ObjectInfo:
        """Return the size and date of an object. Raises ObjectMissing."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose name starts with `prefix` ("packs/", "gc/", "" for all), in any order.

        Every object whose put returned before the call is yielded unless it was deleted; one put or deleted meanwhile
        may or may not be.
        """

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is success. Durable after the next `barrier`."""

    def replace(self, name: str, data: Buffer) -> None:
        """Put `data` in place of a damaged object, atomically. For repair by the owner only: nothing else may
        call it (docs/invariants.md)."""


def requests_of(storage: Storage) -> Counter[str]:
    """Return how many requests of which kind a storage has sent to its server, every try counted; of a storage
    without a server none."""
    return Counter(getattr(storage, "requests", ()))
