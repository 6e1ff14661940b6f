"""Tables: sorted rows of the index in one immutable object, sealed in blocks so that a few can be read alone.

    header (64) || blocks of locations || of data chunks || of metadata chunks || sealed trailer || footer (16)

docs/format.md, section 7, is the authority. The trailer is signed; it states how many rows there are, the first key
and the digest of every block, and the dictionaries that the rows point into. So a block that a reader accepts is the
one that its signer wrote, in the place where the signer wrote it, however little of the table was read. Only a reader
of the whole object can also check that its name is its hash.

This module turns rows into bytes, and trailers back; table_reader.py reads the rest. It touches no storage.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repo_store.errors import ObjectDamaged
from repo_store.key_ring import KeyRing
from repo_store.pack_key import ORIGIN_BYTES
from repo_store.row_batch import ROW_BYTES, RowBatch, sum_rows
from repo_store.row_sums import Merge, RowSums, check_merge, read_sums
from repo_store.rows import PACK_NAME_BYTES, Section
from repo_store.sealed import (
    FORMAT,
    HEADER_BYTES,
    Header,
    Kind,
    make_header,
    open_object,
    seal_object,
)

TABLE_BYTES_MAX = 4 * 1024 * 1024 * 1024
TABLE_ROWS_MAX = 1 << 24
BLOCK_ROWS = 1024
FIRST_BYTES = 8
DIGEST_BYTES = 16
PACK_ENTRY = struct.Struct("<32sQ")  # hash, size
FOOTER = struct.Struct("<4sBBHII")
assert PACK_ENTRY.size == 40 and FOOTER.size == 16  # the sizes docs/format.md gives
TABLE_MAGIC = b"HFTB"


def table_name(data: bytes) -> str:
    """Return the name of the object `data`."""
    return f"tables/{blake3(data).hexdigest()}"


def table_hash(name: str) -> bytes:
    """Return the hash in the name of a table, or nothing if it is not the name of one."""
    try:
        found = bytes.fromhex(name.removeprefix("tables/"))
    except ValueError:
        return b""
    return found if f"tables/{found.hex()}" == name and len(found) == PACK_NAME_BYTES else b""


def build_table(ring: KeyRing, batch: RowBatch, *, merge: Merge | None = None) -> bytes:
    """Return the signed table of a sorted batch. `merge` says what it was merged from, if it was."""
    assert batch.count <= TABLE_ROWS_MAX, "a table of too many rows is a bug in the caller"
    header = make_header(ring, Kind.TABLE, magic=TABLE_MAGIC)
    blocks = list(_sealblock_count(ring, header, batch.sections))
    size = HEADER_BYTES + sum(map(len, blocks)) + FOOTER.size
    trailer = seal_object(
        ring, Kind.TABLE, _trailer_body(ring, batch, header, blocks, merge), beside_bytes=size
    )
    footer = FOOTER.pack(TABLE_MAGIC, FORMAT, Kind.TABLE, 0, len(trailer), 0)
    return b"".join((header.data, *blocks, trailer, footer))


def _sealblock_count(ring: KeyRing, header: Header, sections: Sequence[bytearray]) -> Iterator[bytes]:
    cipher, number = AESGCM(header.key), 0
    for section in Section:
        rows, step = memoryview(sections[section]), BLOCK_ROWS * ROW_BYTES[section]
        for at in range(0, len(rows), step):
            yield cipher.encrypt(block_nonce(number), rows[at : at + step], ring.repository + header.data)
            number += 1


def _trailer_body(
    ring: KeyRing, batch: RowBatch, header: Header, blocks: Sequence[bytes], merge: Merge | None
) -> dict[str, Any]:
    sums = batch_sums(ring, batch)
    digests = iter([block_digest(block) for block in blocks])
    return trailer_body(
        header,
        batch.packs,
        batch.origins,
        sums,
        firsts=[_firsts(section, batch.sections[section]) for section in Section],
        digests=[b"".join(next(digests) for _ in range(block_count(count))) for count in sums.counts],
        merge=merge,
    )


def trailer_body(
    header: Header,
    packs: Iterable[tuple[bytes, int]],
    origins: Iterable[bytes],
    sums: RowSums,
    *,
    firsts: list[bytes],
    digests: list[bytes],
    merge: Merge | None,
) -> dict[str, Any]:
    """Return what a trailer states. Raises ObjectDamaged if the rows are not those that `merge` accounts for."""
    counts, totals = sums.encoded()
    body: dict[str, Any] = {
        "random": os.urandom(16),
        "header": header.commitment,
        "packs": b"".join(PACK_ENTRY.pack(*entry) for entry in packs),
        "origins": b"".join(origins),
        "counts": counts,
        "sums": totals,
        "firsts": firsts,
        "digests": digests,
    }
    if merge is not None:
        check_merge("merged table", [stated for _, stated in merge.sources], merge.removed, sums)
        body["merged"] = merge.encoded()
    return body


def batch_sums(ring: KeyRing, batch: RowBatch) -> RowSums:
    """Return the counts and keyed sums of the rows of `batch`."""
    names = row_names([pack for pack, _ in batch.packs], list(batch.origins))
    counts = [len(rows) // ROW_BYTES[section] for section, rows in enumerate(batch.sections)]
    sums = [sum_rows(ring.row_sum_key, number, batch.sections[number], names[number]) for number in Section]
    return RowSums((counts[0], counts[1], counts[2]), (sums[0], sums[1], sums[2]))


def row_names(packs: list[bytes], origins: list[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return, for each section, what the numbers in its rows stand for."""
    return packs, origins, origins


