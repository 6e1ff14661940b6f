"""Row sums: how many rows a table has and what they add up to, so that a merge can be proved.

A merge of tables must lose no row, double none and alter none. Its maker states the counts and keyed sums of every
source, of the rows it removed and of the result; since sums add up as the rows do, section by section

    merged + removed = sum of the sources

holds for an honest merge and (the sums being keyed and 256 bits wide) by no accident otherwise. Prune recomputes the
sums from the rows before it condemns the sources; readers check the statement. Whoever holds the id key could forge
sums that collide: against forgery stand the signature and the digests of the blocks, not this.
docs/format.md, section 7, is the authority. This module touches no storage.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from repo_store.errors import ObjectDamaged
from repo_store.row_batch import SUM_BYTES
from repo_store.rows import Section

_MODULUS = 1 << (8 * SUM_BYTES)


@dataclass(frozen=True, slots=True)
class RowSums:
    """Counts and sums of a set of rows, one of each for a section."""

    counts: tuple[int, int, int] = (0, 0, 0)
    sums: tuple[int, int, int] = (0, 0, 0)

    def __add__(self, other: "RowSums") -> "RowSums":
        a, b = self, other
        counts = (a.counts[0] + b.counts[0], a.counts[1] + b.counts[1], a.counts[2] + b.counts[2])
        sums = (a.sums[0] + b.sums[0], a.sums[1] + b.sums[1], a.sums[2] + b.sums[2])
        return RowSums(counts, (sums[0] % _MODULUS, sums[1] % _MODULUS, sums[2] % _MODULUS))

    def encoded(self) -> list[Any]:
        """Return `[counts, sums]` as tables state it."""
        return [list(self.counts), [total.to_bytes(SUM_BYTES, "little") for total in self.sums]]


@dataclass(frozen=True, slots=True)
class Merge:
    """What a merged table states: the generation that made it, each source by its hash, and what was removed."""

    generation: int
    sources: tuple[tuple[bytes, RowSums], ...]
    removed: RowSums

    def encoded(self) -> dict[str, Any]:
        """Return it as tables state it."""
        sources = [[name, *stated.encoded()] for name, stated in self.sources]
        return {"generation": self.generation, "sources": sources, "removed": self.removed.encoded()}


def read_sums(name: str, counts: Any, sums: Any) -> RowSums:
    """Return the counts and sums that the table `name` states. Raises ObjectDamaged if they are none."""
    good = (
        isinstance(counts, list)
        and isinstance(sums, list)
        and len(counts) == len(sums) == len(Section)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(total, bytes) and len(total) == SUM_BYTES for total in sums)
    )
    if not good:
        raise ObjectDamaged(name, "its counts and sums are not three of each")
    totals = [int.from_bytes(total, "little") for total in sums]
    return RowSums((counts[0], counts[1], counts[2]), (totals[0], totals[1], totals[2]))


def check_merge(name: str, sources: Iterable[RowSums], removed: RowSums, merged: RowSums) -> None:
    """Check that the table `name` holds the rows of `sources` without those removed, no more and no fewer.

    Raises ObjectDamaged that names the section where it does not.
    """
    before = RowSums()
    for source in sources:
        before += source
    after = merged + removed
    for section in Section:
        place = f"section {int(section)}"
        if before.counts[section] != after.counts[section]:
            counts = f"{before.counts[section]} rows went in, {after.counts[section]} came out"
            raise ObjectDamaged(name, f"its merge does not add up in {place}: {counts}")
        if before.sums[section] != after.sums[section]:
            raise ObjectDamaged(name, f"its merge does not add up in {place}: a row was altered or exchanged")
