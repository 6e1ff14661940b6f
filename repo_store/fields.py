"""Fields: reading a map that came from storage, one typed value at a time.

A map from storage may hold anything. Every getter here returns exactly the type it names or raises
ObjectDamaged with the key that is wrong; keys nobody asks for are ignored, as docs/format.md demands.
This module touches no storage.
"""

from collections.abc import Mapping
from typing import Any

from repo_store.errors import ObjectDamaged

NUMBER_MAX = 2**64 - 1


class Fields:
    """The map `values` of the object `name`."""

    def __init__(self, name: str, values: Mapping[Any, Any]) -> None:
        self.name = name
        self.values = values

    def data(self, key: str, size: int | None = None) -> bytes:
        """Return a byte string, of exactly `size` bytes if given."""
        value = self.values.get(key)
        if not isinstance(value, bytes) or (size is not None and len(value) != size):
            raise self._wrong(key)
        return value

    def text(self, key: str) -> str:
        """Return a text."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self._wrong(key)
        return value

    def number(self, key: str, *, least: int = 0, most: int = NUMBER_MAX) -> int:
        """Return a whole number from `least` to `most`."""
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(key)
        return value

    def absent(self, key: str) -> bool:
        """Return whether the value is nil or missing."""
        return self.values.get(key) is None

    def map(self, key: str) -> "Fields":
        """Return a map."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key)
        return Fields(self.name, value)

    def maps(self, key: str) -> "list[Fields]":
        """Return an array of maps."""
        return [Fields(self.name, value) for value in self._array(key, dict)]

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an array of texts."""
        return tuple(self._array(key, str))

    def numbers(self, key: str) -> tuple[int, ...]:
        """Return an array of whole numbers, none below 0."""
        values = self._array(key, int)
        if any(isinstance(value, bool) or not 0 <= value <= NUMBER_MAX for value in values):
            raise self._wrong(key)
        return tuple(values)

    def _array(self, key: str, kind: type) -> list[Any]:
        values = self.values.get(key)
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise self._wrong(key)
        return values

    def _wrong(self, key: str) -> ObjectDamaged:
        return ObjectDamaged(self.name, f"its field {key!r} is missing or wrong")
