"""What an owner, or a holder, does with keys: add, list, remove, change the secret, export.

Nothing is changed in place. Adding stores the slot first and then the config that names it; removing stores the
config first and deletes the slot after; a new passphrase is stored before the old one is deleted. So a run that
dies half way has either done nothing that counts, or leaves a rest that doing it again clears away.
"""

from dataclasses import dataclass, replace
from functools import partial

from repo_store.bundle import BUNDLE_BYTES_MAX, Bundle, bundle_name
from repo_store.config import Config, roster_map
from repo_store.config_chain import append_config, put_copy, read_chain
from repo_store.errors import HoldfastError, ObjectConflict, ObjectDamaged, Refused, StorageError, UsageError
from repo_store.key_file import KeyFile, recovery_sheet
from repo_store.key_ring import KeyRing, RosterLine, signer_of
from repo_store.last_seen import LastSeen, last_seen_path, remember
from repo_store.repository import Repository, make_slot
from repo_store.roles import OWNER, role_named
from repo_store.signed_map import parse_signed
from repo_store.slot import Credential, Secret, Slot, credential_for, slot_name, unwrap_slot, wrap_slot
from repo_store.two_copies import put_both, read_either
from repo_store.unlock import list_wrappings, read_slot, unlock

OK, ONE_COPY, DAMAGED = "ok", "one copy damaged", "damaged"
_STATES = (OK, ONE_COPY, DAMAGED)  # from good to bad


@dataclass(frozen=True)
class SlotInfo:
    """One slot as listed. What a damaged slot no longer tells is None. `problems` say what is wrong, by object."""

    slot: str
    role: str
    label: str | None
    method: str | None
    created_ns: int | None
    state: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class SlotAdded:
    """A new slot, the repository under the config that names it, and the key file if one was asked for."""

    repository: Repository
    slot: str
    key_file: KeyFile | None


@dataclass(frozen=True)
class Export:
    """What opens a slot, to be kept elsewhere: the key file, if it has one, and the text of the recovery sheet."""

    key_file: KeyFile | None
    sheet: str


def add_slot(repository: Repository, *, secret: Secret, role: str, label: str, now_ns: int) -> SlotAdded:
    """Give a new holder a slot that opens with `secret`.

    Raises Refused for anyone but an owner, for an unknown role, and if the keys are changed by others meanwhile.
    """
    config, owner_private = _owned(repository)
    kind = role_named(role)
    made = make_slot(
        repository.storage,
        secret,
        repository=config.repository,
        owner_private=owner_private,
        bundles=_bundles(repository.ring, config),
        role=kind,
        label=label,
        now_ns=now_ns,
    )
    roster = [*config.body["roster"], roster_map(made.line)]
    after = _append(repository, config, owner_private, roster, now_ns)
    key_file = made.credential if isinstance(made.credential, KeyFile) else None
    return SlotAdded(after, made.line.slot, key_file)


def list_slots(repository: Repository) -> list[SlotInfo]:
    """Return the slots that were not removed, with the state of all their objects."""
    identity = repository.config.repository
    config = read_chain(repository.storage, repository.state_dir, repository=identity).newest
    wrappings = list_wrappings(repository.storage)
    return [
        _slot_info(repository, config, line, set(wrappings.get(line.slot, {0})))
        for line in config.roster.values()
        if line.until is None
    ]


def remove_slot(repository: Repository, slot: str, *, now_ns: int) -> Repository:
    """Take a slot out, so that it opens nothing any more and its signatures end with the present epoch.

    Its holder still knows what he knew: only `key rotate` keeps new backups from him. A removal that died half way
    is finished. Raises UsageError for an unknown slot, Refused for anyone but an owner and for the last owner's slot.
    """
    config, owner_private = _owned(repository)
    line = config.line_of(slot)
    if line is None:
        raise UsageError(f"{slot}: no such slot", hint="`holdfast key list` shows them")
    if line.until is None:
        _refuse_last_owner(repository, line)
        ended = {"until": config.epoch}
        signer = signer_of(line.public)
        roster = [each | ended if each["signer"] == signer else each for each in config.body["roster"]]
        repository = _append(repository, config, owner_private, roster, now_ns)
    else:
        put_copy(repository.storage, config)  # the run that removed it may have died before that
    storage = repository.storage
    for name in [each.name for each in storage.list(f"keys/{slot}")]:
        storage.delete(name)
    storage.barrier()
    return repository


def change_secret(
    repository: Repository, before: Credential, secret: Secret, *, now_ns: int
) -> KeyFile | None:
    """Let the slot that `before` opens be opened by `secret` instead; return the key file if one was asked for.

    Until this returns both may open it, never neither. Raises WrongKey if `before` does not open, Refused if the slot
    is being changed by someone else.
    """
    storage, config = repository.storage, read_chain(repository.storage, repository.state_dir).newest
    config.require("key")
    unlocked = unlock(storage, config, before)
    slot = unlocked.line.slot
    numbers = list_wrappings(storage, slot)[slot]
    number = max(numbers) + 1
    after = credential_for(secret, config.repository, slot)
    wrapping = wrap_slot(
        unlocked.holder,
        after,
        repository=config.repository,
        slot=slot,
        number=number,
        label=unlocked.wrapping.label,
        created_ns=now_ns,
    )
    try:
        put_both(storage, slot_name(slot, number), wrapping)
    except ObjectConflict as error:
        raise Refused(f"{error.name}: the slot is being changed by someone else, too") from None
    storage.barrier()
    # The old one goes only when what is stored opens with the new one.
    stored, _ = read_slot(storage, config, unlocked.line, number)
    if unwrap_slot(stored, after) != unlocked.holder:
        raise ObjectDamaged(stored.name, "does not open as it was stored")
    for name in sorted(name for names in numbers.values() for name in names):
        storage.delete(name)
    storage.barrier()
    return after if isinstance(after, KeyFile) else None


