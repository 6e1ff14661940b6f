"""holdfast tag: give manifests tags, or take them away."""

import time
from typing import Annotated

import typer

from cli.app import app
from cli.call import Call
from cli.exit_codes import DONE
from cli.manifest_document import manifest_document
from cli.options import ManifestArguments, Which, checked_text, command
from repo_store.errors import UsageError


@command(
    app,
    "tag",
    examples="""
    holdfast tag 3f0c81d2 --add release-2.1
    holdfast tag latest --source files --add before-upgrade --remove nightly
    """,
)
def tag(
    call: Call,
    manifests: ManifestArguments,
    which: Which,
    add: Annotated[list[str] | None, typer.Option(metavar="T", help="A tag to add; may be repeated.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="T", help="A tag to take away; may be repeated.")
    ] = None,
) -> int:
    """Change the tags of manifests.

    `holdfast manifests --tag T` finds them again, and `holdfast forget --keep-tag T` keeps them.
    """
    from engine.notes import Change, change_notes

    added, removed = _tags("--add", add), _tags("--remove", remove)
    if not added and not removed:
        raise UsageError("no tag is given", hint="use --add or --remove")
    both = sorted(set(added) & set(removed))
    if both:
        raise UsageError(f"{both[0]}: cannot be added and taken away at once")
    session = call.open("write")
    found = which.find_all(session, manifests)
    change = Change(add_tags=added, remove_tags=removed)
    changed = change_notes(session, found, change, now_ns=time.time_ns())
    call.output.document([manifest_document(manifest) for manifest in changed])
    for manifest in changed:
        tags = ", ".join(manifest.tags)
        call.output.remark(
            f"manifest {manifest.id.hex()[:12]} has {f'the tags {tags}' if tags else 'no tags'}"
        )
    return DONE


def _tags(option: str, tags: list[str] | None) -> tuple[str, ...]:
    for each in tags or []:
        if not checked_text(each, option):
            raise UsageError(f"{option}: an empty tag")
    return tuple(dict.fromkeys(tags or []))
