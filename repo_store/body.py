"""Bodies: the maps inside sealed objects, read one typed key at a time.

Whoever signs an object is known, and yet what stands in it is checked: a program with a bug, or a newer one,
signs too. Every key is asked for by its type and range; what does not fit is ObjectDamaged by the name of the
object and of the key. Unknown keys are ignored (docs/format.md, conventions), unknown formats refused.
This module touches no storage.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from repo_store.errors import ObjectDamaged

FORMAT: Final = 1
LIST_MAX: Final = 1_000_000
TEXT_MAX: Final = 64 * 1024
NUMBER_MAX: Final = 2**63 - 1
MANIFEST_ID_BYTES: Final = 16

T = TypeVar("T")
_ABSENT = object()


class Body:
    """A body being read. Each method returns the value of one key, or raises ObjectDamaged."""

    def __init__(self, name: str, body: Mapping[Any, Any]) -> None:
        """Take the body of the object `name`. Raises ObjectDamaged if its format is not one that we know."""
        self.name = name
        self._body = body
        version = self.number("format", lowest=1)
        if version > FORMAT:
            raise ObjectDamaged(name, f"has format {version}; this version reads up to {FORMAT}")

    def refuse(self, reason: str) -> NoReturn:
        """Raise ObjectDamaged for this object."""
        raise ObjectDamaged(self.name, reason)

    def has(self, key: str) -> bool:
        """Say whether the body has this key."""
        return key in self._body

    def number(self, key: str, *, lowest: int = 0, highest: int = NUMBER_MAX) -> int:
        """Return a whole number from `lowest` to `highest`."""
        return self._number(self._value(key), f"`{key}`", lowest, highest)

    def data(self, key: str, size: int) -> bytes:
        """Return a byte string of exactly `size` bytes."""
        return self._data(self._value(key), f"`{key}`", size)

    def text(self, key: str, *, empty: bool = False) -> str:
        """Return a text, not empty unless `empty`."""
        return self._text(self._value(key), f"`{key}`", empty=empty)

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        """Return None if the key has nil, else what `read` returns for it."""
        return None if self._value(key) is None else read(key)

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """Return one of `choices`."""
        value = self.text(key)
        if value not in choices:
            self.refuse(f"its `{key}` is {value[:80]!r}, which this version does not know")
        return value

    def joined(self, key: str, size: int) -> tuple[bytes, ...]:
        """Return the byte strings of `size` bytes each that stand there joined."""
        value = self._value(key)
        if type(value) is not bytes or len(value) % size:
            self.refuse(f"its `{key}` is not made of {size} bytes each")
        return tuple(value[at : at + size] for at in range(0, len(value), size))

    def texts(self, key: str, *, most: int = LIST_MAX) -> list[str]:
        """Return a list of at most `most` texts."""
        return [self._text(item, f"an item of `{key}`", empty=True) for item in self._list(key, most=most)]

    def row(self, key: str, *types: type) -> tuple[Any, ...]:
        """Return a list of fixed form: fields of exactly these types."""
        return self._row(self._value(key), key, types)

    def rows(self, key: str, *types: type, of: Any = _ABSENT, most: int = LIST_MAX) -> list[tuple[Any, ...]]:
        """Return a list of at most `most` rows as of `row`; `of` is the list, if it is not the key's own value."""
        return [self._row(row, key, types) for row in self._list(key, of=of, most=most)]

    def map(self, key: str, type_: type) -> dict[str, Any]:
        """Return a map from text to values of exactly this type."""
        value = self._value(key)
        if type(value) is not dict or len(value) > LIST_MAX:
            self.refuse(f"its `{key}` is no map")
        for name, item in value.items():
            self._text(name, f"a key of `{key}`")
            if type(item) is not type_:
                self.refuse(f"its `{key}` has a wrong {name!r}")
            self._field(item, f"{name!r} in `{key}`")
        return dict(value)

    def inner_map(self, key: str) -> Mapping[Any, Any]:
        """Return a map whose values the caller checks."""
        value = self._value(key)
        if type(value) is not dict:
            self.refuse(f"its `{key}` is no map")
        return value

    def _value(self, key: str) -> Any:
        value = self._body.get(key, _ABSENT)
        if value is _ABSENT:
            self.refuse(f"has no `{key}`")
        return value

    def _list(self, key: str, *, of: Any = _ABSENT, most: int = LIST_MAX) -> Sequence[Any]:
        value = self._value(key) if of is _ABSENT else of
        if not isinstance(value, list | tuple):
            self.refuse(f"its `{key}` is no list")
        if len(value) > most:
            self.refuse(f"its `{key}` has {len(value)} items, above the limit of {most}")
        return value

    def _row(self, row: Any, key: str, types: tuple[type, ...]) -> tuple[Any, ...]:
        if not isinstance(row, list | tuple) or tuple(map(type, row)) != types:
            self.refuse(f"its `{key}` has a row of the wrong form")
        for value in row:
            self._field(value, f"a field of `{key}`")
        return tuple(row)

    def _field(self, value: Any, what: str) -> None:
        if type(value) is int:
            self._number(value, what, 0, 2**64 - 1)
        elif type(value) is str:
            self._text(value, what, empty=True)
        elif type(value) is bytes and len(value) > TEXT_MAX:
            self.refuse(f"{what} has {len(value)} bytes, above the limit")

    def _number(self, value: Any, what: str, lowest: int, highest: int) -> int:
        if type(value) is not int:
            self.refuse(f"{what} is no number")
        if not lowest <= value <= highest:
            self.refuse(f"{what} is {value}, which cannot be")
        return value

    def _data(self, value: Any, what: str, size: int) -> bytes:
        if type(value) is not bytes or len(value) != size:
            self.refuse(f"{what} is no byte string of {size} bytes")
        return value

    def _text(self, value: Any, what: str, *, empty: bool = False) -> str:
        if not isinstance(value, str):
            self.refuse(f"{what} is no text")
        if not value and not empty:
            self.refuse(f"{what} is empty")
        if len(value) > TEXT_MAX:
            self.refuse(f"{what} has {len(value)} characters, above the limit")
        return value


def check_own_name(body: Body, expected: str) -> None:
    """Refuse a body that is not at its own name: `expected` is the name, or its start if that ends with "."."""
    if body.name != expected and not (expected.endswith(".") and body.name.startswith(expected)):
        body.refuse(f"says that it is {expected.rstrip('.')}")
