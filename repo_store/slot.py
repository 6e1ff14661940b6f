"""Slots: the key pair and signing key of one holder, wrapped by a passphrase or a key file.

    keys/<slot>-<n>     the n-th wrapping of the holder's keys; and its copy

docs/format.md, section 4, is the authority. A new passphrase is a new wrapping of the same keys under the next
number, so what was sealed for the holder stays as it is. The holder signs each wrapping: whoever can write to
the storage can neither put a public key of his own into it nor give it another label.
This module turns slots into bytes and back; it touches no storage.
"""

import hmac
import os
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repo_store import hpke
from repo_store.errors import ObjectDamaged, Refused
from repo_store.fields import Fields
from repo_store.key_file import KEY_BYTES, KeyFile, NewKeyFile
from repo_store.key_ring import derive
from repo_store.passphrase import Costs, Passphrase, check_costs
from repo_store.signed_map import build_signed, parse_signed

FORMAT = 1
SLOT_BYTES_MAX = 64 * 1024
SLOT_NAME_BYTES = 8
LABEL_CHARACTERS_MAX = 200
BY_PASSPHRASE, BY_KEY_FILE = "passphrase", "key file"
REPOSITORY_BYTES = 32
SIGN_PUBLIC_BYTES = 32
_SALT_BYTES = 32
_SEED_BYTES = 32
_CHECK_BYTES = 16
_WRAPPED_BYTES = hpke.PRIVATE_BYTES + _SEED_BYTES + 16
_NONCE = bytes(12)  # safe: the salt, and so the key, is fresh at every wrapping
_NUMBER_MAX = 10**9

Credential = Passphrase | KeyFile
"""What opens a slot."""
Secret = Passphrase | NewKeyFile
"""What a new slot shall be opened with."""


