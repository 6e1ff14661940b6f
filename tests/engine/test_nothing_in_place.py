"""No command changes an object: what exists keeps its bytes, and only what may go goes.

Method: record every operation of a life of a repository: init, snapshots, an interrupted one, verifications, damage
healed, keys added and removed.
"""

from pathlib import Path

from support.repositories import NOW, KeyFiles
from support.sessions import World, make_world, storage_of, write_tree

from engine.files_snapshot import snapshot_files
from engine.session import Session
from engine.verify import verify_repository
from repo_store.key_ops import add_slot, change_secret, remove_slot

MAY_GO = ("pending/", "keys/")


def test_no_command_replaces_an_object_or_deletes_one_that_is_needed(tmp_path: Path) -> None:
    world, keys = make_world(tmp_path / "hosts"), KeyFiles()
    tree = write_tree(tmp_path / "tree", {f"f{n}": bytes([n]) * 3000 for n in range(20)})
    sessions: list[Session] = []
    history: dict[str, bytes] = {}

    def step(operation: str) -> Session:
        _look(world, history)
        sessions.append(world.session(operation=operation))
        return sessions[-1]

    snapshot_files(step("write"), [str(tree)])
    write_tree(tree, {"f0": b"changed"})
    snapshot_files(step("write"), [str(tree)])
    pack = max(world.disk.objects(), key=lambda name: len(world.disk.objects()[name]))
    world.disk.damage(pack, None)
    history.pop(pack)
    verify_repository(step("verify"), data=True)
    snapshot_files(step("write"), [str(tree)])
    repository = step("key").repository
    added = add_slot(repository, secret=keys.new(), role="writer", label="", now_ns=NOW)
    change_secret(added.repository, keys.saved[0], keys.new(), now_ns=NOW)
    remove_slot(added.repository, added.slot, now_ns=NOW)
    _look(world, history)

    gone = [name for session in sessions for name in storage_of(session).names("delete")]
    assert gone and [name for name in gone if not name.startswith(MAY_GO)] == []
    assert [name for session in sessions for name in storage_of(session).names("replace")] == []


def _look(world: World, history: dict[str, bytes]) -> None:
    """Compare what is there with what was ever seen there."""
    objects = world.disk.objects()
    assert {name for name in history if name not in objects and not name.startswith(MAY_GO)} == set()
    assert {name for name, data in objects.items() if history.get(name, data) != data} == set()
    history.update(objects)
