"""Manifests: the record of one snapshot, as the map that is signed, sealed and stored.

docs/format.md, section 8, is the authority. The body at `pending/<id>` and at `manifests/<id>` is the same; `hash`
of it is what the next manifest of the series names as its previous one. This module makes bodies and reads
them; sealing is done elsewhere (repo_store/sealed.py), and no storage is touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import msgpack
from blake3 import blake3

from repo_store.body import FORMAT, MANIFEST_ID_BYTES, Body, check_own_name
from repo_store.entry import ID_BYTES
from repo_store.tree_node import HEIGHT_MAX, are_names
from repo_store.tree_node import TreeRoot as TreeRoot  # part of what a manifest is made of

PROBLEMS_MAX: Final = 1000
TAGS_MAX: Final = 1000
HASH_BYTES: Final = 32

_EXIT_RANGE = 2**31  # a signal is a negative number


class Status(StrEnum):
    """Whether a snapshot is all that it was asked to be. Only COMPLETE counts as a good backup."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    """A checkpoint of a run that went on, or was killed."""
    INCOMPLETE = "incomplete"
    """The run ended, but something could not be read; `problems` names it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One snapshot. Times are nanoseconds since 1970 UTC, of the client's clock unless said otherwise."""

    id: bytes
    series: str
    sequence: int
    """From 1 within the series."""
    previous: tuple[bytes, bytes] | None
    """Id and hash of the manifest that this one follows in its series."""
    start: int
    end: int
    storage_date: int | None
    """When the storage dated an object that this run wrote shortly before; None if it does not say."""
    host: str
    source: str
    """What made it: files, stdin, command, dump, postgres, wal, git."""
    status: str
    """One of Status."""
    root: TreeRoot | None
    """The tree of its entries; None if there are none."""
    roots: Sequence[tuple[bytes, bytes]] = ()
    """The names at the top of the tree, each with the path that it came from."""
    owners: Mapping[str, Sequence[tuple[int, bytes]]] = field(default_factory=dict)
    """"users" and "groups": the names that ids had on the host."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Of the chunker: algorithm, size_min, size_avg, size_max."""
    statistics: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[tuple[str, str]] = ()
    """(path, message) of what could not be read; at most PROBLEMS_MAX."""
    tags: Sequence[str] = ()
    hold_until: int | None = None
    command: Sequence[str] | None = None
    exit_status: int | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    """Program → version."""
    wal: Sequence[tuple[int, int, str, str]] = ()
    """(system id, timeline, first segment, last segment) of the WAL that it needs; segments by file name."""
    generation: int = 0
    """The highest generation that the writer had seen when it checked its dependencies."""

    signer: bytes | None = field(default=None, compare=False)
    """Who signed it, as the roster calls them; not part of the body. None while it is being made."""

    _stored_hash: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def hash(self) -> bytes:
        """The hash of the body: as it was read, with keys of a newer version, or as `to_body` makes it."""
        return self._stored_hash or _hash(self.to_body())

    def to_body(self) -> dict[str, Any]:
        """Return the body. It is read back before it is returned: raises ObjectDamaged for what no reader takes."""
        body = {
            "format": FORMAT,
            "id": self.id,
            "series": self.series,
            "sequence": self.sequence,
            "previous": None if self.previous is None else list(self.previous),
            "start": self.start,
            "end": self.end,
            "storage_date": self.storage_date,
            "host": self.host,
            "source": self.source,
            "status": str(self.status),
            "root": None if self.root is None else list(self.root),
            "roots": [list(row) for row in self.roots],
            "owners": {
                kind: [list(row) for row in self.owners.get(kind, ())] for kind in ("users", "groups")
            },
            "parameters": dict(self.parameters),
            "statistics": dict(self.statistics),
            "problems": [list(row) for row in self.problems],
            "tags": list(self.tags),
            "hold_until": self.hold_until,
            "command": None if self.command is None else list(self.command),
            "exit_status": self.exit_status,
            "tools": dict(self.tools),
            "wal": [list(row) for row in self.wal],
            "generation": self.generation,
        }
        _read(Body(f"manifests/{self.id.hex()}", body))
        return body

    @staticmethod
    def from_body(name: str, body: Mapping[Any, Any], *, signer: bytes | None = None) -> "Manifest":
        """Return the manifest that the object `name` holds. Raises ObjectDamaged if it is none that we can read."""
        manifest = replace(_read(Body(name, body)), signer=signer)
        object.__setattr__(manifest, "_stored_hash", _hash(body))
        return manifest

    def noted(self, *, tags: Sequence[str], hold_until: int | None) -> "Manifest":
        """Return this manifest with the tags and hold that notes made of it. Its hash stays that of what is stored."""
        changed = replace(self, tags=tuple(tags), hold_until=hold_until)
        object.__setattr__(changed, "_stored_hash", self.hash)
        return changed


def _hash(body: Mapping[Any, Any]) -> bytes:
    return blake3(msgpack.packb(body)).digest()


def _read(body: Body) -> Manifest:
    manifest = Manifest(
        id=body.data("id", MANIFEST_ID_BYTES),
        series=body.text("series"),
        sequence=body.number("sequence", lowest=1),
        previous=_previous(body),
        start=body.number("start"),
        end=body.number("end"),
        storage_date=body.optional("storage_date", body.number),
        host=body.text("host", empty=True),
        source=body.text("source"),
        status=body.choice("status", list(Status)),
        root=_root(body),
        roots=_roots(body),
        owners=_owners(body),
        parameters=body.map("parameters", int),
        statistics=body.map("statistics", int),
        problems=body.rows("problems", str, str, most=PROBLEMS_MAX),
        tags=body.texts("tags", most=TAGS_MAX),
        hold_until=body.optional("hold_until", body.number),
        command=body.optional("command", body.texts),
        exit_status=body.optional("exit_status", lambda key: body.number(key, lowest=-_EXIT_RANGE)),
        tools=body.map("tools", str),
        wal=body.rows("wal", int, int, str, str),
        generation=body.number("generation"),
    )
    if body.name.startswith(("manifests/", "pending/")):
        check_own_name(body, f"{body.name.partition('/')[0]}/{manifest.id.hex()}")
    return manifest


def _previous(body: Body) -> tuple[bytes, bytes] | None:
    row = body.optional("previous", lambda key: body.row(key, bytes, bytes))
    if row is None:
        return None
    previous_id, previous_hash = row
    if len(previous_id) != MANIFEST_ID_BYTES or len(previous_hash) != HASH_BYTES:
        body.refuse("its `previous` is not an id and a hash")
    return previous_id, previous_hash


def _root(body: Body) -> TreeRoot | None:
    row = body.optional("root", lambda key: body.row(key, bytes, int, int))
    if row is None:
        return None
    root = TreeRoot(*row)
    if len(root.id) != ID_BYTES or root.height > HEIGHT_MAX or not root.entries:
        body.refuse("its `root` cannot be that of a tree")
    return root


def _roots(body: Body) -> list[tuple[bytes, bytes]]:
    roots = body.rows("roots", bytes, bytes)
    if not are_names(name for name, _ in roots):
        body.refuse("its `roots` have a name that cannot be one")
    return [(name, path) for name, path in roots]


def _owners(body: Body) -> dict[str, list[tuple[int, bytes]]]:
    owners = body.inner_map("owners")
    return {
        kind: [(number, name) for number, name in body.rows("owners", int, bytes, of=owners.get(kind))]
        for kind in ("users", "groups")
    }
