"""Config objects: what a repository is, said by its owner and readable without any key.

    ["holdfast config", body, owner public key (32), signature (64)]

docs/format.md, section 3, is the authority. The identity is derived from the owner's public key, so a config
proves by itself whose repository it speaks of: whoever can write to the storage cannot put his own owner in
(docs/decisions/0007). A new config repeats every field of the one before that it does not change, also those
that only a later version understands. This module turns configs into bytes and back; it touches no storage.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from repo_store import hpke
from repo_store.errors import ObjectDamaged, Refused
from repo_store.fields import Fields
from repo_store.key_ring import SIGNER_BYTES, RosterLine, derive, signer_of
from repo_store.signed_map import FORMAT, SignedMap, build_signed, parse_signed

CONFIG_BYTES_MAX = 1024 * 1024
OPERATIONS = ("read", "write", "prune", "copy", "verify", "key")
KNOWN_FLAGS: frozenset[str] = frozenset()
"""Feature flags that this version understands. Format 1 defines none."""
DEDUP_ALL, DEDUP_OWN = "all", "own"
_PUBLIC_BYTES = 32
_EPOCH_MAX = 2**32 - 1
_SHOWN_MAX = 40
_SLOT = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True)
class Epoch:
    """One epoch as the config states it. `closed_digest` is None while objects are accepted under it."""

    number: int
    data_public: bytes = field(repr=False)
    opened_ns: int
    closed_ns: int | None = None
    closed_digest: bytes | None = None


@dataclass(frozen=True)
class Config:
    """One config as read. `digest` is H of the object; `body` is the map as it stands there."""

    repository: bytes
    number: int
    previous: bytes | None
    created_ns: int
    features: Mapping[str, tuple[str, ...]]
    epochs: Mapping[int, Epoch]
    roster: Mapping[bytes, RosterLine]
    dedup: str
    owner_public: bytes
    digest: bytes
    data: bytes = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    @property
    def epoch(self) -> int:
        """The number of the newest epoch."""
        return max(self.epochs)

    def require(self, operation: str) -> None:
        """Raise Refused if `operation` needs anything that this version does not know."""
        assert operation in OPERATIONS
        for flag in self.features.get(operation, ()):
            if flag not in KNOWN_FLAGS:
                raise Refused(
                    f"to {_DOING[operation]} this repository needs the feature {flag[:_SHOWN_MAX]!r}, "
                    "which this version does not know",
                    hint="use a newer version of holdfast",
                )
        if operation == "write" and self.dedup not in (DEDUP_ALL, DEDUP_OWN):
            raise Refused(
                f"this repository has the dedup rule {self.dedup[:_SHOWN_MAX]!r}, which this version does not know",
                hint="use a newer version of holdfast",
            )

    def line_of(self, slot: str) -> RosterLine | None:
        """Return the roster line of a slot, removed or not, or None."""
        return next((line for line in self.roster.values() if line.slot == slot), None)


_DOING = {
    "read": "read",
    "write": "write to",
    "prune": "prune",
    "copy": "copy",
    "verify": "verify",
    "key": "change the keys of",
}
assert set(_DOING) == set(OPERATIONS)


def config_name(number: int) -> str:
    """Return the object name of a config."""
    return f"config/{number}"


def identity_of(owner_public: bytes) -> bytes:
    """Return the identity of the repository that the holder of this signing key owns."""
    return derive("repository", owner_public)


def roster_map(line: RosterLine) -> dict[str, Any]:
    """Return a roster line as it stands in a config."""
    body: dict[str, Any] = {
        "signer": signer_of(line.public),
        "public": line.public,
        "slot": line.slot,
        "role": line.role,
        "kinds": sorted(line.kinds),
    }
    return body if line.until is None else body | {"until": line.until}


def epoch_map(epoch: Epoch) -> dict[str, Any]:
    """Return an epoch as it stands in a config."""
    closed = None
    if epoch.closed_ns is not None:
        closed = {"time": epoch.closed_ns, "digest": epoch.closed_digest}
    return {
        "number": epoch.number,
        "suite": hpke.SUITE,
        "data_public": epoch.data_public,
        "opened": epoch.opened_ns,
        "closed": closed,
    }


def first_config(
    owner_private: bytes,
    *,
    created_ns: int,
    epochs: Sequence[Epoch],
    roster: Sequence[RosterLine],
    features: Mapping[str, Sequence[str]] | None = None,
    dedup: str = DEDUP_ALL,
) -> Config:
    """Return config 0 of a new repository, signed. `owner_private` is the owner's Ed25519 seed."""
    owner = Ed25519PrivateKey.from_private_bytes(owner_private)
    body = {
        "format": FORMAT,
        "repository": identity_of(owner.public_key().public_bytes_raw()),
        "number": 0,
        "previous": None,
        "created": created_ns,
        "features": {operation: list(flags) for operation, flags in (features or {}).items()},
        "epochs": [epoch_map(epoch) for epoch in epochs],
        "roster": [roster_map(line) for line in roster],
        "dedup": dedup,
    }
    return _signed_config(body, owner)


