"""The repository, made and opened.

Making one writes the keys first and config/0 last: its existence is what makes the repository, so a run that dies
leaves either a repository or nothing that another `init` would mind. What it left in keys/ is in no roster, and
what no roster names is never looked at.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from repo_store import hpke
from repo_store.bundle import Bundle, build_bundle, bundle_name
from repo_store.config import Config, Epoch, config_name, first_config, identity_of
from repo_store.config_chain import list_configs, put_copy, read_chain
from repo_store.errors import ObjectConflict, Refused
from repo_store.key_file import KeyFile
from repo_store.key_ring import KeyRing, RosterLine
from repo_store.last_seen import LastSeen, last_seen_path, remember
from repo_store.roles import OWNER, Role, role_named
from repo_store.slot import (
    Credential,
    Holder,
    Secret,
    check_label,
    credential_for,
    new_slot,
    slot_name,
    wrap_slot,
)
from repo_store.storage import Storage
from repo_store.two_copies import put_both
from repo_store.unlock import open_ring, unlock

_KEY_BYTES = 32


@dataclass(frozen=True)
class Repository:
    """An open repository. `warnings` are lines for a person: what was damaged on the way and could be survived."""

    storage: Storage
    ring: KeyRing
    config: Config
    warnings: tuple[str, ...] = ()
    state_dir: str | None = None

    def refresh(self, operation: str) -> "Repository":
        """Return the repository under its newest config. A writer does this after its pending, prune after its mark.

        Raises Refused if `operation` must not go on under that: it needs an unknown feature, this slot was removed,
        or an epoch was opened, whose keys only opening the repository again can give.
        """
        chain = read_chain(self.storage, self.state_dir, repository=self.config.repository)
        config = chain.newest
        if config.repository != self.config.repository or config.number < self.config.number:
            raise Refused(
                f"{self.storage.location}: another repository, or an older state of it, appeared there"
            )
        config.require(operation)
        line = config.line_of(self.ring.slot)
        if line is None or line.until is not None:
            raise Refused(f"slot {self.ring.slot} was removed from this repository meanwhile")
        if config.epoch != self.config.epoch:
            raise Refused("the keys of the repository were rotated meanwhile", hint="run it again")
        return replace(self, config=config, ring=replace(self.ring, roster=config.roster))


@dataclass(frozen=True)
class Created:
    """A new repository, open, and the key file if one was asked for."""

    repository: Repository
    key_file: KeyFile | None


@dataclass(frozen=True)
class SlotMade:
    """A slot whose objects are stored. It counts from when a config names it."""

    line: RosterLine
    holder: Holder
    credential: Credential


def create_repository(
    storage: Storage,
    *,
    secret: Secret,
    label: str,
    now_ns: int,
    state_dir: str | os.PathLike[str] | None = None,
) -> Created:
    """Make a repository whose only slot, an owner's, opens with `secret`.

    Whether the storage is fit for one is for the caller to probe. Raises Refused if there is one already.
    """
    if list_configs(storage):
        raise _exists(storage)
    owner_private = os.urandom(_KEY_BYTES)
    bundle, epoch = _first_epoch(owner_private, now_ns)
    role = role_named(OWNER)
    made = make_slot(
        storage,
        secret,
        repository=identity_of(bundle.owner_public),
        owner_private=owner_private,
        bundles={epoch.number: bundle},
        role=role,
        label=label,
        now_ns=now_ns,
    )
    config = first_config(owner_private, created_ns=now_ns, epochs=[epoch], roster=[made.line])
    # Opened from what is stored, before it counts: a repository that does not open must never come into being.
    ring, _ = open_ring(storage, config, unlock(storage, config, made.credential))
    try:
        storage.put(config_name(0), config.data)
    except ObjectConflict:
        raise _exists(storage) from None
    storage.barrier()
    put_copy(storage, config)
    storage.barrier()
    if state_dir is not None:
        # That it cannot be remembered is told at every opening; here it would only hide that all went well.
        seen = LastSeen(config.number, config.digest)
        remember(last_seen_path(state_dir, config.repository, storage.location), seen)
    key_file = made.credential if isinstance(made.credential, KeyFile) else None
    return Created(Repository(storage, ring, config, (), _state(state_dir)), key_file)


def open_repository(
    storage: Storage,
    credential: Credential,
    state_dir: str | os.PathLike[str] | None,
    *,
    operation: str = "read",
    configs: Mapping[int, Collection[str]] | None = None,
) -> Repository:
    """Return the repository, opened for `operation` (one of config.OPERATIONS).

    `configs` are those that exist, if the caller has just listed them (config_chain.list_configs).
    `state_dir` is where this machine remembers what it saw, or None to remember nothing. Raises NoRepository,
    WrongKey, Refused (a later format, a feature that `operation` needs, a rollback), ObjectDamaged, StorageError.
    """
    expected = credential.repository if isinstance(credential, KeyFile) else None
    chain = read_chain(storage, state_dir, repository=expected, configs=configs)
    chain.newest.require(operation)
    unlocked = unlock(storage, chain.newest, credential)
    ring, problems = open_ring(storage, chain.newest, unlocked)
    warnings = chain.warnings + unlocked.warnings + problems
    return Repository(storage, ring, chain.newest, warnings, _state(state_dir))


def make_slot(
    storage: Storage,
    secret: Secret,
    *,
    repository: bytes,
    owner_private: bytes,
    bundles: dict[int, Bundle],
    role: Role,
    label: str,
    now_ns: int,
) -> SlotMade:
    """Store a new holder's slot and its bundles, durably. Raises Refused as `wrap_slot`, StorageError."""
    check_label(label)
    slot, holder = new_slot(), Holder.generate()
    credential = credential_for(secret, repository, slot)
    wrapping = wrap_slot(
        holder, credential, repository=repository, slot=slot, number=0, label=label, created_ns=now_ns
    )
    put_both(storage, slot_name(slot, 0), wrapping)
    for epoch, bundle in bundles.items():
        sealed = build_bundle(
            bundle, owner_private, holder.public, repository=repository, slot=slot, epoch=epoch, role=role
        )
        put_both(storage, bundle_name(slot, epoch), sealed)
    storage.barrier()
    return SlotMade(RosterLine(holder.sign_public, slot, role.name, role.kinds), holder, credential)


def _first_epoch(owner_private: bytes, now_ns: int) -> tuple[Bundle, Epoch]:
    """Return fresh secrets of a repository, and its epoch 1."""
    data_private = hpke.generate()
    bundle = Bundle(
        id_key=os.urandom(_KEY_BYTES),
        chunker_key=os.urandom(_KEY_BYTES),
        metadata_key=os.urandom(_KEY_BYTES),
        owner_public=Ed25519PrivateKey.from_private_bytes(owner_private).public_key().public_bytes_raw(),
        data_private=data_private,
        owner_private=owner_private,
    )
    return bundle, Epoch(1, hpke.public_of(data_private), now_ns)


def _exists(storage: Storage) -> Refused:
    return Refused(f"{storage.location}: a repository exists there already")


def _state(state_dir: str | os.PathLike[str] | None) -> str | None:
    return None if state_dir is None else os.fspath(state_dir)
