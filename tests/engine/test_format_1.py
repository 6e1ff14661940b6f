"""The repository of format 1 that is kept for ever: whatever this version is, it reads it, and so can a stranger.

tests/repositories/make_format_1.py made it and says what is in it. What a later version may have written is made from it
by hand, and refused by name: flags, kinds, codecs, suites and formats that this version does not know.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.packs import resealed
from support.sessions import tree_content, write_tree
from support.slow_repository import SlowRepository, secrets_of

from engine.files_snapshot import snapshot_files
from engine.problems import ProblemKind
from engine.reading_back import list_entries, read_content
from engine.restore import restore_manifest
from engine.session import Places, Session, open_session
from engine.snapshot_run import SnapshotOptions
from engine.target import TargetOptions
from engine.verify import verify_repository
from repo_store.config_chain import append_config
from repo_store.entry import EntryKind
from repo_store.errors import HoldfastError, ObjectDamaged, Refused
from repo_store.frame import Codec
from repo_store.key_file import read_key_file
from repo_store.local_storage import LocalStorage
from repo_store.pack_reader import read_directory
from repo_store.passphrase import Passphrase
from repo_store.sealed import Kind, seal_object
from repo_store.signed_map import build_signed

KEPT = Path(__file__).parents[1] / "repositories" / "format-1"
READER = Path(__file__).parents[2] / "docs" / "read_repository.py"
BYTES_MAX = 300_000
EXPECTED: dict[str, Any] = json.loads((KEPT / "expected.json").read_text())


@dataclass
class Copy:
    """A copy of the repository that a test may change. Each session is that of a host that has never seen it."""

    folder: Path
    hosts: int = 0

    @property
    def root(self) -> Path:
        return self.folder / "repository"

    def session(self, operation: str = "read", key: str = "owner.key") -> Session:
        self.hosts += 1
        places = Places(self.folder / f"cache-{self.hosts}", self.folder / f"state-{self.hosts}")
        credential = read_key_file(KEPT / key).key_file
        return open_session(str(self.root), lambda _: credential, places, operation=operation)

    def objects(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}

    def replace(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of an object, as only a test may."""
        (self.root / name).unlink(missing_ok=True)
        (self.root / name).write_bytes(data)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    shutil.copytree(KEPT / "repository", tmp_path / "copy" / "repository")
    return Copy(tmp_path / "copy")


def described(session: Session) -> dict[str, Any]:
    """Return of the product what expected.json holds of the slow repository."""
    found: dict[str, Any] = {}
    for manifest in session.read_manifests().live:
        body = manifest.to_body()
        entries = []
        for path, entry in list_entries(session, manifest):
            data = b""
            if entry.kind in (EntryKind.FILE, EntryKind.STREAM):
                data = b"".join(read_content(session, manifest, path))
            extra = entry.extra or {}
            entries.append(
                {
                    "path": [component.hex() for component in path],
                    "fields": list(entry[1:9]),
                    "extra": {key: repr(extra[key]) for key in sorted(extra)},
                    "content": blake3(data).hexdigest(),
                }
            )
        keys = ("series", "sequence", "status", "host", "source", "start", "tags")
        found[manifest.id.hex()] = {
            "fields": {key: body[key] for key in keys},
            "roots": [[name.hex(), path.hex()] for name, path in body["roots"]],
            "problems": body["problems"],
            "entries": entries,
        }
    return found


def test_the_repository_is_small_and_holds_all_that_it_should() -> None:
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < BYTES_MAX
    fields = [manifest["fields"] for manifest in EXPECTED.values()]
    assert {field["series"] for field in fields} == {"files", "frames", "incomplete", "stream"}
    assert {field["status"] for field in fields} == {"complete", "partial", "incomplete"}
    folders = {path.relative_to(KEPT / "repository").parts[0] for path in files if "repository" in path.parts}
    assert folders >= {
        "config",
        "keys",
        "packs",
        "tables",
        "pending",
        "manifests",
        "forgotten",
        "notes",
        "gc",
        "ledger",
    }


def test_frames_with_a_base_and_carried_frames_are_really_in_it(copy: Copy) -> None:
    session = copy.session()
    codecs, keys = set(), []
    for info in session.storage.list("packs/"):
        directory = read_directory(session.storage, session.ring, bytes.fromhex(info.name[-64:]), info.size)
        codecs |= {frame.codec for frame in directory.frames}
        keys.append(len(directory.keys))
    assert codecs == set(Codec)
    assert max(keys) > 1, "several keys: carried from other packs"
    assert set(session.ring.epochs) == {1, 2}


