"""The probe finds every storage that does not keep the contract, and takes its own objects away.

Each liar below breaks one promise of Storage, most of them in a way that a real server or proxy is known for.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.simulated_storage import Faults, SimulatedStorage

from repo_store.errors import ObjectConflict, ObjectMissing, Refused, StorageError
from repo_store.local_storage import LocalStorage
from repo_store.probe import PROBE_PREFIX, ProbeResult, probe, require_safe
from repo_store.storage import Buffer, ObjectInfo, Storage
from repo_store.whole_file import WAYS

NEVER_REPLACED = "an object is never replaced by another put"
ONE_WINS = "of two puts at once exactly one wins"
SAME_AGAIN = "the same bytes may be put again"
READ_AFTER_WRITE = "a put is seen by the next read"
LISTED_AFTER_WRITE = "a put is seen by the next listing"
PARTS = "parts of an object can be read"
DURABLE = "what was put can be made durable"
DELETED = "a deleted object is gone"
REMOVED = "what the probe made can be removed"
EVERYTHING = [
    NEVER_REPLACED, ONE_WINS, SAME_AGAIN, READ_AFTER_WRITE, LISTED_AFTER_WRITE, PARTS, DURABLE, DELETED, REMOVED,
]  # fmt: skip


class Liar(SimulatedStorage):
    def again(self) -> SimulatedStorage:
        return type(self)(self.disk)


class IgnoresTheCondition(Liar):
    """200 to every conditional put, and the last one wins."""

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        self.replace(name, _joined(data))


class KeepsTheFirstAndSaysNothing(Liar):
    """200 to every conditional put, and the first one wins."""

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        try:
            super().put(name, data)
        except ObjectConflict:
            return


class ChecksThenWrites(Liar):
    """Right as long as nobody else writes at the same moment."""

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        try:
            present = self.get(name)
        except ObjectMissing:
            time.sleep(0.01)
            self.replace(name, _joined(data))
            return
        if present != _joined(data):
            raise ObjectConflict(name)


class ChecksThenWritesOneAtATime(ChecksThenWrites):
    """The same with a lock: right as long as all writers share one connection."""

    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        with self.__dict__.setdefault("lock", threading.Lock()):
            super().put(name, data)


class ReadsNothingTheSecondTime(Liar):
    """The second connection goes through a proxy that cuts answers of some size."""

    def again(self) -> SimulatedStorage:
        return _CutsPages(self.disk)


class _CutsPages(SimulatedStorage):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = super().get(name, offset, length)
        return b"" if len(data) == 4096 else data


class RefusesTheSameBytes(Liar):
    def put(self, name: str, data: Buffer | Sequence[Buffer]) -> None:
        if name in self.disk.objects():
            raise ObjectConflict(name)
        super().put(name, data)


class ListsTheMomentBefore(Liar):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.faults.list_stale = lambda operation: True
        return super().list(prefix)


class ListsTwice(Liar):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from super().list(prefix)
        yield from super().list(prefix)


class ListsOtherSizes(Liar):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (ObjectInfo(info.name, info.size + 1, 0) for info in super().list(prefix))


class InformsOfOtherSizes(Liar):
    def info(self, name: str) -> ObjectInfo:
        return ObjectInfo(name, super().info(name).size + 1, 0)


class RemembersMisses(Liar):
    """A cache between us and the server that keeps "not found"."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        missed = self.__dict__.setdefault("missed", set())
        try:
            if name in missed:
                raise ObjectMissing(name)
            return super().get(name, offset, length)
        except ObjectMissing:
            missed.add(name)
            raise


class IgnoresRanges(Liar):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name)


class IgnoresLengths(Liar):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, offset)


class IsOffByOneFromTheEnd(Liar):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, offset - (offset < 0), length)


