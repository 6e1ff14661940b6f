"""The probe: find out what a storage really does, before anything is entrusted to it.

Some S3-compatible servers answer "created" to every conditional put; some caches show a listing of a moment
ago; some proxies ignore the range of a read. The repository's rules (docs/invariants.md) hold on none of them,
and nothing would look wrong until two runs meet. So `init` and `doctor` try it out, with two independent
connections, as one connection may see its own writes through a cache.

Probe objects are named probe/<random>-<n>. Not below pending/: prune decides what each name there means, and
a foreign kind of object has no place in that decision. Nothing else reads probe/, and names never repeat, so a
probe that was killed leaves nothing that could mislead anybody. What a probe made it removes, also when it fails.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from repo_store.errors import ObjectConflict, ObjectMissing, Refused, StorageError
from repo_store.storage import Storage

PROBE_PREFIX = "probe/"

_RACES = 8
_RACE_BYTES = 64 * 1024  # large enough that two uploads overlap
_BODY = bytes(range(256)) * 16


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One thing that was tried: what, whether the storage did as the contract says, and what it did instead."""

    what: str
    ok: bool
    detail: str = ""


class _Broken(Exception):
    """The storage does not do what the contract says."""


def probe(storage: Storage, open_again: Callable[[], Storage]) -> list[ProbeResult]:
    """Try everything the repository relies on and return what came of it, the most important first.

    `open_again` opens the same storage a second time, by a connection of its own. Failures of the storage
    become results; only errors that are bugs are raised.
    """
    try:
        trial = _Trial(storage, open_again())
    except StorageError as error:
        return [ProbeResult("a second connection", False, str(error))]
    checks: list[tuple[str, Callable[[], None]]] = [
        ("an object is never replaced by another put", trial.conflict),
        ("of two puts at once exactly one wins", trial.races),
        ("the same bytes may be put again", trial.same_again),
        ("a put is seen by the next read", trial.read_after_write),
        ("a put is seen by the next listing", trial.list_after_write),
        ("parts of an object can be read", trial.ranges),
        ("what was put can be made durable", trial.durable),
        ("a deleted object is gone", trial.deletion),
    ]
    try:
        results = [_result(what, check) for what, check in checks]
    finally:
        removed = _result("what the probe made can be removed", trial.remove_all)
    return [*results, removed]


def require_safe(storage: Storage, open_again: Callable[[], Storage]) -> list[ProbeResult]:
    """Probe, and return the results if all is well. Raises Refused with everything that is not, StorageError if the
    storage takes nothing at all."""
    _require_writable(storage)
    results = probe(storage, open_again)
    broken = [f"{result.what}: {result.detail}" for result in results if not result.ok]
    if broken:
        raise Refused(
            f"{storage.location}: not safe for a repository: " + "; ".join(broken),
            hint="use another storage, or a newer version of this one",
        )
    return results


def _require_writable(storage: Storage) -> None:
    """A storage that is full or read-only breaks no promise: its own error says more than a list of what fails."""
    name = f"{PROBE_PREFIX}{secrets.token_hex(8)}-first"
    storage.put(name, bytes(2 * _RACE_BYTES))
    storage.delete(name)


def _result(what: str, check: Callable[[], None]) -> ProbeResult:
    try:
        check()
    except (_Broken, StorageError, Refused) as error:
        return ProbeResult(what, False, str(error))
    return ProbeResult(what, True)


