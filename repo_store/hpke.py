"""HPKE (RFC 9180), suite 1: sealing to a public key.

KEM X-Wing (ML-KEM-768 and X25519), HKDF-SHA256, AES-256-GCM, base mode, one-shot: it stays secret as long as
one of the two key exchanges holds. Base mode says nothing about who sealed: what is sealed here must be
signed elsewhere. Keys are passed as the bytes that docs/format.md, "Secrets", gives.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from repo_store.errors import Refused

SUITE = 1
PRIVATE_BYTES = 96
PUBLIC_BYTES = 1216
OVERHEAD_BYTES = 1136
"""What sealing adds: the encapsulated key (1,120) and a tag (16)."""
_KEM_PRIVATE_BYTES = 64
_KEM_PUBLIC_BYTES = 1184
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def generate() -> bytes:
    """Return a new private key (96 bytes)."""
    return MLKEM768PrivateKey.generate().private_bytes_raw() + X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """Return the public key (1,216 bytes) of a private one."""
    kem, curve = _private_parts(private)
    return kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def seal_to(public: bytes, plain: bytes, *, info: bytes) -> bytes:
    """Return `plain` sealed to `public`, bound to `info`. Raises Refused if those bytes are no public key."""
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_KEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public[_KEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(plain, key, info=info)
    except ValueError:
        raise Refused("these bytes are no public key to seal to") from None


def open_with(private: bytes, sealed: bytes, *, info: bytes) -> bytes | None:
    """Return what was sealed, or None if it was not for this key and `info`, or is damaged."""
    key = MLKEM768X25519PrivateKey(*_private_parts(private))
    try:
        return _SUITE.decrypt(sealed, key, info=info)
    except (InvalidTag, ValueError):
        return None


def _private_parts(private: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    assert len(private) == PRIVATE_BYTES
    return (
        MLKEM768PrivateKey.from_seed_bytes(private[:_KEM_PRIVATE_BYTES]),
        X25519PrivateKey.from_private_bytes(private[_KEM_PRIVATE_BYTES:]),
    )