class FailsPastTheEnd(Liar):
    """416, passed on."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if offset and offset >= len(super().get(name)):
            raise StorageError("416 requested range not satisfiable")
        return super().get(name, offset, length)


class FailsBeforeTheStart(Liar):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if -offset > len(super().get(name)):
            raise StorageError("416 requested range not satisfiable")
        return super().get(name, offset, length)


class CannotSync(Liar):
    def barrier(self, names: object = ()) -> None:
        raise StorageError("cannot sync: invalid argument")


class DeletesLater(Liar):
    def delete(self, name: str) -> None:
        return None


class FailsToDeleteTwice(Liar):
    def delete(self, name: str) -> None:
        if name not in self.disk.objects():
            raise ObjectMissing(name)
        super().delete(name)


class ListsTheDeleted(Liar):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from super().list(prefix)
        for name in set(self.names("delete")) - set(self.disk.objects()):
            yield ObjectInfo(name, 4096, 0)


LIARS: list[tuple[type[Liar], list[str]]] = [
    (IgnoresTheCondition, [NEVER_REPLACED, ONE_WINS]),
    (KeepsTheFirstAndSaysNothing, [NEVER_REPLACED, ONE_WINS]),
    (ChecksThenWrites, [ONE_WINS]),
    (ChecksThenWritesOneAtATime, [ONE_WINS]),
    (ReadsNothingTheSecondTime, [SAME_AGAIN, READ_AFTER_WRITE, DELETED]),
    (RefusesTheSameBytes, [SAME_AGAIN]),
    (ListsTheMomentBefore, [LISTED_AFTER_WRITE, DELETED]),
    (ListsTwice, [LISTED_AFTER_WRITE]),
    (ListsOtherSizes, [LISTED_AFTER_WRITE]),
    (InformsOfOtherSizes, [READ_AFTER_WRITE]),
    (RemembersMisses, [READ_AFTER_WRITE]),
    (IgnoresRanges, [PARTS]),
    (IgnoresLengths, [PARTS]),
    (IsOffByOneFromTheEnd, [PARTS]),
    (FailsPastTheEnd, [PARTS]),
    (FailsBeforeTheStart, [PARTS]),
    (CannotSync, [DURABLE]),
    (DeletesLater, [DELETED]),
    (FailsToDeleteTwice, [DELETED, REMOVED]),
    (ListsTheDeleted, [DELETED]),
]


@pytest.mark.parametrize(("liar", "broken"), LIARS, ids=[liar.__name__ for liar, _ in LIARS])
def test_a_storage_that_lies_is_refused_with_the_reason(liar: type[Liar], broken: list[str]) -> None:
    storage = liar()
    results = probe(storage, storage.again)
    assert [result.what for result in results if not result.ok] == broken
    assert all(bool(result.detail) != result.ok for result in results)
    with pytest.raises(Refused) as refused:
        require_safe(storage, storage.again)
    assert str(refused.value).startswith("simulated: not safe for a repository: ")
    assert all(what in str(refused.value) for what in broken)
    assert refused.value.hint
    if liar is not DeletesLater:
        assert storage.disk.objects() == {}, "the probe left something behind"


def local(way: str) -> Callable[[Path], tuple[Storage, Callable[[], Storage]]]:
    def opened(path: Path) -> tuple[Storage, Callable[[], Storage]]:
        LocalStorage.create(path / "r")
        return LocalStorage(path / "r", ways=(way,)), lambda: LocalStorage(path / "r", ways=(way,))

    return opened


def simulated(path: Path) -> tuple[Storage, Callable[[], Storage]]:
    storage = SimulatedStorage()
    return storage, storage.again


@pytest.mark.parametrize("opened", [simulated, *map(local, WAYS)], ids=["simulated", *WAYS])
def test_an_honest_storage_passes_and_is_left_as_it_was(
    opened: Callable[[Path], tuple[Storage, Callable[[], Storage]]], tmp_path: Path
) -> None:
    storage, open_again = opened(tmp_path)
    storage.put("config/1", b"kept")
    assert require_safe(storage, open_again) == [ProbeResult(what, True) for what in EVERYTHING]
    assert [info.name for info in storage.list("")] == ["config/1"]


def test_a_second_connection_that_leads_elsewhere_is_refused() -> None:
    with pytest.raises(Refused, match=NEVER_REPLACED):
        require_safe(SimulatedStorage(), SimulatedStorage)


def test_a_second_connection_that_fails_is_a_result() -> None:
    def fail() -> Storage:
        raise StorageError("no route to host")

    assert probe(SimulatedStorage(), fail) == [ProbeResult("a second connection", False, "no route to host")]


def test_a_storage_that_fails_everything_is_refused_and_no_error_escapes() -> None:
    storage = SimulatedStorage(faults=Faults(fail=lambda operation: True))
    assert [result.ok for result in probe(storage, storage.again)] == [False] * len(EVERYTHING)


def test_what_could_not_be_removed_is_said() -> None:
    storage = SimulatedStorage(faults=Faults(fail=lambda operation: operation.kind == "delete"))
    last = probe(storage, storage.again)[-1]
    assert last.what == REMOVED and not last.ok
    left = storage.disk.objects()
    assert left and all(name.startswith(PROBE_PREFIX) for name in left)
    assert last.detail.startswith(f"{len(left)} objects below {PROBE_PREFIX}")


def test_the_probe_removes_its_objects_when_a_bug_stops_it() -> None:
    def bug(operation: object) -> bool:
        if getattr(operation, "kind", "") == "list":
            raise KeyError("a bug")
        return False

    storage = SimulatedStorage(faults=Faults(fail=bug))
    with pytest.raises(KeyError):
        probe(storage, storage.again)
    assert storage.disk.objects() == {}


def test_no_two_probes_use_one_name() -> None:
    storage = SimulatedStorage()
    for _ in range(2):
        require_safe(storage, lambda: storage)
    used = storage.names("put")
    assert {name.split("-")[0] for name in used[: len(used) // 2]}.isdisjoint(
        name.split("-")[0] for name in used[len(used) // 2 :]
    )


def _joined(data: Buffer | Sequence[Buffer]) -> bytes:
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)
