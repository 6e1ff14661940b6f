"""holdfast diff: what it says and how it ends."""

import os
import shutil

import pytest
from support.cli import Cli, damage, lines


@pytest.fixture
def two(cli: Cli) -> tuple[str, str]:
    """Two snapshots of a tree with a change of every kind between them."""
    cli.init()
    for name, data in (("keep", "same"), ("gone", "12345"), ("edit", "old"), ("mode", ""), ("kind", "file")):
        cli.write(f"tree/{name}", data)
    cli.write("tree/linked/one", "both")
    os.link("tree/linked/one", "tree/linked/two")
    for each in ("one", "two", "."):
        os.utime(f"tree/linked/{each}", ns=(0, 10**18))
    name = os.fsencode(cli.directory) + b"/tree/\xff\n"
    with open(name, "wb"):
        pass
    for each in ("keep", "gone", "edit", "mode", "kind"):
        os.chmod(f"tree/{each}", 0o644)
        os.utime(f"tree/{each}", ns=(0, 10**18))
    os.utime("tree", ns=(0, 10**18))
    before = cli.snapshot("files", "tree")
    os.unlink("tree/gone")
    os.unlink("tree/kind")
    os.symlink("keep", "tree/kind")
    cli.write("tree/edit", "newer")
    cli.write("tree/new/file", "1234567")
    os.chmod("tree/mode", 0o600)
    shutil.copy2("tree/keep", "tree/x")  # another inode and ctime is no change
    os.replace("tree/x", "tree/keep")  # noqa: PTH105
    for each in ("one", "two"):
        os.unlink(f"tree/linked/{each}")
    cli.write("tree/linked/one", "both")  # another inode, so another number for the two
    os.link("tree/linked/one", "tree/linked/two")
    for each in ("one", "."):
        os.utime(f"tree/linked/{each}", ns=(0, 10**18))
    os.unlink(name)
    os.utime("tree/edit", ns=(0, 10**18 + 1))
    os.utime("tree", ns=(0, 10**18))
    return before, cli.snapshot("files", "tree")


def test_every_kind_of_change_has_its_sign(cli: Cli, two: tuple[str, str]) -> None:
    before, after = two
    assert tuple(cli("diff", before[:8], "latest")) == (
        0,
        lines(
            "M tree/edit",
            "- tree/gone",
            "T tree/kind",
            "U tree/mode",
            "+ tree/new",
            "+ tree/new/file",
            r"- tree/\xff\n",
        ),
        "",
    )
    assert cli("diff", after, before, "tree/new", "tree/new/file", "tree/gone").out == lines(
        "+ tree/gone", "- tree/new", "- tree/new/file"
    )


def test_long_lines_say_what_changed(cli: Cli, two: tuple[str, str]) -> None:
    out = cli("diff", *two, "-l").out.splitlines()
    assert out[:2] == ["M tree/edit  [content, size 3 to 5, mtime]", "- tree/gone  [5 B]"]
    assert out[2].startswith("T tree/kind  [kind, content, size 4 to 0, mode 0644 to 0777, mtime, target]")
    assert out[3:5] == ["U tree/mode  [mode 0644 to 0600]", "+ tree/new"]


def test_json_has_counts_bytes_and_the_list(cli: Cli, two: tuple[str, str]) -> None:
    before, after = two
    document = cli("diff", before, after, "--json").document
    changes = document.pop("changes")
    assert document == {
        "before": before,
        "after": after,
        "counts": {"added": 2, "removed": 2, "type": 1, "content": 1, "metadata": 1},
        "bytes": {"added": 7, "removed": 5, "changed_before": 7, "changed_after": 5},
    }
    assert changes[0] == {
        "path": "tree/edit",
        "change": "content",
        "fields": ["content", "size", "mtime"],
        "size_before": 3,
        "size_after": 5,
    }
    assert [each["change"] for each in changes] == [
        "content", "removed", "type", "metadata", "added", "added", "removed",
    ]  # fmt: skip
    assert cli("diff", before, after, "--stat", "--json").document["changes"] == []


def test_stat_prints_the_sums_alone(cli: Cli, two: tuple[str, str]) -> None:
    assert cli("diff", *two, "--stat").out == lines(
        "added     2 paths, 7 B",
        "removed   2 paths, 5 B",
        "changed   2 paths, 7 B to 5 B",
        "metadata  1 path",
    )


def test_a_manifest_does_not_differ_from_itself(cli: Cli, two: tuple[str, str]) -> None:
    assert tuple(cli("diff", two[1], "latest")) == (0, "", "")
    assert cli("diff", two[1], two[1], "--json").document["changes"] == []


def test_a_path_that_neither_has_is_refused(cli: Cli, two: tuple[str, str]) -> None:
    assert tuple(cli("diff", *two, "tree/no")) == (
        2,
        "",
        "holdfast: tree/no: not in manifest <id>\nhint: `holdfast ls` prints what is\n",
    )
    answer = cli("diff", *two, "tree/no", "--json")
    assert (answer.code, answer.document["exit_code"]) == (2, 2)


def test_a_damaged_tree_ends_with_code_4(cli: Cli, two: tuple[str, str]) -> None:
    for pack in cli.objects("packs"):
        damage(pack)
    answer = cli("diff", *two, "--json", "--cache-dir", "another")
    assert (answer.code, answer.document["exit_code"]) == (4, 4)


def test_a_time_is_for_the_one_that_is_latest(cli: Cli, two: tuple[str, str]) -> None:
    before, after = two
    end = next(m["end"] for m in cli("manifests", "--json").document if m["manifest"] == before)
    assert cli("diff", after, "latest", "--at", end, "--json").document["after"] == before