@dataclass(frozen=True)
class Holder:
    """The keys that one slot wraps: the private key bundles are sealed to, and the seed it signs with."""

    private: bytes = field(repr=False)
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "Holder":
        """Return a new holder's keys."""
        return cls(hpke.generate(), os.urandom(_SEED_BYTES))

    @cached_property
    def signing_key(self) -> Ed25519PrivateKey:
        """The key the holder signs objects with."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def public(self) -> bytes:
        """The public key that bundles are sealed to (1,216 bytes)."""
        return hpke.public_of(self.private)

    @cached_property
    def sign_public(self) -> bytes:
        """The public key that signatures are checked with (32 bytes)."""
        return self.signing_key.public_key().public_bytes_raw()


@dataclass(frozen=True)
class Slot:
    """One wrapping as read. Its signature holds under `sign_public`; whether that key is the one the roster names
    for this slot is for the caller to check."""

    name: str
    repository: bytes
    slot: str
    number: int
    label: str
    created_ns: int
    method: str
    costs: Costs | None
    salt: bytes
    public: bytes
    sign_public: bytes
    check: bytes
    wrapped: bytes


def slot_name(slot: str, number: int) -> str:
    """Return the object name of a wrapping of `slot`."""
    return f"keys/{slot}-{number}"


def new_slot() -> str:
    """Return a fresh name for a slot."""
    return os.urandom(SLOT_NAME_BYTES).hex()


def wrap_slot(
    holder: Holder,
    secret: Credential,
    *,
    repository: bytes,
    slot: str,
    number: int,
    label: str,
    created_ns: int,
) -> bytes:
    """Return the object that holds the keys of `holder`, openable by `secret` only.

    Raises Refused for a label that is too long and for costs outside the limits.
    """
    check_label(label)
    salt = os.urandom(_SALT_BYTES)
    costs = secret.costs if isinstance(secret, Passphrase) else None
    kek = _kek(secret, salt, costs)
    wrapped = AESGCM(kek).encrypt(_NONCE, holder.private + holder.seed, _bound(repository, slot))
    body = {
        "format": FORMAT,
        "repository": repository,
        "slot": slot,
        "number": number,
        "label": label,
        "created": created_ns,
        "method": BY_PASSPHRASE if costs is not None else BY_KEY_FILE,
        "kdf": costs._asdict() if costs is not None else None,
        "salt": salt,
        "public": holder.public,
        "sign_public": holder.sign_public,
        "check": _check(kek),
        "wrapped": wrapped,
    }
    return build_signed("slot", body, holder.signing_key)


def parse_slot(name: str, data: bytes, *, slot: str, number: int) -> Slot:
    """Return the wrapping `number` of `slot` that `data` holds.

    Raises ObjectDamaged, and Refused for a later format, an unknown method, or costs outside the limits.
    """
    signed = parse_signed("slot", name, data, bytes_max=SLOT_BYTES_MAX)
    fields = signed.fields
    sign_public = fields.data("sign_public", SIGN_PUBLIC_BYTES)
    signed.verify(sign_public)
    if fields.text("slot") != slot or fields.number("number", most=_NUMBER_MAX) != number:
        raise ObjectDamaged(name, "was made under another name")
    method = fields.text("method")
    return Slot(
        name=name,
        repository=fields.data("repository", REPOSITORY_BYTES),
        slot=slot,
        number=number,
        label=fields.text("label"),
        created_ns=fields.number("created"),
        method=method,
        costs=_costs(name, method, fields),
        salt=fields.data("salt", _SALT_BYTES),
        public=fields.data("public", hpke.PUBLIC_BYTES),
        sign_public=sign_public,
        check=fields.data("check", _CHECK_BYTES),
        wrapped=fields.data("wrapped", _WRAPPED_BYTES),
    )


def unwrap_slot(slot: Slot, credential: Credential) -> Holder | None:
    """Return the holder's keys, or None if the slot was not wrapped for this passphrase or key file.

    Raises ObjectDamaged if it was, but does not open all the same.
    """
    if isinstance(credential, Passphrase) != (slot.method == BY_PASSPHRASE):
        return None
    kek = _kek(credential, slot.salt, slot.costs)
    if not hmac.compare_digest(_check(kek), slot.check):
        return None
    try:
        keys = AESGCM(kek).decrypt(_NONCE, slot.wrapped, _bound(slot.repository, slot.slot))
    except InvalidTag:
        raise ObjectDamaged(slot.name, "the key fits, yet what it wraps does not open") from None
    holder = Holder(keys[: hpke.PRIVATE_BYTES], keys[hpke.PRIVATE_BYTES :])
    if holder.sign_public != slot.sign_public or holder.public != slot.public:
        raise ObjectDamaged(slot.name, "what it wraps does not belong to its public keys")
    return holder


def check_label(label: str) -> None:
    """Raise Refused for a label that a slot cannot have."""
    if len(label) > LABEL_CHARACTERS_MAX:
        raise Refused(f"the label has more than {LABEL_CHARACTERS_MAX} characters")


def credential_for(secret: Secret, repository: bytes, slot: str) -> Credential:
    """Return what will open `slot`: the passphrase itself, or a fresh key file, which is saved first."""
    if isinstance(secret, Passphrase):
        return secret
    key_file = KeyFile(repository, slot, os.urandom(KEY_BYTES))
    secret.save(key_file)
    return key_file


def _costs(name: str, method: str, fields: Fields) -> Costs | None:
    if method == BY_KEY_FILE:
        return None
    if method != BY_PASSPHRASE:
        raise Refused(f"{name} opens with {method[:40]!r}, which this version does not know")
    kdf = fields.map("kdf")
    costs = Costs(*(kdf.number(key) for key in Costs._fields))
    try:
        check_costs(costs)
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    return costs


def _kek(secret: Credential, salt: bytes, costs: Costs | None) -> bytes:
    if isinstance(secret, KeyFile):
        return secret.kek(salt)
    assert costs is not None
    return secret.kek(salt, costs)


def _check(kek: bytes) -> bytes:
    return derive("slot check", kek)[:_CHECK_BYTES]


def _bound(repository: bytes, slot: str) -> bytes:
    return b"holdfast 1 slot" + repository + slot.encode()
