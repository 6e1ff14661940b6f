"""A storage for the simulation: every request is a moment at which others may act, and at which things go wrong.

delayed            before each request the process may lose its turn
failing            a request does nothing and raises, seldom
unacknowledged     a put is done, others act, and it is done again, as by a client that got no answer
late               a put raises, and is done at some later time, when its maker may be long gone
listed slowly      a name that came or went while a listing went on is in it or is not
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

from model.schedule import Process
from support.simulated_storage import Faults, Operation, SimulatedDisk, SimulatedStorage

from repo_store.errors import ObjectConflict, StorageError
from repo_store.storage import Buffer, ObjectInfo

CRITICAL = ("pending/", "manifests/", "gc/")
"""Where the protocol is decided: before it puts one of these, a process may be held up for long."""


class UnreliableStorage(SimulatedStorage):
    """The connection of one simulated process."""

    def __init__(self, disk: SimulatedDisk, process: Process, trouble: float) -> None:
        """`trouble` is the share of requests that go wrong."""
        super().__init__(disk, Faults(before=self._pause, fail=self._fails))
        self._process, self._trouble = process, trouble

    def _pause(self, operation: Operation) -> None:
        self._process.pause(critical=operation.kind == "put" and operation.name.startswith(CRITICAL))

    def _fails(self, operation: Operation) -> bool:
        return self._process.random.random() < self._trouble / 8

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """See Storage.put."""
        whole = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        chance = self._process.random.random()
        if chance < self._trouble / 4:
            self._process.schedule.late.append(lambda: self._arrive(name, whole))
            raise StorageError(f"{self.location}/{name}: cannot put: no answer")
        super().put(name, whole)
        if chance > 1 - self._trouble:
            super().put(name, whole)  # the first answer was lost, and the client tried again

    def _arrive(self, name: str, data: bytes) -> None:
        with suppress(ObjectConflict), self.disk.lock:
            if self.disk.state(name).data is None:
                self.disk.change(name, data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See Storage.list."""
        before = {info.name: info for info in super().list(prefix)}
        self._process.pause()
        now = self.disk.seen()
        after = {
            name: ObjectInfo(name, len(state.data), state.modified_ns)
            for name, state in now.items()
            if state.data is not None and name.startswith(prefix)
        }
        choice = self._process.random
        names = sorted(before.keys() | after.keys())
        shown = [name for name in names if (name in before and name in after) or choice.random() < 0.5]
        random.Random(len(shown)).shuffle(shown)
        return iter([after.get(name) or before[name] for name in shown])
