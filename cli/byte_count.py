"""A number of bytes as a person writes it: "4096", "500K", "1.5G"."""

import re
from decimal import Decimal

from repo_store.errors import UsageError

_FORM = re.compile(r"(\d{1,18}(?:\.\d{1,3})?)\s?([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def parse_bytes(text: str, where: str) -> int:
    """Return the number of bytes; `where` is the option that says so. Units are those of 1024. Raises UsageError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{where}: {text!r} is not a size", hint="bytes, such as 500K or 1.5G")
    return scaled(match[1], match[2])


def scaled(number: str, unit: str) -> int:
    """Return the bytes of a decimal number of units: "", "k", "m", "g" or "t", small or large."""
    return int(Decimal(number) * _UNITS[unit.lower()])
