"""Random histories of calls, conflicts, barriers and power cuts, held against a naive model.

The model is tests/support/promises.py. Two connections work on one storage; after a power cut both open what
is left and go on. For LocalStorage the cut leaves a tree that its recorded system calls allow.
"""

import itertools
import shutil
from collections.abc import Callable
from functools import partial
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support.promises import Promises
from support.recorded_disk import RecordedDisk, Tree, recording
from support.simulated_storage import SimulatedDisk, SimulatedStorage
from support.troubled_disk import quick_folder

from repo_store.errors import ObjectConflict, ObjectMissing
from repo_store.local_storage import LocalStorage
from repo_store.storage import Storage
from repo_store.whole_file import WAYS

NAMES = st.sampled_from(["config/1", "packs/ab/a", "packs/ab/b", "packs/cd/a", "manifests/m"])
BODIES = st.sampled_from(
    [b"", b"a", b"the same length", b"the same length"[::-1], b"more than the others" * 9]
)
WHO = st.sampled_from([0, 1])


class World(Protocol):
    """A storage that can be opened, and whose power can be cut."""

    def open(self) -> Storage: ...

    def power_cut(self, seed: int) -> None: ...

    def close(self) -> None: ...


class SimulatedWorld:
    def __init__(self) -> None:
        self._disk = SimulatedDisk()

    def open(self) -> Storage:
        return SimulatedStorage(self._disk)

    def power_cut(self, seed: int) -> None:
        self._disk = self._disk.after_power_cut(seed)

    def close(self) -> None:
        pass


class LocalWorld:
    def __init__(self, way: str) -> None:
        self._way = way
        self._folder = quick_folder()
        self._cuts = itertools.count()
        self._start({})

    def _start(self, tree: Tree) -> None:
        self._disk = RecordedDisk(self._folder / str(next(self._cuts)), tree)
        self._recording = recording(self._disk)
        self._recording.__enter__()

    def open(self) -> Storage:
        return LocalStorage(self._disk.path, ways=(self._way,))

    def power_cut(self, seed: int) -> None:
        left = list(self._disk.left_after_power_cut(len(self._disk.log), states_max=64, seed=seed))
        self._recording.__exit__(None, None, None)
        self._start(left[seed % len(left)])

    def close(self) -> None:
        self._recording.__exit__(None, None, None)
        shutil.rmtree(self._folder)


class Histories(RuleBasedStateMachine):
    """The rules; `world` is set by a subclass."""

    world: Callable[[], World]

    def __init__(self) -> None:
        super().__init__()
        self._world = type(self).world()
        self._moment = 0
        self._open({})

    def _open(self, found: dict[str, bytes]) -> None:
        self._promises = Promises(found)
        self._connections = [self._world.open() for _ in range(2)]

    def _step(self) -> dict[str, int]:
        self._moment += 2
        return {"began": self._moment - 1, "returned": self._moment}

    @rule(who=WHO, name=NAMES, data=BODIES, cut=st.integers(0, 20))
    def put(self, who: int, name: str, data: bytes, cut: int) -> None:
        expected = self._promises.now().get(name, data)
        try:
            self._connections[who].put(name, [data[:cut], data[cut:]])
        except ObjectConflict:
            assert expected != data
            return
        assert expected == data
        self._promises.changed(name, data, who=who, **self._step())

    @rule(who=WHO, name=NAMES)
    def delete(self, who: int, name: str) -> None:
        self._connections[who].delete(name)
        self._promises.changed(name, None, who=who, **self._step())

    @rule(who=WHO, name=NAMES, data=BODIES)
    def replace(self, who: int, name: str, data: bytes) -> None:
        self._connections[who].replace(name, data)
        self._promises.changed(name, data, who=who, **self._step())

    @rule(who=WHO)
    def barrier(self, who: int) -> None:
        self._connections[who].barrier()
        self._promises.barrier([], who=who, **self._step())

    @rule(who=WHO, names=st.lists(NAMES, max_size=3))
    def barrier_of_names(self, who: int, names: list[str]) -> None:
        missing = set(names) - self._promises.now().keys()
        try:
            self._connections[who].barrier(names)
        except ObjectMissing as error:
            assert error.name in missing
            return
        assert not missing
        self._promises.barrier(names, who=who, **self._step())

    @rule(who=WHO, name=NAMES, offset=st.integers(-30, 30), length=st.none() | st.integers(0, 30))
    def get(self, who: int, name: str, offset: int, length: int | None) -> None:
        expected = self._promises.now().get(name)
        try:
            got = self._connections[who].get(name, offset, length)
        except ObjectMissing:
            assert expected is None
            return
        assert expected is not None
        start = offset if offset >= 0 else max(0, len(expected) + offset)
        assert got == expected[start : None if length is None else start + length]

    @rule(who=WHO, prefix=st.sampled_from(["", "packs/", "packs/a", "config/1", "manifests/", "nothing/"]))
    def list(self, who: int, prefix: str) -> None:
        listed = [(info.name, info.size) for info in self._connections[who].list(prefix)]
        expected = {name: len(data) for name, data in self._promises.now().items() if name.startswith(prefix)}
        assert sorted(listed) == sorted(expected.items())

    @rule(seed=st.integers(0, 1000))
    def power_cut(self, seed: int) -> None:
        self._world.power_cut(seed)
        storage = self._world.open()
        found = {info.name: storage.get(info.name) for info in storage.list("")}
        broken = self._promises.broken_by(found, self._moment + 1)
        assert not broken, f"{broken} are not as promised: {found}"
        self._open(found)

    def teardown(self) -> None:
        self._world.close()


WORLDS: dict[str, Callable[[], World]] = {
    "simulated": SimulatedWorld,
    **{f"local, {way}": partial(LocalWorld, way) for way in WAYS},
}


@pytest.mark.parametrize("world", WORLDS)
def test_no_history_breaks_a_promise(world: str) -> None:
    run(world, examples=25 if world != "simulated" else 100, steps=30)


@pytest.mark.full
@pytest.mark.parametrize("world", WORLDS)
def test_no_long_history_breaks_a_promise(world: str) -> None:
    run(world, examples=300, steps=50)


def run(world: str, *, examples: int, steps: int) -> None:
    machine = type("Machine", (Histories,), {"world": staticmethod(WORLDS[world])})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
