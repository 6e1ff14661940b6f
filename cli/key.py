"""holdfast key: who can open the repository."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import key_app
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE
from cli.init import sheet_document
from cli.keys import new_secret, read_credential
from cli.options import checked_text, command
from cli.output import local_time, table
from cli.settings import KeyForm, KeySource, only_one

if TYPE_CHECKING:
    from repo_store.repository import Repository
    from repo_store.slot import Credential, Secret

_HEADER = ("SLOT", "ROLE", "OPENED BY", "CREATED", "STATE", "LABEL")
_HINT = "use --new-key-file, --new-passphrase-file or HOLDFAST_NEW_PASSPHRASE"


@dataclass(kw_only=True)
class NewSecret:
    """What a slot shall be opened with."""

    new_key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Make a new key file there; it is never overwritten."),
    ] = None
    new_passphrase_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file that holds the new passphrase.")
    ] = None
    new_passphrase: Annotated[
        str | None,
        typer.Option(
            "--new-passphrase-command", metavar="CMD", help="A command that prints the new passphrase."
        ),
    ] = None

    def source(self, environment_value: str | None) -> KeySource | None:
        """Return where the new secret comes from. Raises UsageError for more than one place."""
        given = (
            (KeyForm.KEY_FILE, self.new_key_file, "--new-key-file"),
            (KeyForm.PASSPHRASE_FILE, self.new_passphrase_file, "--new-passphrase-file"),
            (KeyForm.PASSPHRASE_COMMAND, self.new_passphrase, "--new-passphrase-command"),
        )
        sources = [KeySource(form, value, where) for form, value, where in given if value]
        if not sources and environment_value:
            sources = [KeySource(KeyForm.PASSPHRASE, environment_value, "HOLDFAST_NEW_PASSPHRASE")]
        return only_one(sources)


def _new_secret(call: Call, new: NewSecret) -> "Secret":
    import os

    return new_secret(new.source(os.environ.get("HOLDFAST_NEW_PASSPHRASE")), call.output, hint=_HINT)


def _open(call: Call) -> "tuple[Repository, Credential]":
    """Open the keys, and nothing more: keys can be looked after while the index is damaged."""
    from engine.session import open_at, open_storage

    credential: Credential | None = None

    def ask(_: object) -> "Credential":
        nonlocal credential
        credential = read_credential(call.settings.key, call.output)
        return credential

    storage = open_storage(call.settings.location, call.settings.storage)
    repository = open_at(storage, ask, call.places, operation="key")
    for warning in repository.warnings:
        call.output.warn(warning)
    assert credential is not None
    return repository, credential


@command(key_app, "list", examples="holdfast key list\nholdfast key list --json")
def list_keys(call: Call) -> int:
    """List the key slots: each opens the repository with a key file or passphrase of its own.

    A slot is stored twice; where a copy or both are damaged the state says so, and the exit code is 4.
    """
    from engine.selection import rfc3339
    from repo_store.key_ops import OK, list_slots

    repository, _ = _open(call)
    slots = list_slots(repository)
    call.output.document(
        [
            {
                "slot": slot.slot,
                "role": slot.role,
                "label": slot.label,
                "method": slot.method,
                "created": None if slot.created_ns is None else rfc3339(slot.created_ns),
                "state": slot.state,
                "problems": list(slot.problems),
            }
            for slot in slots
        ]
    )
    rows = [
        (
            slot.slot,
            slot.role,
            slot.method or "?",
            "?" if slot.created_ns is None else local_time(slot.created_ns),
            slot.state,
            slot.label or "",
        )
        for slot in slots
    ]
    call.output.lines(table(_HEADER, rows))
    for slot in slots:
        for problem in slot.problems:
            call.output.warn(problem)
    return DONE if all(slot.state == OK for slot in slots) else DAMAGED


@command(
    key_app,
    "add",
    examples="""
    holdfast key add --new-key-file /media/usb/holdfast.key --label 'in the safe'
    holdfast key add --role writer --new-key-file /etc/holdfast/writer.key
    """,
)
def add(
    call: Call,
    new: NewSecret,
    role: Annotated[
        str,
        typer.Option(metavar="ROLE", help="`owner` may do everything, `writer` only store snapshots."),
    ] = "owner",
    label: Annotated[str, typer.Option(metavar="TEXT", help="A name for the slot.")] = "",
) -> int:
    """Give another key file or passphrase access to the repository, and print its recovery sheet."""
    from repo_store.key_ops import add_slot
    from repo_store.roles import role_named

    checked_text(label, "--label")
    role_named(role)
    repository, _ = _open(call)
    added = add_slot(repository, secret=_new_secret(call, new), role=role, label=label, now_ns=time.time_ns())
    document = sheet_document(
        call.settings.location, repository.config.repository, added.slot, added.key_file
    )
    call.output.document(document | {"role": role, "label": label, "key_file": new.new_key_file})
    call.output.remark(f"slot {added.slot} was added, role {role}")
    call.output.remark()
    call.output.lines(str(document["sheet"]).splitlines())
    return DONE


@command(key_app, "remove", examples="holdfast key remove 5b1d2c3e4f5a6b7c")
def remove(
    call: Call,
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="The slot, as `holdfast key list` prints it.")],
) -> int:
    """Remove a slot: its key file or passphrase opens nothing any more.

    Whoever held it still knows what he has read. The last whole slot of an owner cannot be removed.
    """
    from repo_store.key_ops import remove_slot

    repository, _ = _open(call)
    remove_slot(repository, slot, now_ns=time.time_ns())
    call.output.document({"removed": slot})
    call.output.remark(f"slot {slot} was removed")
    return DONE


@command(
    key_app,
    "change-passphrase",
    examples="""
    holdfast key change-passphrase
    holdfast key change-passphrase --new-key-file ~/holdfast.key
    """,
)
def change_passphrase(call: Call, new: NewSecret) -> int:
    """Give the slot that you open the repository with a new passphrase, or a new key file."""
    from repo_store.key_ops import change_secret

    repository, credential = _open(call)
    slot = repository.ring.slot
    change_secret(repository, credential, _new_secret(call, new), now_ns=time.time_ns())
    call.output.document({"slot": slot, "key_file": new.new_key_file})
    what = f"the key file {new.new_key_file}" if new.new_key_file else "the new passphrase"
    call.output.remark(f"slot {slot} opens with {what} now")
    return DONE


@command(
    key_app, "export", examples="holdfast key export | lp\nholdfast key export --key-file ~/holdfast.key"
)
def export(call: Call) -> int:
    """Print the recovery sheet of the slot that you open the repository with.

    For a key file it holds the key itself as text; a passphrase has to be written on it by hand.
    """
    repository, credential = _open(call)
    from repo_store.key_file import KeyFile

    key_file = credential if isinstance(credential, KeyFile) else None
    document = sheet_document(
        call.settings.location, repository.config.repository, repository.ring.slot, key_file
    )
    call.output.document(document)
    call.output.lines(str(document["sheet"]).splitlines())
    return DONE
