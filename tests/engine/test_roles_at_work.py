"""What each role's key can do with a whole engine around it: a writer backs up and cannot read contents."""

from pathlib import Path

import pytest
from support.repositories import KeyFiles
from support.sessions import World, content_of, make_world, write_tree

from engine.files_snapshot import snapshot_files
from engine.reading_back import list_entries
from engine.session import Session, session_of
from engine.verify import verify_repository
from repo_store.errors import Refused
from repo_store.key_ops import add_slot
from repo_store.repository import open_repository


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "hosts")


def _writer(world: World) -> Session:
    keys = KeyFiles()
    add_slot(world.session().repository, secret=keys.new(), role="writer", label="web server", now_ns=1)
    storage = world.session().storage
    repository = open_repository(storage, keys.saved[-1], None, operation="write")
    return session_of(repository, world.places(), operation="write")


def test_a_writer_stores_what_the_owner_restores(world: World, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"a" * 5000, "b/c": b"c"})
    writer = _writer(world)
    first = snapshot_files(writer, [str(tree)])
    (tree / "a").write_bytes(b"changed")
    second = snapshot_files(writer, [str(tree)])
    assert second.manifest.sequence == 2
    owner = world.session()
    assert content_of(owner, first.manifest) == {"tree/a": b"a" * 5000, "tree/b/c": b"c"}
    assert content_of(owner, second.manifest) == {"tree/a": b"changed", "tree/b/c": b"c"}


def test_a_writer_sees_names_and_no_contents(world: World, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"secret"})
    result = snapshot_files(world.session(), [str(tree)])
    writer = _writer(world)
    assert [path for path, _ in list_entries(writer, result.manifest)] == [(b"tree",), (b"tree", b"a")]
    with pytest.raises(Refused, match="cannot read contents"):
        content_of(writer, result.manifest)


def test_a_writer_verifies_and_leaves_no_record_that_others_would_refuse(
    world: World, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"a" * 100_000})
    writer = _writer(world)
    snapshot_files(writer, [str(tree)])
    report = verify_repository(writer, data=True)
    assert report.status == "ok" and not report.contents_read
    assert list(writer.storage.list("ledger/")) == []
    assert verify_repository(world.session(), data=True).status == "ok"


def test_a_damaged_ledger_record_stops_no_snapshot(world: World, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"a" * 100_000})
    snapshot_files(world.session(), [str(tree)])
    assert verify_repository(world.session(), data=True).status == "ok"
    (name,) = [name for name in world.disk.objects() if name.startswith("ledger/")]
    world.disk.damage(name, b"rot")
    assert snapshot_files(world.session(), [str(tree)]).manifest.status == "complete"
    assert list(verify_repository(world.session()).damaged) == [name]
