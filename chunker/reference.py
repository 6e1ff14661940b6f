"""Reference: what the cuts are, in plain Python. Slow on purpose; the C is held to it.

Nothing rolls here. Each hash is computed from its 64 bytes by the formula of the definition, so an
error in the rolling code of the kernels cannot be shared; the numbers are Python's own integers, so
there is no byte order and no width but those written down. Only AES comes from a library.

This module is the definition that docs/format.md, "Chunking", refers to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from chunker.parameters import WINDOW_BYTES, Algorithm, Parameters
from chunker.tables import gear_table, phte_aes_key, phte_table

# From data and a place, at least 64 bytes in, to the 64-bit number compared with the threshold.
Hash = Callable[[bytes, int], int]


def cuts(parameters: Parameters, key: bytes, data: bytes) -> list[int]:
    """Return the end of each chunk of `data`, the last being its length."""
    if parameters.algorithm is Algorithm.FIXED:
        inner = range(parameters.phase or parameters.size_max, len(data), parameters.size_max)
        return [*inner, len(data)] if data else []
    decide = hash_of(parameters.algorithm, key)
    found: list[int] = []
    while (start := found[-1] if found else 0) < len(data):
        found.append(start + _chunk_length(parameters, decide, data, start))
    return found


def _chunk_length(parameters: Parameters, decide: Hash, data: bytes, start: int) -> int:
    rest = len(data) - start
    for length in range(parameters.size_min, min(parameters.size_max, rest)):
        strict = length < parameters.size_avg
        threshold = parameters.threshold_strict if strict else parameters.threshold_loose
        if decide(data, start + length) <= threshold:
            return length
    return min(parameters.size_max, rest)


def hash_of(algorithm: Algorithm, key: bytes) -> Hash:
    """Return the hash that `algorithm` decides by, keyed."""
    return _gear(key) if algorithm is Algorithm.GEAR64 else _phte(key)


def _gear(key: bytes) -> Hash:
    table: tuple[int, ...] = struct.unpack("<256Q", gear_table(key))

    def decide(data: bytes, place: int) -> int:
        window = data[place - WINDOW_BYTES : place]
        # The byte j places back has been doubled j times.
        return sum(table[byte] << j for j, byte in enumerate(reversed(window))) % 2**64

    return decide


def _phte(key: bytes) -> Hash:
    table: tuple[int, ...] = struct.unpack("<256Q", phte_table(key))
    # ECB of single blocks is AES itself, which is what is wanted: a pseudorandom function.
    encrypt = Cipher(algorithms.AES128(phte_aes_key(key)), modes.ECB()).encryptor()

    def decide(data: bytes, place: int) -> int:
        polynomial = 0  # over GF(2): bit i is the coefficient of x^i, and addition is xor
        for j, byte in enumerate(reversed(data[place - WINDOW_BYTES : place])):
            polynomial ^= table[byte] << j
        assert polynomial.bit_length() <= 127
        block = encrypt.update(polynomial.to_bytes(16, "little"))
        return int.from_bytes(block[:8], "little")

    return decide
