"""holdfast snapshot stdin and holdfast snapshot command."""

import random

from support.cli import Cli

MESSAGE_NO_SNAPSHOT = "no snapshot was made"


def test_cat_gives_back_what_came_in_on_stdin(cli: Cli) -> None:
    cli.init()
    data = random.Random(1).randbytes(3_000_000)
    made = cli.call("snapshot", "stdin", "app.sql", "--json", input=data)
    assert (made.code, made.document["bytes"], made.document["source"]) == (0, len(data), "stdin")
    reading = cli.start("cat", made.document["manifest"][:8], "app.sql")
    out, err = reading.communicate()
    assert (reading.returncode, out == data, err) == (0, True, b"")


def test_an_empty_stream_is_a_snapshot_too(cli: Cli) -> None:
    cli.init()
    assert tuple(cli("snapshot", "stdin", "nothing", stdin=b"")) == (
        0,
        "snapshot <id>: 1 file, 0 B; 0 B new, <size> stored, in <s>\n",
        "",
    )
    assert tuple(cli("cat", "latest", "nothing")) == (0, "", "")


def test_a_command_that_succeeds(cli: Cli) -> None:
    cli.init()
    made = cli("snapshot", "command", "greeting", "--json", "--", "sh", "-c", "echo hello; echo --json")
    assert (made.code, made.document["source"], made.document["series"]) == (
        0,
        "command",
        "command:vm:greeting",
    )
    assert tuple(cli("cat", "latest", "greeting")) == (0, "hello\n--json\n", "")
    shown = cli("show", "latest", "--json").document
    assert (shown["command"], shown["exit_status"]) == (["sh", "-c", "echo hello; echo --json"], 0)


def test_a_command_that_fails_leaves_no_manifest(cli: Cli) -> None:
    cli.init()
    assert tuple(cli("snapshot", "command", "x", "--", "sh", "-c", "echo a; exit 3")) == (
        1,
        "",
        f"holdfast: sh -c 'echo a; exit 3': exited with status 3; {MESSAGE_NO_SNAPSHOT}\n",
    )
    assert tuple(cli("snapshot", "command", "x", "--", "sh", "-c", "echo a; kill -9 $$")) == (
        1,
        "",
        f"holdfast: sh -c 'echo a; kill -9 $$': died of signal 9; {MESSAGE_NO_SNAPSHOT}\n",
    )
    assert tuple(cli("snapshot", "command", "x", "--", "no-such-program")) == (
        1,
        "",
        "holdfast: no-such-program: cannot be started: no such file or directory\n",
    )
    assert cli("manifests", "--json").document == []


def test_what_a_command_says_on_stderr_is_passed_through(cli: Cli) -> None:
    cli.init()
    answer = cli.call("snapshot", "command", "x", "-q", "--", "sh", "-c", "echo careful >&2")
    assert (answer.code, answer.out, answer.err) == (0, "", "careful\n")


def test_a_name_must_be_that_of_a_file(cli: Cli) -> None:
    cli.init()
    assert tuple(cli("snapshot", "stdin", "a/b", stdin=b"")) == (
        2,
        "",
        "holdfast: a/b: cannot be the name of a stream\nhint: use a plain file name\n",
    )
    code, _, err = cli("snapshot", "command", "name")
    assert (code, err.splitlines()[0]) == (2, "holdfast: missing argument '-- CMD'")


def test_a_closed_stdin_is_no_empty_stream(cli: Cli) -> None:
    cli.init()
    program = 'exec "$0" snapshot stdin x <&-'
    answer = cli.shell(program)
    assert (answer.code, answer.out, answer.err) == (2, "", "holdfast: standard input is closed\n")


def test_a_tar_stream_is_split_into_its_members(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "content")
    cli.write("tree/b/c")
    made = cli("snapshot", "command", "t.tar", "--tar", "--json", "--", "tar", "-c", "tree")
    assert (made.code, made.document["files"], made.document["problems"]) == (0, 2, [])
    assert cli("ls", "latest").out == "t.tar\nt.tar/tree\nt.tar/tree/a\nt.tar/tree/b\nt.tar/tree/b/c\n"
    assert cli("cat", "latest", "t.tar/tree/a").out == "content"
    assert cli("restore", "latest", "t.tar/tree/a", "--to", "out").code == 0
    assert (cli.directory / "out/t.tar/tree/a").read_text() == "content"


def test_a_tar_stream_that_is_none_or_breaks_off_leaves_no_manifest(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "x" * 100_000)
    assert tuple(cli("snapshot", "stdin", "t", "--tar", stdin=b"\x1f\x8b" * 600)) == (
        1,
        "",
        "holdfast: this is no tar stream: invalid header; no snapshot was made\n"
        "hint: a compressed one must be unpacked on its way, like `gzip -dc x.tar.gz | holdfast snapshot stdin …`\n",
    )
    broken = cli.shell('tar -c tree | head -c 50000 | "$0" snapshot stdin t --tar')
    assert (broken.code, broken.out) == (1, "")
    assert broken.err == f"holdfast: the tar stream ends in the middle of a member; {MESSAGE_NO_SNAPSHOT}\n"
    assert cli("manifests", "--json").document == []


def test_a_member_that_is_left_out_makes_the_snapshot_incomplete(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "x")
    tar = ["tar", "-c", "-P", "--transform", "s,tree/a,../a,", "tree"]
    made = cli("snapshot", "command", "t", "--tar", "--", *tar)
    assert (made.code, made.err) == (
        3,
        "holdfast: t/../a: left out: its name leads out of the archive\n"
        "holdfast: warning: the snapshot is incomplete: 1 problem\n",
    )