def _firsts(section: int, rows: bytearray) -> bytes:
    return b"".join(
        rows[at : at + FIRST_BYTES] for at in range(0, len(rows), BLOCK_ROWS * ROW_BYTES[section])
    )


def block_count(count: int) -> int:
    """Return how many blocks `count` rows of a section fill."""
    return -(-count // BLOCK_ROWS)


def block_digest(block: bytes | memoryview) -> bytes:
    """Return the digest of a sealed block, as the trailer states it."""
    return blake3(block).digest(DIGEST_BYTES)


def block_nonce(number: int) -> bytes:
    """Return the nonce of block `number`, counted through all sections."""
    return number.to_bytes(4, "little") + bytes(8)


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a table states about itself, signed. `packs` are 40 bytes each, `origins` 16 each, as stored."""

    signer: bytes
    commitment: bytes
    packs: bytes = field(repr=False)
    origins: bytes = field(repr=False)
    sums: RowSums
    firsts: tuple[bytes, bytes, bytes] = field(repr=False)
    digests: tuple[bytes, bytes, bytes] = field(repr=False)
    merge: Merge | None


def read_trailer(ring: KeyRing, name: str, data: bytes) -> Trailer:
    """Return what the sealed trailer `data` of the table `name` states. Raises ObjectDamaged."""
    body, signer = open_object(ring, Kind.TABLE, name, data, subject="")
    packs = _entries(name, body, "packs", PACK_ENTRY.size)
    origins = _entries(name, body, "origins", ORIGIN_BYTES)
    sums = read_sums(name, body.get("counts"), body.get("sums"))
    if sum(sums.counts) > TABLE_ROWS_MAX:
        raise ObjectDamaged(name, f"states {sum(sums.counts)} rows, above the limit")
    commitment = body.get("header")
    if not isinstance(commitment, bytes):
        raise ObjectDamaged(name, "its trailer names no header")
    firsts = _per_block(name, body, "firsts", FIRST_BYTES, sums)
    digests = _per_block(name, body, "digests", DIGEST_BYTES, sums)
    return Trailer(signer, commitment, packs, origins, sums, firsts, digests, _read_merge(name, body, sums))


def _entries(name: str, body: dict[str, Any], key: str, size: int) -> bytes:
    value = body.get(key)
    if not isinstance(value, bytes) or len(value) % size:
        raise ObjectDamaged(name, f"its {key} are not {size} bytes each")
    return value


def _per_block(
    name: str, body: dict[str, Any], key: str, size: int, sums: RowSums
) -> tuple[bytes, bytes, bytes]:
    value = body.get(key)
    sizes = [size * block_count(count) for count in sums.counts]
    if not isinstance(value, list) or [len(v) if isinstance(v, bytes) else -1 for v in value] != sizes:
        raise ObjectDamaged(name, f"its {key} are not {size} bytes for every block")
    return value[0], value[1], value[2]


def _read_merge(name: str, body: dict[str, Any], merged: RowSums) -> Merge | None:
    stated = body.get("merged")
    if stated is None:
        return None
    try:
        generation, sources = stated["generation"], stated["sources"]
        removed = read_sums(name, *stated["removed"])
        read = tuple((bytes(source), read_sums(name, counts, sums)) for source, counts, sums in sources)
    except (TypeError, KeyError, ValueError):
        raise ObjectDamaged(name, "what it was merged from is not stated as it must be") from None
    if type(generation) is not int or any(len(source) != PACK_NAME_BYTES for source, _ in read):
        raise ObjectDamaged(name, "what it was merged from is not stated as it must be")
    check_merge(name, [sums for _, sums in read], removed, merged)
    return Merge(generation, read, removed)
