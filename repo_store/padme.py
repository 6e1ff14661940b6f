"""Padmé: sizes that tell little.

A length is rounded up so that its floating-point form has a mantissa no longer than its exponent; at most
O(log log n) bits of the length remain visible, for at most 12 % more bytes, less the larger the object
(Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019).
"""


def padme(length: int) -> int:
    """Return the smallest Padmé size that is at least `length` bytes."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mantissa = exponent.bit_length()
    low_bits = max(exponent - mantissa, 0)
    mask = (1 << low_bits) - 1
    return (length + mask) & ~mask
