"""Repositories in memory for the tests of keys and configs: opened by key files, as those cost no time.

A repository made here has the real objects in a SimulatedStorage; what the product cannot do yet (a second epoch)
or never does (forged and foreign objects) is made by hand from the same parts.
"""

from dataclasses import dataclass, field
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.simulated_storage import SimulatedStorage

from repo_store import hpke
from repo_store.bundle import Bundle, build_bundle, bundle_name
from repo_store.config import Epoch, config_name, epoch_map
from repo_store.config_chain import append_config, read_chain
from repo_store.key_file import KeyFile, NewKeyFile
from repo_store.key_ops import add_slot
from repo_store.passphrase import Costs, Passphrase
from repo_store.repository import Repository, create_repository, open_repository
from repo_store.roles import role_named
from repo_store.signed_map import build_signed
from repo_store.two_copies import COPY, put_both
from repo_store.unlock import read_slot

NOW = 1_700_000_000 * 10**9
CHEAP = Costs(64 * 1024, 3, 4)
"""The floor: a fifth of a second. Tests use few."""


def cheap(text: str) -> Passphrase:
    """Return a passphrase whose slots cost the least that is allowed."""
    return Passphrase(text, CHEAP)


@dataclass
class KeyFiles:
    """Key files as they were handed out."""

    saved: list[KeyFile] = field(default_factory=list)

    def new(self) -> NewKeyFile:
        """Ask for a new one, which is then the last of `saved`."""
        return NewKeyFile(self.saved.append)


@dataclass
class Made:
    """A repository, the owner's key file, and all key files handed out since."""

    storage: SimulatedStorage
    repository: Repository
    key_file: KeyFile
    keys: KeyFiles

    @property
    def owner_private(self) -> bytes:
        private = self.repository.ring.owner_private
        assert private is not None
        return private

    def open(self, credential: KeyFile | Passphrase | None = None, **options: Any) -> Repository:
        """Open it over another connection."""
        return open_repository(self.storage.again(), credential or self.key_file, None, **options)

    def add(self, role: str, label: str = "another") -> KeyFile:
        """Add a slot with a key file."""
        added = add_slot(self.open(), secret=self.keys.new(), role=role, label=label, now_ns=NOW)
        assert added.key_file is not None
        return added.key_file

    def damage(self, name: str) -> None:
        """Flip a bit in the middle of an object."""
        data = bytearray(self.storage.disk.objects()[name])
        data[len(data) // 2] ^= 4
        self.storage.disk.damage(name, bytes(data))

    def damage_both(self, name: str) -> None:
        """Damage an object and its copy."""
        self.damage(name)
        self.damage(name + COPY)

    def put_config(self, number: int, body: dict[str, Any], *, owner_private: bytes | None = None) -> None:
        """Store a config with any body, rightly signed by the owner or another."""
        data = sign_config(body, owner_private or self.owner_private)
        for name in (config_name(number), config_name(number) + COPY):
            self.storage.disk.damage(name, data)

    def body(self, **changes: Any) -> dict[str, Any]:
        """Return the body of the newest config, changed."""
        return {**read_chain(self.storage.again(), None).newest.body, **changes}


def make_repository(storage: SimulatedStorage | None = None) -> Made:
    """Return a new repository with one slot, an owner's with a key file."""
    storage, keys = storage or SimulatedStorage(), KeyFiles()
    created = create_repository(storage, secret=keys.new(), label="first", now_ns=NOW)
    assert created.key_file is not None
    return Made(storage, created.repository, created.key_file, keys)


def open_second_epoch(made: Made, *, without: tuple[str, ...] = ()) -> None:
    """Open the next epoch by hand, with bundles for all slots but those `without`."""
    repository, storage = made.open(), made.storage
    ring, config = repository.ring, repository.config
    number, data_private = config.epoch + 1, hpke.generate()
    bundle = Bundle(
        id_key=ring.id_key,
        chunker_key=ring.chunker_key,
        metadata_key=bytes([number]) * 32,
        owner_public=ring.owner_public,
        data_private=data_private,
        owner_private=made.owner_private,
    )
    for line in config.roster.values():
        if line.until is None and line.slot not in without:
            slot, _ = read_slot(storage, config, line, 0)
            sealed = build_bundle(
                bundle,
                made.owner_private,
                slot.public,
                repository=config.repository,
                slot=line.slot,
                epoch=number,
                role=role_named(line.role),
            )
            put_both(storage, bundle_name(line.slot, number), sealed)
    epochs = [*config.body["epochs"], epoch_map(Epoch(number, hpke.public_of(data_private), NOW))]
    append_config(storage, config, made.owner_private, created_ns=NOW, changes={"epochs": epochs})


def sign_config(body: Any, owner_private: bytes) -> bytes:
    """Return a config object of any body."""
    owner = Ed25519PrivateKey.from_private_bytes(owner_private)
    return build_signed("config", body, owner, owner.public_key().public_bytes_raw())


def signed_again(data: bytes, what: str, seed: bytes, **changes: Any) -> bytes:
    """Return a slot or bundle with a changed body, signed by the holder of `seed`."""
    body = {**msgpack.unpackb(msgpack.unpackb(data)[1]), **changes}
    return build_signed(what, body, Ed25519PrivateKey.from_private_bytes(seed))
