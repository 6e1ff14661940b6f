"""Parameters: which algorithm cuts, and how long a chunk may be.

They belong to a series and are recorded in its manifests: other parameters cut elsewhere, and the
next snapshot stores everything once more. A set that this version cannot honour is refused by
name when it is made, so nothing later has to ask again.

docs/format.md, "Chunking", is the authority for ids and limits; cdc.h has the same limits in C.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

WINDOW_BYTES = 64  # what the hash looks at; no chunk but the last may be shorter
SIZE_MIN_FLOOR = WINDOW_BYTES
SIZE_AVG_FLOOR = 256
SIZE_MAX_CEILING = 16 * 1024 * 1024  # a chunk is held in memory, and must fit a pack with room to spare

_NORMALISATION = 2  # the strict threshold is 2 bits harder than the average asks for, the loose 2 bits easier


class Algorithm(IntEnum):
    """The cut rules, with the ids that manifests store: never renumber."""

    FIXED = 0
    GEAR64 = 1
    PHTE64 = 2
    PHTE96 = 3

    @classmethod
    def named(cls, name: str) -> Algorithm:
        """Return the algorithm that documents and settings call `name`. Raises ValueError."""
        for algorithm in cls:
            if algorithm.label == name:
                return algorithm
        raise ValueError(f"unknown chunking algorithm {name!r}; known are {_built()}")

    @classmethod
    def _missing_(cls, value: object) -> Algorithm:
        raise ValueError(f"unknown chunking algorithm {value!r}; this version knows {_built()}")

    @property
    def label(self) -> str:
        return self.name.lower()


def _built() -> str:
    return ", ".join(f"{a.label} ({a.value})" for a in Algorithm if a is not Algorithm.PHTE96)


@dataclass(frozen=True, slots=True)
class Parameters:
    """An algorithm and the sizes of its chunks, in bytes. The default is for files and tar streams.

    `phase` is for `fixed` only: the length of the first chunk, so that cuts fall on the pages of a
    stream that begins in the middle of one; 0 means the first chunk is whole.
    """

    algorithm: Algorithm = Algorithm.PHTE64
    size_min: int = 32 * 1024
    size_avg: int = 64 * 1024
    size_max: int = 256 * 1024
    phase: int = 0

    @classmethod
    def fixed(cls, size: int, *, phase: int = 0) -> Self:
        """Return the parameters that cut at phase, phase + size, phase + 2 * size, …"""
        return cls(Algorithm.FIXED, size, size, size, phase)

    @property
    def threshold_strict(self) -> int:
        """What a hash must not exceed to cut before size_avg."""
        return (2**64 - 1) >> (self._average_bits + _NORMALISATION)

    @property
    def threshold_loose(self) -> int:
        """What a hash must not exceed to cut from size_avg on."""
        return (2**64 - 1) >> (self._average_bits - _NORMALISATION)

    @property
    def _average_bits(self) -> int:
        return self.size_avg.bit_length() - 1

    def __post_init__(self) -> None:
        # Manifests bring plain numbers: make them the enum, or refuse them by name.
        object.__setattr__(self, "algorithm", Algorithm(self.algorithm))
        for name in ("size_min", "size_avg", "size_max", "phase"):
            value = getattr(self, name)
            if type(value) is not int:
                raise TypeError(f"{name} is {type(value).__name__}, not int")
        if self.algorithm is Algorithm.PHTE96:
            raise ValueError(f"chunking algorithm phte96 (3) is reserved; this version has {_built()}")
        if self.algorithm is Algorithm.FIXED:
            self._check_fixed()
        else:
            self._check_hashed()

    def _check_fixed(self) -> None:
        if not self.size_min == self.size_avg == self.size_max:
            raise ValueError("fixed: size_min, size_avg and size_max are not one size")
        if not 1 <= self.size_max <= SIZE_MAX_CEILING:
            raise ValueError(f"fixed: size {self.size_max} is not in 1..{SIZE_MAX_CEILING}")
        if not 0 <= self.phase < self.size_max:
            raise ValueError(f"fixed: phase {self.phase} is not in 0..{self.size_max - 1}")

    def _check_hashed(self) -> None:
        label = self.algorithm.label
        if self.phase != 0:
            raise ValueError(f"{label}: phase {self.phase}: only fixed has a phase")
        if self.size_min < SIZE_MIN_FLOOR:
            raise ValueError(f"{label}: size_min {self.size_min} is below {SIZE_MIN_FLOOR}")
        if self.size_avg < SIZE_AVG_FLOOR or self.size_avg.bit_count() != 1:
            raise ValueError(
                f"{label}: size_avg {self.size_avg} is not a power of two of at least {SIZE_AVG_FLOOR}"
            )
        if not self.size_min <= self.size_avg <= self.size_max:
            raise ValueError(
                f"{label}: sizes {self.size_min}, {self.size_avg}, {self.size_max} are not in the order "
                "size_min <= size_avg <= size_max"
            )
        if self.size_max > SIZE_MAX_CEILING:
            raise ValueError(f"{label}: size_max {self.size_max} is above {SIZE_MAX_CEILING}")
