"""What lies in a repository, and in a host's cache of it, tells nothing of contents, names or secrets.

Method: everything that must not be seen is recognisable: searched for as it is, in hex, and as it would stand
in MessagePack or a path. One of them stored plainly, by any object, fails the test.
"""

from collections.abc import Iterator
from pathlib import Path

from support.repositories import KeyFiles, cheap
from support.sessions import make_world, write_tree
from support.simulated_storage import SimulatedStorage

from engine.files_snapshot import snapshot_files
from engine.session import session_of
from engine.snapshot_run import SnapshotOptions
from engine.stream_snapshot import snapshot_command
from engine.verify import verify_repository
from repo_store.key_ops import add_slot
from repo_store.repository import open_repository

NAMES = ("unmistakable-directory", "unmistakable-file-name", "unmistakable-host", "unmistakable-series")
NAMES += ("unmistakable-tag", "unmistakable-argument", "unmistakable-stream")
CONTENT = b"unmistakable content " * 300
PASSPHRASE = "unmistakable passphrase"


def secrets(folder: Path, key: bytes, ring_keys: list[bytes]) -> Iterator[bytes]:
    for secret in (key, *ring_keys):
        yield secret
        yield secret.hex().encode()
    yield CONTENT[:21]
    yield PASSPHRASE.encode()
    yield str(folder).encode()
    yield from (name.encode() for name in NAMES)


def test_nothing_that_is_secret_stands_in_an_object_or_in_the_cache(tmp_path: Path) -> None:
    world = make_world(tmp_path / "hosts")
    places = world.places()
    tree = write_tree(tmp_path / NAMES[0], {NAMES[1]: CONTENT, "other": CONTENT[7:]})
    storage = SimulatedStorage(world.disk)
    repository = open_repository(storage, world.key_file, str(places.state_dir), operation="write")
    add_slot(repository, secret=cheap(PASSPHRASE), role="owner", label="", now_ns=1)
    add_slot(repository, secret=KeyFiles().new(), role="writer", label="", now_ns=1)
    session = session_of(repository, places, operation="write")
    options = SnapshotOptions(host=NAMES[2], series=NAMES[3], tags=(NAMES[4],))
    snapshot_files(session, [str(tree)], options=options)
    snapshot_command(session, NAMES[6].encode(), ["echo", NAMES[5]], options=SnapshotOptions(host=NAMES[2]))
    verify_repository(session, data=True)

    ring = repository.ring
    epoch = ring.epochs[ring.epoch]
    assert ring.owner_private is not None and epoch.data_private is not None
    keys = [ring.id_key, ring.chunker_key, epoch.metadata_key, epoch.data_private, ring.owner_private]
    keys += [epoch.data_private[:32], epoch.data_private[32:64], ring.signing_key.private_bytes_raw()]
    hidden = list(secrets(tmp_path, world.key_file.key, keys))

    stored = {name: name.encode() + data for name, data in world.disk.objects().items()}
    kept = {str(path): path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    assert any("index" in name for name in kept) and any("manifests" in name for name in kept)
    seen = [
        (where, secret) for where, data in {**stored, **kept}.items() for secret in hidden if secret in data
    ]
    assert seen == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    assert any(secret in b"...unmistakable content ..." for secret in secrets(tmp_path, bytes(32), []))
    assert any(secret in bytes(32).hex().encode() for secret in secrets(tmp_path, bytes(32), []))
