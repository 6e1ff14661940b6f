"""Tables in a prune: which are merged, whether their merge is proved, and packs that must be indexed again.

Tables are a cache of pack directories, and yet none goes before another has its rows: the merged table states counts
and keyed sums of its sources, of the rows it left out, and its own, and they must add up (repo_store/table_merge.py).
A table that names a pack which goes, or is gone, is merged in any case, so that no row outlives its pack; small ones
are merged when they are many, each row only log3 of (all rows / rows of a snapshot) times in its life.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial

from engine.prune_survey import Survey
from engine.session import Session
from repo_store.errors import ObjectDamaged, ObjectMissing
from repo_store.pack import pack_name
from repo_store.pack_reader import read_directory
from repo_store.row_view import KnownTable
from repo_store.table import table_hash, table_name
from repo_store.table_merge import Merged, merge_tables
from repo_store.table_reader import TableReader

MERGED_ROWS_MAX = 1 << 19
"""Rows of the tables that are merged into one: 24 MB of blocks."""
GROWTH = 3
TABLES_MIN = 8
"""Fewer small tables than this are left alone."""

TableGroup = tuple[bytes, ...]


def plan_tables(
    tables: dict[bytes, KnownTable], gone: Collection[bytes], *, own: bytes | None = None
) -> tuple[TableGroup, ...]:
    """Return the groups of tables to be merged, by hash; `gone` are the packs whose rows must go.

    `own`: writers trust only their own rows, and this is who signs the merge. Then tables of other signers are left
    alone, unless they name a pack that goes.
    """
    gone = frozenset(gone)
    groups: list[TableGroup] = []
    for signer in sorted({table.signer for table in tables.values()}) if own is not None else [None]:
        some = {name: table for name, table in tables.items() if signer in (None, table.signer)}
        groups += _groups(some, _chosen(some, gone, tidy=signer in (None, own)))
    return tuple(groups)


def _chosen(tables: dict[bytes, KnownTable], gone: frozenset[bytes], *, tidy: bool) -> list[bytes]:
    ordered = sorted(tables, key=lambda name: (tables[name].rows, name))
    end = smaller = 0
    for number, name in enumerate(ordered):
        if number and tables[name].rows < GROWTH * smaller and tables[name].rows < MERGED_ROWS_MAX // 2:
            end = number + 1
        smaller += tables[name].rows
    small = ordered[:end] if tidy and end >= TABLES_MIN else []
    return small + [name for name in ordered if name not in set(small) and tables[name].packs & gone]


def _groups(tables: dict[bytes, KnownTable], chosen: Sequence[bytes]) -> list[TableGroup]:
    groups: list[list[bytes]] = []
    rows = 0
    for name in sorted(chosen, key=lambda name: (tables[name].rows, name)):
        rows += tables[name].rows
        if not groups or rows > MERGED_ROWS_MAX:  # a table may have no rows
            groups.append([])
            rows = tables[name].rows
        groups[-1].append(name)
    return [tuple(group) for group in groups]


def merge_group(
    session: Session, group: TableGroup, found: Survey, gone: Collection[bytes], generation: int
) -> Merged | None:
    """Put the merge of a group without the rows of packs that are `gone` or missing; None if a table of it went.

    Visible on return, not yet durable.
    """
    listed = dict(zip(found.hashes, found.sizes, strict=True))
    gone = frozenset(gone)
    leaving = {number for number, hash_ in enumerate(found.hashes) if hash_ in gone}
    sizes = {info.name: info.size for info in session.storage.list("tables/")}

    def keep_frame(name: bytes) -> bool:
        frame = found.frames.find(name)
        return frame >= 0 and any(pack not in leaving for pack in found.frames.packs(frame))

    tables = [(name, sizes.get(f"tables/{name.hex()}")) for name in group]
    present = [(name, size) for name, size in tables if size is not None]
    if len(present) < len(tables):
        return None
    try:
        merged = merge_tables(
            session.storage,
            session.ring,
            present,
            generation=generation,
            keep_pack=lambda pack, size: listed.get(pack) == size and pack not in gone,
            keep_frame=keep_frame,
            folder=session.cache_dir,
        )
    except ObjectMissing:
        return None
    try:
        session.storage.put(merged.name, merged.buffers)
    finally:
        merged.close()
    return merged


def proved_tables(session: Session, tables: Iterable[bytes]) -> list[bytes]:
    """Return those of `tables` that may go: they are known, and a merge that stays states their sums."""
    wanted = set(tables)
    if not wanted:
        return []
    storage, ring = session.storage, session.ring
    readers: dict[bytes, TableReader] = {}
    for info in storage.list("tables/"):
        if name := table_hash(info.name):
            with suppress(ObjectDamaged, ObjectMissing):
                readers[name] = TableReader(ring, info.name, info.size, partial(storage.get, info.name))
    stated = {
        (source, sums)
        for name, reader in readers.items()
        if name not in wanted and reader.trailer.merge is not None
        for source, sums in reader.trailer.merge.sources
    }
    known = wanted & readers.keys() & session.index.tables().keys()
    return sorted(name for name in known if (name, readers[name].trailer.sums) in stated)


def index_again(session: Session, tables: Collection[bytes], *, gone: Collection[bytes]) -> None:
    """Put a table of every pack that stays and that only `tables` know, which go. Durable on return.

    A pack that was condemned when the tables were merged, and is needed after all, is such a pack.
    """
    known = session.index.tables()
    going, leaving = set(tables), set(gone)
    elsewhere = {pack for name, table in known.items() if name not in going for pack in table.packs}
    losing = {pack for name in going & known.keys() for pack in known[name].packs} - elsewhere - leaving
    listed = {bytes.fromhex(info.name[-64:]): info.size for info in session.storage.list("packs/")}
    orphans = sorted(losing & listed.keys())
    for pack in orphans:
        directory = read_directory(session.storage, session.ring, pack, listed[pack])
        session.index.add_pack(pack, listed[pack], directory)
    put_rows(session, orphans)


def put_rows(session: Session, packs: Iterable[bytes]) -> int:
    """Put tables of the rows that were added to the index, after a barrier for their `packs`; return their bytes."""
    mark = session.index.freeze()
    session.storage.barrier([pack_name(pack) for pack in packs])
    stored = 0
    while (table := session.index.take_table(mark)) is not None:
        session.storage.put(table_name(table), table)
        stored += len(table)
    if stored:
        session.storage.barrier()
    return stored
