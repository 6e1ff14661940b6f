"""holdfast manifests, show, ls and cat: what is in the repository, without restoring it."""

import os
from pathlib import Path

import pytest
from support.cli import Cli, damage, lines


@pytest.fixture
def tree(cli: Cli) -> Path:
    """A repository, and a tree with one of each, at a known time."""
    cli.init()
    cli.write("tree/a", "a" * 3000)
    cli.write("tree/b/c")
    os.symlink("../a", "tree/b/link")
    os.mkfifo("tree/pipe", 0o640)
    for path in ("tree/a", "tree/b/c", "tree/b/link", "tree/b", "tree/pipe", "tree"):
        os.chown(path, 4_000_000_000, 4_000_000_001, follow_symlinks=False) if os.geteuid() == 0 else None
        os.utime(path, ns=(0, 1_700_000_000_123_456_789), follow_symlinks=False)
        if path != "tree/b/link":
            os.chmod(path, 0o750 if os.path.isdir(path) else 0o640)
    return cli.directory / "tree"


def test_manifests_lists_what_was_backed_up_oldest_first(cli: Cli) -> None:
    cli.init()
    assert tuple(cli("manifests")) == (0, "", "")
    cli.write("tree/a", "a" * 3000)
    first = cli.snapshot("files", "tree", "--tag", "x", "--tag", "y")
    second = cli.snapshot("stdin", "app.sql", stdin=b"dump")
    series = f"files:vm:{cli.directory}/tree"
    width = len(series)
    assert tuple(cli("manifests")) == (
        0,
        lines(
            f"MANIFEST      END                  FILES     SIZE  STATUS    {'SERIES':<{width}}  TAGS",
            f"<id>  <time>      1  2.9 KiB  complete  {series}  x, y",
            "<id>  <time>      1      4 B  complete  stdin:vm:app.sql",
        ),
        "",
    )
    assert [each["manifest"] for each in cli("manifests", "--json").document] == [first, second]
    for filters in (["--tag", "x", "--tag", "y"], ["--source", "files"], ["--series", series]):
        assert [each["manifest"] for each in cli("manifests", *filters, "--json").document] == [first]
    assert cli("manifests", "--host", "other", "--json").out == "[]\n"


def test_json_of_manifests_has_the_keys_that_scripts_use(cli: Cli) -> None:
    cli.init()
    cli.snapshot("stdin", "app.sql", "--tag", "x", stdin=b"dump")
    (document,) = cli("manifests", "--json").document
    assert sorted(document) == [
        "bytes",
        "end",
        "files",
        "hold_until",
        "host",
        "manifest",
        "new_bytes",
        "sequence",
        "series",
        "source",
        "start",
        "status",
        "stored_bytes",
        "tags",
    ]
    assert {
        key: document[key] for key in ("source", "host", "series", "status", "tags", "files", "bytes")
    } == {
        "source": "stdin",
        "host": "vm",
        "series": "stdin:vm:app.sql",
        "status": "complete",
        "tags": ["x"],
        "files": 1,
        "bytes": 4,
    }


def test_a_damaged_manifest_is_named_and_the_others_are_listed(cli: Cli) -> None:
    cli.init()
    lost = cli.snapshot("stdin", "one", stdin=b"1")
    kept = cli.snapshot("stdin", "two", stdin=b"2")
    damage(cli.directory / "repository" / "manifests" / lost)
    answer = cli("manifests", "--json", "--cache-dir", "another")
    assert (answer.code, [each["manifest"] for each in answer.document]) == (4, [kept])
    assert answer.err.startswith(f"holdfast: warning: manifests/{lost}: damaged: ")


def test_show_tells_all_of_one_manifest(cli: Cli, tree: Path) -> None:
    before = cli.snapshot("files", "tree")
    cli.snapshot("files", "tree", "--tag", "x", "--hold-until", "2100-01-01")
    shown = cli("show", "latest")
    assert (shown.code, shown.err) == (0, "")
    assert tuple(shown)[1] == lines(
        "manifest    <id>",
        "status      complete",
        f"series      files:vm:{tree}, number 2",
        "source      files on vm",
        f"root        tree from {tree}",
        "time        <time>, took <s>",
        "content     2 files, 2.9 KiB",
        "added       0 B new, 0 B stored",
        "signed by   slot <slot>",
        "tags        x",
        "hold until  <time>",
        "previous    <id>",
    )
    assert before in shown.out
    assert "2100-01-01 00:00:00" in shown.out
    document = cli("show", before[:6], "--json").document
    assert (document["manifest"], document["previous"], document["forks"]) == (before, None, [])
    assert document["roots"] == [{"name": "tree", "path": str(tree)}]


def test_show_names_a_fork(cli: Cli) -> None:
    """Two runs of one series at once: the second began before the first committed."""
    cli.init()
    running = cli.start("snapshot", "stdin", "x", "--series", "s", "-q", stdin=-1)
    assert running.stdin is not None
    running.stdin.write(b"slow" * 100_000)
    running.stdin.flush()  # more than the pipe holds was taken, so the run has looked for its predecessor
    quick = cli.snapshot("stdin", "x", "--series", "s", stdin=b"quick")
    running.communicate(b"end")
    slow = next(each["manifest"] for each in cli("manifests", "--json").document if each["manifest"] != quick)
    assert cli("show", quick, "--json").document["forks"] == [slow]
    assert f"fork        {slow} follows the same manifest\n" in cli("show", quick).out


