"""Verify report: what a verification found, in one place for those who find and those who show it."""

from dataclasses import dataclass, field

from repo_store.ledger import Depth


@dataclass
class DamagedObject:
    """An object that is not as it should be, and the ids of the live manifests that cannot be restored whole for it."""

    name: str
    reason: str
    manifests: set[str] = field(default_factory=set)


@dataclass
class VerifyReport:
    """What a verification found. Sizes in bytes, times ns since 1970."""

    depth: Depth
    manifests: int = 0
    packs: int = 0
    packs_checked: int = 0
    """Packs read whole, and what they hold checked, in this run."""
    packs_left: int | None = None
    """Packs that were due and are left to another run; None where no data was read."""
    packs_never_checked: int = 0
    """Packs that nobody has found good yet, as far as the ledger can be believed; this run counts."""
    oldest_check: int | None = None
    """When the one of the others that was found good the longest time ago was; None if there are no others."""
    read_bytes: int = 0
    contents_read: bool = True
    """False where the key cannot read contents: then only hashes and directories of data packs were checked."""
    damaged: dict[str, DamagedObject] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    """What is no damage and still worth a look: manifests that others follow and that are not there."""

    @property
    def status(self) -> str:
        """ "ok" or "damaged"."""
        return "damaged" if self.damaged else "ok"

    def add(self, name: str, reason: str, *, manifest: str | None = None) -> None:
        """Take damage; `manifest` is one that it hurts."""
        found = self.damaged.setdefault(name, DamagedObject(name, reason))
        if manifest is not None:
            found.manifests.add(manifest)
