"""holdfast restore."""

import os
from pathlib import Path

import pytest
from support.cli import Cli, damage
from support.trees import compare_trees


@pytest.fixture
def tree(cli: Cli) -> Path:
    """A repository with one snapshot of a small tree."""
    cli.init()
    cli.write("tree/a", "a" * 3000)
    cli.write("tree/b/c", "c" * 200)
    cli.write("tree/b/d", "d")
    cli.snapshot("files", "tree")
    return cli.directory / "tree"


def test_restore_brings_everything_back(cli: Cli, tree: Path) -> None:
    assert tuple(cli("restore", "latest", "--to", "out")) == (
        0,
        "restored manifest <id> to out: 3 files, 3.1 KiB, in <s>\n",
        "",
    )
    assert compare_trees(tree, cli.directory / "out" / "tree") == []


def test_restore_of_some_paths(cli: Cli, tree: Path) -> None:
    answer = cli("restore", "latest", "tree/b/d", "tree/a", "--to", "out", "--json")
    assert (answer.code, answer.err) == (0, "")
    document = answer.document
    assert len(document.pop("manifest")) == 32
    assert document == {
        "status": "complete",
        "to": f"{cli.directory}/out",
        "files": 2,
        "bytes": 3001,
        "problems": [],
        "requests": {},
    }
    assert sorted(os.listdir(cli.directory / "out/tree")) == ["a", "b"]
    assert os.listdir(cli.directory / "out/tree/b") == ["d"]


def test_restore_overwrites_nothing(cli: Cli, tree: Path) -> None:
    cli.write("out/mine", "mine")
    assert tuple(cli("restore", "latest", "--to", "out")) == (
        11,
        "",
        "holdfast: out: is not empty\nhint: restore into a new directory\n",
    )
    assert os.listdir("out") == ["mine"]


def test_restore_of_a_path_that_is_not_there_makes_nothing(cli: Cli, tree: Path) -> None:
    code, out, err = cli("restore", "latest", "tree/no", "--to", "out")
    assert (code, out) == (2, "")
    assert err == "holdfast: tree/no: not in manifest <id>\nhint: `holdfast ls` prints what is\n"
    assert not os.path.exists("out")


def test_restore_of_a_damaged_repository_gives_the_rest_and_says_what_is_lost(cli: Cli, tree: Path) -> None:
    first = set(cli.objects("packs"))
    cli.write("tree/e", "e" * 5000)
    cli.snapshot("files", "tree")
    # The file is in the larger of the new packs; the other holds the tree.
    damage(max(set(cli.objects("packs")) - first, key=lambda path: path.stat().st_size))
    answer = cli("restore", "latest", "--to", "out", "--json")
    assert answer.code == 4
    assert (answer.document["status"], answer.document["files"]) == ("damaged", 3)
    (problem,) = answer.document["problems"]
    assert (problem["path"], problem["kind"]) == ("tree/e", "damaged")
    assert answer.err.splitlines()[-1] == "holdfast: warning: the restore is damaged: 1 problem"
    assert sorted(os.listdir("out/tree")) == ["a", "b"]


def test_an_incomplete_snapshot_is_said_to_be_one(
    cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("engine.sources.files.read_plain", lambda *_, **__: 0)
        patch.setattr("engine.files_snapshot.open_file", unreadable)
        made = cli("snapshot", "files", "tree", "--full-read", "--json")
    assert (made.code, made.document["status"], len(made.document["problems"])) == (3, "incomplete", 3)
    assert cli("restore", made.document["manifest"], "--to", "out").err == (
        f"holdfast: warning: manifest {made.document['manifest'][:12]} is incomplete: "
        "not all of its source is in it\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="sets owners")
def test_owners_by_name_or_by_number(cli: Cli) -> None:
    cli.init()
    path = cli.write("tree/a")
    os.chown(path, 1, 1)
    cli.snapshot("files", "tree")
    for option in ([], ["--numeric-ids"]):
        to = f"out{len(option)}"
        assert cli("restore", "latest", *option, "--no-xattrs", "--to", to).code == 0
        assert os.stat(f"{to}/tree/a").st_uid == 1
