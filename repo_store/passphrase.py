"""Passphrases, and what guessing one costs: Argon2id (RFC 9106), its costs stored with every slot.

docs/format.md, section 4, is the authority. The floor keeps a slot from being made cheap to guess, the ceiling
keeps a hostile slot from holding up whoever tries a passphrase on it. This module touches no storage.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from repo_store.errors import Refused, UsageError

KEK_BYTES = 32


class Costs(NamedTuple):
    """What one derivation costs: memory in KiB, passes over it, and how many threads may share the work."""

    memory_kib: int
    iterations: int
    lanes: int


COSTS_LEAST = Costs(64 * 1024, 3, 1)
COSTS_MOST = Costs(4 * 1024 * 1024, 64, 64)
COSTS_DEFAULT = Costs(128 * 1024, 3, 4)
"""About a third of a second on two cores, half a second on one."""


@dataclass(frozen=True)
class Passphrase:
    """A passphrase. `costs` are those of a slot made with it; opening one takes the costs stored there."""

    text: str = field(repr=False)
    costs: Costs = COSTS_DEFAULT

    def __post_init__(self) -> None:
        """Raise UsageError for what can be no passphrase."""
        if not self.text:
            raise UsageError("the passphrase is empty")
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise UsageError("the passphrase is not valid text in UTF-8") from None

    def kek(self, salt: bytes, costs: Costs) -> bytes:
        """Return the key that wraps a slot. Costs about a second and `costs.memory_kib`: call it sparingly.

        Raises Refused for costs outside the limits, and for memory that this machine does not have.
        """
        check_costs(costs)
        # Imported here: who comes with a key file must not pay for it.
        import unicodedata

        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

        argon = Argon2id(
            salt=salt,
            length=KEK_BYTES,
            iterations=costs.iterations,
            lanes=costs.lanes,
            memory_cost=costs.memory_kib,
        )
        try:
            return argon.derive(unicodedata.normalize("NFC", self.text).encode())
        except MemoryError:
            raise Refused(f"deriving the key needs {costs.memory_kib // 1024} MiB of memory") from None


def check_costs(costs: Costs) -> None:
    """Raise Refused unless every cost lies between floor and ceiling."""
    for what, cost, least, most in zip(Costs._fields, costs, COSTS_LEAST, COSTS_MOST, strict=True):
        if not least <= cost <= most:
            raise Refused(f"its key derivation has {what} {cost}; allowed is {least} to {most}")
