"""How a storage is reached: limits and the settings of S3, each by option, variable and holdfast.toml."""

from pathlib import Path

import pytest
from support.cli import Cli, lines

from cli.given import GlobalOptions
from cli.rate import parse_rate
from cli.settings import resolve
from repo_store.errors import UsageError
from repo_store.rate_limit import RateLimit
from repo_store.s3_options import S3Options


@pytest.fixture(autouse=True)
def in_an_empty_directory(cli: Cli) -> None:
    """No holdfast.toml lies around."""


TEXTS = {
    "limit_upload": ("upload_bytes_per_second", ("1M", 1 << 20), ("500K", 512_000), ("2000", 2000)),
    "limit_download": ("download_bytes_per_second", ("1G", 1 << 30), ("1.5M", 1_572_864), ("3KiB/s", 3072)),
    "s3_endpoint": ("endpoint", *(2 * (url,) for url in ("https://a", "http://b:9000", "https://c/path"))),
    "s3_region": ("region", *(2 * (name,) for name in ("eu-central-1", "us-east-1", "garage"))),
    "s3_storage_class": ("storage_class", *(2 * (name,) for name in ("STANDARD_IA", "GLACIER_IR", "X"))),
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_option_counts_before_a_variable_and_that_before_the_file(name: str) -> None:
    field, by_option, by_variable, by_file = TEXTS[name]
    Path("holdfast.toml").write_text(f'{name} = "{by_file[0]}"\n')
    variable = {f"HOLDFAST_{name.upper()}": str(by_variable[0])}
    option = GlobalOptions(**{name: str(by_option[0])})  # type: ignore[arg-type]
    found = [
        getattr(resolve(*each).storage, field)
        for each in ((option, variable), (GlobalOptions(), variable), (GlobalOptions(), {}))
    ]
    assert found == [by_option[1], by_variable[1], by_file[1]]


def test_encryption_by_the_server_is_one_setting_or_two() -> None:
    assert resolve(GlobalOptions(s3_encryption="AES256"), {}).storage == S3Options(encryption="AES256")
    with_key = {"HOLDFAST_S3_ENCRYPTION": "aws:kms", "HOLDFAST_S3_KMS": "alias/backups"}
    expected = S3Options(encryption="aws:kms", kms_key_id="alias/backups")
    assert resolve(GlobalOptions(), with_key).storage == expected


def test_without_settings_the_storage_is_as_it_always_was() -> None:
    assert resolve(GlobalOptions(), {}).storage == S3Options()


def test_a_bundle_of_authorities_in_the_file_is_relative_to_it() -> None:
    Path("etc").mkdir()
    Path("etc/mine.toml").write_text('s3_ca_bundle = "ca.pem"\n')
    found = resolve(GlobalOptions(config="etc/mine.toml"), {}).storage.ca_bundle
    assert found == str(Path("etc/ca.pem").absolute())


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["--limit-upload", "fast"], "limit upload: 'fast' is not a rate",
         "bytes per second, such as 500K or 20M (20 MiB)"),
        (["--limit-download", "-5M"], "limit download: '-5M' is not a rate",
         "bytes per second, such as 500K or 20M (20 MiB)"),
        (["--limit-upload", "5"], "limit upload: '5' is less than 1K, too slow for any backup", None),
        (["--s3-endpoint", "s3.example.org"], "'s3.example.org': not the URL of a server",
         "an endpoint is a URL, such as https://s3.example.org"),
        (["--s3-region", "no such"], "'no such': not a region", "a region is a word such as eu-central-1"),
        (["--s3-storage-class", "cheap"], "'cheap': not a storage class", None),
        (["--s3-storage-class", "GLACIER"],
         "GLACIER: objects of this class cannot be read at once, so no backup could be restored",
         "GLACIER_IR costs about as little and can"),
        (["--s3-encryption", "rot13"], "'rot13': not an encryption of the server", 'use "AES256" or "aws:kms"'),
        (["--s3-kms", "alias/x"], 'a KMS key needs the encryption "aws:kms"', None),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_in_one_line(
    cli: Cli, args: list[str], message: str, hint: str | None
) -> None:
    expected = [f"holdfast: {message}", *([f"hint: {hint}"] if hint else [])]
    assert tuple(cli("manifests", *args)) == (2, "", lines(*expected))


@pytest.mark.parametrize(
    "endpoint",
    ["https://", "ftp://host", "https://user:word@host", "https://host?x=1", "https://host:0",
     "https://host:99999", "https://ho st", "https://host\n"],
)  # fmt: skip
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a server"):
        S3Options(endpoint=endpoint)


def test_units_are_those_of_1024_in_any_case() -> None:
    for text in ("20M", "20m", "20 MiB", "20MB/s", " 20M "):
        assert parse_rate(text, "limit") == 20 * 1024 * 1024


@pytest.mark.parametrize(
    ("where", "message"),
    [("nowhere.pem", "nowhere.pem: cannot be read: no such file or directory"), ("key", "key: holds no certificates")],
)  # fmt: skip
def test_authorities_that_are_none_are_said_at_once(cli: Cli, where: str, message: str) -> None:
    cli.write("key", "no certificate")
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    server = ("-r", "s3://bucket", "--s3-endpoint", "https://127.0.0.1:9")
    answers = [
        cli("manifests", *server, "--s3-ca-bundle", where, env=environment),
        cli("manifests", *server, env=environment | {"AWS_CA_BUNDLE": where}),
    ]
    for answer in answers:
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.splitlines()[0] == f"holdfast: {message}"
        assert answer.err.splitlines()[1].startswith("hint: ")


def test_a_limit_holds_for_a_directory_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int | None, int]] = []
    monkeypatch.setattr(RateLimit, "take", lambda self, count: taken.append((self._rate, count)))
    cli.init()
    cli.write("tree/file", bytes(range(256)) * 400)
    assert taken == [], "nobody asked for a limit"
    assert cli("snapshot", "files", "tree", "-q", "--limit-upload", "1G", "--limit-download", "2G").code == 0
    stored = sum(path.stat().st_size for path in cli.objects("packs"))
    assert sum(count for rate, count in taken if rate == 1 << 30) >= stored > 0
    taken.clear()
    assert cli("restore", "latest", "--to", "back", "-q", "--limit-download", "2G").code == 0
    assert sum(count for rate, count in taken if rate == 2 << 30) > 1000
    assert (cli.directory / "back/tree/file").read_bytes() == bytes(range(256)) * 400


def test_requests_are_none_where_there_is_no_server(cli: Cli) -> None:
    cli.init()
    cli.write("tree/file")
    assert cli("snapshot", "files", "tree", "--json").document["requests"] == {}
    assert cli("stats", "--json").document["snapshot_requests"] == {}
    assert cli("stats", "--requests").out.splitlines()[-1] == "requests    none: a directory needs no server"
