"""Progress: what a long run has done so far, for whoever shows it.

The run counts, others look: a command line redraws a bar from these numbers ten times a second. Nothing waits
for anybody.
"""

from dataclasses import dataclass, field
from threading import Event

from repo_store.errors import HoldfastError


class Interrupted(HoldfastError):
    """The run was asked to stop and did so at a safe point. `manifest` is the checkpoint it kept, if any."""

    manifest: str | None = None


@dataclass
class Progress:
    """Counters of one run; bytes are bytes, totals are 0 while unknown."""

    phase: str = ""
    current: str = ""
    files: int = 0
    bytes: int = 0
    files_total: int = 0
    bytes_total: int = 0
    stop: Event = field(default_factory=Event)
    """Set (by a signal handler) to ask the run to stop at its next safe point."""

    def check_stop(self) -> None:
        """Raise Interrupted if somebody asked the run to stop."""
        if self.stop.is_set():
            raise Interrupted("interrupted")
