"""holdfast restore --in-place and --overwrite."""

import os
from pathlib import Path

import pytest
from support.cli import Cli
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


def test_in_place_brings_back_what_differs(cli: Cli, tree: Path) -> None:
    assert cli("restore", "latest", "--to", "copy").code == 0
    cli.write("tree/a", "edited")
    (tree / "b/d").unlink()
    cli.write("tree/extra", "extra")
    answer = cli("restore", "latest", "--in-place")
    assert tuple(answer) == (
        0,
        "restored manifest <id> in place: 2 files written, 2.9 KiB, 1 unchanged, 0 deleted, 0 skipped, in <s>\n",
        "",
    )
    assert cli("restore", "latest", "--in-place", "--delete").code == 0
    assert compare_trees(tree, cli.directory / "copy" / "tree") == []


def test_a_dry_run_lists_and_changes_nothing(cli: Cli, tree: Path) -> None:
    cli.write("tree/a", "edited")
    (tree / "b/d").unlink()
    cli.write("tree/extra/file", "extra")
    arguments = ("restore", "latest", "--in-place", "--delete", "--dry-run")
    answer = cli(*arguments, "--json")
    document = answer.document
    assert (answer.code, len(document.pop("manifest"))) == (0, 32)
    assert sorted((each["action"], each["path"]) for each in document.pop("changes")) == [
        ("create", "tree/b/d"),
        ("delete", "tree/extra"),
        ("delete", "tree/extra/file"),
        ("metadata", "tree"),
        ("metadata", "tree/b"),
        ("rewrite", "tree/a"),
    ]
    assert document == {
        "status": "complete",
        "to": None,
        "dry_run": True,
        "restored": 2,
        "unchanged": 1,
        "deleted": 2,
        "skipped": 0,
        "counts": {"create": 1, "rewrite": 1, "metadata": 2, "delete": 2},
        "files": 2,
        "bytes": 3001,
        "problems": [],
        "requests": {},
    }
    lines = cli(*arguments).out.splitlines()
    assert "delete    tree/extra/file" in lines and lines[-1].startswith("would restore manifest ")
    assert (tree / "a").read_text() == "edited" and sorted(os.listdir(tree)) == ["a", "b", "extra"]


def test_never_adds_what_is_missing_and_touches_nothing_else(cli: Cli, tree: Path) -> None:
    cli.write("out/tree/a", "mine")
    answer = cli("restore", "latest", "--to", "out", "--overwrite", "never", "--json")
    assert (answer.code, answer.document["restored"], answer.document["skipped"]) == (0, 2, 1)
    assert answer.document["to"] == f"{cli.directory}/out"
    assert Path("out/tree/a").read_text() == "mine" and Path("out/tree/b/d").read_text() == "d"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give either --to or --in-place"),
        (("--to", "out", "--in-place"), "give either --to or --in-place"),
        (("--to", "out", "--delete"), "--delete needs --in-place or --overwrite"),
        (("--to", "out", "--dry-run"), "--dry-run needs --in-place or --overwrite"),
    ],
)
def test_options_that_make_no_sense(cli: Cli, tree: Path, options: tuple[str, ...], message: str) -> None:
    assert tuple(cli("restore", "latest", *options)) == (2, "", f"holdfast: {message}\n")
    assert sorted(os.listdir(tree)) == ["a", "b"] and not os.path.exists("out")


def test_another_hosts_snapshot_is_not_restored_in_place(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a")
    assert cli("snapshot", "files", "tree", "--host", "elsewhere").code == 0
    cli.write("tree/a", "mine")
    code, _, err = cli("restore", "latest", "--in-place")
    assert code == 11 and "is of host elsewhere, and this is " in err
    assert "use --to DIR --overwrite changed" in err and Path("tree/a").read_text() == "mine"


def test_what_opens_the_repository_is_never_deleted(cli: Cli) -> None:
    """The repository and its key lie in the very tree, and are newer than the snapshot."""
    cli.write("tree/a")
    cli.init()
    cli.snapshot("files", "tree")
    Path("repository").rename("tree/repository")
    Path("key").rename("tree/key")
    where = ("--repository", "tree/repository", "--key-file", "tree/key")
    assert cli("restore", "latest", "--in-place", "--delete", *where).code == 0
    assert cli("verify", "--data", *where).code == 0


def test_a_stream_has_no_place_of_its_own(cli: Cli) -> None:
    cli.init()
    assert cli("snapshot", "stdin", "dump", stdin=b"content").code == 0
    answer = cli("restore", "latest", "--in-place")
    assert answer.code == 11 and "has no place of its own" in answer.err
    assert cli("restore", "latest", "--to", "out", "--overwrite", "changed").code == 0
    assert Path("out/dump").read_bytes() == b"content"
