"""Where settings come from: the command line before the environment before holdfast.toml."""

import os
from pathlib import Path

import pytest
from support.cli import Cli

from cli.given import GlobalOptions
from cli.settings import KeyForm, KeySource, resolve
from repo_store.errors import Refused, UsageError


@pytest.fixture(autouse=True)
def in_an_empty_directory(cli: Cli) -> None:
    """No holdfast.toml lies around, and the environment that is looked at is the one a test gives."""


def key_of(given: GlobalOptions, **environment: str) -> KeySource | None:
    return resolve(given, environment).key


@pytest.mark.parametrize("name", ["repository", "cache_dir", "state_dir"])
def test_an_option_counts_before_a_variable_and_that_before_the_file(name: str) -> None:
    Path("holdfast.toml").write_text(f'{name} = "/file"\n')
    variable = {f"HOLDFAST_{name.upper()}": "/variable"}
    option = GlobalOptions(**{name: "/option"})
    found = [
        getattr(resolve(*each), name)
        for each in ((option, variable), (GlobalOptions(), variable), (GlobalOptions(), {}))
    ]
    assert found == ["/option", "/variable", "/file"]


def test_an_empty_variable_is_none() -> None:
    assert resolve(GlobalOptions(), {"HOLDFAST_REPOSITORY": ""}).repository is None


@pytest.mark.parametrize("form", [KeyForm.KEY_FILE, KeyForm.PASSPHRASE_FILE, KeyForm.PASSPHRASE_COMMAND])
def test_a_key_in_any_form_overrides_all_forms_of_weaker_places(form: KeyForm) -> None:
    Path("holdfast.toml").write_text('key_file = "/file"\n')
    option = GlobalOptions(**{form.value: "/option"})
    name = form.value
    assert key_of(option, HOLDFAST_PASSPHRASE="p") == KeySource(
        form, "/option", f"--{name.replace('_', '-')}"
    )
    variable = f"HOLDFAST_{name.upper()}"
    assert key_of(GlobalOptions(), **{variable: "/variable"}) == KeySource(form, "/variable", variable)
    assert key_of(GlobalOptions()) == KeySource(KeyForm.KEY_FILE, "/file", "key_file in holdfast.toml")


def test_two_keys_in_one_place_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^--key-file and --passphrase-command are both given$"):
        key_of(GlobalOptions(key_file="a", passphrase_command="b"))
    with pytest.raises(UsageError, match=r"^HOLDFAST_KEY_FILE and HOLDFAST_PASSPHRASE are both given$"):
        key_of(GlobalOptions(), HOLDFAST_KEY_FILE="a", HOLDFAST_PASSPHRASE="b")


def test_cache_and_state_follow_xdg(home: Path) -> None:
    settings = resolve(GlobalOptions(), {"XDG_CACHE_HOME": "/xdg/cache", "XDG_STATE_HOME": "not absolute"})
    assert settings.cache_dir == "/xdg/cache/holdfast"
    assert settings.state_dir == str(home / ".local/state/holdfast")


def test_paths_in_the_file_are_relative_to_it(home: Path) -> None:
    os.mkdir("etc")
    Path("etc/mine.toml").write_text('repository = "../backups"\nkey_file = "~/key"\n')
    settings = resolve(GlobalOptions(config="etc/mine.toml"), {})
    assert settings.repository == f"{os.getcwd()}/etc/../backups"
    assert settings.location == f"{os.getcwd()}/backups"
    assert settings.key is not None
    assert settings.key.value == str(home / "key")
    Path("etc/mine.toml").write_text('repository = "s3://bucket/prefix"\n')
    assert resolve(GlobalOptions(config="etc/mine.toml"), {}).location == "s3://bucket/prefix"


def test_the_file_of_the_user_is_read_where_the_directory_has_none(home: Path) -> None:
    path = home / ".config/holdfast/holdfast.toml"
    path.parent.mkdir(parents=True)
    path.write_text('repository = "/users"\n')
    environment = {"XDG_CONFIG_HOME": str(home / ".config")}
    assert resolve(GlobalOptions(), environment).repository == "/users"
    assert resolve(GlobalOptions(), {}).repository == "/users"
    Path("holdfast.toml").write_text('repository = "/here"\n')
    assert resolve(GlobalOptions(), environment).repository == "/here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('repositry = "x"', "holdfast.toml: unknown setting 'repositry'"),
        ("repository = 3", "holdfast.toml: repository is not a text in quotes"),
        ('repository = ""', "holdfast.toml: repository is not a text in quotes"),
        ("repository", "holdfast.toml: is not TOML: "),
        ('key_file = "~nobody-of-this-name/x"', "key_file: ~nobody-of-this-name/x: there is no such home"),
    ],
)
def test_a_file_with_a_mistake_is_refused(text: str, message: str) -> None:
    Path("holdfast.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve(GlobalOptions(), {})
    assert str(caught.value).startswith(message)


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(UsageError, match=r"^no\.toml: cannot be read: no such file or directory$"):
        resolve(GlobalOptions(config="no.toml"), {})


def test_a_file_that_others_may_write_is_read_only_if_it_is_named() -> None:
    path = Path("holdfast.toml")
    path.write_text('passphrase_command = "touch hello"\n')
    path.chmod(0o666)
    with pytest.raises(Refused, match=r"others than you may write to it, so it is not read by itself$"):
        resolve(GlobalOptions(), {})
    assert key_of(GlobalOptions(config="holdfast.toml")) is not None
    path.chmod(0o644)
    assert key_of(GlobalOptions()) is not None
    if os.geteuid() == 0:
        os.chown(path, 1, 1)
        with pytest.raises(Refused):
            resolve(GlobalOptions(), {})


def test_a_secret_is_not_in_what_python_shows_of_the_settings() -> None:
    assert "hunter2" not in repr(resolve(GlobalOptions(), {"HOLDFAST_PASSPHRASE": "hunter2"}))
