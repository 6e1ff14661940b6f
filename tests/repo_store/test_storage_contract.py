"""Every storage keeps the contract of repo_store/storage.py.

One suite for all implementations. Another one joins by one line in OPENERS: a function that gets an empty
directory and returns a function that opens a new connection, always to the same storage. What a power cut
leaves is tested per implementation (test_local_storage.py, test_storage_histories.py).
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.minio import running_minio
from support.seaweed import running_server
from support.simulated_storage import SimulatedStorage

from repo_store.errors import ObjectConflict, ObjectMissing, Refused
from repo_store.limited_local_storage import LimitedLocalStorage
from repo_store.local_storage import LocalStorage
from repo_store.object_names import NAME_BYTES_MAX, PART_BYTES_MAX
from repo_store.rate_limit import RateLimit
from repo_store.storage import Buffer, Storage

Open = Callable[[], Storage]


def local(*ways: str) -> Callable[[Path], Open]:
    def opener(folder: Path) -> Open:
        LocalStorage.create(folder / "repository")
        return lambda: LocalStorage(folder / "repository", ways=ways)

    return opener


def simulated(folder: Path) -> Open:
    return SimulatedStorage().again


def s3(folder: Path) -> Open:
    server = running_server()
    place = server.new_place()
    return lambda: server.storage(place)


def limited(folder: Path) -> Open:
    LocalStorage.create(folder / "repository")
    rates = {"upload": RateLimit(1 << 30), "download": RateLimit(1 << 30)}
    return lambda: LimitedLocalStorage(folder / "repository", **rates)


def minio(folder: Path) -> Open:
    server = running_minio()
    place = server.new_place()
    return lambda: server.storage(place)


OPENERS: dict[str, Callable[[Path], Open]] = {
    "local, unnamed files": local("unnamed"),
    "local, temporary and link": local("linked"),
    "local, temporary and rename": local("renamed"),
    "simulated": simulated,
    "local, limited": limited,
    "s3": s3,
    "minio": minio,
}


@pytest.fixture(params=[*list(OPENERS)[:-1], pytest.param("minio", marks=pytest.mark.full)])
def open_again(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setattr(
        os, "fsync", lambda file: None
    )  # durability is tested elsewhere; a busy disk waits long
    if request.param == "minio":
        running_minio(may_build=request.config.getoption("--full"))
    return OPENERS[request.param](tmp_path)


@pytest.fixture
def storage(open_again: Open) -> Storage:
    return open_again()


def names(storage: Storage, prefix: str) -> list[str]:
    return sorted(info.name for info in storage.list(prefix))


@pytest.mark.parametrize("size", [0, 1, 4095, 65_537, 5_000_001])
def test_an_object_reads_back_as_it_was_put(storage: Storage, open_again: Open, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    storage.put("packs/ab/abcd", data[:size])
    for reader in (storage, open_again()):
        assert reader.get("packs/ab/abcd") == data[:size]
        assert reader.info("packs/ab/abcd").size == size


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"", b"a", b"", b"bc", b""],
        [bytearray(b"abc"), memoryview(b"defghi")[1:5:1]],
        [memoryview(b"abcdefgh").cast("I"), b"tail"],
        [b"%d," % n for n in range(5000)],
        [b"x" * 2_000_000, b"y" * 3_000_000, b"z"],
    ],
    ids=["none", "one empty", "empty between", "other buffers", "wide items", "very many", "large"],
)
def test_a_sequence_is_stored_joined(storage: Storage, parts: list[Buffer]) -> None:
    storage.put("tables/aa", parts)
    storage.put("tables/aa", parts)
    assert storage.get("tables/aa") == b"".join(bytes(part) for part in parts)


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc")])
def test_any_buffer_can_be_put(storage: Storage, data: Buffer) -> None:
    storage.put("config/1", data)
    assert storage.get("config/1") == b"abc"


def test_the_same_bytes_may_be_put_again_by_anybody(storage: Storage, open_again: Open) -> None:
    storage.put("config/1", b"same")
    for connection in (storage, open_again()):
        connection.put("config/1", [b"sa", b"me"])
    assert storage.get("config/1") == b"same"


@pytest.mark.parametrize("end", [b"", b"firs", b"first ", b"fIrst", b"firsT"])
def test_other_bytes_under_an_existing_name_are_a_conflict(
    storage: Storage, open_again: Open, end: bytes
) -> None:
    start = b"x" * 3_000_000
    storage.put("config/1", start + b"first")
    for connection in (storage, open_again()):
        for other in (start + end, b"y" + start[1:] + b"first"):
            with pytest.raises(ObjectConflict) as conflict:
                connection.put("config/1", [other[:1000], other[1000:]])
            assert str(conflict.value) == "config/1: exists with other content"
            assert conflict.value.name == "config/1"
    assert storage.get("config/1") == start + b"first"


def test_an_empty_object_and_one_with_bytes_are_in_conflict(storage: Storage) -> None:
    storage.put("config/1", b"")
    with pytest.raises(ObjectConflict):
        storage.put("config/1", b"x")
    assert storage.get("config/1") == b""


DATA = bytes(range(256)) * 40


@pytest.mark.parametrize("length", [None, 0, 1, 77, 10_239, 10_240, 10_241])
@pytest.mark.parametrize("offset", [0, 1, 5000, 10_239, 10_240, 10_241, -1, -77, -10_240, -10_241, -99_999])
def test_a_part_of_an_object_can_be_read(storage: Storage, offset: int, length: int | None) -> None:
    storage.put("packs/ab/abcd", DATA)
    tail = DATA[offset:] if offset >= 0 else DATA[max(0, len(DATA) + offset) :]
    assert storage.get("packs/ab/abcd", offset, length) == (tail if length is None else tail[:length])


def test_a_missing_object_is_named(storage: Storage) -> None:
    storage.put("packs/ab/there", b"x")
    reads: list[Callable[[str], object]] = [
        storage.get,
        lambda name: storage.get(name, 0, 0),
        lambda name: storage.get(name, -5),
        storage.info,
        lambda name: storage.barrier([name]),
    ]
    for name in ("packs/ab/gone", "nowhere/at/all"):
        for read in reads:
            with pytest.raises(ObjectMissing) as missing:
                read(name)
            assert str(missing.value) == f"{name}: no such object"
            assert missing.value.name == name


def test_a_listing_shows_what_starts_with_the_prefix_and_nothing_else(storage: Storage) -> None:
    everything = [
        "config/1",
        "packs/ab/abc",
        "packs/ab/abd",
        "packs/ac/x",
        "packs.old/ab",
        "p",
        "wal/1/2/3/4-5_6.x",
    ]
    for name in everything:
        storage.put(name, name.encode())
    assert names(storage, "") == sorted(everything)
    for prefix in (
        "packs/",
        "packs",
        "packs/ab/",
        "packs/ab",
        "packs/a",
        "packs/ab/abc",
        "p",
        "wal/1/",
        "w",
        "x",
        "x/y/z",
    ):
        assert names(storage, prefix) == sorted(name for name in everything if name.startswith(prefix)), (
            prefix
        )
    assert {info.name: info.size for info in storage.list("")} == {name: len(name) for name in everything}


def test_a_listing_says_what_info_says(storage: Storage) -> None:
    for name in ("config/1", "config/2"):
        storage.put(name, name.encode())
    listed = list(storage.list("config/"))
    assert sorted(listed, key=lambda info: info.name) == [storage.info("config/1"), storage.info("config/2")]
    assert all(info.modified_ns > 1_600_000_000 * 10**9 for info in listed)


def test_a_listing_shows_what_any_connection_has_put_or_deleted(storage: Storage, open_again: Open) -> None:
    second = open_again()
    assert names(second, "gc/") == []
    storage.put("gc/1.mark", b"1")
    second.put("gc/1.sweep", b"2")
    assert names(storage, "gc/") == names(second, "gc/") == ["gc/1.mark", "gc/1.sweep"]
    second.delete("gc/1.mark")
    assert names(storage, "gc/") == names(second, "gc/") == ["gc/1.sweep"]


def test_a_listing_may_be_left_half_read_and_survives_deletes(storage: Storage) -> None:
    for number in range(50):
        storage.put(f"packs/{number % 5}a/{number}", b"x")
    next(iter(storage.list("")))
    seen = set()
    for info in storage.list("packs/"):
        seen.add(info.name)
        storage.delete(info.name)
    assert len(seen) == 50 and names(storage, "") == []


def test_a_deleted_object_is_gone_and_deleting_it_again_is_success(
    storage: Storage, open_again: Open
) -> None:
    storage.put("pending/aa", b"x")
    for connection in (storage, open_again(), storage):
        connection.delete("pending/aa")
    storage.delete("never/was")
    for connection in (storage, open_again()):
        with pytest.raises(ObjectMissing):
            connection.get("pending/aa")
        assert names(connection, "") == []


def test_a_name_is_free_again_after_a_delete(storage: Storage) -> None:
    storage.put("pending/aa", b"before")
    storage.delete("pending/aa")
    storage.put("pending/aa", b"after")
    assert storage.get("pending/aa") == b"after"


@pytest.mark.parametrize("data", [b"", b"mended", b"longer than it was before"])
def test_replace_puts_other_bytes_in_place(storage: Storage, open_again: Open, data: bytes) -> None:
    storage.put("keys/aa", b"damaged bytes")
    storage.replace("keys/aa", data)
    assert storage.get("keys/aa") == open_again().get("keys/aa") == data
    assert names(storage, "") == ["keys/aa"]
    with pytest.raises(ObjectConflict):
        storage.put("keys/aa", b"damaged bytes")


def test_replace_makes_an_object_that_is_missing(storage: Storage) -> None:
    storage.replace("keys/aa", b"mended")
    assert storage.get("keys/aa") == b"mended"


def test_a_barrier_takes_names_that_others_have_put(storage: Storage, open_again: Open) -> None:
    storage.barrier()
    storage.put("packs/ab/mine", b"x")
    open_again().put("packs/cd/theirs", b"y")
    storage.barrier(["packs/cd/theirs"])
    storage.barrier(name for name in ["packs/ab/mine", "packs/ab/mine"])
    assert names(storage, "packs/") == ["packs/ab/mine", "packs/cd/theirs"]


BAD_NAMES = [
    "", "/", "a/", "/a", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".tmp/a", "a/.b", "A", "a b", "a\n", "a\0b", "ä",
    "a\\b", "a:b", "~", "a*", "x" * (PART_BYTES_MAX + 1), "a/" * (NAME_BYTES_MAX // 2) + "a", "lost+found", "\udc80",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name[:12]))
def test_a_name_outside_the_contract_is_refused_by_every_method(storage: Storage, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: storage.put(name, b"x"),
        lambda: storage.get(name),
        lambda: storage.info(name),
        lambda: storage.delete(name),
        lambda: storage.replace(name, b"x"),
        lambda: storage.barrier([name]),
    ]
    for call in calls:
        with pytest.raises(Refused, match="not a name that an object can have"):
            call()
    assert names(storage, "") == []


@pytest.mark.parametrize("prefix", ["/", "..", "../", "a/../", "a//", ".t", "A", "a/.", "x" * 300])
def test_a_prefix_that_no_name_can_have_is_refused_before_the_first_object(
    storage: Storage, prefix: str
) -> None:
    with pytest.raises(Refused, match="not a prefix"):
        storage.list(prefix)


@pytest.mark.parametrize(
    "name", ["a", "0", "-", "_", "a.b-c_d", "a..b", "x" * PART_BYTES_MAX, "ab/" * 100 + "c"]
)
def test_every_name_within_the_contract_is_kept(storage: Storage, name: str) -> None:
    storage.put(name, b"x")
    storage.barrier([name])
    assert names(storage, "") == names(storage, name) == [name]
    assert storage.get(name) == b"x"


def test_of_many_writers_of_one_name_exactly_one_wins(open_again: Open) -> None:
    contenders = 4
    connections = [open_again() for _ in range(contenders)]
    with ThreadPoolExecutor(contenders) as pool:
        for round_number in range(12):
            name = f"manifests/{round_number}"
            start = threading.Barrier(contenders)

            def contend(number: int, name: str = name, start: threading.Barrier = start) -> bytes | None:
                body = bytes([number]) * 100_000
                start.wait()
                try:
                    connections[number].put(name, body)
                except ObjectConflict:
                    return None
                return body

            winners = [body for body in pool.map(contend, range(contenders)) if body is not None]
            assert len(winners) == 1
            assert all(connection.get(name) == winners[0] for connection in connections)


def test_one_connection_serves_many_threads_at_once(storage: Storage) -> None:
    def work(number: int) -> None:
        for turn in range(8):
            name = f"packs/{turn}{number % 2}/{number}"
            storage.put(name, [name.encode(), b"x" * 1000])
            assert storage.get(name, 0, len(name)) == name.encode()
            storage.barrier()
            assert name in names(storage, f"packs/{turn}")
            if turn % 2:
                storage.delete(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(names(storage, "packs/")) == 32


def test_readers_see_the_whole_object_or_none(storage: Storage, open_again: Open) -> None:
    reader, size, done = open_again(), 3_000_000, threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            for info in reader.list("packs/"):
                seen.append(info.size)
                seen.append(len(reader.get(info.name)))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(12):
        storage.put(f"packs/ab/{number}", [b"x" * (size // 2)] * 2)
    done.set()
    thread.join()
    assert set(seen) <= {size}


def test_a_storage_says_where_it_is(storage: Storage) -> None:
    assert isinstance(storage.location, str) and storage.location
