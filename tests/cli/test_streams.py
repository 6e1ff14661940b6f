"""stdout and stderr as programs know them: closed, full, read by nobody, of another encoding."""

import os

from support.cli import Cli

from cli.output import duration, one_line, size, table


def test_a_reader_that_has_gone_is_no_error_worth_a_message(cli: Cli) -> None:
    cli.init()
    cli.snapshot("stdin", "x", stdin=b"data" * 100_000)
    for args in (["cat", "latest", "x"], ["manifests"]):
        read_end, write_end = os.pipe()
        os.close(read_end)
        run = cli.start(*args, stdout=write_end)
        os.close(write_end)
        _, err = run.communicate()
        assert (run.returncode, err) == (1, b"")


def test_a_full_disk_under_stdout_is_an_error(cli: Cli) -> None:
    cli.init()
    with open("/dev/full", "wb") as full:
        run = cli.start("doctor", stdout=full)
        _, err = run.communicate()
    assert (run.returncode, err) == (
        1,
        b"holdfast: standard output: cannot write: no space left on device\n",
    )


def test_closed_streams_do_no_harm(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "a")
    assert cli.shell('exec "$0" snapshot files tree <&- >&- 2>&-').code == 0
    assert len(cli("manifests", "--json").document) == 1
    assert cli("verify", "--data").code == 0


def test_a_terminal_without_the_characters_shows_escapes(cli: Cli) -> None:
    cli.init()
    cli.write("tree/grün")
    cli.snapshot("files", "tree")
    answer = cli.shell('"$0" ls latest', env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (answer.code, answer.out) == (0, "tree\ntree/gr\\xfcn\n")


def test_how_numbers_are_shown() -> None:
    sizes = [0, 1023, 1024, 1536, 1024**2 - 1, 1024**2, 5 * 1024**3, 3 * 1024**5, 2000 * 1024**5]
    shown = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "5.0 GiB", "3.0 PiB", "2000.0 PiB"]
    assert [size(each) for each in sizes] == shown
    durations = [0, 2.345, 99.4, 99.5, 250, 11_100]
    assert [duration(each) for each in durations] == [
        "0.0 s",
        "2.3 s",
        "99.4 s",
        "1 min 40 s",
        "4 min 10 s",
        "3 h 5 min",
    ]


def test_nothing_that_is_shown_steers_the_terminal() -> None:
    assert one_line("a\x1b[2J\nb\u202e\udcff") == "a\\x1b[2J\\nb\\u202e\\udcff"
    assert table(("A", "B"), [("x\n", "1"), ("yy", "22")], right=("B",)) == ["A     B", "x\\n   1", "yy   22"]
