"""A stranger with the key and docs/format.md gets everything back: docs/read_repository.py, and nothing of ours.

The reader runs as a program of its own, with nothing of the project on its path, and what it wrote is compared with
what was backed up, bit for bit. What it does not do by its own word (owners, attributes, hard links, fifos and
devices) is left out of the comparison by name.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.repositories import CHEAP
from support.sessions import tree_content, write_tree
from support.trees import compare_trees, describe_tree, make_hostile_tree

from engine.files_snapshot import snapshot_files
from engine.session import Places, Session, open_session
from engine.snapshot_run import SnapshotOptions
from engine.stream_snapshot import snapshot_stdin
from repo_store.key_file import KeyFile, NewKeyFile, write_key_file
from repo_store.key_ops import add_slot
from repo_store.local_storage import LocalStorage
from repo_store.passphrase import Passphrase
from repo_store.repository import create_repository

READER = Path(__file__).parents[2] / "docs" / "read_repository.py"
NOT_RESTORED = ("uid", "gid", "xattrs", "group")
LINES_MAX = 300


class Local:
    """A repository in a directory, and the key in a file beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.key_path = folder, folder / "repository", folder / "key"
        saved: list[KeyFile] = []
        storage = LocalStorage.create(str(self.root))
        self.repository = create_repository(
            storage, secret=NewKeyFile(saved.append), label="", now_ns=1
        ).repository
        self.key_file = saved[0]
        write_key_file(self.key_path, self.key_file)

    def session(self) -> Session:
        places = Places(self.folder / "cache", self.folder / "state")
        return open_session(str(self.root), lambda _: self.key_file, places, operation="write")

    def read(
        self, manifest: str, target: Path, key: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        arguments = [str(self.root), str(key or self.key_path), manifest, str(target)]
        # -I: neither the current directory nor PYTHONPATH, so nothing of the project can be imported.
        return subprocess.run(
            [sys.executable, "-I", str(READER), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return Local(tmp_path)


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))


def test_the_reader_is_short_and_imports_nothing_of_the_project() -> None:
    text = READER.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    imported = {
        line.split()[1].partition(".")[0]
        for line in text.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert not imported & {"cli", "engine", "repo_store", "chunker"}


def test_a_hostile_tree_comes_back_bit_for_bit(local: Local, tmp_path: Path) -> None:
    make_hostile_tree(tmp_path / "tree")
    manifest = snapshot_files(local.session(), [str(tmp_path / "tree")]).manifest
    done = local.read("latest", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    differences = compare_trees(tmp_path / "tree", tmp_path / "out" / "tree", ignore=NOT_RESTORED)
    left_out = {"fifo", "char", "block"}
    assert all(line.endswith("only before") for line in differences), differences
    assert all(any(name in line for name in left_out) for line in differences), differences
    assert done.stderr.count("skipped") == len(differences)
    assert manifest.status == "complete"


def test_holes_stay_holes(local: Local, tmp_path: Path) -> None:
    make_hostile_tree(tmp_path / "tree")
    snapshot_files(local.session(), [str(tmp_path / "tree" / "sparse")])
    assert local.read("latest", tmp_path / "out").returncode == 0
    for path, found in describe_tree(tmp_path / "out" / "sparse").items():
        if stat.S_ISREG(found.kind):
            assert found.size >= 4 << 20
            assert found.blocks <= 64 * 1024, f"{path!r} takes {found.blocks} bytes on disk"


def test_every_manifest_of_a_history_comes_back_by_its_id(local: Local, tmp_path: Path) -> None:
    states = []
    for number in range(3):
        tree = write_tree(
            tmp_path / "tree", {f"f{n}": os.urandom(200 * n + number) for n in range(number, 9)}
        )
        manifest = snapshot_files(local.session(), [str(tree)]).manifest
        states.append((manifest.id.hex(), tree_content(tree)))
    for manifest_id, content in states:
        out = tmp_path / f"out-{manifest_id}"
        assert local.read(manifest_id[:12], out).returncode == 0
        assert tree_content(out / "tree") == content


def test_a_stream_with_a_content_tree_comes_back(local: Local, tmp_path: Path) -> None:
    data = os.urandom(3 << 20) + bytes(2 << 20)
    (tmp_path / "stream").write_bytes(data)
    with open(tmp_path / "stream", "rb") as file:
        snapshot_stdin(local.session(), b"dump.sql", file.fileno())
    assert local.read("latest", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "dump.sql").read_bytes() == data


def test_a_passphrase_opens_it_too(local: Local, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"alpha"})
    snapshot_files(local.session(), [str(tree)])
    secret = Passphrase("Gr\u00fc\u00dfe", CHEAP)
    add_slot(local.session().repository, secret=secret, role="owner", label="second", now_ns=2)
    # The same text in another normal form: keyboards differ, NFC makes them one.
    (tmp_path / "right").write_text("Gru\u0308\u00dfe\n")
    (tmp_path / "wrong").write_text("something else\n")
    assert local.read("latest", tmp_path / "out", tmp_path / "right").returncode == 0
    assert tree_content(tmp_path / "out" / "tree") == tree_content(tree)
    refused = local.read("latest", tmp_path / "no", tmp_path / "wrong")
    assert refused.returncode == 1
    assert "the key opens no slot" in refused.stderr


def test_one_damaged_copy_costs_nothing_and_is_named(local: Local, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {f"f{n}": os.urandom(5000) for n in range(5)})
    snapshot_files(local.session(), [str(tree)])
    slot = local.key_file.slot
    for name in ("config/0", f"keys/{slot}-0.copy", f"keys/{slot}.1"):
        damage(local.root / name, 200)
    packs = sorted(local.root.glob("packs/??/*"), key=lambda path: path.read_bytes()[-11])
    damage(packs[-1], 30)  # kind 11: one of the two copies of the metadata
    done = local.read("latest", tmp_path / "out")
    assert tree_content(tmp_path / "out" / "tree") == tree_content(tree)
    assert (done.returncode, "config/0" in done.stderr) == (1, True)


def test_a_lost_chunk_costs_its_file_and_is_named(local: Local, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"lost": os.urandom(5000)})
    snapshot_files(local.session(), [str(tree)])
    kept = write_tree(tmp_path / "tree", {"kept": os.urandom(5000)})
    before = set(local.root.glob("packs/??/*"))
    snapshot_files(local.session(), [str(kept)])
    (data,) = [path for path in before if path.read_bytes()[-11] == 10]
    damage(data, 30)
    done = local.read("latest", tmp_path / "out")
    assert (done.returncode, "tree/lost" in done.stderr) == (1, True)
    assert {path.name for path in (tmp_path / "out" / "tree").iterdir()} == {"kept"}


def test_several_series_want_a_manifest_by_name(local: Local, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"alpha"})
    for series in ("one", "two"):
        snapshot_files(local.session(), [str(tree)], options=SnapshotOptions(series=series))
    refused = local.read("latest", tmp_path / "out")
    assert (refused.returncode, "not one series" in refused.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
