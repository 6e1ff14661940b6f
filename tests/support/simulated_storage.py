"""SimulatedStorage: Storage in memory that fails on request, for the tests of everything above storage.

    disk = SimulatedDisk()                        what is stored, and how much of it would survive a power cut
    storage = SimulatedStorage(disk)              one connection to it; another host is another connection
    storage.faults.cut_after = 7                  7 steps work, the eighth is a PowerCut
    after = disk.after_power_cut(seed)            the disk somebody finds when the power is back

Method: a name has a history of states (bytes, or absent), and a floor: the state that a barrier made durable.
A power cut leaves each name, independently of the others, in any state from its floor on: lost, kept and
reordered changes all come from that. An object is never torn, as the contract says, unless `lying` asks for
a disk that breaks it. The same seed gives the same disk; all of it is safe to use from several threads.
"""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from repo_store.errors import ObjectConflict, ObjectMissing, StorageError
from repo_store.object_names import check_name, check_prefix
from repo_store.storage import Buffer, ObjectInfo

NOTHING_MORE, EVERYTHING = 0, 1
"""Seeds of `after_power_cut`: only what barriers made durable; all that was put. Others choose at random."""

_START_NS = 1_700_000_000 * 10**9
_TICK_NS = 10**9
_STEPS = ("put", "replace", "delete", "barrier")


class PowerCut(BaseException):
    """The power is gone. Not an Exception: code that survives by catching Exception would not survive this."""


@dataclass(frozen=True)
class Operation:
    """One call: its number among those of this connection (from 1), what it was, on which name, how many bytes."""

    number: int
    kind: str
    name: str
    size: int = 0


def never(operation: Operation) -> bool:
    """Choose no operation."""
    return False


@dataclass
class Faults:
    """What goes wrong on one connection. May be changed at any time."""

    cut_after: int | None = None
    """After so many steps (those that change or sync) the next raises PowerCut, and so does all after it."""
    fail: Callable[[Operation], bool] = never
    """These raise StorageError and change nothing."""
    lose_acknowledgement: Callable[[Operation], bool] = never
    """These are carried out and then raise StorageError."""
    read_short: Callable[[Operation], bool] = never
    """These gets return half of what they should, as a broken server or proxy may."""
    list_stale: Callable[[Operation], bool] = never
    """These listings do not show the last `stale_changes` changes, as an eventually consistent server may."""
    stale_changes: int = 1
    bytes_max: int | None = None
    """The disk holds no more bytes than this: a put beyond raises StorageError and changes nothing."""
    before: Callable[[Operation], None] = field(default=lambda operation: None)
    """Called before every operation, without any lock: for delays, schedules, and changes by others."""


@dataclass(frozen=True)
class _State:
    data: bytes | None  # None: absent
    modified_ns: int


_ABSENT = _State(None, 0)


class SimulatedDisk:
    """What is stored, by all connections together."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        """Hold `objects`, durable. Their names are checked."""
        self.lock = threading.RLock()
        self._clock_ns = _START_NS
        self._states: dict[str, list[_State]] = {}
        self._floors: dict[str, int] = {}
        self._undo: list[tuple[str, _State]] = []  # per change: the name and the state before it
        for name, data in (objects or {}).items():
            self.change(check_name(name), bytes(data))
            self.make_durable(name, self.version(name))

    def objects(self) -> dict[str, bytes]:
        """Return what a reader sees now."""
        with self.lock:
            return {name: s[-1].data for name, s in sorted(self._states.items()) if s[-1].data is not None}

    def after_power_cut(self, seed: int, *, lying: bool = False) -> "SimulatedDisk":
        """Return what the power cut leaves: NOTHING_MORE, EVERYTHING, or a choice by `seed`.

        `lying`: objects no barrier made durable may also be cut short, or have zeros where data should be.
        """
        choice = random.Random(seed)
        left = {}
        with self.lock:
            for name, states in sorted(self._states.items()):
                floor, last = self._floors.get(name, 0), len(states) - 1
                at = {NOTHING_MORE: floor, EVERYTHING: last}.get(seed, choice.randint(floor, last))
                data = states[at].data
                if lying and at > floor and data is not None:
                    data = _torn(data, choice)
                if data is not None:
                    left[name] = data
        return SimulatedDisk(left)

    def set_clock(self, now_ns: int) -> None:
        """Date what is put from now on by this time, ns since 1970; it may go backwards."""
        with self.lock:
            self._clock_ns = now_ns

    def damage(self, name: str, data: bytes | None) -> None:
        """Let the object hold other bytes, or none, durably and behind everybody's back."""
        self.change(name, data)
        self.make_durable(name, self.version(name))

    def state(self, name: str) -> _State:
        """Return the present state of a name."""
        with self.lock:
            return self._states.get(name, [_ABSENT])[-1]

    def change(self, name: str, data: bytes | None) -> None:
        """Bring a name into a new state, not yet durable."""
        with self.lock:
            self._clock_ns += _TICK_NS
            states = self._states.setdefault(name, [_ABSENT])
            self._undo.append((name, states[-1]))
            states.append(_State(data, self._clock_ns))

    def version(self, name: str) -> int:
        """Return the number of changes a name has seen."""
        with self.lock:
            return len(self._states.get(name, [_ABSENT])) - 1

    def make_durable(self, name: str, version: int) -> None:
        """Let no power cut take this state of a name back, or an earlier one."""
        with self.lock:
            self._floors[name] = max(version, self._floors.get(name, 0))

    def seen(self, changes_missed: int = 0) -> dict[str, _State]:
        """Return the present states, or those before the last `changes_missed` changes."""
        with self.lock:
            seen = {name: states[-1] for name, states in self._states.items()}
            for name, before in reversed(
                self._undo[len(self._undo) - min(changes_missed, len(self._undo)) :]
            ):
                seen[name] = before
            return seen


