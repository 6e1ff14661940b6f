"""The config chain: config/0, config/1 … in a storage, each naming the hash of the one before.

docs/format.md, section 3, is the authority. The newest config rules. Every one is signed by the owner, whose key
the identity names, so nobody else can add to the chain; what an attacker who controls the storage can do is to
show an older end of it, and against that each client remembers the highest number it saw (last_seen.py).

The newest config must hold. An older one that is damaged in both copies is reported and costs nothing else.
"""

import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from repo_store.config import CONFIG_BYTES_MAX, Config, config_name, next_config, parse_config
from repo_store.errors import NoRepository, ObjectConflict, ObjectDamaged, Refused
from repo_store.last_seen import LastSeen, last_seen_path, recall, remember
from repo_store.storage import Storage
from repo_store.two_copies import COPY, read_either

_PREFIX = "config/"
_NAME = re.compile(r"config/(0|[1-9][0-9]{0,8})(?:\.copy)?", re.ASCII)


@dataclass(frozen=True)
class Chain:
    """The newest config, and what a person should know of the rest."""

    newest: Config
    warnings: tuple[str, ...]


def list_configs(storage: Storage) -> dict[int, set[str]]:
    """Return the numbers of all configs that exist, at least as a copy, with the names they have."""
    found: dict[int, set[str]] = {}
    for each in storage.list(_PREFIX):
        match = _NAME.fullmatch(each.name)
        if match:
            found.setdefault(int(match[1]), set()).add(each.name)
    return found


def read_chain(
    storage: Storage,
    state_dir: str | os.PathLike[str] | None,
    *,
    repository: bytes | None = None,
    look_at_both: bool = False,
    configs: Mapping[int, Collection[str]] | None = None,
) -> Chain:
    """Return the newest config after checking the chain down to what this client saw before, or to config 0.

    A copy is read only where the first does not hold, or to `look_at_both`. One of another repository than the
    `repository` that the caller knows proves itself, and yet is used only if the other copy does not hold.
    `configs` are those that exist, if the caller has just listed them.
    Raises NoRepository, ObjectDamaged if the newest config is, Refused for a rollback or a format that this version
    does not read. What was seen is remembered in `state_dir`, if one is given.
    """
    configs = list_configs(storage) if configs is None else configs
    if not configs:
        raise NoRepository(f"{storage.location}: there is no repository", hint="`holdfast init` creates one")
    newest, warnings = _read(storage, max(configs), repository, look_at_both=look_at_both)
    copy = config_name(newest.number) + COPY
    if copy not in configs[newest.number] and not look_at_both:
        warnings += (str(ObjectDamaged(copy, "is missing")),)
    path = seen = None
    if state_dir is not None:
        path = last_seen_path(state_dir, newest.repository, storage.location)
        seen = recall(path)
    if seen is not None:
        _refuse_rollback(storage, newest, seen, str(path))
    warnings += _check_links(storage, newest, seen, look_at_both=look_at_both)
    if path is not None and seen != LastSeen(newest.number, newest.digest):
        failure = remember(path, LastSeen(newest.number, newest.digest))
        warnings += (failure,) if failure else ()
    return Chain(newest, warnings)


def append_config(
    storage: Storage, before: Config, owner_private: bytes, *, created_ns: int, changes: Mapping[str, Any]
) -> Config:
    """Create the config that follows `before`, durably, and return it.

    Raises Refused if somebody else was first.
    """
    after = next_config(before, owner_private, created_ns=created_ns, changes=changes)
    put_copy(storage, before)  # whoever wrote it may have died before that
    try:
        storage.put(config_name(after.number), after.data)
    except ObjectConflict:
        raise Refused(
            f"{config_name(after.number)}: the keys are being changed by someone else, too",
            hint="look at what the other did, then run it again",
        ) from None
    storage.barrier()
    put_copy(storage, after)
    storage.barrier()
    return after


def put_copy(storage: Storage, config: Config) -> None:
    """Make sure that the copy of a config exists. One that exists and differs is damage, which is not mended here."""
    with suppress(ObjectConflict):
        storage.put(config_name(config.number) + COPY, config.data)


def _read(
    storage: Storage, number: int, repository: bytes | None, *, look_at_both: bool
) -> tuple[Config, tuple[str, ...]]:
    parse = partial(_parse_newest, number=number, repository=repository)
    try:
        return read_either(
            storage, config_name(number), parse, bytes_max=CONFIG_BYTES_MAX, look_at_both=look_at_both
        )
    except ObjectDamaged:
        if repository is None:
            raise
        return _read(storage, number, None, look_at_both=look_at_both)


def _refuse_rollback(storage: Storage, newest: Config, seen: LastSeen, path: str) -> None:
    hint = f"the storage may show an old state; if you brought that about yourself, remove {path}"
    if newest.number < seen.number:
        raise Refused(
            f"{storage.location}: the newest config is {newest.number}, but this machine has seen {seen.number}",
            hint=hint,
        )
    if newest.number == seen.number and newest.digest != seen.digest:
        raise Refused(
            f"{storage.location}: config {newest.number} is not the one that this machine has seen", hint=hint
        )


def _check_links(
    storage: Storage, newest: Config, seen: LastSeen | None, *, look_at_both: bool
) -> tuple[str, ...]:
    """Follow the chain down, to what was seen before or to config 0, and return what is wrong with it.

    Raises Refused if it does not lead to what was seen: then the owner's key has signed two chains.
    """
    problems: tuple[str, ...] = ()
    expected = newest.previous
    for number in range(newest.number - 1, (seen.number if seen else 0) - 1, -1):
        try:
            config, more = read_either(
                storage,
                config_name(number),
                partial(_parse_link, number=number, expected=expected, repository=newest.repository),
                bytes_max=CONFIG_BYTES_MAX,
                look_at_both=look_at_both,
            )
        except ObjectDamaged as error:
            problems += (str(error),)
            expected = None
            continue
        problems += more
        expected = config.previous
        if seen is not None and number == seen.number and config.digest != seen.digest:
            raise Refused(
                f"{storage.location}: config {number} is not the one that this machine has seen",
                hint="two chains of configs were signed with the owner's key: find out by whom",
            )
    return problems


def _parse_newest(name: str, data: bytes, *, number: int, repository: bytes | None) -> Config:
    config = parse_config(name, data, number=number)
    if repository not in (None, config.repository):
        raise ObjectDamaged(name, "is of another repository")
    return config


def _parse_link(name: str, data: bytes, *, number: int, expected: bytes | None, repository: bytes) -> Config:
    config = parse_config(name, data, number=number)
    if config.repository != repository or (expected is not None and config.digest != expected):
        raise ObjectDamaged(name, "is not the one that the next config names")
    return config