@pytest.mark.parametrize("key", ["key file", "passphrase"])
def test_every_manifest_has_its_entries_and_contents(copy: Copy, key: str) -> None:
    if key == "key file":
        session = copy.session()
    else:
        secret = Passphrase((KEPT / "passphrase").read_text().rstrip("\n"))
        places = Places(copy.folder / "cache", copy.folder / "state")
        session = open_session(str(copy.root), lambda _: secret, places)
    assert described(session) == EXPECTED
    assert session.warnings == []


def test_the_slow_repository_reads_the_same(copy: Copy) -> None:
    slow = SlowRepository(copy.objects(), secrets_of(copy.session().ring))
    assert set(slow.manifests()) == set(EXPECTED)
    for manifest_id, body in slow.manifests().items():
        found = [(path, row[1:9], blake3(slow.content(row)).hexdigest()) for path, row in slow.entries(body)]
        assert found == [
            (tuple(map(bytes.fromhex, entry["path"])), entry["fields"], entry["content"])
            for entry in EXPECTED[manifest_id]["entries"]
        ]


@pytest.mark.parametrize("manifest_id", EXPECTED)
def test_the_independent_reader_restores_what_the_product_restores(
    copy: Copy, tmp_path: Path, manifest_id: str
) -> None:
    session = copy.session()
    result = restore_manifest(
        session,
        session.read_manifests().find(manifest_id),
        str(tmp_path / "ours"),
        options=TargetOptions(durable=False),
    )
    assert not [problem for problem in result.problems if problem.kind == ProblemKind.DAMAGED]
    arguments = [str(copy.root), str(KEPT / "owner.key"), manifest_id, str(tmp_path / "theirs")]
    done = subprocess.run(
        [sys.executable, "-I", str(READER), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "theirs") == _files(tmp_path / "ours")


def _files(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("data", [False, True])
def test_it_is_found_whole(copy: Copy, data: bool) -> None:
    report = verify_repository(copy.session("verify"), data=data)
    assert (report.status, report.damaged) == ("ok", {})
    assert report.manifests == len(EXPECTED)


def test_a_writer_sees_what_it_may_and_reads_no_contents(copy: Copy) -> None:
    session = copy.session("write", "writer.key")
    manifests = session.read_manifests()
    assert {m.id.hex() for m in manifests.live} == set(EXPECTED)
    manifest = next(m for m in manifests.live if m.source == "stdin")
    assert [path for path, _ in list_entries(session, manifest)] == [(b"dump.sql",)]
    with pytest.raises(Refused, match="has the role writer, which cannot read contents"):
        b"".join(read_content(session, manifest, (b"dump.sql",)))


@pytest.mark.parametrize("key", ["owner.key", "writer.key"])
def test_a_snapshot_can_be_added(copy: Copy, tmp_path: Path, key: str) -> None:
    tree = write_tree(tmp_path / "tree", {"new": b"of a later version", "large": bytes(range(256)) * 1000})
    options = SnapshotOptions(series="files", host="host")
    manifest = snapshot_files(copy.session("write", key), [str(tree)], options=options).manifest
    assert manifest.sequence == 1 + max(
        m["fields"]["sequence"] for m in EXPECTED.values() if m["fields"]["series"] == "files"
    )
    session = copy.session()
    out = tmp_path / "out"
    restore_manifest(session, session.read_manifests().find(manifest.id.hex()), str(out))
    assert tree_content(out / "tree") == tree_content(tree)
    known = described(session)
    del known[manifest.id.hex()]
    assert known == EXPECTED, "and the others are as they were"


# What a later version may write.


def _with_flag(copy: Copy, operation: str) -> None:
    session = copy.session()
    config, owner = session.repository.config, session.ring.owner_private
    assert owner is not None
    features = {operation: ["holographic-packs"]}
    append_config(session.storage, config, owner, created_ns=1, changes={"features": features})


@pytest.mark.parametrize(
    ("flagged", "refused", "allowed"), [("read", "read", "write"), ("write", "write", "read")]
)
def test_an_unknown_feature_stops_the_operation_that_needs_it_and_no_other(
    copy: Copy, flagged: str, refused: str, allowed: str
) -> None:
    _with_flag(copy, flagged)
    with pytest.raises(
        Refused, match="this repository needs the feature 'holographic-packs', which this version"
    ):
        copy.session(refused)
    copy.session(allowed)
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            str(READER),
            str(copy.root),
            str(KEPT / "owner.key"),
            "latest",
            str(copy.folder / "x"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("holographic-packs" in done.stderr) == (flagged == "read")


def _later_config(copy: Copy) -> str:
    session = copy.session()
    ring, config = session.ring, session.repository.config
    assert ring.owner_private is not None
    owner = Ed25519PrivateKey.from_private_bytes(ring.owner_private)
    body = {**config.body, "format": 2, "number": config.number + 1, "previous": config.digest}
    copy.replace(f"config/{config.number + 1}", build_signed("config", body, owner, ring.owner_public))
    return "repository has format 2; this version reads up to 1"


def test_a_repository_of_a_later_format_is_refused_by_its_number(copy: Copy) -> None:
    message = _later_config(copy)
    with pytest.raises(Refused, match=message):
        copy.session()


def _manifest_of_format_2(copy: Copy, session: Session) -> tuple[str, str]:
    manifest = session.read_manifests().newest("frames")
    assert manifest is not None
    name = f"manifests/{manifest.id.hex()}"
    copy.replace(
        name, seal_object(session.ring, Kind.MANIFEST, manifest.to_body() | {"format": 2}, subject=name)
    )
    return name, "has format 2; this version reads up to 1"


def _manifest_of_an_unknown_kind(copy: Copy, session: Session) -> tuple[str, str]:
    manifest = session.read_manifests().newest("frames")
    assert manifest is not None
    name = f"manifests/{manifest.id.hex()}"
    data = bytearray((copy.root / name).read_bytes())
    data[5] = 99
    copy.replace(name, bytes(data))
    return name, "kind 99 does not belong there"


def _sealed_object_of_format_2(copy: Copy, session: Session) -> tuple[str, str]:
    name = "gc/0000000002.mark"
    data = bytearray((copy.root / name).read_bytes())
    data[4] = 2
    copy.replace(name, bytes(data))
    return name, "has format 2; this version reads up to 1"


def _pack(copy: Copy, session: Session, change: Callable[[dict[str, Any]], object]) -> str:
    """Put a pack whose directory says what only a later version understands beside the others."""
    pack = next(
        data
        for name, data in sorted(copy.objects().items())
        if name.startswith("packs/") and data[-11] == Kind.DATA_DIRECTORY
    )
    changed = resealed(session.ring, pack, change)
    shown = blake3(changed).hexdigest()
    name = f"packs/{shown[:2]}/{shown}"
    (copy.root / name).parent.mkdir(exist_ok=True)
    copy.replace(name, changed)
    return name


def _pack_with_an_unknown_codec(copy: Copy, session: Session) -> tuple[str, str]:
    def change(body: dict[str, Any]) -> None:
        body["frames"] = body["frames"][:2] + b"\x09" + body["frames"][3:]

    return _pack(copy, session, change), "uses codec 9, which this version does not know"


def _pack_with_an_unknown_suite(copy: Copy, session: Session) -> tuple[str, str]:
    def change(body: dict[str, Any]) -> None:
        body["keys"][0][2] = 7

    return _pack(copy, session, change), "uses suite 7, which this version does not know"


LATER = {
    "a manifest of a later format": _manifest_of_format_2,
    "an object of an unknown kind": _manifest_of_an_unknown_kind,
    "a sealed object of a later format": _sealed_object_of_format_2,
    "a pack with an unknown codec": _pack_with_an_unknown_codec,
    "a pack with an unknown suite": _pack_with_an_unknown_suite,
}


@pytest.mark.parametrize("what", LATER)
def test_it_is_named_and_costs_only_itself(copy: Copy, what: str) -> None:
    name, reason = LATER[what](copy, copy.session())
    report = verify_repository(copy.session("verify"))
    assert set(report.damaged) == {name}
    assert reason in report.damaged[name].reason
    known = described(copy.session())
    left = {key: value for key, value in EXPECTED.items() if f"manifests/{key}" != name}
    assert known == left


def test_a_writer_stops_at_a_record_of_garbage_collection_of_a_later_version(
    copy: Copy, tmp_path: Path
) -> None:
    name, reason = _sealed_object_of_format_2(copy, copy.session())
    with pytest.raises(ObjectDamaged, match=reason) as refused:
        snapshot_files(copy.session("write"), [str(write_tree(tmp_path / "t", {"a": b"a"}))])
    assert refused.value.name == name


def test_an_epoch_of_an_unknown_suite_is_refused_by_its_number(copy: Copy) -> None:
    session = copy.session()
    config, owner = session.repository.config, session.ring.owner_private
    assert owner is not None
    epochs = [*config.body["epochs"][:-1], {**config.body["epochs"][-1], "suite": 2}]
    with pytest.raises(HoldfastError, match="epoch 2 uses the suite 2, which this version does not know"):
        append_config(session.storage, config, owner, created_ns=1, changes={"epochs": epochs})
    assert LocalStorage(str(copy.root)).info(f"config/{config.number}"), "and it was not even written"