def export_slot(repository: Repository, credential: Credential) -> Export:
    """Return what is needed to open the slot that `credential` opens. Raises WrongKey if it opens none."""
    unlocked = unlock(repository.storage, repository.config, credential)
    key_file = credential if isinstance(credential, KeyFile) else None
    location, identity = repository.storage.location, repository.config.repository
    return Export(key_file, recovery_sheet(location, identity, unlocked.line.slot, key_file))


def _owned(repository: Repository) -> tuple[Config, bytes]:
    """Return the newest config and the owner's key. Raises Refused if this holder may not change keys."""
    ring = repository.ring
    if ring.owner_private is None:
        raise Refused(f"slot {ring.slot} has the role {ring.role}; only an owner changes who has keys")
    return repository.refresh("key").config, ring.owner_private


def _bundles(ring: KeyRing, config: Config) -> dict[int, Bundle]:
    """Return what the owner knows of each epoch. Raises Refused if he lacks one: the new holder would, too."""
    return {
        number: Bundle(
            id_key=ring.id_key,
            chunker_key=ring.chunker_key,
            metadata_key=ring.metadata_key(number),
            owner_public=ring.owner_public,
            data_private=ring.data_private(number),
            owner_private=ring.owner_private,
        )
        for number in sorted(config.epochs)
    }


def _append(
    repository: Repository, config: Config, owner_private: bytes, roster: list[object], now_ns: int
) -> Repository:
    after = append_config(
        repository.storage, config, owner_private, created_ns=now_ns, changes={"roster": roster}
    )
    if repository.state_dir is not None:
        # Or rolling the storage back to before this change would go unnoticed. That it cannot be remembered is
        # told at the next opening.
        path = last_seen_path(repository.state_dir, after.repository, repository.storage.location)
        remember(path, LastSeen(after.number, after.digest))
    return replace(repository, config=after, ring=replace(repository.ring, roster=after.roster))


def _refuse_last_owner(repository: Repository, line: RosterLine) -> None:
    """Raise Refused unless another owner's slot, none of it lost, stays. Damaged ones cannot be counted on."""
    others = (info for info in list_slots(repository) if info.slot != line.slot and info.role == OWNER)
    if line.role == OWNER and all(info.state == DAMAGED for info in others):
        raise Refused(
            f"slot {line.slot} is the last one of an owner that is whole; without it nobody could add keys",
            hint="add another owner's slot first",
        )


def _slot_info(repository: Repository, config: Config, line: RosterLine, numbers: set[int]) -> SlotInfo:
    slot: Slot | None = None
    problems: tuple[str, ...]
    try:
        slot, problems = read_slot(repository.storage, config, line, max(numbers), look_at_both=True)
        state = ONE_COPY if problems else OK
    except (ObjectDamaged, Refused, StorageError) as error:
        problems, state = (str(error),), DAMAGED
    for epoch in sorted(config.epochs):
        more, bundle_state = _bundle_state(repository, config, line, epoch)
        problems += more
        state = max(state, bundle_state, key=_STATES.index)
    for number in sorted(numbers - {max(numbers)}):
        problems += (f"{slot_name(line.slot, number)}: an earlier secret still opens it: change it again",)
    return SlotInfo(
        slot=line.slot,
        role=line.role,
        label=slot.label if slot else None,
        method=slot.method if slot else None,
        created_ns=slot.created_ns if slot else None,
        state=state,
        problems=problems,
    )


def _bundle_state(
    repository: Repository, config: Config, line: RosterLine, epoch: int
) -> tuple[tuple[str, ...], str]:
    """Return what is wrong with a bundle, as far as its signature tells: only its holder can open it."""
    name = bundle_name(line.slot, epoch)
    try:
        _, problems = read_either(
            repository.storage,
            name,
            partial(_check_bundle, config=config, line=line, epoch=epoch),
            bytes_max=BUNDLE_BYTES_MAX,
            look_at_both=True,
        )
    except HoldfastError as error:
        return (str(error),), DAMAGED
    return problems, ONE_COPY if problems else OK


def _check_bundle(name: str, data: bytes, *, config: Config, line: RosterLine, epoch: int) -> None:
    signed = parse_signed("bundle", name, data, bytes_max=BUNDLE_BYTES_MAX)
    signed.verify(config.owner_public)
    fields = signed.fields
    found = (fields.data("repository"), fields.text("slot"), fields.number("epoch"), fields.text("role"))
    if found != (config.repository, line.slot, epoch, line.role):
        raise ObjectDamaged(name, "was made for another slot, epoch, role or repository")
