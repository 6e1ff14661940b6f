"""SimulatedStorage fails as asked: a test that relies on a fault must be able to rely on its happening."""

from collections.abc import Callable

import pytest
from support.simulated_storage import (
    EVERYTHING,
    NOTHING_MORE,
    Faults,
    Operation,
    PowerCut,
    SimulatedDisk,
    SimulatedStorage,
)

from repo_store.errors import ObjectConflict, ObjectMissing, StorageError


def four_steps(storage: SimulatedStorage) -> list[Callable[[], None]]:
    return [
        lambda: storage.put("packs/a", b"1"),
        lambda: storage.barrier(),
        lambda: storage.replace("packs/a", b"2"),
        lambda: storage.delete("packs/a"),
    ]


@pytest.mark.parametrize("cut_after", range(5))
def test_a_power_cut_comes_after_exactly_so_many_steps_and_is_final(cut_after: int) -> None:
    storage = SimulatedStorage(faults=Faults(cut_after=cut_after))
    for step in four_steps(storage)[:cut_after]:
        list(storage.list("packs/"))  # reading is no step
        step()
    for step in four_steps(storage)[cut_after:]:
        with pytest.raises(PowerCut):
            step()
    if cut_after < 4:
        with pytest.raises(PowerCut):
            storage.get("packs/a")
    assert (
        storage.disk.objects() == [{}, {"packs/a": b"1"}, {"packs/a": b"1"}, {"packs/a": b"2"}, {}][cut_after]
    )


def test_code_that_catches_exception_does_not_survive_a_power_cut() -> None:
    assert not issubclass(PowerCut, Exception)


def test_a_power_cut_takes_only_what_no_barrier_made_durable() -> None:
    storage = SimulatedStorage()
    storage.put("packs/a", b"durable")
    storage.put("packs/gone", b"deleted later")
    storage.barrier()
    storage.put("packs/b", b"put only")
    storage.delete("packs/gone")
    least = {"packs/a": b"durable", "packs/gone": b"deleted later"}
    most = {"packs/a": b"durable", "packs/b": b"put only"}
    assert storage.disk.after_power_cut(NOTHING_MORE).objects() == least
    assert storage.disk.after_power_cut(EVERYTHING).objects() == most
    outcomes = [storage.disk.after_power_cut(seed).objects() for seed in range(2, 40)]
    assert outcomes == [storage.disk.after_power_cut(seed).objects() for seed in range(2, 40)]
    assert len({tuple(outcome) for outcome in outcomes}) == 4, "any subset, in any order"
    assert all(outcome["packs/a"] == b"durable" for outcome in outcomes)


def test_a_barrier_covers_its_own_connection_and_the_names_given() -> None:
    mine, theirs = (storage := SimulatedStorage()), storage.again()
    mine.put("packs/mine", b"")
    theirs.put("packs/named", b"")
    theirs.put("packs/theirs", b"")
    mine.barrier(["packs/named"])
    theirs.delete("packs/mine")
    assert set(mine.disk.after_power_cut(NOTHING_MORE).objects()) == {"packs/mine", "packs/named"}
    theirs.barrier()
    assert set(mine.disk.after_power_cut(NOTHING_MORE).objects()) == {"packs/named", "packs/theirs"}


def test_what_survived_is_durable() -> None:
    storage = SimulatedStorage()
    storage.put("packs/a", b"x")
    once = storage.disk.after_power_cut(EVERYTHING)
    assert once.after_power_cut(NOTHING_MORE).objects() == {"packs/a": b"x"}


def test_only_a_lying_disk_tears_objects_and_never_durable_ones() -> None:
    storage = SimulatedStorage(SimulatedDisk({"packs/old": b"as it was"}))
    storage.put("packs/new", b"some bytes of an object")
    whole = {b"some bytes of an object", None}
    for seed in range(50):
        assert storage.disk.after_power_cut(seed).objects().get("packs/new") in whole
    lying = [storage.disk.after_power_cut(seed, lying=True).objects() for seed in range(50)]
    assert {left["packs/old"] for left in lying} == {b"as it was"}
    torn = {left.get("packs/new") for left in lying} - whole
    assert any(len(data or b"") < 23 for data in torn) and any((data or b"").endswith(b"\0") for data in torn)


