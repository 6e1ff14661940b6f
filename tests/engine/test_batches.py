"""What is handled many at a time comes out as if it had been one by one, wherever a batch ends."""

import os
from pathlib import Path

import pytest
from support.sessions import content_of, make_world, tree_content, write_tree

import engine.restore
from engine.files_snapshot import snapshot_files
from engine.restore import restore_manifest
from engine.sources.directory import Directory
from engine.sources.files import FileTree
from repo_store.chunk_writer import FRAME_BYTES
from repo_store.entry import Entry


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_a_file_at_the_end_of_a_batch_is_restored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(engine.restore, "BATCH_PIECES_MAX", batch)
    contents = {f"{number}": b"%d" % number * 500 for number in range(12)} | {"large": os.urandom(700_000)}
    source, world = write_tree(tmp_path / "source", contents), make_world(tmp_path)
    manifest = snapshot_files(world.session(), [str(source)]).manifest
    result = restore_manifest(world.session(), manifest, str(tmp_path / "out"))
    assert result.problems == [] and result.files == len(contents)
    assert tree_content(tmp_path / "out" / "source") == tree_content(source)


def test_special_files_among_plain_ones_are_stored_in_their_place(tmp_path: Path) -> None:
    contents = {f"{number:03}": b"%d" % (number % 7) * (number * 100) for number in range(200)}
    contents["100-large"] = os.urandom(400_000)
    source, world = write_tree(tmp_path / "source", contents), make_world(tmp_path)
    (source / "050").unlink()
    os.link(source / "051", source / "050")
    (source / "060").unlink()
    (source / "060").symlink_to("061")
    os.truncate(source / "070", 20_000)
    os.chmod(source / "080", 0o400)
    session = world.session()
    result = snapshot_files(session, [str(source)])
    assert result.problems == [] and result.manifest.status == "complete"
    expected = tree_content(source)
    del expected["source/060"]
    assert content_of(world.session(), result.manifest) == expected


def test_frames_are_filled_and_repeated_content_is_stored_once(tmp_path: Path) -> None:
    contents = {f"{number:03}": os.urandom(30_000) for number in range(100)}
    contents |= {f"{name}-again": data for name, data in contents.items()}
    source, world = write_tree(tmp_path / "source", contents), make_world(tmp_path)
    session = world.session()
    statistics = snapshot_files(session, [str(source)]).manifest.statistics
    assert statistics["new_bytes"] == 3_000_000 and statistics["bytes"] == 6_000_000
    plain = sorted(location.place.plain_length for location in world.session().index.locations())
    assert len([length for length in plain if length >= FRAME_BYTES]) >= 2


def test_a_file_that_changes_while_the_others_are_read_is_read_as_it_became(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tree(tmp_path / "source", dict.fromkeys("abc", b"before"))
    world, genuine = make_world(tmp_path), FileTree.read_plain

    def read_plain(tree: FileTree, directory: Directory, entries: tuple[Entry, ...], view: memoryview) -> int:
        (source / "b").write_bytes(b"after the walk")
        return genuine(tree, directory, entries, view)

    monkeypatch.setattr(FileTree, "read_plain", read_plain)
    manifest = snapshot_files(world.session(), [str(source)]).manifest
    found = content_of(world.session(), manifest)
    assert found == {"source/a": b"before", "source/b": b"after the walk", "source/c": b"before"}
