"""Signed maps: the form that configs, slots and bundles share. They can be read without any key.

    [ "holdfast <what>", body, (what stands between), signature (64) ]

`body` is a byte string holding a map; the signature is Ed25519 over "holdfast 1 <what>" || body, so what
was signed as one kind never counts as another. docs/format.md, sections 3 and 4, is the authority.
This module touches no storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from repo_store.errors import ObjectDamaged, Refused
from repo_store.fields import Fields
from repo_store.sealed import unpack_map

FORMAT = 1
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class SignedMap:
    """A map as read: its form is right, its signature not yet checked."""

    what: str
    fields: Fields
    encoded: bytes
    between: tuple[bytes, ...]
    signature: bytes

    def verify(self, public: bytes) -> None:
        """Raise ObjectDamaged unless the holder of the Ed25519 key `public` signed the body."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(
                self.signature, _signed(self.what, self.encoded)
            )
        except InvalidSignature:
            raise ObjectDamaged(self.fields.name, "its signature does not hold") from None


def build_signed(
    what: str, body: Mapping[str, Any], signing_key: Ed25519PrivateKey, *between: bytes
) -> bytes:
    """Return the object of `body`, signed."""
    encoded = msgpack.packb(body)
    signature = signing_key.sign(_signed(what, encoded))
    data: bytes = msgpack.packb([f"holdfast {what}", encoded, *between, signature])
    return data


def parse_signed(
    what: str, name: str, data: bytes, *, bytes_max: int, between: tuple[int, ...] = ()
) -> SignedMap:
    """Read the object `name`; `between` are the sizes of what stands between body and signature.

    The format is looked at before anything else in the body, so that a later one is refused by its number.
    Raises ObjectDamaged, and Refused for a format that this version does not read.
    """
    if len(data) > bytes_max:
        raise ObjectDamaged(name, f"has more than {bytes_max} bytes")
    try:
        parts = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise ObjectDamaged(name, "is no MessagePack") from None
    if not isinstance(parts, list) or not parts or parts[0] != f"holdfast {what}":
        raise ObjectDamaged(name, f"is no {what} of holdfast")
    rest = parts[1:]
    sizes = (None, *between, SIGNATURE_BYTES)
    if not all(isinstance(part, bytes) for part in rest) or len(rest) != len(sizes):
        raise ObjectDamaged(name, "has parts of the wrong kind")
    if any(size is not None and len(part) != size for part, size in zip(rest, sizes, strict=True)):
        raise ObjectDamaged(name, "has parts of the wrong size")
    fields = Fields(name, unpack_map(name, rest[0]))
    version = fields.number("format", least=1)
    if version > FORMAT:
        raise Refused(
            f"{_called(what, name)} has format {version}; this version reads up to {FORMAT}",
            hint="use a newer version of holdfast",
        )
    return SignedMap(what, fields, rest[0], tuple(rest[1:-1]), rest[-1])


def _called(what: str, name: str) -> str:
    return "repository" if what == "config" else name


def _signed(what: str, encoded: bytes) -> bytes:
    return f"holdfast 1 {what}".encode() + encoded
