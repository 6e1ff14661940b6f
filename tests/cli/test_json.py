"""--json: exactly one document on stdout, whatever the command and however it ends; --events: nothing but JSON on stderr."""

import json
import time

import pytest
from support.cli import Cli, damage

from cli import progress
from cli.output import Output
from engine.progress import Progress


def test_every_command_answers_with_one_document(cli: Cli) -> None:
    assert cli("init", "--json").document["slot"]
    cli.write("tree/a", "a")
    assert cli("snapshot", "files", "tree", "--json").document["status"] == "complete"
    assert cli("snapshot", "stdin", "x", "--json", stdin=b"x").document["status"] == "complete"
    assert cli("snapshot", "command", "y", "--json", "--", "echo").document["status"] == "complete"
    assert len(cli("manifests", "--json").document) == 3
    files = ("latest", "--source", "files", "--json")
    assert cli("show", *files).document["source"] == "files"
    assert len(cli("ls", *files).document["entries"]) == 2
    assert cli("restore", *files, "--to", "out").document["files"] == 1
    assert cli("verify", "--json").document["status"] == "ok"
    assert cli("stats", "--json").document["manifests"] == 3
    assert cli("doctor", "--json").document["status"] == "warning"
    slot = cli("key", "add", "--new-key-file", "key2", "--json").document["slot"]
    assert len(cli("key", "list", "--json").document) == 2
    changed = cli("key", "change-passphrase", "--key-file", "key2", "--new-key-file", "key3", "--json")
    assert changed.document == {"slot": slot, "key_file": "key3"}
    assert cli("key", "export", "--key-file", "key3", "--json").document["slot"] == slot
    assert cli("key", "remove", slot, "--json").document == {"removed": slot}


@pytest.mark.parametrize(
    "args",
    [
        "init",
        "snapshot files missing",
        "snapshot command x -- false",
        "show 0",
        "ls 0",
        "restore 0 --to out",
        "key remove 0",
        "nonsense",
        "show",
        "manifests --config missing",
    ],
)
def test_a_failure_is_one_document_with_error(cli: Cli, args: str) -> None:
    cli.init()
    answer = cli("--json", *args.split())
    document = answer.document
    assert sorted(document) == ["error", "exit_code", "hint"]
    assert document["exit_code"] == answer.code > 0
    hint = f"hint: {document['hint']}\n" if document["hint"] else ""
    assert answer.err == f"holdfast: {document['error']}\n{hint}"


def test_cat_has_no_json_and_keeps_stdout_for_the_content(cli: Cli) -> None:
    assert tuple(cli("cat", "latest", "x", "--json")) == (
        2,
        "",
        "holdfast: cat writes the bytes themselves, so it has no --json\n",
    )


def test_ls_of_a_damaged_tree_is_one_document_all_the_same(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a")
    cli.snapshot("files", "tree")
    for pack in cli.objects("packs"):
        damage(pack)
    answer = cli("ls", "latest", "--json")
    assert answer.code == 4
    assert "damaged" in answer.document["error"]
    assert answer.err.endswith("hint: run `holdfast verify` to see all damage\n")


def test_ls_that_fails_half_way_ends_its_document(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import reading_back
    from repo_store.errors import ObjectDamaged

    cli.init()
    cli.write("tree/a")
    cli.snapshot("files", "tree")
    whole = reading_back.list_entries

    def half(*args: object) -> object:
        yield next(iter(whole(*args)))  # type: ignore[arg-type]
        raise ObjectDamaged("packs/x", "gone")

    monkeypatch.setattr(reading_back, "list_entries", half)
    answer = cli("ls", "latest", "--json")
    assert (answer.code, answer.document["error"]) == (4, "packs/x: damaged: gone")
    assert [entry["path"] for entry in answer.document["entries"]] == ["tree"]


def test_events_are_all_that_stderr_holds(cli: Cli) -> None:
    cli.init()
    cli.write("tree/a", "a" * 3000)
    answer = cli("snapshot", "files", "tree", "--events", "--json")
    assert answer.document["status"] == "complete"
    (event,) = map(json.loads, answer.err.splitlines())
    assert event.pop("seconds") >= 0
    assert event == {
        "event": "progress",
        "phase": "",
        "files": 1,
        "bytes": 3000,
        "files_total": None,
        "bytes_total": None,
    }
    answer = cli("restore", "latest", "--to", "tree", "--events")
    *_, last = map(json.loads, answer.err.splitlines())
    assert last == {
        "event": "error",
        "error": "tree: is not empty",
        "hint": "restore into a new directory",
        "exit_code": 11,
    }


def test_without_a_terminal_a_line_tells_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    for quiet in (False, True):
        with progress.watched(Output(quiet=quiet), "restore") as counters:
            assert isinstance(counters, Progress)
            counters.files, counters.bytes, counters.bytes_total = 1234, 3 << 30, 9 << 30
            time.sleep(0.3)
        first = (capsys.readouterr().err.splitlines() or [""])[0]
        if quiet:
            assert first == ""
        else:
            assert first.startswith("holdfast: restore: 1,234 files, 3.0 GiB of 9.0 GiB, ")
            assert first.endswith(" s left")
