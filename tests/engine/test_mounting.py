"""The mounted tree without FUSE: what is read, what is kept, and what the folders are called."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.local_sessions import LocalWorld, make_local_world

from engine import mounting
from engine.files_snapshot import snapshot_files
from engine.mounting import MountedTree
from engine.stream_snapshot import snapshot_stdin
from repo_store.manifest import Manifest


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    return make_local_world(tmp_path)


def stored(world: LocalWorld, tmp_path: Path, data: bytes) -> Manifest:
    (tmp_path / "data").write_bytes(data)
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    try:
        return snapshot_stdin(world.session(), b"s", fd).manifest
    finally:
        os.close(fd)


def test_any_part_of_a_file_is_read_with_and_without_what_is_kept(
    world: LocalWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3_000_000)
    manifest = stored(world, tmp_path, data)
    monkeypatch.setattr(mounting, "CACHED_BYTES_MAX", 400_000)
    monkeypatch.setattr(mounting, "READ_AHEAD_BYTES", 300_000)
    tree = MountedTree(world.session("read"), [manifest])
    (series,) = tree.names(()) or ()
    place = tree.find((series, b"latest"))
    assert place is not None and place.target is not None
    found = tree.find((series, place.target, b"s"))
    assert found is not None and found.entry is not None
    for offset in (0, 1, 65_000, 2_999_999, 3_000_000, 3_000_001, 70_000, 0):
        for size in (0, 1, 131_072, 1_000_000):
            assert tree.read(found.entry, offset, size) == data[offset : offset + size]
            assert tree._cached_bytes == sum(map(len, tree._chunks.values())) <= 400_000


def test_reading_on_asks_for_each_frame_about_once(
    world: LocalWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(6_000_000)
    manifest = stored(world, tmp_path, data)
    session = world.session("read")
    tree = MountedTree(session, [manifest])
    asked: list[int] = []
    read_chunks = session.reader.read_chunks
    monkeypatch.setattr(session.reader, "read_chunks", lambda ids: asked.append(len(ids)) or read_chunks(ids))
    found = tree.find((next(iter(tree.names(()) or ())), *_name(manifest), b"s"))
    assert found is not None and found.entry is not None
    parts = [tree.read(found.entry, offset, 131_072) for offset in range(0, len(data), 131_072)]
    assert b"".join(parts) == data
    assert len(asked) <= 4


def _name(manifest: Manifest) -> tuple[bytes, ...]:
    from engine.selection import rfc3339

    return (f"{rfc3339(manifest.end // 10**9 * 10**9)}-{manifest.id.hex()[:8]}".encode(),)


def test_series_have_folders_that_no_two_share_and_latest_follows_the_sequence(
    world: LocalWorld, tmp_path: Path
) -> None:
    one = snapshot_files(world.session(), [os.fsencode(tmp_path / "state")]).manifest
    series = ("a/b", "a%2Fb", ".", "..", "%2E")
    manifests = [replace(one, series=name, id=bytes([at]) * 16) for at, name in enumerate(series)]
    later = replace(one, series="a/b", sequence=9, end=one.end - 10**12, id=b"\x77" * 16)
    partial = replace(one, series="a/b", sequence=10, status="partial", id=b"\x66" * 16)
    only = replace(one, series="only", status="incomplete", id=b"\x55" * 16)
    tree = MountedTree(world.session("read"), [later, *manifests, partial, only])
    assert sorted(tree.names(()) or ()) == [b"%252E", b"%2E", b"%2E.", b"a%252Fb", b"a%2Fb", b"only"]
    latest = tree.find((b"a%2Fb", b"latest"))
    assert latest is not None and latest.target is not None and latest.target.endswith(b"-77777777")
    assert tree.find((b"only", b"latest")) is None
    assert [name[-8:] for name in tree.names((b"only",)) or ()] == [b"55555555"]
    for path in ((b"none",), (b"only", b"none"), (b"only", *_name(only), b"none")):
        assert tree.find(path) is None and tree.names(path) is None
