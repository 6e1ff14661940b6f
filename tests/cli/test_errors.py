"""Every way in which holdfast cannot do what it is asked to has its own message and exit code."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import Cli, as_nobody, damage
from support.repositories import sign_config

from cli.exit_codes import exit_code_of
from repo_store.errors import HoldfastError, ObjectConflict, StorageError


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody can reach and write to, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-shared-"))
    path.chmod(0o777)
    yield path
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)


def test_a_wrong_passphrase(cli: Cli) -> None:
    cli.patch.delenv("HOLDFAST_KEY_FILE")
    cli.patch.setenv("HOLDFAST_PASSPHRASE", "right")
    cli.init()
    assert tuple(cli("manifests", env={"HOLDFAST_PASSPHRASE": "wrong"})) == (
        12,
        "",
        f"holdfast: {cli.directory}/repository: the passphrase opens no slot of this repository\n",
    )


def test_the_key_file_of_another_repository(cli: Cli) -> None:
    cli.init()
    cli("init", "-r", "other", "--key-file", "other-key")
    assert tuple(cli("manifests", "--key-file", "other-key")) == (
        12,
        "",
        "holdfast: the key file is of repository <slot>, and this is <slot>\n",
    )


def test_a_file_that_is_no_key_file(cli: Cli) -> None:
    cli.init()
    cli.write("nonsense", "hello")
    assert tuple(cli("manifests", "--key-file", "nonsense")) == (
        12,
        "",
        "holdfast: nonsense: not a key file of holdfast\n"
        "hint: a key file is one line that starts with holdfast-key-1; compare it with the recovery sheet\n",
    )
    assert tuple(cli("manifests", "--key-file", "missing")) == (
        1,
        "",
        "holdfast: missing: cannot read: no such file or directory\n",
    )


def test_no_key_at_all(cli: Cli) -> None:
    cli.init()
    cli.patch.delenv("HOLDFAST_KEY_FILE")
    assert tuple(cli("manifests")) == (
        2,
        "",
        "holdfast: no key or passphrase is given, and there is no terminal to ask on\n"
        "hint: use --key-file, --passphrase-file or --passphrase-command, or set HOLDFAST_PASSPHRASE\n",
    )


def test_a_place_where_no_repository_is(cli: Cli) -> None:
    assert tuple(cli("manifests")) == (
        10,
        "",
        f"holdfast: {cli.directory}/repository: no such directory\n",
    )
    cli.write("repository/README")
    assert tuple(cli("manifests")) == (
        10,
        "",
        f"holdfast: {cli.directory}/repository: no repository there\nhint: `holdfast init` makes one\n",
    )
    cli.patch.delenv("HOLDFAST_REPOSITORY")
    assert tuple(cli("manifests")) == (
        2,
        "",
        "holdfast: no repository is given\n"
        "hint: use --repository, HOLDFAST_REPOSITORY, or `repository` in holdfast.toml\n",
    )


def test_a_repository_of_a_later_format(cli: Cli) -> None:
    cli.init()
    for name in ("config/1", "config/1.copy"):
        cli.write(f"repository/{name}", sign_config({"format": 2}, os.urandom(32)))
    assert tuple(cli("manifests")) == (
        11,
        "",
        "holdfast: repository has format 2; this version reads up to 1\nhint: use a newer version of holdfast\n",
    )


def test_a_kind_of_storage_that_is_not_known(cli: Cli) -> None:
    for args in (["init"], ["manifests"]):
        assert tuple(cli(*args, "-r", "gs://bucket/prefix")) == (
            2,
            "",
            "holdfast: gs://bucket/prefix: storage of the kind 'gs' is not known to this version\n"
            "hint: give the path of a directory, or s3://bucket/prefix\n",
        )


def test_a_repository_that_may_not_be_entered(cli: Cli, shared: Path) -> None:
    repository = shared / "repository"
    repository.mkdir(mode=0o000)
    answer = as_nobody(["manifests", "-r", str(repository)], shared, {"HOME": str(shared)})
    assert answer.code == 1
    assert answer.out == ""
    assert answer.err == (
        f"holdfast: {repository}: cannot open: permission denied\n"
        "hint: check who owns the directory, and its permissions and attributes\n"
    )


def test_a_file_that_may_not_be_read_makes_the_snapshot_incomplete(cli: Cli, shared: Path) -> None:
    settings = {
        "HOME": str(shared),
        "HOLDFAST_REPOSITORY": str(shared / "repository"),
        "HOLDFAST_KEY_FILE": str(shared / "key"),
        "XDG_CACHE_HOME": "",
        "XDG_STATE_HOME": "",
        "XDG_CONFIG_HOME": "",
    }
    made = as_nobody(["init", "-q"], shared, settings)
    assert made.code == 0, made
    tree = shared / "tree"
    tree.mkdir(mode=0o755)
    for name in ("open", "secret"):
        (tree / name).write_text(name)
    (tree / "secret").chmod(0o000)
    answer = as_nobody(["snapshot", "files", str(tree)], shared, settings)
    assert tuple(answer) == (
        3,
        "snapshot <id>: 1 file, 4 B; 4 B new, <size> stored, in <s>\n",
        "holdfast: tree/secret: cannot be read: permission denied\n"
        "holdfast: warning: the snapshot is incomplete: 1 problem\n",
    )
    answer = as_nobody(["snapshot", "files", str(tree), "--json"], shared, settings)
    assert (answer.code, answer.document["status"], answer.document["problems"]) == (
        3,
        "incomplete",
        [{"path": "tree/secret", "message": "cannot be read: permission denied", "kind": "incomplete"}],
    )


def test_a_source_that_is_not_there(cli: Cli) -> None:
    cli.init()
    assert tuple(cli("snapshot", "files", "missing")) == (
        1,
        "",
        f"holdfast: {cli.directory}/missing: no such file or directory\n",
    )
    assert cli("manifests", "--json").document == []


def test_both_copies_of_the_key_damaged(cli: Cli) -> None:
    cli.init()
    for path in cli.objects("keys"):
        damage(path)
    answer = cli("manifests")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.splitlines()[1] == (
        "hint: no intact slot opens with this key or passphrase; another one may still open the repository"
    )


def test_a_manifest_that_is_not_there(cli: Cli) -> None:
    cli.init()
    assert tuple(cli("show", "abc")) == (
        2,
        "",
        "holdfast: abc: no such manifest\nhint: `holdfast manifests` lists them\n",
    )
    assert tuple(cli("show", "latest")) == (
        2,
        "",
        "holdfast: no complete manifest matches\nhint: `holdfast manifests` lists what there is\n",
    )


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["nonsense"], "no such command 'nonsense'", "see `holdfast --help`"),
        (["manifest"], "no such command 'manifest'", "did you mean 'manifests'?"),
        (["key"], "missing command", "see `holdfast key --help`"),
        (["verify", "--xyzzy"], "no such option: --xyzzy", "see `holdfast verify --help`"),
        (["verify", "--dat"], "no such option: --dat", "did you mean --data?"),
        (["ls"], "missing argument 'MANIFEST'", "see `holdfast ls --help`"),
    ],
)
def test_what_holdfast_does_not_understand(cli: Cli, args: list[str], message: str, hint: str) -> None:
    assert tuple(cli(*args)) == (2, "", f"holdfast: {message}\nhint: {hint}\n")
    answer = cli(*args, "--json")
    assert answer.document == {"error": message, "hint": hint, "exit_code": 2}


def test_a_bug_is_one_line_too_and_a_traceback_if_asked_for(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.init()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("Division\nby zero")

    monkeypatch.setattr("engine.stats.repository_stats", broken)
    message = (
        "holdfast: ZeroDivisionError: division by zero\n"
        "hint: this is a bug of holdfast: please report it, with what HOLDFAST_DEBUG=1 in the environment shows\n"
    )
    assert tuple(cli("stats")) == (1, "", message)
    code, _, err = cli("stats", env={"HOLDFAST_DEBUG": "1"})
    assert (code, err.startswith("Traceback"), err.endswith(message)) == (1, True, True)


def test_errors_with_no_class_of_their_own_are_failures() -> None:
    assert exit_code_of(StorageError("no space")) == 1
    assert exit_code_of(HoldfastError("anything")) == 1
    assert exit_code_of(ObjectConflict("packs/x")) == 11
