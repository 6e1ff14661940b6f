"""What this machine has stored, or has at hand, it does not fetch; what it keeps for that is never believed unchecked."""

import random
from collections import Counter
from pathlib import Path

import pytest
from support.sessions import World, content_of, make_world, storage_of, tree_content, write_tree
from support.simulated_storage import SimulatedStorage

from engine.files_snapshot import snapshot_files
from engine.session import Places, Session, session_of
from repo_store import chunk_reader
from repo_store.repository import open_repository


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", {f"{n % 7}/{n}": b"%d " % n * 9 for n in range(300)})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def opened(world: World, places: Places, operation: str = "write") -> Session:
    """Open the repository as a host that has been here before."""
    repository = open_repository(
        SimulatedStorage(world.disk), world.key_file, str(places.state_dir), operation=operation
    )
    return session_of(repository, places, operation=operation)


def fetched(session: Session, folder: str) -> list[str]:
    return [name for name in storage_of(session).names("get") if name.startswith(folder)]


def test_the_next_run_fetches_neither_the_table_nor_the_manifest_of_this_one(
    world: World, tree: Path
) -> None:
    places = world.places()
    snapshot_files(opened(world, places), [str(tree)])
    second = opened(world, places)
    snapshot_files(second, [str(tree)])
    assert fetched(second, "tables/") == fetched(second, "manifests/") == []
    assert list(places.cache_dir.rglob("made/*")) == [], "a table that was loaded is not kept"
    other = world.session()
    snapshot_files(other, [str(tree)])
    assert fetched(other, "tables/") and fetched(other, "manifests/"), "another host has to"


@pytest.mark.parametrize("kept", ["made/*", "manifests/*"])
@pytest.mark.parametrize("spoilt", [b"", b"other bytes", None])
def test_what_was_kept_and_spoilt_is_fetched_and_nothing_is_called_damaged(
    world: World, tree: Path, kept: str, spoilt: bytes | None
) -> None:
    places = world.places()
    snapshot_files(opened(world, places), [str(tree)])
    (path,) = places.cache_dir.rglob(kept)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if spoilt is None else spoilt)
    second = opened(world, places)
    result = snapshot_files(second, [str(tree)])
    assert second.warnings == [] and second.index.problems == []
    assert fetched(second, "tables/" if kept.startswith("made") else "manifests/")
    assert result.manifest.statistics["new_bytes"] == 0
    assert content_of(world.session(), result.manifest) == tree_content(tree)


def test_a_session_looks_once_before_its_first_run_and_anew_before_the_next(world: World, tree: Path) -> None:
    session = opened(world, world.places())
    snapshot_files(session, [str(tree)])
    looked = [name for name in storage_of(session).names("list") if name in ("gc/", "tables/")]
    assert looked == ["gc/", "tables/", "gc/"], "in this order, and once more at the commit"
    before = len(storage_of(session).names("list"))
    snapshot_files(session, [str(tree)])
    again = storage_of(session).names("list")[before:]
    assert [name for name in again if name in ("gc/", "tables/")] == ["gc/", "tables/", "gc/"]


def test_packs_of_nodes_are_fetched_once_each_by_one_who_walks(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = random.Random(7)
    large = write_tree(tmp_path / "large", {f"{names.randbytes(60).hex()}": b"" for _ in range(7_000)})
    snapshot_files(opened(world, world.places()), [str(large)])
    walker = opened(world, world.places())
    snapshot_files(walker, [str(large)])
    found = Counter(fetched(walker, "packs/"))
    assert found and set(found.values()) == {1}
    monkeypatch.setattr(chunk_reader, "_KEPT_PACK_BYTES_MAX", 0)
    monkeypatch.setattr("repo_store.pack_reader.WHOLE_BYTES_MAX", 0)
    windows = opened(world, world.places())
    result = snapshot_files(windows, [str(large)])
    assert max(Counter(fetched(windows, "packs/")).values()) > 1, "else nothing was shown"
    assert len(content_of(world.session(), result.manifest)) == 7_000
