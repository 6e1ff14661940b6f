"""Unlocking: from a passphrase or key file to the key ring of its holder.

    credential → slot (by the roster) → holder's keys → a bundle for each epoch → key ring

Only slots that the roster names and that were not removed are looked at: the roster is signed by the owner, names
in `keys/` are anybody's. A damaged slot never disturbs the others; it is what is reported only if nothing opens.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from repo_store import hpke
from repo_store.bundle import BUNDLE_BYTES_MAX, Bundle, bundle_name, open_bundle
from repo_store.config import Config
from repo_store.errors import HoldfastError, ObjectDamaged, Refused, StorageError, WrongKey
from repo_store.key_file import KeyFile
from repo_store.key_ring import EpochKeys, KeyRing, RosterLine
from repo_store.roles import OWNER, Role, role_named
from repo_store.slot import (
    SLOT_BYTES_MAX,
    Credential,
    Holder,
    Slot,
    parse_slot,
    slot_name,
    unwrap_slot,
)
from repo_store.storage import Storage
from repo_store.two_copies import COPY, read_either

_WRAPPING = re.compile(r"keys/([0-9a-f]{16})-(0|[1-9][0-9]{0,8})(?:\.copy)?", re.ASCII)
_SHOWN_DIGITS = 16


@dataclass(frozen=True)
class Unlocked:
    """An opened slot: its roster line, the wrapping that opened, the holder's keys, and what was wrong on the way."""

    line: RosterLine
    wrapping: Slot
    holder: Holder = field(repr=False)
    warnings: tuple[str, ...]


def list_wrappings(storage: Storage, slot: str = "") -> dict[str, dict[int, set[str]]]:
    """Return the wrappings that exist, of one slot or of all: slot → number → names."""
    found: dict[str, dict[int, set[str]]] = {}
    for each in storage.list(f"keys/{slot}"):
        match = _WRAPPING.fullmatch(each.name)
        if match:
            found.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(each.name)
    return found


def read_slot(
    storage: Storage, config: Config, line: RosterLine, number: int, *, look_at_both: bool = False
) -> tuple[Slot, tuple[str, ...]]:
    """Return a wrapping of the slot that `line` names, and what is wrong with one of its copies.

    Raises ObjectDamaged, Refused or StorageError if neither copy can be used.
    """
    parse = partial(_parse_rostered, config=config, line=line, number=number)
    return read_either(
        storage,
        slot_name(line.slot, number),
        parse,
        bytes_max=SLOT_BYTES_MAX,
        look_at_both=look_at_both,
    )


def unlock(storage: Storage, config: Config, credential: Credential) -> Unlocked:
    """Return the slot that `credential` opens.

    Raises WrongKey if it opens none; ObjectDamaged, Refused or StorageError if a slot that it may have opened
    cannot be used.
    """
    lines = _candidates(config, credential)
    only = lines[0].slot if isinstance(credential, KeyFile) else ""
    wrappings = list_wrappings(storage, only)
    warnings: tuple[str, ...] = ()
    errors: list[HoldfastError] = []
    for line in lines:
        numbers = wrappings.get(line.slot, {})
        if not numbers:
            errors.append(ObjectDamaged(slot_name(line.slot, 0), "it and its copy are missing"))
        for number in sorted(numbers, reverse=True):
            try:
                slot, problems = read_slot(storage, config, line, number)
                holder = unwrap_slot(slot, credential)
            except (ObjectDamaged, Refused, StorageError) as error:
                errors.append(error)
                continue
            if holder is not None:
                warnings += problems + _missing(slot_name(line.slot, number), numbers[number])
                return Unlocked(line, slot, holder, (*(str(error) for error in errors), *warnings))
            warnings += problems
    raise _not_opened(storage, credential, errors)


