"""holdfast snapshot files."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli

from cli import snapshot_report


def contents(cli: Cli) -> list[str]:
    return cli("ls", "latest").out.splitlines()


def test_a_first_and_an_unchanged_snapshot(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "a" * 3000)
    cli.write("tree/b/c", "c")
    assert tuple(cli("snapshot", "files", "tree")) == (
        0,
        "snapshot <id>: 2 files, 2.9 KiB; 2.9 KiB new, <size> stored, in <s>\n",
        "",
    )
    assert tuple(cli("snapshot", "files", "tree")) == (
        0,
        "snapshot <id>: 2 files, 2.9 KiB; 0 B new, 0 B stored, in <s>\n",
        "",
    )
    assert tuple(cli("snapshot", "files", "tree", "--quiet")) == (0, "", "")


def test_json_says_what_scripts_need(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "a" * 3000)
    answer = cli(
        "snapshot", "files", "tree", "--json", "--tag", "x", "--tag", "y", "--hold-until", "2199-01-01"
    )
    document = answer.document
    assert (answer.code, answer.err) == (0, "")
    varying = [document.pop(name) for name in ("manifest", "start", "end", "stored_bytes")]
    assert len(varying[0]) == 32
    assert varying[1] < varying[2]
    assert varying[1].endswith("Z")
    assert varying[3] > 0
    assert document == {
        "status": "complete",
        "source": "files",
        "host": "vm",
        "series": f"files:vm:{cli.directory}/tree",
        "sequence": 1,
        "tags": ["x", "y"],
        "hold_until": "2199-01-01T00:00:00Z",
        "files": 1,
        "bytes": 3000,
        "new_bytes": 3000,
        "problems": [],
        "changed_while_reading": [],
        "requests": {},
    }


def test_what_the_options_leave_out(cli: Cli) -> None:
    cli.init()
    for name in ("keep", "a.iso", "b.tmp", "cache/CACHEDIR.TAG", "cache/x", "no/.nobackup", "no/x"):
        cli.write(f"tree/{name}", "Signature: 8a477f597d28d172789f06886806bc55")
    cli.write("patterns", "*.tmp\n# a remark\n")
    options = ["--exclude", "*.iso", "--exclude-from", "patterns", "--exclude-caches"]
    cli.snapshot("files", "tree", *options, "--exclude-if-present", ".nobackup", "--one-file-system")
    assert contents(cli) == [
        "tree",
        "tree/cache",
        "tree/cache/CACHEDIR.TAG",
        "tree/keep",
        "tree/no",
        "tree/no/.nobackup",
    ]


def test_roots_with_names_of_their_own(cli: Cli) -> None:
    cli.init()
    cli.write("one/www/a")
    cli.write("two/www/b")
    assert tuple(cli("snapshot", "files", "one/www", "two/www")) == (
        2,
        "",
        f"holdfast: {cli.directory}/one/www and {cli.directory}/two/www would both be stored as www\n"
        "hint: name one of them with --as NAME=PATH\n",
    )
    cli.snapshot("files", "one/www", "--as", "second=two/www")
    assert contents(cli) == ["second", "second/b", "www", "www/a"]
    for wrong in ("second", "=two", "second="):
        assert cli("snapshot", "files", "--as", wrong).err == f"holdfast: --as: {wrong!r} is not NAME=PATH\n"


def test_series_host_and_full_read(cli: Cli) -> None:
    cli.init()
    path = cli.write("tree/a", "before")
    cli.snapshot("files", "tree", "--series", "mine", "--host", "db1")
    status = path.stat()
    path.write_text("after!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    document = cli("snapshot", "files", "tree", "--series", "mine", "--full-read", "--json").document
    assert (document["series"], document["sequence"], document["new_bytes"]) == ("mine", 2, 6)
    assert [each["host"] for each in cli("manifests", "--json").document] == ["db1", "vm"]


def test_xattrs_can_be_left_out(cli: Cli, tmp_path: Path) -> None:
    cli.init()
    path = cli.write("tree/a", "a")
    try:
        os.setxattr(path, "user.colour", b"red")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    cli.snapshot("files", "tree")
    cli.snapshot("files", "tree", "--no-xattrs", "--series", "without", "--full-read")
    cli("restore", "latest", "--series", "without", "--to", "without")
    cli("restore", "latest", "--series", f"files:vm:{tmp_path}/tree", "--to", "with")
    assert os.listxattr(tmp_path / "with/tree/a") == ["user.colour"]
    assert os.listxattr(tmp_path / "without/tree/a") == []


def test_a_file_that_changed_while_it_was_read_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.init()
    cli.write("tree/log", "line")
    monkeypatch.setattr("engine.sources.files.read_plain", lambda *_, **__: 0)
    monkeypatch.setattr("engine.files_snapshot.has_changed", lambda *_: True)
    answer = cli("snapshot", "files", "tree", "--json")
    assert (answer.code, answer.document["changed_while_reading"], answer.document["problems"]) == (
        0,
        ["tree/log"],
        [],
    )
    assert answer.err == "holdfast: tree/log: changed while it was read\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no path is given\nhint: see `holdfast snapshot files --help`"),
        (["tree", "--tag", ""], "--tag: an empty tag"),
        (["tree", "--tag", "a\nb"], "--tag: the value is not printable text on one line"),
        (["tree", "--series", "\udcff"], "--series: the value is not printable text on one line"),
        (["tree", "--hold-until", "2001-01-01"], "--hold-until: 2001-01-01 is past"),
        (["tree", "--hold-until", "2999-01-01"], "2999-01-01: not between the years 1970 and 2262"),
        (["tree", "--hold-until", "soon"], "soon: not a time\nhint: write it like 2026-11-22T10:00:00Z"),
        (["tree", "--exclude-if-present", "a/b"], "--exclude-if-present: 'a/b' is not the name of a file"),
        (["tree", "--exclude-from", "no"], "no: pattern file cannot be read: no such file or directory"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    cli: Cli, args: list[str], message: str
) -> None:
    answer = cli("snapshot", "files", *args)
    assert (answer.code, answer.out, answer.err) == (2, "", f"holdfast: {message}\n")


def test_the_highest_level_of_compression_is_taken_and_the_next_refused(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "a" * 3000)
    cli.snapshot("files", "tree", "--compression", str(snapshot_report.LEVEL_MAX))
    code, _, err = cli("snapshot", "files", "tree", "--compression", "20")
    assert (code, err.splitlines()[0]) == (
        2,
        "holdfast: invalid value for '--compression': it should be less than or equal to 19",
    )


def test_names_that_are_no_text_are_backed_up_and_shown_with_escapes(cli: Cli) -> None:
    cli.init()
    root = os.fsencode(cli.directory) + b"/tr\xffe\n"
    os.mkdir(root)
    document: dict[str, Any] = cli("snapshot", "files", os.fsdecode(root), "--json").document
    assert document["series"] == f"files:vm:{cli.directory}/tr\\xffe\\n"
    assert contents(cli) == ["tr\\xffe\\n"]
    assert cli("show", "latest").code == 0
