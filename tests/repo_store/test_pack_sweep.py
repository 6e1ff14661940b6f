"""A sweep hands over every chunk once, asks the index once for a pack, and leaves over what is not right."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.sessions import make_world, write_tree

from engine.files_snapshot import snapshot_files
from engine.session import Session
from repo_store.chunk_reader import ChunkReader, Found
from repo_store.errors import HoldfastError, StorageError
from repo_store.index import Index
from repo_store.pack import pack_name
from repo_store.rows import Section


@pytest.fixture
def session(tmp_path: Path) -> Session:
    world = make_world(tmp_path)
    for number in range(3):
        write_tree(tmp_path / f"tree{number}", {f"{each}": os.urandom(3000) for each in range(40)})
        snapshot_files(world.session(), [str(tmp_path / f"tree{number}")])
    return world.session(operation="read")


def sweep(session: Session, ids: Sequence[bytes]) -> dict[bytes, bytes | HoldfastError]:
    found: dict[bytes, bytes | HoldfastError] = {}
    lock = threading.Lock()

    def take(chunks: Sequence[Found]) -> None:
        with lock:
            for chunk_id, data in chunks:
                assert chunk_id not in found, "handed over twice"
                found[chunk_id] = data if isinstance(data, HoldfastError) else bytes(data)

    session.reader.sweep(ids, take)
    return found


def data_ids(session: Session) -> list[bytes]:
    return sorted({chunk_id for chunk_id, _ in session.index.chunks(Section.DATA)})


def test_a_sweep_gives_what_reading_one_by_one_gives(session: Session) -> None:
    ids = data_ids(session)
    one_by_one = {chunk_id: bytes(data) for chunk_id, data in session.reader.read_chunks(ids)}  # type: ignore[arg-type]
    assert len(ids) == 120 and sweep(session, ids) == one_by_one


def test_the_index_is_asked_once_for_a_pack(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    genuine = Index.find_chunks

    def find_chunks(index: Index, section: int, ids: Sequence[bytes]) -> object:
        asked.extend(ids)
        return genuine(index, section, ids)

    monkeypatch.setattr(Index, "find_chunks", find_chunks)
    assert len(sweep(session, data_ids(session))) == 120
    assert len(asked) == 3


@pytest.mark.parametrize("known", [False, True])
def test_a_pack_that_is_gone_costs_its_chunks_and_each_is_named(session: Session, known: bool) -> None:
    """Gone before it was looked at, or after its directory was read."""
    ids = data_ids(session)
    where = session.reader._where_first(ids[0])
    assert where is not None
    if known:
        session.reader.packs.directory(where.pack, where.pack_size)
    session.storage.delete(pack_name(where.pack))
    found = sweep(session, ids)
    assert found.keys() == set(ids)
    assert len([data for data in found.values() if isinstance(data, HoldfastError)]) == 40


def test_what_a_directory_says_of_a_chunk_is_not_believed(session: Session) -> None:
    """Two chunks of one length have changed places in a directory: the index still knows better."""
    ids = data_ids(session)
    right = sweep(session, ids)
    where = session.reader._where_first(ids[0])
    assert where is not None
    directory = session.reader.packs.directory(where.pack, where.pack_size)
    swapped = directory.ids[32:64] + directory.ids[:32] + directory.ids[64:]
    object.__setattr__(directory, "ids", swapped)
    assert sweep(session, ids) == right


@pytest.mark.parametrize("points_at", ["nothing", "another pack"])
def test_a_chunk_that_is_not_where_the_index_says_is_lost_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch, points_at: str
) -> None:
    ids, stranger, genuine = data_ids(session), bytes(31) + b"\1", ChunkReader._where_first
    if points_at == "another pack":
        monkeypatch.setattr(
            ChunkReader,
            "_where_first",
            lambda reader, chunk_id: genuine(reader, ids[-1] if chunk_id == stranger else chunk_id),
        )
    found = sweep(session, [stranger, *ids])
    assert found.keys() == {stranger, *ids}
    assert [each for each, data in found.items() if isinstance(data, HoldfastError)] == [stranger]


def test_what_the_taker_raises_ends_the_sweep(session: Session) -> None:
    def take(chunks: Sequence[Found]) -> None:
        raise StorageError("full")

    before = threading.active_count()
    with pytest.raises(StorageError, match="full"):
        session.reader.sweep(data_ids(session), take)
    assert threading.active_count() == before