class SimulatedStorage:
    """One connection to a SimulatedDisk. See repo_store.storage.Storage for the contract."""

    def __init__(self, disk: SimulatedDisk | None = None, faults: Faults | None = None) -> None:
        self.location = "simulated"
        self.disk = disk or SimulatedDisk()
        self.faults = faults or Faults()
        self.operations: list[Operation] = []
        self._touched: dict[str, int] = {}  # name: its version when this connection last saw to it
        self._steps = 0
        self._cut = False
        self._sync_failed = False

    def again(self) -> "SimulatedStorage":
        """Return another connection to the same disk, without faults, as another process or host has it."""
        return SimulatedStorage(self.disk)

    def names(self, kind: str) -> "list[str]":
        """Return the names that operations of this kind were asked for, in order: `kind` is a method's name."""
        return [operation.name for operation in self.operations if operation.kind == kind]

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        """See Storage.put."""
        whole = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
        operation = self._begin("put", check_name(name), len(whole))
        with self.disk.lock:
            present = self.disk.state(name).data
            if present is None:
                self._require_room(operation)
                self.disk.change(name, whole)
            elif present != whole:
                raise ObjectConflict(name)
            self._touched[name] = self.disk.version(name)
        self._acknowledge(operation)

    def barrier(self, names: Iterable[str] = ()) -> None:
        """See Storage.barrier."""
        named = [check_name(name) for name in names]
        operation = self._begin("barrier", "")
        with self.disk.lock:
            for name in named:
                if self.disk.state(name).data is None:
                    raise ObjectMissing(name)
            # No more than was promised: what others changed since may still be lost.
            for name, version in (self._touched | {name: self.disk.version(name) for name in named}).items():
                self.disk.make_durable(name, version)
            self._touched = {}
        self._acknowledge(operation)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        operation = self._begin("get", check_name(name))
        data = self.disk.state(name).data
        if data is None:
            raise ObjectMissing(name)
        start = offset if offset >= 0 else max(0, len(data) + offset)
        wanted = data[start:] if length is None else data[start : start + length]
        return wanted[: len(wanted) // 2] if self.faults.read_short(operation) else wanted

    def info(self, name: str) -> ObjectInfo:
        """See Storage.info."""
        self._begin("info", check_name(name))
        state = self.disk.state(name)
        if state.data is None:
            raise ObjectMissing(name)
        return ObjectInfo(name, len(state.data), state.modified_ns)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See Storage.list. The order is neither sorted nor that of writing: nothing may rely on it."""
        operation = self._begin("list", check_prefix(prefix))
        seen = self.disk.seen(self.faults.stale_changes if self.faults.list_stale(operation) else 0)
        found = [
            ObjectInfo(name, len(state.data), state.modified_ns)
            for name, state in seen.items()
            if state.data is not None and name.startswith(prefix)
        ]
        random.Random(len(found)).shuffle(found)
        return iter(found)

    def delete(self, name: str) -> None:
        """See Storage.delete."""
        operation = self._begin("delete", check_name(name))
        with self.disk.lock:
            if self.disk.state(name).data is not None:
                self.disk.change(name, None)
            self._touched[name] = self.disk.version(name)
        self._acknowledge(operation)

    def replace(self, name: str, data: Buffer) -> None:
        """See Storage.replace."""
        operation = self._begin("replace", check_name(name), len(data))
        with self.disk.lock:
            self._require_room(operation)
            self.disk.change(name, bytes(data))
            self._touched[name] = self.disk.version(name)
        self._acknowledge(operation)

    def _begin(self, kind: str, name: str, size: int = 0) -> Operation:
        """Record the operation; let the faults that come before it happen."""
        with self.disk.lock:
            operation = Operation(len(self.operations) + 1, kind, name, size)
            self.operations.append(operation)
        self.faults.before(operation)
        with self.disk.lock:
            if kind in _STEPS:
                self._cut |= self.faults.cut_after is not None and self._steps >= self.faults.cut_after
                self._steps += not self._cut
            if self._cut:
                raise PowerCut
        fails = self.faults.fail(operation)
        # A failed sync is final, as for LocalStorage.
        self._sync_failed |= fails and kind == "barrier"
        if fails or (self._sync_failed and kind in _STEPS):
            raise StorageError(f"{self.location}/{name}: cannot {kind}: failing as asked")
        return operation

    def _acknowledge(self, operation: Operation) -> None:
        if self.faults.lose_acknowledgement(operation):
            raise StorageError(f"{self.location}/{operation.name}: cannot {operation.kind}: no answer")

    def _require_room(self, operation: Operation) -> None:
        if self.faults.bytes_max is not None:
            held = sum(map(len, self.disk.objects().values()))
            if held + operation.size > self.faults.bytes_max:
                raise StorageError(f"{self.location}/{operation.name}: cannot write: no space left on device")


def _torn(data: bytes, choice: random.Random) -> bytes:
    """Return `data` cut short, with a hole of zeros at its end, or, by luck, as it was."""
    kept = choice.randint(0, len(data))
    return choice.choice([data, data[:kept], data[:kept].ljust(len(data), b"\0")])
