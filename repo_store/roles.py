"""Roles: what the holder of a slot may know and sign.

    owner    everything: reads contents, signs every kind, changes keys
    writer   stores snapshots: signs what a snapshot consists of, knows names and sizes, reads no contents

A writer signs no tombstones, markers, marks, sweeps, ledger records or notes, so a stolen writer's key can add
snapshots but neither condemn nor hide nor vouch for any (docs/format.md, section 4). For signatures the kinds in
the roster count, which the owner signed; this table says what goes in there when a slot is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from repo_store.errors import Refused
from repo_store.sealed import Kind

OWNER, WRITER = "owner", "writer"
_SHOWN_MAX = 40


@dataclass(frozen=True)
class Role:
    """What a role has: the kinds it may sign, whether it reads contents, whether it holds the owner's key."""

    name: str
    kinds: frozenset[int]
    reads_contents: bool
    owns: bool


_SEALED_KINDS = frozenset(kind for kind in Kind if kind < Kind.DATA_FRAME)  # frames carry no signature
ROLES: Mapping[str, Role] = {
    OWNER: Role(OWNER, _SEALED_KINDS, reads_contents=True, owns=True),
    WRITER: Role(
        WRITER,
        frozenset(
            {
                Kind.PENDING,
                Kind.MANIFEST,
                Kind.DATA_DIRECTORY,
                Kind.METADATA_DIRECTORY,
                Kind.WAL_HEADER,
                Kind.TABLE,
            }
        ),
        reads_contents=False,
        owns=False,
    ),
}


def role_named(name: str) -> Role:
    """Return the role called `name`. Raises Refused for one that this version does not know."""
    try:
        return ROLES[name]
    except KeyError:
        raise Refused(f"the role {name[:_SHOWN_MAX]!r} is not known to this version") from None