class _Trial:
    """The checks, and the names they have used. Each check raises _Broken, or what the storage raised."""

    def __init__(self, storage: Storage, second: Storage) -> None:
        self._storage = storage
        self._second = second
        self._prefix = f"{PROBE_PREFIX}{secrets.token_hex(8)}-"
        self._names: list[str] = []

    def conflict(self) -> None:
        name = self._new_name()
        self._storage.put(name, b"first")
        for connection in (self._storage, self._second):
            try:
                connection.put(name, b"other")
            except ObjectConflict:
                continue
            raise _Broken("a second put of other bytes was accepted")
        self._require(name, b"first")

    def races(self) -> None:
        with ThreadPoolExecutor(max_workers=2) as pool:
            for _ in range(_RACES):
                self._race(pool)

    def _race(self, pool: ThreadPoolExecutor) -> None:
        name = self._new_name()
        start = threading.Barrier(2)
        bodies = [bytes([65 + contender]) * _RACE_BYTES for contender in range(2)]

        def contend(connection: Storage, body: bytes) -> bool:
            start.wait()
            try:
                connection.put(name, body)
            except ObjectConflict:
                return False
            return True

        contenders = zip((self._storage, self._second), bodies, strict=True)
        futures = [pool.submit(contend, connection, body) for connection, body in contenders]
        winners = [body for body, future in zip(bodies, futures, strict=True) if future.result()]
        if len(winners) != 1:
            raise _Broken(f"{'both' if winners else 'neither'} of two different puts succeeded")
        self._require(name, winners[0])

    def same_again(self) -> None:
        name = self._new_name()
        for connection in (self._storage, self._second, self._storage):
            connection.put(name, [_BODY[:100], _BODY[100:]])
        self._require(name, _BODY)

    def read_after_write(self) -> None:
        for writer, reader in ((self._storage, self._second), (self._second, self._storage)):
            name = self._new_name()
            for connection in (writer, reader):  # a cache may remember that there was nothing
                _require_missing(connection, name)
            writer.put(name, _BODY)
            self._require(name, _BODY)
            if reader.info(name).size != len(_BODY):
                raise _Broken("the size of an object is not what was put")

    def list_after_write(self) -> None:
        for writer in (self._storage, self._second):
            name = self._new_name()
            self._require_listed(name, False)
            writer.put(name, _BODY)
            self._require_listed(name, True)

    def ranges(self) -> None:
        name = self._new_name()
        self._storage.put(name, _BODY)
        end = len(_BODY)
        for offset, length, expected in (
            (0, None, _BODY),
            (0, 1, _BODY[:1]),
            (1000, 300, _BODY[1000:1300]),
            (1000, None, _BODY[1000:]),
            (-10, None, _BODY[-10:]),
            (-10, 4, _BODY[-10:-6]),
            (end - 5, 100, _BODY[-5:]),
            (-2 * end, None, _BODY),
            (end, None, b""),
            (end + 10, 10, b""),
            (10, 0, b""),
        ):
            got = self._storage.get(name, offset, length)
            if got != expected:
                raise _Broken(f"{length} bytes at {offset} came back as {len(got)} bytes, or as others")

    def durable(self) -> None:
        mine, others = self._new_name(), self._new_name()
        self._storage.put(mine, b"mine")
        self._second.put(others, b"others")
        self._storage.barrier([others])
        self._require(mine, b"mine")

    def deletion(self) -> None:
        name = self._new_name()
        self._storage.put(name, _BODY)
        self._require(name, _BODY)
        for _ in range(2):  # deleting what is gone is success
            self._storage.delete(name)
        for connection in (self._storage, self._second):
            _require_missing(connection, name)
        self._require_listed(name, False)

    def remove_all(self) -> None:
        """Remove every object of this probe, also where a put failed or a listing is wrong."""
        failures = []
        for name in self._names:
            try:
                self._storage.delete(name)
            except StorageError as error:
                failures.append(str(error))
        if failures:
            raise _Broken(f"{len(failures)} objects below {self._prefix} are left: {failures[0]}")

    def _new_name(self) -> str:
        self._names.append(f"{self._prefix}{len(self._names):03}")
        return self._names[-1]

    def _require(self, name: str, expected: bytes) -> None:
        for connection in (self._storage, self._second):
            if connection.get(name) != expected:
                raise _Broken("an object was read back with other bytes than were put")

    def _require_listed(self, name: str, expected: bool) -> None:
        for connection in (self._storage, self._second):
            for prefix in (PROBE_PREFIX, name):
                listed = [info for info in connection.list(prefix) if info.name == name]
                if len(listed) != expected:
                    raise _Broken(f"an object is listed {len(listed)} times, not {expected:d}")
                if listed and listed[0].size != len(_BODY):
                    raise _Broken("an object is listed with another size than was put")


def _require_missing(connection: Storage, name: str) -> None:
    try:
        connection.get(name)
    except ObjectMissing:
        return
    raise _Broken("an object can be read that was deleted, or never put")
