"""Bounded reads: objects that must be small are not read whole before that is known.

A damaged or hostile storage may have anything under a name; what is larger than its kind can be is refused after
one byte too many, not after it has filled the memory.
"""

from repo_store.errors import ObjectDamaged
from repo_store.pack import PACK_BYTES_MAX
from repo_store.sealed import SEALED_BYTES_MAX
from repo_store.storage import Storage


def get_sealed(storage: Storage, name: str) -> bytes:
    """Return a sealed object. Raises ObjectDamaged if it is too large for one, ObjectMissing, StorageError."""
    return _get(storage, name, SEALED_BYTES_MAX)


def get_pack(storage: Storage, name: str) -> bytes:
    """Return a whole pack. Raises ObjectDamaged if it is too large for one, ObjectMissing, StorageError."""
    return _get(storage, name, PACK_BYTES_MAX)


def _get(storage: Storage, name: str, bytes_max: int) -> bytes:
    data = storage.get(name, 0, bytes_max + 1)
    if len(data) > bytes_max:
        raise ObjectDamaged(name, f"has more than {bytes_max} bytes, the limit")
    return data
