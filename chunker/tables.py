"""Tables: the secrets of a cut rule, derived from the repository's chunker key.

Each is the output of BLAKE3 keyed with the chunker key, over a label of its own, taken to the
length needed. The labels carry a version: they are part of the format and never change meaning.
Python cannot wipe these bytes; the copies that the C context holds are wiped when it is freed.
"""

from __future__ import annotations

from blake3 import blake3

KEY_BYTES = 32
TABLE_BYTES = 2048  # 256 little-endian words of 64 bits
AES_KEY_BYTES = 16


def gear_table(key: bytes) -> bytes:
    """Return the words that gear64 adds, one for each value of a byte."""
    return _derive(key, b"cdc-gear-v1/table", TABLE_BYTES)


def phte_table(key: bytes) -> bytes:
    """Return the coefficients of phte64's polynomial, one for each value of a byte."""
    return _derive(key, b"cdc-phte-v1/table", TABLE_BYTES)


def phte_aes_key(key: bytes) -> bytes:
    """Return the AES-128 key that phte64 encrypts its hashes with."""
    return _derive(key, b"cdc-phte-v1/aes", AES_KEY_BYTES)


def _derive(key: bytes, label: bytes, size: int) -> bytes:
    return blake3(label, key=key).digest(length=size)
