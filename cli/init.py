"""holdfast init: make a repository and print its recovery sheet."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.keys import new_secret
from cli.options import checked_text, command
from cli.settings import KeyForm

if TYPE_CHECKING:
    from repo_store.key_file import KeyFile


@command(
    app,
    "init",
    examples="""
    holdfast init -r /mnt/backup/repository --key-file ~/holdfast.key
    HOLDFAST_REPOSITORY=/mnt/backup/repository holdfast init     (asks for a new passphrase)
    """,
)
def init(
    call: Call,
    label: Annotated[
        str, typer.Option(metavar="TEXT", help="A name for the first key, shown by `holdfast key list`.")
    ] = "",
) -> int:
    """Make a new repository, which opens with a new key file (--key-file) or a passphrase.

    What it prints is the recovery sheet: print it, and keep it apart from this machine. Whoever loses every key
    and passphrase of a repository has lost the backups in it; nobody can recover them.
    """
    from engine.session import init_repository

    settings = call.settings
    checked_text(label, "--label")
    location = settings.location
    secret = new_secret(settings.key, call.output)
    created = init_repository(location, secret, call.places, label=label, options=settings.storage)
    ring = created.repository.ring
    written = settings.key.value if settings.key and settings.key.form is KeyForm.KEY_FILE else None
    document = sheet_document(location, ring.repository, ring.slot, created.key_file)
    call.output.document(document | {"label": label, "key_file": written})
    call.output.remark(f"a new repository is in {location}")
    if written is not None:
        call.output.remark(f"its key is in {written}")
    call.output.remark("print the following and keep it in another place:")
    call.output.remark()
    call.output.lines(str(document["sheet"]).splitlines())
    return DONE


def sheet_document(
    location: str, repository: bytes, slot: str, key_file: "KeyFile | None"
) -> dict[str, object]:
    """Return what a recovery sheet says, as --json gives it; "key" is a secret."""
    from repo_store.key_file import recovery_sheet

    return {
        "location": location,
        "repository": repository.hex(),
        "slot": slot,
        "key": None if key_file is None else key_file.line,
        "sheet": recovery_sheet(location, repository, slot, key_file),
    }