def test_operations_fail_or_lose_their_acknowledgement_as_asked() -> None:
    storage = SimulatedStorage()
    storage.faults.fail = lambda operation: operation.name == "config/1"
    storage.faults.lose_acknowledgement = lambda operation: operation.name == "config/2"
    for name in ("config/1", "config/2"):
        with pytest.raises(StorageError, match=f"simulated/{name}: cannot put"):
            storage.put(name, b"x")
    assert storage.disk.objects() == {"config/2": b"x"}
    storage.faults.lose_acknowledgement = lambda operation: False
    storage.put("config/2", b"x")
    with pytest.raises(ObjectConflict):
        storage.put("config/2", b"y")


def test_a_failed_barrier_is_final() -> None:
    storage = SimulatedStorage()
    storage.put("config/1", b"x")
    storage.faults.fail = lambda operation: operation.kind == "barrier"
    with pytest.raises(StorageError):
        storage.barrier()
    storage.faults = Faults()
    for step in four_steps(storage):
        with pytest.raises(StorageError):
            step()
    assert storage.get("config/1") == b"x"
    assert storage.disk.after_power_cut(NOTHING_MORE).objects() == {}


def test_reads_may_be_short_and_listings_stale() -> None:
    storage = SimulatedStorage()
    storage.put("packs/a", b"12345678")
    storage.put("packs/b", b"")
    storage.delete("packs/a")
    storage.put("packs/c", b"12345678")
    storage.faults = Faults(
        read_short=lambda operation: True, list_stale=lambda operation: True, stale_changes=2
    )
    assert storage.get("packs/c") == b"1234"
    assert {info.name for info in storage.list("")} == {"packs/a", "packs/b"}
    assert {info.name for info in storage.again().list("")} == {"packs/b", "packs/c"}


def test_a_full_disk_takes_what_fits() -> None:
    storage = SimulatedStorage(faults=Faults(bytes_max=10))
    storage.put("packs/a", b"12345678")
    storage.put("packs/a", b"12345678")
    with pytest.raises(StorageError, match="no space left"):
        storage.put("packs/b", b"123")
    storage.put("packs/c", b"12")
    assert set(storage.disk.objects()) == {"packs/a", "packs/c"}


def test_every_operation_is_recorded_and_announced_beforehand() -> None:
    storage = SimulatedStorage()
    announced: list[Operation] = []
    storage.faults.before = announced.append
    storage.put("config/1", [b"ab", b"c"])
    storage.get("config/1")
    with pytest.raises(ObjectMissing):
        storage.info("config/2")
    list(storage.list("config/"))
    storage.barrier()
    assert storage.operations == announced == [
        Operation(1, "put", "config/1", 3),
        Operation(2, "get", "config/1"),
        Operation(3, "info", "config/2"),
        Operation(4, "list", "config/"),
        Operation(5, "barrier", ""),
    ]  # fmt: skip
    assert storage.names("get") == ["config/1"]


def test_a_call_back_may_let_others_go_first() -> None:
    storage = SimulatedStorage()
    rival = storage.again()
    storage.faults.before = lambda operation: rival.put("manifests/m", b"theirs")
    with pytest.raises(ObjectConflict):
        storage.put("manifests/m", b"mine")


def test_damage_is_durable_and_nobody_is_told() -> None:
    storage = SimulatedStorage(SimulatedDisk({"packs/a": b"good", "packs/b": b"good"}))
    storage.disk.damage("packs/a", b"bad")
    storage.disk.damage("packs/b", None)
    assert storage.disk.after_power_cut(NOTHING_MORE).objects() == {"packs/a": b"bad"}
