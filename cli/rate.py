"""A rate as a person writes it: bytes per second, "500K", "20M", "1.5G"."""

import re

from cli.byte_count import scaled
from repo_store.errors import UsageError

_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s?([kmg]?)(?:i?b)?(?:/s)?", re.ASCII | re.IGNORECASE)
RATE_MIN = 1024
"""Less is a mistake: a backup at that rate would never end."""


def parse_rate(text: str, where: str) -> int:
    """Return bytes per second; `where` is the setting that says so. Units are those of 1024. Raises UsageError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{where}: {text!r} is not a rate", hint="bytes per second, such as 500K or 20M (20 MiB)"
        )
    rate = scaled(match[1], match[2])
    if rate < RATE_MIN:
        raise UsageError(f"{where}: {text!r} is less than 1K, too slow for any backup")
    return rate