def test_ls_prints_one_line_for_each_entry(cli: Cli, tree: Path) -> None:
    cli.snapshot("files", "tree")
    assert tuple(cli("ls", "latest")) == (
        0,
        lines("tree", "tree/a", "tree/b", "tree/b/c", "tree/b/link", "tree/pipe"),
        "",
    )
    assert cli("ls", "latest", "tree/b/", "tree/a").out == lines(
        "tree/b", "tree/b/c", "tree/b/link", "tree/a"
    )
    assert tuple(cli("ls", "latest", "tree/no")) == (
        2,
        "",
        "holdfast: tree/no: not in manifest <id>\nhint: `holdfast ls` prints what is\n",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="sets owners")
def test_ls_long(cli: Cli, tree: Path) -> None:
    cli.snapshot("files", "tree")
    owner = "4000000000 4000000001"
    assert cli("ls", "latest", "-l").out == lines(
        f"drwxr-x--- {owner}            0 2023-11-14 22:13:20 tree",
        f"-rw-r----- {owner}         3000 2023-11-14 22:13:20 tree/a",
        f"drwxr-x--- {owner}            0 2023-11-14 22:13:20 tree/b",
        f"-rw-r----- {owner}            0 2023-11-14 22:13:20 tree/b/c",
        f"lrwxrwxrwx {owner}            0 2023-11-14 22:13:20 tree/b/link -> ../a",
        f"prw-r----- {owner}            0 2023-11-14 22:13:20 tree/pipe",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="sets owners")
def test_ls_json_is_one_document(cli: Cli, tree: Path) -> None:
    manifest = cli.snapshot("files", "tree")
    document = cli("ls", "latest", "tree/b/link", "--json").document
    assert document == {
        "manifest": manifest,
        "entries": [
            {
                "path": "tree/b/link",
                "kind": "symlink",
                "size": 0,
                "mode": "0777",
                "uid": 4_000_000_000,
                "gid": 4_000_000_001,
                "user": None,
                "group": None,
                "mtime": "2023-11-14T22:13:20.123456Z",
                "target": "../a",
            }
        ],
    }
    kinds = [each["kind"] for each in cli("ls", "latest", "--json").document["entries"]]
    assert kinds == ["directory", "file", "directory", "file", "symlink", "fifo"]


def test_what_ls_prints_can_be_given_to_cat(cli: Cli) -> None:
    cli.init()
    name = os.fsencode(cli.directory) + b"/tree/\xff\n\\n\x1b[2J"
    os.mkdir(os.path.dirname(name))
    with open(name, "wb") as file:
        file.write(b"content")
    cli.snapshot("files", "tree")
    shown = cli("ls", "latest").out.splitlines()
    assert shown == ["tree", r"tree/\xff\n\\n\x1b[2J"]
    assert tuple(cli("cat", "latest", shown[1])) == (0, "content", "")


def test_cat_refuses_what_has_no_bytes(cli: Cli, tree: Path) -> None:
    cli.snapshot("files", "tree")
    assert tuple(cli("cat", "latest", "tree/b")) == (
        2,
        "",
        "holdfast: tree/b: not a file, so it has no bytes\n",
    )
    assert tuple(cli("cat", "latest", "/")) == (
        2,
        "",
        "holdfast: '/': not a path in a manifest\nhint: `holdfast ls` prints them\n",
    )


def test_cat_of_damaged_content_ends_with_code_4(cli: Cli) -> None:
    cli.init()
    cli.snapshot("stdin", "app.sql", stdin=b"dump" * 10_000)
    for pack in cli.objects("packs"):
        damage(pack)
    answer = cli("cat", "latest", "app.sql")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.count("\n") == 2
    assert answer.err.endswith("\nhint: run `holdfast verify` to see all damage\n")


def test_latest_needs_one_series_and_a_time_picks_from_it(cli: Cli) -> None:
    cli.init()
    early = cli.snapshot("stdin", "a", stdin=b"early")
    end = cli("manifests", "--json").document[0]["end"]
    late = cli.snapshot("stdin", "a", stdin=b"late")
    assert cli("cat", "latest", "a").out == "late"
    assert cli("cat", "latest", "a", "--at", end).out == "early"
    cli.snapshot("stdin", "b", stdin=b"other")
    assert tuple(cli("show", "latest")) == (
        2,
        "",
        "holdfast: 2 series match; name one with --series:\n  stdin:vm:a\n  stdin:vm:b\n"
        "hint: or narrow it down with --source, --host or --tag\n",
    )
    assert cli("show", "latest", "--series", "stdin:vm:a", "--json").document["manifest"] == late
    assert cli("show", early, "--at", end).err == (
        "holdfast: a time is given beside a manifest id\nhint: use `latest` with --at\n"
    )
    missing = cli("show", "latest", "--series", "stdin:vm:a", "--at", "1999-01-01")
    assert (missing.code, missing.err.splitlines()[1]) == (
        2,
        "hint: `holdfast manifests` lists what there is",
    )
