"""A disk that is judged at every change: does each manifest that is committed and not forgotten have all it needs?

The judge shares nothing with indexes, tables and surveys. It reads the directory of each pack that is put, remembers
every tree node that was ever stored, and follows each manifest through its nodes to its chunks. It keeps counts: for each
chunk the packs that hold it, and the live manifests that need it. So a change costs what it touches.
"""

from collections import Counter
from collections.abc import Mapping

from support.simulated_storage import SimulatedDisk

from repo_store.dependencies import trace
from repo_store.generation import Mark
from repo_store.key_ring import KeyRing
from repo_store.manifest import Manifest
from repo_store.pack import read_tail
from repo_store.rows import Section
from repo_store.sealed import Kind, open_any, open_object
from repo_store.tree_node import TreeRoot

Needed = tuple[Section, bytes]


class InvariantBroken(BaseException):
    """A live manifest lacks something. No Exception: nothing may go on after it."""


class Library:
    """What every judge may know: what packs hold and manifests need never changes."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring
        self.nodes: dict[bytes, bytes] = {}
        self._packs: dict[str, frozenset[Needed]] = {}
        self._manifests: dict[bytes, Manifest | None] = {}
        self._needs: dict[TreeRoot | None, frozenset[Needed]] = {None: frozenset()}

    def held_by(self, name: str, data: bytes) -> frozenset[Needed]:
        """Return what a pack holds."""
        if name not in self._packs:
            directory = read_tail(self.ring, name, len(data), data)
            section = Section.DATA if directory.kind == Kind.DATA_DIRECTORY else Section.METADATA
            ids = directory.ids
            self._packs[name] = frozenset((section, ids[at : at + 32]) for at in range(0, len(ids), 32))
        return self._packs[name]

    def needed_by(self, name: str, data: bytes) -> frozenset[Needed] | None:
        """Return what a manifest needs, None for a tombstone."""
        if data not in self._manifests:
            kind, opened = open_any(self.ring, (Kind.MANIFEST, Kind.TOMBSTONE), name, data)
            found = (
                Manifest.from_body(name, opened.body, signer=opened.signer) if kind == Kind.MANIFEST else None
            )
            self._manifests[data] = found
        manifest = self._manifests[data]
        if manifest is None:
            return None
        if manifest.root not in self._needs:
            assert manifest.root is not None
            self._needs[manifest.root] = frozenset(trace(self.nodes.__getitem__, manifest.root))
        return self._needs[manifest.root]


class WatchedDisk(SimulatedDisk):
    """A SimulatedDisk that raises InvariantBroken out of the change that loses data."""

    def __init__(self, objects: Mapping[str, bytes], library: Library) -> None:
        self._library = library
        self._copies: Counter[Needed] = Counter()
        self._wanted: Counter[Needed] = Counter()
        self._live: dict[str, frozenset[Needed]] = {}
        self._present: dict[str, bytes] = {}
        self._born: dict[str, int] = {}
        self._finished = 0
        self.watching = False
        self.commits = 0
        self.deleted_packs = 0
        super().__init__(objects)
        self.watching = True
        self._check(self._wanted)

    def useless_packs(self) -> list[str]:
        """Return the packs of which no live manifest needs anything."""
        packs = [name for name in self._present if name.startswith("packs/")]
        return [
            p
            for p in packs
            if not any(self._wanted[each] for each in self._library.held_by(p, self._present[p]))
        ]

    def after_cut(self, seed: int) -> "WatchedDisk":
        """Return the disk that a power cut leaves. Raises InvariantBroken."""
        return WatchedDisk(self.after_power_cut(seed).objects(), self._library)

    def change(self, name: str, data: bytes | None) -> None:
        """See SimulatedDisk.change. Raises InvariantBroken."""
        super().change(name, data)
        before = self._present.pop(name, None)
        if data is not None:
            self._present[name] = data
        folder, _, rest = name.partition("/")
        if folder == "packs":
            self._change_pack(name, before, data)
        elif folder in ("manifests", "forgotten"):
            self.commits += folder == "manifests" and data is not None
            self._judge_manifest(rest)
        elif folder == "gc" and data is not None:
            self._finished = max(self._finished, int(name[3:13]) if name.endswith(".done") else 0)
            self._judge_record(name, data)

    def _change_pack(self, name: str, before: bytes | None, data: bytes | None) -> None:
        if before is not None:
            gone = self._library.held_by(name, before)
            self._copies.subtract(gone)
            self.deleted_packs += 1
            self._check(gone)
        if data is not None:
            self._copies.update(self._library.held_by(name, data))
            self._born[name] = self._finished if self.watching else -1

    def _judge_manifest(self, shown: str) -> None:
        name = f"manifests/{shown}"
        data = self._present.get(name)
        needs = None if data is None else self._library.needed_by(name, data)
        if f"forgotten/{shown}" in self._present:
            needs = None
        if name in self._live:
            self._wanted.subtract(self._live.pop(name))
        if needs is not None:
            self._live[name] = needs
            self._wanted.update(needs)
            self._check(needs)

    def _judge_record(self, name: str, data: bytes) -> None:
        """No mark names a pack that came after the generation before it was over: else a long upload starves."""
        if not name.endswith(".mark") or not self.watching:
            return
        mark = Mark.from_body(name, open_object(self._library.ring, Kind.MARK, name, data).body)
        if any(self._born.get(_pack_name(pack), -1) >= mark.generation - 1 for pack in mark.packs):
            raise InvariantBroken(f"{name} condemns a pack that came after the generation before it was over")

    def _check(self, changed: "frozenset[Needed] | Counter[Needed]") -> None:
        if not self.watching:
            return
        for each in changed:
            if self._copies[each] <= 0 < self._wanted[each]:
                holders = [name for name, needs in self._live.items() if each in needs]
                what = "node" if each[0] == Section.METADATA else "chunk"
                raise InvariantBroken(
                    f"{what} {each[1].hex()[:8]} is in no pack; needed by {', '.join(holders)}"
                )


def _pack_name(pack: bytes) -> str:
    return f"packs/{pack.hex()[:2]}/{pack.hex()}"
