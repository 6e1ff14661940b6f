"""Inline: the real code made to do one thing after the other, and always the same for the same seed.

    threads        pools run a job when it is handed in; a pack that is full is put at once, by whoever filled it
    randomness     os.urandom comes from the generator of the simulated process that asks
    clocks         time.time_ns counts, and every simulated process may have a wrong one
    public keys    sealing to a public key draws randomness inside of a library: a stand-in of the same sizes seals instead

Nothing of this is part of the protocol; everything that is stays as it is in the product. Python orders a set by its hash
seed, so whoever wants a history again has to run it under the same PYTHONHASHSEED (simulate.py does).
"""

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from repo_store import hpke
from repo_store.chunk_reader import ChunkReader
from repo_store.frame import FrameCodec
from repo_store.pack_writer import PackWriter
from repo_store.worker_pool import WorkerPool

EXECUTORS = (
    "repo_store.table_loader",
    "repo_store.manifest_store",
    "repo_store.note_store",
    "repo_store.ledger_store",
    "repo_store.remote_index",
    "engine.forget",
    "engine.verify_packs",
)
"""The modules that use a ThreadPoolExecutor; one that comes later and is not here makes histories differ, which
test_histories.py notices."""

ROOM_BYTES = 64 * 1024
"""Frame buffers of this size are enough for what is backed up here."""


class InlineExecutor:
    """A ThreadPoolExecutor that has done the work when `map` returns."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def map(self, work: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
        return iter([work(*each) for each in zip(*items, strict=False)])

    def __enter__(self) -> "InlineExecutor":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def shutdown(self, *args: object, **options: object) -> None:
        pass


class InlinePool(WorkerPool):
    """A WorkerPool without threads."""

    def __init__(self, threads: int = 2, *, level: int = 3) -> None:
        self.threads = threads
        self._codec = _codec()
        self.writers: list[PackWriter] = []

    def submit(self, job: Callable[[FrameCodec], None]) -> None:
        job(self._codec)
        for writer in self.writers:
            writer._store_packs()

    def close(self) -> None:
        self.writers.clear()


_codecs: list[FrameCodec] = []


def _codec() -> FrameCodec:
    """Return the one codec of this process: nothing else seals at the same time."""
    if not _codecs:
        _codecs.append(FrameCodec(level=1))
    return _codecs[0]


class InlineQueue:
    """A SimpleQueue that never blocks: who finds it empty gets None, once all that fills it has been done."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self.fill: Callable[[], None] | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        if not self._items and self.fill is not None:
            self.fill()
        return self._items.popleft() if self._items else None


class InlinePackWriter(PackWriter):
    """A PackWriter whose packs are put by the producer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        assert isinstance(self._pool, InlinePool)
        self._pool.writers.append(self)

    def flush(self) -> None:
        self._raise_error()
        with self._lock:
            self._finish_open()
        self._store_packs()
        super().flush()


class NoThread:
    """A thread that is never started: what it would do is done inline."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        pass


def _read_inline(reader: ChunkReader, jobs: list[Any]) -> Iterator[Any]:
    for job in jobs:
        for found in reader._read_pack(job):
            yield from found


def _stream(length: int, *parts: bytes) -> bytes:
    return blake3(b"".join(parts)).digest(length)


def _seal_to(public: bytes, plain: bytes, *, info: bytes) -> bytes:
    key = _stream(len(plain), public[:32], info)
    sealed = bytes(a ^ b for a, b in zip(plain, key, strict=True))
    return sealed + _stream(hpke.OVERHEAD_BYTES, public[:32], info, plain)


def _open_with(private: bytes, sealed: bytes, *, info: bytes) -> bytes | None:
    public, length = _public_of(private), len(sealed) - hpke.OVERHEAD_BYTES
    key = _stream(length, public[:32], info)
    plain = bytes(a ^ b for a, b in zip(sealed[:length], key, strict=True))
    return plain if sealed[length:] == _stream(hpke.OVERHEAD_BYTES, public[:32], info, plain) else None


def _public_of(private: bytes) -> bytes:
    return _stream(hpke.PUBLIC_BYTES, b"public", private)


class PatientPublicKey:
    """An Ed25519PublicKey that checks each signature once: many histories begin with the same objects."""

    def __init__(self, public: bytes) -> None:
        self._public = public
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @classmethod
    def from_public_bytes(cls, public: bytes) -> "PatientPublicKey":
        return cls(public)

    def verify(self, signature: bytes, data: bytes) -> None:
        checked = (self._public, signature, data)
        if checked not in _signatures:
            self._key.verify(signature, data)
            if len(_signatures) > _SIGNATURES_MAX:
                _signatures.clear()
            _signatures.add(checked)


_SIGNATURES_MAX = 5_000
_signatures: set[tuple[bytes, bytes, bytes]] = set()


class Surroundings:
    """Where randomness and time come from now. The schedule sets both when it lets a process go on."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.now_ns = 1_700_000_000 * 10**9
        self.clock_error_ns = 0

    def urandom(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def time_ns(self) -> int:
        self.now_ns += 1000
        return self.now_ns + self.clock_error_ns


@contextmanager
def inline() -> Iterator[Surroundings]:
    """Run the product without threads, chance and clocks of its own while this is open."""
    surroundings = Surroundings()
    patches: list[Any] = [patch(f"{module}.ThreadPoolExecutor", InlineExecutor) for module in EXECUTORS]
    patches += [
        patch("repo_store.repository_writer.WorkerPool", InlinePool),
        patch("repo_store.repository_writer.PackWriter", InlinePackWriter),
        patch("repo_store.pack_writer.SimpleQueue", InlineQueue),
        patch("repo_store.pack_writer.Thread", NoThread),
        patch("repo_store.repository_writer.CHUNK_ROOM_BYTES", ROOM_BYTES),
        patch("repo_store.repository_writer.NODE_PACK_BYTES", 4 * ROOM_BYTES),
        patch("repo_store.key_ring.Ed25519PublicKey", PatientPublicKey),
        patch("repo_store.signed_map.Ed25519PublicKey", PatientPublicKey),
        patch.object(ChunkReader, "_run", _read_inline),
        patch.object(hpke, "seal_to", _seal_to),
        patch.object(hpke, "open_with", _open_with),
        patch.object(hpke, "public_of", _public_of),
        patch.object(hpke, "generate", lambda: surroundings.urandom(hpke.PRIVATE_BYTES)),
        patch.object(os, "urandom", surroundings.urandom),
        patch.object(time, "time_ns", surroundings.time_ns),
    ]
    for each in patches:
        each.start()
    try:
        yield surroundings
    finally:
        for each in reversed(patches):
            each.stop()
