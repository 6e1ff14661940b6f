"""What verify notices beyond rot: tables that are signed and untrue, series that lack a manifest, strangers in a series."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.repositories import KeyFiles
from support.sessions import World, content_of, make_world, tree_content, write_tree

from engine.files_snapshot import snapshot_files
from engine.progress import Progress
from engine.session import Session, session_of
from engine.snapshot_run import SnapshotOptions, SnapshotRun
from engine.verify import verify_repository
from repo_store.key_ops import add_slot
from repo_store.pack_reader import read_directory
from repo_store.repository import open_repository
from repo_store.row_batch import RowBatch
from repo_store.sealed import Kind
from repo_store.table import build_table, table_name


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "hosts")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", {name: name.encode() * 9_000 for name in ("one", "two", "three")})


def _tell_lies(world: World) -> None:
    """Put a table, rightly signed, in place of the true one that mixes up which chunk lies where in data packs."""
    session = world.session()
    batch = RowBatch()
    for info in session.storage.list("packs/"):
        pack = bytes.fromhex(info.name[-64:])
        directory = read_directory(session.storage, session.ring, pack, info.size)
        if directory.kind == Kind.DATA_DIRECTORY:
            ids = [directory.ids[at : at + 32] for at in range(0, len(directory.ids), 32)]
            directory = replace(directory, ids=b"".join(ids[1:] + ids[:1]))
        batch.add_pack(pack, info.size, directory)
    batch.sort()
    table = build_table(session.ring, batch)
    for info in session.storage.list("tables/"):
        world.disk.damage(info.name, None)
    world.disk.damage(table_name(table), table)


def test_a_signed_table_that_is_untrue_is_found_by_reading_and_heals(world: World, tree: Path) -> None:
    first = snapshot_files(world.session(), [str(tree)])
    _tell_lies(world)
    report = verify_repository(world.session(), data=True)
    assert report.status == "damaged"
    assert {hurt for found in report.damaged.values() for hurt in found.manifests} == {
        first.manifest.id.hex()
    }
    assert all("tables place it" in found.reason for found in report.damaged.values())
    second = snapshot_files(world.session(), [str(tree)])
    assert content_of(world.session(), second.manifest) == tree_content(tree)


def test_a_removed_manifest_leaves_a_notice(world: World, tree: Path) -> None:
    manifests = []
    for number in range(3):
        (tree / "one").write_text(str(number))
        manifests.append(snapshot_files(world.session(), [str(tree)]).manifest)
    assert verify_repository(world.session()).notices == []
    world.disk.damage(f"manifests/{manifests[1].id.hex()}", None)
    report = verify_repository(world.session())
    gone, after = manifests[1].id.hex()[:12], manifests[2].id.hex()[:12]
    assert report.status == "ok"
    assert report.notices == [f"{manifests[2].series}: manifest {after} follows {gone}, which is not there"]


def _writers(world: World) -> tuple[Session, Session]:
    """Return the sessions of two writers, both in the roster that each of them has read."""
    keys = KeyFiles()
    for label in ("mine", "other"):
        add_slot(world.session().repository, secret=keys.new(), role="writer", label=label, now_ns=1)
    mine, other = (
        open_repository(world.session().storage, key, None, operation="write") for key in keys.saved
    )
    return (
        session_of(mine, world.places(), operation="write"),
        session_of(other, world.places(), operation="write"),
    )


def _base_of(session: Session, tree: Path) -> bytes | None:
    """Return the id of the manifest that a snapshot of `tree` in this session would take content over from."""
    with SnapshotRun(
        session, source="files", name=str(tree), options=SnapshotOptions(), progress=Progress()
    ) as run:
        return None if run.base is None else run.base.id


def test_content_is_taken_over_from_this_slot_and_from_owners_only(world: World, tree: Path) -> None:
    mine, other = _writers(world)
    strangers = snapshot_files(other, [str(tree)]).manifest
    assert _base_of(mine, tree) is None, "what another writer calls unchanged is read again"
    assert _base_of(other, tree) == strangers.id
    own = snapshot_files(mine, [str(tree)]).manifest
    assert own.previous is not None and own.previous[0] == strangers.id, (
        "the series is one chain all the same"
    )
    assert content_of(world.session(), own) == tree_content(tree)
    snapshot_files(other, [str(tree)])
    assert _base_of(mine, tree) == own.id
    owners = snapshot_files(world.session(), [str(tree)]).manifest
    assert _base_of(mine, tree) == owners.id
