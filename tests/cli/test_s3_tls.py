"""A server of one's own behind TLS, with an authority of one's own: the right one is believed, any other is not."""

from pathlib import Path

import pytest
from support.authorities import make_authority
from support.cli import Cli
from support.faulty_proxy import FaultyProxy
from support.seaweed import running_server


def test_a_repository_behind_tls_is_used_with_the_right_authority_and_no_other(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, context = make_authority(tmp_path, "right")
    wrong, _ = make_authority(tmp_path, "wrong")
    server = running_server()
    with FaultyProxy(server.port, tls=context) as proxy:
        for name, value in server.environment(endpoint=proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOLDFAST_REPOSITORY", f"s3://{server.new_place()}")
        cli.write("tree/file", bytes(range(256)) * 9000)
        cli.write("holdfast.toml", 's3_ca_bundle = "right.pem"\n')
        for args in (["init"], ["snapshot", "files", "tree"], ["restore", "latest", "--to", "back"]):
            answer = cli(*args, "-q")
            assert (answer.code, answer.err) == (0, ""), answer
        assert (tmp_path / "back/tree/file").read_bytes() == bytes(range(256)) * 9000
        assert proxy.endpoint.startswith("https://") and proxy.seen
        proxy.forget()
        (tmp_path / "holdfast.toml").unlink()
        for more in (["--s3-ca-bundle", str(wrong)], []):
            code, out, err = cli("manifests", *more)
            assert (code, out) == (1, "")
            message, hint = err.splitlines()
            assert message.startswith("holdfast: s3://backups/")
            assert f"{proxy.endpoint}: the certificate cannot be trusted: " in message
            assert hint.startswith("hint: a private authority is named by --s3-ca-bundle or AWS_CA_BUNDLE")
        assert proxy.seen == [], "nothing was told to a server that could be anybody"
        assert cli("manifests", "-q", "--s3-ca-bundle", str(right)).code == 0
        assert cli("manifests", "-q", env={"AWS_CA_BUNDLE": str(right)}).code == 0
