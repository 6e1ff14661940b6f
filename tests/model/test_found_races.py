"""Races that the simulation found, each as a test of its own.

A seed means another history as soon as anything changes; these do not.
"""

import random
from pathlib import Path

import pytest
from support.prunes import finish, forget, prune, slow_content
from support.sessions import World, make_world, tree_content, write_tree
from support.simulated_storage import Faults, Operation, PowerCut

from engine.files_snapshot import snapshot_files
from engine.prune import plan_prune, run_prune
from engine.prune_tables import plan_tables
from engine.snapshot_run import SnapshotOptions
from repo_store.errors import Refused
from repo_store.manifest import Manifest
from repo_store.row_view import KnownTable

OPTIONS = SnapshotOptions(host="host")
CONTENT = {f"f{n}": random.Random(n).randbytes(40_000) for n in range(3)}


def _snapshot(world: World, tree: Path) -> Manifest:
    return snapshot_files(world.session(), [str(tree)], options=OPTIONS).manifest


def _with_garbage(folder: Path) -> World:
    """Return a world with packs that nothing needs and that a first prune has found."""
    world = make_world(folder / "hosts")
    forgotten = _snapshot(world, write_tree(folder / "old", CONTENT))
    _snapshot(world, write_tree(folder / "other", {"other": b"something else"}))
    forget(world.session(operation="prune"), forgotten)
    prune(world)
    return world


def test_a_sweep_is_finished_though_its_packs_were_stored_anew_meanwhile(tmp_path: Path) -> None:
    world = _with_garbage(tmp_path)

    def before(operation: Operation) -> None:
        if operation.kind == "delete" and operation.name.startswith("packs/"):
            raise PowerCut

    with pytest.raises(PowerCut):
        prune(world, faults=Faults(before=before))
    again = _snapshot(world, tmp_path / "old")
    adopted = prune(world)
    assert adopted.adopted
    assert adopted.packs_deleted > 0
    finish(world)
    read = slow_content(world.disk, world.session().ring)
    assert read[again.id.hex()] == tree_content(tmp_path / "old")


def test_what_is_committed_while_a_prune_runs_does_not_look_damaged_to_it(tmp_path: Path) -> None:
    """The reader looks closer only once; a manifest that comes later must not need it."""
    world = _with_garbage(tmp_path)
    committed: list[Manifest] = []

    def before(operation: Operation) -> None:
        if operation.name == "manifests/" and operation.kind == "list" and len(committed) < 4:
            n = len(committed)
            committed.append(_snapshot(world, write_tree(tmp_path / f"new{n}", {f"n{n}": bytes([n]) * 5000})))

    result = prune(world, faults=Faults(before=before))
    assert len(committed) == 4
    assert result.generation == 2


def test_a_prune_that_was_overtaken_says_so_and_not_that_something_is_damaged(tmp_path: Path) -> None:
    world = _with_garbage(tmp_path)
    newest = _snapshot(world, write_tree(tmp_path / "more", {"more": b"m" * 9000}))
    waiting = [newest]

    def before(operation: Operation) -> None:
        if waiting and operation.kind == "get" and operation.name.startswith("packs/"):
            forget(world.session(operation="prune"), waiting.pop())
            finish(world)

    session = world.session(faults=Faults(before=before), operation="prune")
    with pytest.raises(Refused, match="another prune finished meanwhile"):
        run_prune(session, plan_prune(session))
    assert not waiting


def test_tables_without_rows_are_merged_like_others() -> None:
    pack = bytes(32)
    tables = {bytes([n]) * 32: KnownTable(bytes(16), 0, frozenset({pack})) for n in range(3)}
    assert plan_tables(tables, {pack}) == (tuple(sorted(tables)),)
