"""holdfast init: the repository, the key file and the recovery sheet."""

import stat

from support.cli import Cli, lines

SHEET_END = (
    "",
    "Keep this apart from the machine that is backed up: whoever has it can do what this slot can.",
    "To restore, install holdfast and name the location with --repository.",
    "{use}",
    "If every key and passphrase of the repository is lost, so are the backups: holdfast keeps no",
    "other way in and nobody can recover them.",
)
KEY_USE = "Put the key, as one line, into a file and name that with --key-file or HOLDFAST_KEY_FILE."
PASSPHRASE_USE = "It asks for the passphrase, or takes it from HOLDFAST_PASSPHRASE."


def sheet(cli: Cli, secret: str, use: str) -> list[str]:
    return [
        "holdfast recovery sheet",
        "",
        f"location    {cli.directory}/repository",
        "repository  <hash>",
        "slot        <slot>",
        secret,
        *(line.format(use=use) for line in SHEET_END),
    ]


def test_init_makes_a_key_file_and_prints_the_recovery_sheet(cli: Cli) -> None:
    code, out, err = cli("init", "--key-file", "key")
    assert (code, err) == (0, "")
    assert out == lines(
        f"a new repository is in {cli.directory}/repository",
        "its key is in key",
        "print the following and keep it in another place:",
        "",
        *sheet(cli, "key         <key>", KEY_USE),
    )
    key = cli.directory / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert cli("manifests") == cli("manifests", "--key-file", "key")


def test_what_the_sheet_says_opens_the_repository(cli: Cli) -> None:
    sheet_text = cli("init").out
    line = next(line for line in sheet_text.splitlines() if line.startswith("key  "))
    cli.write("typed", line.removeprefix("key").strip().upper())
    (cli.directory / "typed").chmod(0o600)
    assert tuple(cli("manifests", "--key-file", "typed")) == (0, "", "")


def test_init_with_a_passphrase(cli: Cli) -> None:
    cli.patch.delenv("HOLDFAST_KEY_FILE")
    code, out, err = cli("init", env={"HOLDFAST_PASSPHRASE": "secret"})
    assert (code, err) == (0, "")
    assert out == lines(
        f"a new repository is in {cli.directory}/repository",
        "print the following and keep it in another place:",
        "",
        *sheet(cli, "passphrase  ______________________________ (write it here, by hand)", PASSPHRASE_USE),
    )


def test_quiet_leaves_the_sheet_and_json_is_the_sheet_as_data(cli: Cli) -> None:
    assert tuple(cli("init", "-q"))[1] == lines(*sheet(cli, "key         <key>", KEY_USE))
    cli.patch.setenv("HOLDFAST_REPOSITORY", str(cli.directory / "other"))
    made = cli("init", "--key-file", "key2", "--label", "first", "--json")
    document = made.document
    assert document.pop("sheet").startswith("holdfast recovery sheet\n\nlocation    ")
    assert document.pop("key") == (cli.directory / "key2").read_text().strip()
    assert [len(document.pop(name)) for name in ("repository", "slot")] == [64, 16]
    assert document == {"location": f"{cli.directory}/other", "label": "first", "key_file": "key2"}
    assert cli("key", "list", "--key-file", "key2", "--json").document[0]["label"] == "first"


def test_init_where_there_is_a_repository_is_refused(cli: Cli) -> None:
    cli.init()
    before = [path.read_bytes() for path in cli.objects()]
    assert tuple(cli("init", "--key-file", "another")) == (
        11,
        "",
        f"holdfast: {cli.directory}/repository: a repository exists there already\n",
    )
    assert [path.read_bytes() for path in cli.objects()] == before
    assert not (cli.directory / "another").exists()


def test_a_key_file_is_never_overwritten(cli: Cli) -> None:
    cli.write("key", "mine")
    assert tuple(cli("init")) == (
        11,
        "",
        f"holdfast: {cli.directory}/key: exists already, and a key file is never overwritten\n"
        "hint: choose another name, or remove it if you know that no repository needs it\n",
    )
    assert (cli.directory / "key").read_text() == "mine"
    assert cli("manifests").code == 10
