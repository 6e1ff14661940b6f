"""Bundles: what the role of one holder may know of one epoch, sealed to that holder by the owner.

    ["holdfast bundle", body, signature of the owner]      as keys/<slot>.<epoch>, and its copy

docs/format.md, section 4, is the authority. HPKE says nothing about who sealed, so the owner's signature does;
a new epoch reaches every holder without anybody's passphrase. This module touches no storage.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from repo_store import hpke
from repo_store.errors import ObjectDamaged
from repo_store.fields import Fields
from repo_store.roles import Role
from repo_store.sealed import unpack_map
from repo_store.signed_map import FORMAT, build_signed, parse_signed
from repo_store.slot import Holder

BUNDLE_BYTES_MAX = 64 * 1024
_KEY_BYTES = 32
_PUBLIC_BYTES = 32
_SEED_BYTES = 32


@dataclass(frozen=True)
class Bundle:
    """The secrets in a bundle. What the role may not know is None."""

    id_key: bytes = field(repr=False)
    chunker_key: bytes = field(repr=False)
    metadata_key: bytes = field(repr=False)
    owner_public: bytes
    data_private: bytes | None = field(default=None, repr=False)
    owner_private: bytes | None = field(default=None, repr=False)


def bundle_name(slot: str, epoch: int) -> str:
    """Return the object name of a bundle."""
    return f"keys/{slot}.{epoch}"


def build_bundle(
    bundle: Bundle,
    owner_private: bytes,
    public: bytes,
    *,
    repository: bytes,
    slot: str,
    epoch: int,
    role: Role,
) -> bytes:
    """Return the object that gives `bundle`, less what `role` may not know, to the holder of `public`.

    Raises Refused if `public` is no key that can be sealed to.
    """
    body = {
        "format": FORMAT,
        "repository": repository,
        "slot": slot,
        "epoch": epoch,
        "role": role.name,
        "owner_public": bundle.owner_public,
        "sealed": hpke.seal_to(
            public, msgpack.packb(_secrets(bundle, role)), info=_info(repository, slot, epoch, role.name)
        ),
    }
    return build_signed("bundle", body, Ed25519PrivateKey.from_private_bytes(owner_private))


def open_bundle(
    name: str,
    data: bytes,
    holder: Holder,
    *,
    repository: bytes,
    owner_public: bytes,
    slot: str,
    epoch: int,
    role: Role,
) -> Bundle:
    """Return the secrets in the bundle `name`. `owner_public` is the key the identity of the repository names.

    Raises ObjectDamaged if it is not whole, not the owner's, not of this slot, epoch or role, or does not open;
    Refused for a later format.
    """
    signed = parse_signed("bundle", name, data, bytes_max=BUNDLE_BYTES_MAX)
    signed.verify(owner_public)
    fields = signed.fields
    found = (fields.data("repository"), fields.text("slot"), fields.number("epoch"), fields.text("role"))
    if found != (repository, slot, epoch, role.name):
        raise ObjectDamaged(name, "was made for another slot, epoch, role or repository")
    plain = hpke.open_with(
        holder.private, fields.data("sealed"), info=_info(repository, slot, epoch, role.name)
    )
    if plain is None:
        raise ObjectDamaged(name, "is not sealed to the keys of its slot")
    secrets = Fields(name, unpack_map(name, plain))
    if secrets.data("owner_public") != owner_public:
        raise ObjectDamaged(name, "names another owner")
    return Bundle(
        id_key=secrets.data("id_key", _KEY_BYTES),
        chunker_key=secrets.data("chunker_key", _KEY_BYTES),
        metadata_key=secrets.data("metadata_key", _KEY_BYTES),
        owner_public=secrets.data("owner_public", _PUBLIC_BYTES),
        data_private=secrets.data("data_private", hpke.PRIVATE_BYTES) if role.reads_contents else None,
        owner_private=secrets.data("owner_private", _SEED_BYTES) if role.owns else None,
    )


def _secrets(bundle: Bundle, role: Role) -> Mapping[str, Any]:
    secrets = {
        "id_key": bundle.id_key,
        "chunker_key": bundle.chunker_key,
        "metadata_key": bundle.metadata_key,
        "owner_public": bundle.owner_public,
    }
    if role.reads_contents:
        assert bundle.data_private is not None
        secrets["data_private"] = bundle.data_private
    if role.owns:
        assert bundle.owner_private is not None
        secrets["owner_private"] = bundle.owner_private
    return secrets


def _info(repository: bytes, slot: str, epoch: int, role: str) -> bytes:
    return b"".join(
        (b"holdfast 1 bundle", repository, slot.encode(), struct.pack("<I", epoch), role.encode())
    )
