"""holdfast key: add, list, remove, change-passphrase, export."""

import os

from support.cli import Cli, damage, lines


def slots(cli: Cli) -> list[dict[str, str]]:
    document: list[dict[str, str]] = cli("key", "list", "--json").document
    return document


def test_list(cli: Cli) -> None:
    cli("init", "--label", "first")
    assert tuple(cli("key", "list")) == (
        0,
        lines(
            "SLOT              ROLE   OPENED BY  CREATED              STATE  LABEL",
            "<slot>  owner  key file   <time>  ok     first",
        ),
        "",
    )
    (slot,) = slots(cli)
    assert sorted(slot) == ["created", "label", "method", "problems", "role", "slot", "state"]
    assert (slot["role"], slot["method"], slot["state"], slot["problems"]) == ("owner", "key file", "ok", [])


def test_a_damaged_copy_of_a_slot_is_named(cli: Cli) -> None:
    cli.init()
    damage(next(path for path in cli.objects("keys") if path.name.endswith("-0.copy")))
    answer = cli("key", "list", "--json")
    assert (answer.code, answer.document[0]["state"]) == (4, "one copy damaged")
    assert "copy: damaged: " in answer.err


def test_add_and_remove(cli: Cli) -> None:
    cli.init()
    added = cli("key", "add", "--new-key-file", "key2", "--label", "in the safe", "--json")
    document = added.document
    assert (added.code, document["role"], document["label"], document["key_file"]) == (
        0,
        "owner",
        "in the safe",
        "key2",
    )
    assert document["key"] == (cli.directory / "key2").read_text().strip()
    assert cli("manifests", "--key-file", "key2").code == 0
    assert [slot["label"] for slot in slots(cli)] == ["", "in the safe"]
    assert tuple(cli("key", "remove", document["slot"])) == (0, "slot <slot> was removed\n", "")
    assert tuple(cli("manifests", "--key-file", "key2")) == (
        12,
        "",
        "holdfast: slot <slot> of the key file was removed from this repository\n",
    )


def test_a_writer_stores_and_cannot_read(cli: Cli) -> None:
    cli.init()
    code, out, err = cli("key", "add", "--role", "writer", "--new-key-file", "writer")
    assert (code, err, out.splitlines()[0]) == (0, "", "slot <slot> was added, role writer")
    assert cli("snapshot", "stdin", "x", "--key-file", "writer", stdin=b"data").code == 0
    assert cli("cat", "latest", "x", "--key-file", "writer").code != 0
    assert cli("cat", "latest", "x").out == "data"
    answer = cli("verify", "--data", "--key-file", "writer")
    assert answer.err == (
        "holdfast: warning: this key reads no contents: only the bytes as stored were checked\n"
    )
    assert tuple(cli("key", "add", "--key-file", "writer", "--new-key-file", "no")) == (
        11,
        "",
        "holdfast: slot <slot> has the role writer; only an owner changes who has keys\n",
    )
    assert not os.path.exists("no")


def test_what_cannot_be_removed_or_added(cli: Cli) -> None:
    cli.init()
    (slot,) = slots(cli)
    assert cli("key", "remove", slot["slot"]).code == 11
    assert tuple(cli("key", "remove", "0" * 16)) == (
        2,
        "",
        "holdfast: <slot>: no such slot\nhint: `holdfast key list` shows them\n",
    )
    assert tuple(cli("key", "add", "--role", "king", "--new-key-file", "no")) == (
        11,
        "",
        "holdfast: the role 'king' is not known to this version\n",
    )
    assert tuple(cli("key", "add")) == (
        2,
        "",
        "holdfast: no key or passphrase is given, and there is no terminal to ask on\n"
        "hint: use --new-key-file, --new-passphrase-file or HOLDFAST_NEW_PASSPHRASE\n",
    )


def test_change_passphrase(cli: Cli) -> None:
    cli.init()
    key_file = cli.directory / "key"
    changed = cli("key", "change-passphrase", env={"HOLDFAST_NEW_PASSPHRASE": "secret"})
    assert tuple(changed) == (0, "slot <slot> opens with the new passphrase now\n", "")
    assert tuple(cli("manifests")) == (
        12,
        "",
        "holdfast: the key file does not open slot <slot>\n"
        "hint: the slot was given another key or a passphrase since\n",
    )
    key_file.unlink()
    cli.write("passphrase", "secret\n").chmod(0o600)
    changed = cli("key", "change-passphrase", "--passphrase-file", "passphrase", "--new-key-file", "key")
    assert tuple(changed) == (0, "slot <slot> opens with the key file key now\n", "")
    assert cli("manifests").code == 0


def test_export_prints_the_recovery_sheet_again(cli: Cli) -> None:
    sheet = cli("init", "-q").out
    assert tuple(cli("key", "export")) == (0, tuple(cli("key", "export"))[1], "")
    assert cli("key", "export").out == sheet
    document = cli("key", "export", "--json").document
    assert sorted(document) == ["key", "location", "repository", "sheet", "slot"]
    assert document["sheet"] == sheet
