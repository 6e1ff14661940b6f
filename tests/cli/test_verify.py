"""holdfast verify, stats and doctor."""

from pathlib import Path

import pytest
from support.cli import Cli, damage, lines


@pytest.fixture
def manifest(cli: Cli) -> str:
    """The only manifest of a repository."""
    cli.init()
    return cli.snapshot("stdin", "app.sql", stdin=b"dump" * 10_000)


def data_pack(cli: Cli) -> Path:
    """The larger pack: the other holds the tree."""
    return max(cli.objects("packs"), key=lambda path: path.stat().st_size)


def test_verify_of_a_whole_repository(cli: Cli, manifest: str) -> None:
    code, out, err = cli("verify")
    assert (code, err) == (0, "")
    assert out.startswith("verified structure of 1 manifest in ")
    assert out.endswith(" read: no damage\n")
    answer = cli("verify", "--data", "--json")
    assert answer.code == 0
    document = answer.document
    assert document.pop("packs") == len(cli.objects("packs"))
    assert document.pop("read_bytes") > 0
    assert document.pop("oldest_check").endswith("Z")
    assert document.pop("requests") == {}
    assert document == {
        "status": "ok",
        "depth": "data",
        "manifests": 1,
        "packs_checked": len(cli.objects("packs")),
        "packs_left": 0,
        "packs_never_checked": 0,
        "contents_read": True,
        "damaged": [],
        "notices": [],
    }


def test_verify_names_a_missing_pack_and_what_it_hurts(cli: Cli, manifest: str) -> None:
    pack = data_pack(cli)
    name = str(pack.relative_to(cli.directory / "repository"))
    pack.unlink()
    answer = cli("verify", "--json")
    assert answer.code == 4
    assert (answer.document["status"], answer.document["depth"]) == ("damaged", "structure")
    assert answer.document["damaged"] == [{"object": name, "reason": "missing", "manifests": [manifest]}]
    answer = cli("verify")
    first, second, last = answer.out.splitlines()
    assert (answer.code, first) == (4, f"damaged: {name}: missing")
    assert second.startswith(f"  hurts manifest {manifest[:12]} of stdin:vm:app.sql, 20")
    assert last.endswith(" read: 1 damaged object")


def test_verify_of_data_finds_a_flipped_bit_that_structure_cannot_see(cli: Cli, manifest: str) -> None:
    damage(data_pack(cli))
    assert cli("verify").code == 0
    answer = cli("verify", "--data", "--json")
    assert (answer.code, [each["manifests"] for each in answer.document["damaged"]]) == (4, [[manifest]])


def test_the_next_snapshot_heals_what_verify_found(cli: Cli, manifest: str) -> None:
    damage(data_pack(cli))
    assert cli("verify", "--data").code == 4
    cli.snapshot("stdin", "app.sql", stdin=b"dump" * 10_000)
    assert cli("cat", "latest", "app.sql").out == "dump" * 10_000


def test_a_share_is_read_and_the_rest_is_left_to_the_next_run(cli: Cli, manifest: str) -> None:
    first = cli("verify", "--sample", "1%", "--json").document
    packs = len(cli.objects("packs"))
    assert (first["depth"], first["packs_checked"], first["packs_left"]) == ("data", 1, packs - 1)
    assert first["packs_never_checked"] == packs - 1
    answer = cli("verify", "--data", "--within", "30", "--sample", "100%")
    assert answer.code == 0 and f" and every byte of {packs - 1} of them, " in answer.out
    assert cli("verify", "--json").document["packs_never_checked"] == 0
    for wrong in (("--sample", "5"), ("--sample", "0%"), ("--within", "0")):
        assert cli("verify", *wrong).code == 2


def test_stats(cli: Cli, manifest: str) -> None:
    document = cli("stats", "--json").document
    assert {key: document[key] for key in ("manifests", "series", "logical_bytes")} == {
        "manifests": 1,
        "series": 1,
        "logical_bytes": 40_000,
    }
    stored = sum(path.stat().st_size for path in cli.objects())
    assert document["stored_bytes"] == sum(document["object_bytes"].values()) == stored
    answer = cli("stats")
    assert (answer.code, answer.out.splitlines()[0]) == (0, "backed up   39.1 KiB in 1 manifest of 1 series")


def test_doctor_of_a_new_repository_warns_of_its_only_key(cli: Cli) -> None:
    cli.init()
    code, out, err = cli("doctor")
    assert (code, err) == (0, "")
    assert out.splitlines()[-4:] == [
        "ok       key slot <slot>: owner, opened by a key file",
        "warning  number of key slots: there is only one: if its secret or its slot is lost, so is every backup, "
        "and nobody can help",
        "         hint: add a second with `holdfast key add`, and keep it in another place",
        "0 problems, 1 warning",
    ]
    assert cli("doctor", "--json").document["status"] == "warning"
    assert cli("key", "add", "--new-key-file", "key2").code == 0
    assert cli("doctor", "--json").document["status"] == "ok"


def test_doctor_finds_a_damaged_key_and_a_missing_pack(cli: Cli, manifest: str) -> None:
    damage(next(path for path in cli.objects("keys") if path.name.endswith("-0")))
    data_pack(cli).unlink()
    answer = cli("doctor", "--json")
    problems = [each["what"] for each in answer.document["findings"] if each["verdict"] == "problem"]
    assert (answer.code, answer.document["status"]) == (4, "problem")
    assert problems[0].startswith("key slot ")
    assert problems[1:] == ["packs"]


def test_doctor_refuses_a_storage_that_breaks_its_promises(
    cli: Cli, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.doctor import Finding, Verdict

    broken = Finding("storage: a deleted object is gone", Verdict.PROBLEM, "it was still there")
    monkeypatch.setattr("engine.doctor._storage", lambda *_: [broken])
    answer = cli("doctor")
    assert (answer.code, answer.out.splitlines()[0]) == (
        11,
        "problem  storage: a deleted object is gone: it was still there",
    )
    assert answer.out.endswith(lines("1 problem, 1 warning"))
