"""The golden packs: written once by tests/vectors/make_pack_vectors.py, read and refused alike for ever."""

import json

import pytest
from support.pack_vectors import FOLDER, load_ring
from support.simulated_storage import SimulatedDisk, SimulatedStorage

from repo_store.errors import ObjectDamaged
from repo_store.frame import FrameName
from repo_store.pack import pack_hash, pack_name
from repo_store.pack_check import verify_pack
from repo_store.pack_reader import PackReader

RING = load_ring()
STORIES = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json")) if path.stem != "ring"
}


def test_every_file_of_the_folder_is_exercised() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        "ring.json",
        *(f"{scenario}.{ending}" for scenario in STORIES for ending in ("json", "pack")),
    }
    assert all(("frames" in story) != ("refused" in story) for story in STORIES.values())
    assert len(STORIES) >= 14


def stored(scenario: str) -> tuple[SimulatedStorage, bytes, int]:
    data = (FOLDER / f"{scenario}.pack").read_bytes()
    storage = SimulatedStorage(SimulatedDisk())
    storage.put(pack_name(pack_hash([data])), data)
    return storage, pack_hash([data]), len(data)


def read(scenario: str) -> list[list[bytes]]:
    storage, hash_, size = stored(scenario)
    reader = PackReader(storage, RING)
    directory = reader.directory(hash_, size)

    def find_base(name: FrameName) -> bytes:
        (place,) = (place for place in directory.frames if place.name == name)
        return reader.read_base(hash_, size, place)

    plains = [plain for _, plain in reader.read_frames(hash_, size, directory.frames, find_base)]
    assert verify_pack(storage, RING, hash_, find_base).whole
    return [
        [plain[offset : offset + length] for _, offset, length in directory.chunks(index)]
        for index, plain in enumerate(plains)
    ]


@pytest.mark.parametrize("scenario", [name for name, story in STORIES.items() if "frames" in story])
def test_a_good_pack_is_read(scenario: str) -> None:
    assert read(scenario) == [
        [bytes.fromhex(chunk) for chunk in frame] for frame in STORIES[scenario]["frames"]
    ]


@pytest.mark.parametrize("scenario", [name for name, story in STORIES.items() if "refused" in story])
def test_a_bad_pack_is_refused_in_its_own_words(scenario: str) -> None:
    words = STORIES[scenario]["refused"]
    with pytest.raises(ObjectDamaged, match=words):
        read(scenario)
    storage, hash_, _ = stored(scenario)
    check = verify_pack(storage, RING, hash_)
    assert not check.whole
    assert words in " ".join([check.problem or "", *check.damaged.values()])