def open_ring(storage: Storage, config: Config, unlocked: Unlocked) -> tuple[KeyRing, tuple[str, ...]]:
    """Return the key ring of an opened slot, and what is wrong with its bundles.

    An epoch whose bundle is lost stays closed and costs only what was written under it. Raises Refused for a role
    that this version does not know, ObjectDamaged if no bundle opens, StorageError.
    """
    line = unlocked.line
    try:
        role = role_named(line.role)
    except Refused as error:
        raise Refused(f"slot {line.slot}: {error}", hint="use a newer version of holdfast") from None
    bundles: dict[int, Bundle] = {}
    problems: tuple[str, ...] = ()
    errors: list[ObjectDamaged | Refused] = []
    for epoch in sorted(config.epochs, reverse=True):
        try:
            bundles[epoch], more = read_bundle(storage, config, unlocked.holder, line.slot, epoch, role)
            problems += more
        except (ObjectDamaged, Refused) as error:
            errors.append(error)
    if not bundles:
        raise errors[0]
    newest = bundles[max(bundles)]
    for epoch, bundle in bundles.items():
        if (bundle.id_key, bundle.chunker_key) != (newest.id_key, newest.chunker_key):
            raise ObjectDamaged(bundle_name(line.slot, epoch), "its keys differ from those of a later epoch")
    ring = KeyRing(
        repository=config.repository,
        slot=line.slot,
        role=line.role,
        id_key=newest.id_key,
        chunker_key=newest.chunker_key,
        owner_public=config.owner_public,
        signing_key=unlocked.holder.signing_key,
        roster=config.roster,
        epochs={number: _epoch_keys(config, number, bundle) for number, bundle in bundles.items()},
        owner_private=newest.owner_private,
        newest=config.epoch,
    )
    return ring, (*(str(error) for error in errors), *problems)


def read_bundle(
    storage: Storage,
    config: Config,
    holder: Holder,
    slot: str,
    epoch: int,
    role: Role,
) -> tuple[Bundle, tuple[str, ...]]:
    """Return the bundle of a slot for an epoch, and what is wrong with one of its copies. Raises as `read_slot`."""
    parse = partial(
        _open_matching_bundle,
        holder=holder,
        config=config,
        slot=slot,
        epoch=epoch,
        role=role,
    )
    return read_either(storage, bundle_name(slot, epoch), parse, bytes_max=BUNDLE_BYTES_MAX)


def _candidates(config: Config, credential: Credential) -> list[RosterLine]:
    """Return the lines of the slots to try, owners first. Raises WrongKey where none can open."""
    if not isinstance(credential, KeyFile):
        alive = (line for line in config.roster.values() if line.until is None)
        return sorted(alive, key=lambda line: line.role != OWNER)
    if credential.repository != config.repository:
        theirs, ours = (each.hex()[:_SHOWN_DIGITS] for each in (credential.repository, config.repository))
        raise WrongKey(f"the key file is of repository {theirs}, and this is {ours}")
    line = config.line_of(credential.slot)
    if line is None:
        raise WrongKey(f"slot {credential.slot} of the key file is none of this repository")
    if line.until is not None:
        raise WrongKey(f"slot {credential.slot} of the key file was removed from this repository")
    return [line]


def _not_opened(storage: Storage, credential: Credential, errors: list[HoldfastError]) -> HoldfastError:
    for kind in (StorageError, ObjectDamaged, Refused):
        for error in errors:
            if isinstance(error, kind):
                error.hint = _UNOPENED_HINT if kind is ObjectDamaged else error.hint
                return error
    if isinstance(credential, KeyFile):
        return WrongKey(
            f"the key file does not open slot {credential.slot}",
            hint="the slot was given another key or a passphrase since",
        )
    return WrongKey(f"{storage.location}: the passphrase opens no slot of this repository")


_UNOPENED_HINT = "no intact slot opens with this key or passphrase; another one may still open the repository"


def _missing(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return a warning if the listing lacks the copy; that the first is missing was noticed when it was read."""
    return () if name + COPY in names else (str(ObjectDamaged(name + COPY, "is missing")),)


def _parse_rostered(name: str, data: bytes, *, config: Config, line: RosterLine, number: int) -> Slot:
    slot = parse_slot(name, data, slot=line.slot, number=number)
    if slot.sign_public != line.public or slot.repository != config.repository:
        raise ObjectDamaged(name, "is not of the holder that the roster names")
    return slot


def _open_matching_bundle(
    name: str, data: bytes, *, holder: Holder, config: Config, slot: str, epoch: int, role: Role
) -> Bundle:
    bundle = open_bundle(
        name,
        data,
        holder,
        repository=config.repository,
        owner_public=config.owner_public,
        slot=slot,
        epoch=epoch,
        role=role,
    )
    private = bundle.data_private
    if private is not None and hpke.public_of(private) != config.epochs[epoch].data_public:
        raise ObjectDamaged(name, "its data key is not the one that the config names")
    return bundle


def _epoch_keys(config: Config, number: int, bundle: Bundle) -> EpochKeys:
    return EpochKeys(bundle.metadata_key, config.epochs[number].data_public, bundle.data_private)