def next_config(
    before: Config, owner_private: bytes, *, created_ns: int, changes: Mapping[str, Any]
) -> Config:
    """Return the config that follows `before`, signed; `changes` are fields of the body."""
    owner = Ed25519PrivateKey.from_private_bytes(owner_private)
    body = {
        **before.body,
        "number": before.number + 1,
        "previous": before.digest,
        "created": created_ns,
        **changes,
    }
    return _signed_config(body, owner)


def parse_config(name: str, data: bytes, *, number: int) -> Config:
    """Return config `number` as `data` holds it, its signature and identity checked.

    Raises ObjectDamaged, and Refused for a format or suite that this version does not know.
    """
    signed = parse_signed("config", name, data, bytes_max=CONFIG_BYTES_MAX, between=(_PUBLIC_BYTES,))
    fields, owner_public = signed.fields, signed.between[0]
    signed.verify(owner_public)
    if fields.data("repository") != identity_of(owner_public):
        raise ObjectDamaged(name, "its owner is not the one its identity names")
    if fields.number("number") != number:
        raise ObjectDamaged(name, f"is config {fields.number('number')} under another name")
    return _parse_signed_config(signed, data, owner_public, number)


def _parse_signed_config(signed: SignedMap, data: bytes, owner_public: bytes, number: int) -> Config:
    fields = signed.fields
    features = fields.map("features")
    return Config(
        repository=fields.data("repository"),
        number=number,
        previous=fields.data("previous", 32) if number else None,
        created_ns=fields.number("created"),
        features={operation: features.texts(operation) for operation in _known(features)},
        epochs=_parse_epochs(fields),
        roster=_parse_roster(fields),
        dedup=fields.text("dedup"),
        owner_public=owner_public,
        digest=blake3(data).digest(),
        data=data,
        body=fields.values,
    )


def _known(features: Fields) -> list[str]:
    return [operation for operation in OPERATIONS if not features.absent(operation)]


def _parse_epochs(fields: Fields) -> dict[int, Epoch]:
    epochs: dict[int, Epoch] = {}
    for each in fields.maps("epochs"):
        number = each.number("number", least=1, most=_EPOCH_MAX)
        if number in epochs:
            raise ObjectDamaged(fields.name, f"has two epochs {number}")
        suite = each.number("suite")
        if suite != hpke.SUITE:
            raise Refused(f"epoch {number} uses the suite {suite}, which this version does not know")
        closed = None if each.absent("closed") else each.map("closed")
        epochs[number] = Epoch(
            number=number,
            data_public=each.data("data_public", hpke.PUBLIC_BYTES),
            opened_ns=each.number("opened"),
            closed_ns=closed.number("time") if closed else None,
            closed_digest=closed.data("digest", 32) if closed else None,
        )
    if not epochs:
        raise ObjectDamaged(fields.name, "has no epoch")
    return epochs


def _parse_roster(fields: Fields) -> dict[bytes, RosterLine]:
    roster: dict[bytes, RosterLine] = {}
    for each in fields.maps("roster"):
        public = each.data("public", _PUBLIC_BYTES)
        signer = each.data("signer", SIGNER_BYTES)
        if signer != signer_of(public) or signer in roster:
            raise ObjectDamaged(fields.name, "its roster names a signer twice or wrongly")
        slot = each.text("slot")
        if _SLOT.fullmatch(slot) is None:  # it becomes a part of object names
            raise ObjectDamaged(fields.name, f"its roster names a slot {slot[:_SHOWN_MAX]!r}")
        roster[signer] = RosterLine(
            public=public,
            slot=slot,
            role=each.text("role"),
            kinds=frozenset(each.numbers("kinds")),
            until=None if each.absent("until") else each.number("until", most=_EPOCH_MAX),
        )
    if len({line.slot for line in roster.values()}) != len(roster):
        raise ObjectDamaged(fields.name, "its roster names a slot twice")
    return roster


def _signed_config(body: Mapping[str, Any], owner: Ed25519PrivateKey) -> Config:
    """Return the config, read back as every reader will read it: one that does not read must never be stored."""
    public = owner.public_key().public_bytes_raw()
    data = build_signed("config", body, owner, public)
    if len(data) > CONFIG_BYTES_MAX:
        raise Refused(f"the config would have {len(data)} bytes; the limit is {CONFIG_BYTES_MAX}")
    number: int = body["number"]
    return parse_config(config_name(number), data, number=number)
