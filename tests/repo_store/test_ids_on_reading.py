"""A chunk is what its id says, or it is lost: every id is computed again from what was read.

Method: packs are made whose frames open and whose directories are rightly signed, and whose directory tells lies about
which chunk is where; only the ids can show it.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from support.packs import DATA, METADATA, id_key, make_pack
from support.rings import make_ring
from support.simulated_storage import SimulatedStorage

from repo_store.chunk_reader import ChunkReader
from repo_store.directory import Directory
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.index import Index
from repo_store.key_ring import KeyRing
from repo_store.pack import Pack, pack_name
from repo_store.sealed import Kind

CHUNKS = (b"first chunk", b"other chunk", b"third chunk")


def reader_of(ring: KeyRing, folder: Path, *packs: tuple[Pack, Directory]) -> ChunkReader:
    """Return a reader of a repository with these packs, whose index believes the directories given."""
    storage = SimulatedStorage()
    index = Index.open(storage, ring, str(folder))
    for pack, directory in packs:
        storage.put(pack_name(pack.hash), pack.buffers)
        index.add_pack(pack.hash, pack.size, directory)
    return ChunkReader(storage, ring, index)


def swapped(directory: Directory) -> Directory:
    """Return the directory with the ids of the first two chunks exchanged."""
    ids = directory.ids
    return replace(directory, ids=ids[32:64] + ids[:32] + ids[64:])


def read(reader: ChunkReader, ids: list[bytes]) -> dict[bytes, bytes | HoldfastError]:
    return {
        chunk_id: found if isinstance(found, HoldfastError) else bytes(found)
        for chunk_id, found in reader.read_chunks(ids)
    }


def test_a_chunk_in_the_place_of_another_is_lost_and_the_rest_is_read(tmp_path: Path) -> None:
    ring = make_ring()
    pack = make_pack(ring, [CHUNKS])
    ids = [blake3(chunk, key=id_key(ring, DATA)).digest() for chunk in CHUNKS]
    found = read(reader_of(ring, tmp_path, (pack, swapped(pack.directory))), ids)
    assert found[ids[2]] == CHUNKS[2]
    for wrong in ids[:2]:
        assert isinstance(found[wrong], ObjectDamaged)
        assert "holds something else" in str(found[wrong])


def test_a_second_copy_stands_in_for_a_chunk_that_is_another(tmp_path: Path) -> None:
    ring = make_ring()
    liar, honest = make_pack(ring, [CHUNKS]), make_pack(ring, [CHUNKS])
    ids = [blake3(chunk, key=id_key(ring, DATA)).digest() for chunk in CHUNKS]
    reader = reader_of(ring, tmp_path, (liar, swapped(liar.directory)), (honest, honest.directory))
    assert read(reader, ids) == dict(zip(ids, CHUNKS, strict=True))


def test_a_tree_node_in_the_place_of_another_is_lost(tmp_path: Path) -> None:
    ring = make_ring()
    pack = make_pack(ring, [[chunk] for chunk in CHUNKS], kind=Kind.METADATA_DIRECTORY)
    ids = [blake3(chunk, key=id_key(ring, METADATA)).digest() for chunk in CHUNKS]
    reader = reader_of(ring, tmp_path, (pack, swapped(pack.directory)))
    assert reader.get_node(ids[2]) == CHUNKS[2]
    with pytest.raises(ObjectDamaged, match="holds something else"):
        reader.get_node(ids[0])
