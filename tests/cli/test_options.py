"""Global options stand anywhere; help, version and completion say what there is."""

import subprocess
import sys

import pytest
from support.cli import Cli, lines

COMMANDS = [
    "init",
    "snapshot files",
    "snapshot stdin",
    "snapshot command",
    "manifests",
    "show",
    "ls",
    "cat",
    "restore",
    "verify",
    "tag",
    "hold",
    "forget",
    "stats",
    "doctor",
    "key list",
    "key add",
    "key remove",
    "key change-passphrase",
    "key export",
    "completion",
]


@pytest.mark.parametrize(
    "args",
    [
        ["-r", "other", "--json", "key", "list"],
        ["key", "-r", "other", "--json", "list"],
        ["key", "list", "-r", "other", "--json"],
        ["-r", "nowhere", "key", "--json", "list", "--repository", "other"],
    ],
)
def test_a_global_option_may_stand_anywhere_and_the_last_one_counts(cli: Cli, args: list[str]) -> None:
    assert cli("init", "-r", "other", "-q", "--label", "other").code == 0
    assert cli(*args).document[0]["label"] == "other"


def test_what_follows_two_dashes_belongs_to_the_command(cli: Cli) -> None:
    cli.init()
    answer = cli("snapshot", "command", "x", "--quiet", "--", "echo", "--json", "--", "-r")
    assert (answer.code, answer.out) == (0, "")
    assert cli("cat", "latest", "x").out == "--json -- -r\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_examples(cli: Cli, name: str) -> None:
    code, out, err = cli(*name.split(), "--help")
    assert (code, err) == (0, "")
    usage, _, rest = out.partition("\n\n")
    assert usage.startswith(f"Usage: holdfast {name} [OPTIONS]")
    assert rest.split("\n")[0].strip().rstrip(".")
    options, _, examples = rest.partition("\nGlobal options, anywhere on the line:\n")
    assert "  --help" in options
    assert "  -r, --repository PATH " in examples
    _, _, examples = examples.partition("\n  Examples:\n")
    shown = examples.splitlines()
    assert shown
    assert all(line.startswith("    ") for line in shown)
    assert any(f"holdfast {name}" in line for line in shown)


def test_holdfast_alone_is_a_help_in_the_order_of_use(cli: Cli) -> None:
    code, out, err = cli()
    assert (code, err) == (0, "")
    assert cli("--help").out == out
    _, _, section = out.partition("\nCommands:\n")
    names = [line.split()[0] for line in section.partition("\n\n")[0].splitlines()]
    assert names == [
        "init",
        "snapshot",
        "manifests",
        "show",
        "ls",
        "find",
        "cat",
        "diff",
        "mount",
        "restore",
        "verify",
        "git",
        "tag",
        "hold",
        "forget",
        "prune",
        "stats",
        "doctor",
        "key",
        "completion",
    ]


def test_version(cli: Cli) -> None:
    assert tuple(cli("--version")) == (0, "holdfast 0.1.0\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_holdfast(cli: Cli, shell: str) -> None:
    answer = cli("completion", shell)
    assert (answer.code, answer.err) == (0, "")
    assert "_HOLDFAST_COMPLETE=complete_" in answer.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=answer.out.encode(), check=False).returncode == 0


def test_the_shell_is_told_the_commands_and_options(cli: Cli) -> None:
    def completed(words: str) -> list[str]:
        answer = cli.shell(
            '"$0"',
            env={
                "_HOLDFAST_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
                "PATH": "/usr/bin:/bin",
            },
        )
        return answer.out.split()

    assert completed("holdfast ma") == ["manifests"]
    assert completed("holdfast snapshot files --exclude-i") == ["--exclude-if-present"]
    assert completed("holdfast key list --jso") == ["--json"]


def test_a_shell_without_a_script_is_refused(cli: Cli) -> None:
    code, out, err = cli("completion", "csh")
    assert (code, out, err.splitlines()[0].startswith("holdfast: invalid value for 'bash|zsh|fish'")) == (
        2,
        "",
        True,
    )


@pytest.mark.parametrize("args", ["--version", "--help", "snapshot --help"])
def test_what_needs_no_engine_does_not_wait_for_it(args: str) -> None:
    program = (
        "import sys\nfrom cli.main import main\n"
        f"main({args.split()!r})\n"
        "heavy = {'boto3', 'psycopg', 'cryptography', 'blake3', 'zstandard', 'rich', 'engine'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == lines("[]")
