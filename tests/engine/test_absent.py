"""What is missing, or was found damaged, is absent for a writer: the next snapshot stores it anew.

Garbage collection's part of this is in tests/engine/test_commit_protocol.py. Here nobody announces anything: a pack is
gone, or a verification has put down that it is no good.
"""

import random
from pathlib import Path

import pytest
from support.sessions import World, content_of, make_world, tree_content, write_tree
from support.simulated_storage import SimulatedStorage

from engine.files_snapshot import snapshot_files
from engine.snapshot_run import SnapshotResult
from repo_store.ledger import Depth, LedgerRecord
from repo_store.sealed import Kind, seal_object


class Scene:
    """A repository with one snapshot of a tree, and its largest pack."""

    def __init__(self, folder: Path) -> None:
        source = random.Random(7)
        self.world: World = make_world(folder / "hosts")
        self.tree = write_tree(folder / "tree", {f"f{n}": source.randbytes(90_000) for n in range(12)})
        self.stored = self.snapshot().manifest.statistics["new_bytes"]
        self.pack = max(self.world.disk.objects().items(), key=lambda item: len(item[1]))[0]

    def snapshot(self) -> SnapshotResult:
        return snapshot_files(self.world.session(), [str(self.tree)])

    def assert_restores(self, result: SnapshotResult) -> None:
        session = self.world.session(operation="read")
        (manifest,) = [m for m in session.read_manifests().live if m.id == result.manifest.id]
        assert content_of(session, manifest) == tree_content(self.tree)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_what_was_in_a_missing_pack_is_stored_anew_without_any_verification(scene: Scene) -> None:
    scene.world.disk.damage(scene.pack, None)
    result = scene.snapshot()
    assert result.manifest.statistics["new_bytes"] == scene.stored
    scene.assert_restores(result)


def test_what_a_verification_found_damaged_is_stored_anew_though_it_is_there(scene: Scene) -> None:
    record = LedgerRecord(
        id=bytes(16), time=1, depth=Depth.DATA, damaged_packs=(bytes.fromhex(scene.pack[-64:]),)
    )
    name = f"ledger/{record.id.hex()}"
    ring = scene.world.session().ring
    SimulatedStorage(scene.world.disk).put(
        name, seal_object(ring, Kind.LEDGER, record.to_body(), subject=name)
    )
    result = scene.snapshot()
    assert result.manifest.statistics["new_bytes"] == scene.stored
    scene.world.disk.damage(scene.pack, None)
    scene.assert_restores(result)
    assert scene.snapshot().manifest.statistics["new_bytes"] == 0, "once is enough"
