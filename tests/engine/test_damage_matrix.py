"""The damage matrix: every kind of object, damaged in every way, costs what EXPECTED says and nothing else.

Method: one repository holds every kind of object that format 1 knows; what the product cannot write yet is sealed by
hand. For each kind and each way of damage, and for a host that has never seen the repository as for one whose cache is
warm: `verify` names the object and exactly the manifests it hurts, `restore` brings back everything else bit for bit
and names what is lost, the next snapshot is whole. Which files are lost is not written down here: the slow repository
(tests/support/slow_repository.py), which shares no code with the product, says so of the same damaged objects.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.repositories import NOW, Made, make_repository
from support.sessions import World, tree_content, write_tree
from support.simulated_storage import SimulatedDisk, SimulatedStorage
from support.slow_repository import Lost, SlowRepository, secrets_of

from engine.files_snapshot import snapshot_files
from engine.problems import ProblemKind
from engine.restore import restore_manifest
from engine.session import Places, Session, session_of
from engine.snapshot_run import SnapshotOptions
from engine.target import TargetOptions
from engine.verify import VerifyReport, verify_repository
from repo_store import chunk_writer
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.generation import Done, Mark, Sweep
from repo_store.key_ring import KeyRing
from repo_store.ledger import LedgerRecord
from repo_store.manifest import Manifest
from repo_store.markers import ForgetMarker, Note
from repo_store.repository import open_repository
from repo_store.sealed import Kind, seal_object

STRUCTURE, DATA, NEVER = "structure", "data", "never"
HEALS, REFUSED = "heals", "refused"


@dataclass(frozen=True)
class Expected:
    """What damage to one kind of object costs.

    `hurts` are the manifests that cannot be restored whole; `deleted` and `flipped` say which verification sees an
    object that is gone or has one wrong bit; `snapshot` what becomes of the next one.
    """

    hurts: frozenset[str] = frozenset()
    deleted: str = STRUCTURE
    flipped: str = STRUCTURE
    snapshot: str = HEALS


NONE: frozenset[str] = frozenset()
FIRST, SECOND = frozenset({"first"}), frozenset({"second"})

EXPECTED = {
    # A second copy stands in.
    "config": Expected(),
    "config copy": Expected(),
    "older config": Expected(),
    "slot": Expected(),
    "slot copy": Expected(),
    "bundle": Expected(),
    "bundle copy": Expected(),
    "slot of another holder": Expected(),
    "bundle of another holder": Expected(),
    "metadata pack, one copy": Expected(flipped=DATA),
    # Nothing stands in: these are the backups.
    "data pack of both manifests": Expected(hurts=FIRST | SECOND, flipped=DATA),
    "data pack of the second": Expected(hurts=SECOND, flipped=DATA),
    "metadata pack, both copies": Expected(hurts=FIRST),
    "metadata pack of the newest, both copies": Expected(hurts=SECOND),
    "manifest": Expected(hurts=FIRST, deleted=NEVER),
    # The packs say it all again.
    "table": Expected(deleted=NEVER),
    "table of the other series": Expected(deleted=NEVER),
    # Records: nothing is restored from them. That one is gone cannot be told, for it may never have been.
    "pending": Expected(deleted=NEVER),
    "forget marker": Expected(deleted=NEVER),
    "note": Expected(deleted=NEVER),
    # A verification finds again what one found before.
    "ledger record": Expected(deleted=NEVER),
    # What garbage collection condemned must not be guessed by a writer.
    "mark": Expected(deleted=NEVER, snapshot=REFUSED),
    "sweep": Expected(deleted=NEVER, snapshot=REFUSED),
    "done": Expected(deleted=NEVER, snapshot=REFUSED),
}

Damage = Callable[[bytes, bytes, bytes], bytes | None]
"""Makes what lies there afterwards out of: the object, another of its kind, one of another repository."""


def flipped(at: Callable[[bytes], int]) -> Damage:
    def flip(data: bytes, other: bytes, foreign: bytes) -> bytes:
        changed = bytearray(data)
        changed[at(data)] ^= 0x10
        return bytes(changed)

    return flip


DAMAGES: dict[str, Damage] = {
    "is deleted": lambda data, other, foreign: None,
    "is empty": lambda data, other, foreign: b"",
    "is cut to one byte": lambda data, other, foreign: data[:1],
    "is cut in half": lambda data, other, foreign: data[: len(data) // 2],
    "lacks its last byte": lambda data, other, foreign: data[:-1],
    "has a wrong bit at its start": flipped(lambda data: 1),
    "has a wrong bit in its middle": flipped(lambda data: len(data) // 2),
    "has a wrong bit at its end": flipped(lambda data: len(data) - 1),
    "holds another of its kind": lambda data, other, foreign: other,
    "holds one of another repository": lambda data, other, foreign: foreign,
}


@dataclass
class Scene:
    """A repository with every kind of object. `names` are those to be damaged of each kind, `others` of the same kind."""

    made: Made
    world: World
    trees: dict[str, Path] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    content: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def ring(self) -> KeyRing:
        return self.made.repository.ring

    @property
    def objects(self) -> dict[str, bytes]:
        return self.made.storage.disk.objects()

    def snapshot(self, label: str, tree: Path) -> set[str]:
        """Take a snapshot and return the names of the objects it left."""
        before = set(self.objects)
        session = self.world.session(self.made.storage.disk)
        options = SnapshotOptions(series="other" if label == "third" else "one", host="host")
        self.manifests[label] = snapshot_files(session, [str(tree)], options=options).manifest
        self.content[label] = tree_content(tree)
        return set(self.objects) - before


def _files(seed: int, *names: str) -> dict[str, bytes]:
    source = random.Random(seed)
    return {name: source.randbytes(source.randint(20_000, 60_000)) for name in names}


def _of_kind(scene: Scene, names: set[str], kind: Kind) -> list[str]:
    return sorted(n for n in names if n.startswith("packs/") and scene.objects[n][-11] == kind)


def make_scene(folder: Path) -> Scene:
    """Return a scene: manifests first and second of one series, third of another, one forgotten, and all records."""
    made = make_repository()
    scene = Scene(made, World(made.storage.disk, made.key_file, folder / "hosts"))
    writer = made.add("writer").slot
    tree = write_tree(folder / "source" / "tree", _files(1, "a", "b", "d/c", "d/e"))
    first = scene.snapshot("first", tree)
    second = scene.snapshot("second", write_tree(tree, _files(2, "f", "g")))
    third = scene.snapshot("third", write_tree(folder / "source" / "third", _files(3, "x")))
    forgotten = scene.snapshot("forgotten", write_tree(folder / "source" / "third", _files(4, "y")))
    del scene.manifests["forgotten"], scene.content["forgotten"]
    slot = made.key_file.slot
    left = {"first": first, "second": second, "third": third}
    data = {label: _of_kind(scene, names, Kind.DATA_DIRECTORY) for label, names in left.items()}
    nodes = {label: _of_kind(scene, names, Kind.METADATA_DIRECTORY) for label, names in left.items()}
    tables = {label: [name for name in names if name.startswith("tables/")] for label, names in left.items()}
    manifest = f"manifests/{scene.manifests['first'].id.hex()}"
    chosen: dict[str, tuple[list[str], str]] = {
        "config": (["config/1"], "config/0"),
        "config copy": (["config/1.copy"], "config/0"),
        "older config": (["config/0"], "config/1"),
        "slot": ([f"keys/{slot}-0"], f"keys/{writer}-0"),
        "slot copy": ([f"keys/{slot}-0.copy"], f"keys/{writer}-0"),
        "bundle": ([f"keys/{slot}.1"], f"keys/{writer}.1"),
        "bundle copy": ([f"keys/{slot}.1.copy"], f"keys/{writer}.1"),
        "slot of another holder": ([f"keys/{writer}-0"], f"keys/{slot}-0"),
        "bundle of another holder": ([f"keys/{writer}.1"], f"keys/{slot}.1"),
        "data pack of both manifests": (data["first"], data["third"][0]),
        "data pack of the second": (data["second"], data["third"][0]),
        "metadata pack, one copy": (nodes["second"][:1], nodes["third"][0]),
        "metadata pack, both copies": (nodes["first"], nodes["third"][0]),
        "metadata pack of the newest, both copies": (nodes["second"], nodes["third"][0]),
        "table": (tables["first"], tables["third"][0]),
        "table of the other series": (tables["third"], tables["first"][0]),
        "manifest": ([manifest], f"manifests/{scene.manifests['third'].id.hex()}"),
    }
    chosen |= _put_records(scene, next(n for n in forgotten if n.startswith("manifests/")).partition("/")[2])
    assert all(len(names) == 1 for kind, (names, _) in chosen.items() if "both copies" not in kind)
    scene.names = {kind: names for kind, (names, _) in chosen.items()}
    scene.others = {kind: other for kind, (_, other) in chosen.items()}
    return scene


def _put_records(scene: Scene, forgotten: str) -> dict[str, tuple[list[str], str]]:
    """Seal two of every kind of record by hand; return the name to damage and the other one."""
    manifest_id = scene.manifests["third"].id
    elsewhere = [bytes([n]) * 16 for n in (1, 2)]
    chosen: dict[str, tuple[list[str], str]] = {}

    def put(label: str, kind: Kind, *records: tuple[str, Mapping[str, object]]) -> None:
        for name, body in records:
            sealed = seal_object(scene.ring, kind, dict(body), subject=name)
            scene.made.storage.disk.damage(name, sealed)
        chosen[label] = ([records[0][0]], records[1][0])

    def pending(number: int) -> tuple[str, Mapping[str, object]]:
        body = scene.manifests["third"].to_body() | {"id": elsewhere[number], "storage_date": None}
        return f"pending/{elsewhere[number].hex()}", body

    marked, unmarked = bytes.fromhex(forgotten), elsewhere[0]
    put("pending", Kind.PENDING, pending(0), pending(1))
    put(
        "forget marker",
        Kind.FORGET,
        *(
            (f"forgotten/{i.hex()}", ForgetMarker(id=i, time=NOW, reason="old").to_body())
            for i in (marked, unmarked)
        ),
    )
    note = Note(id=manifest_id, time=NOW, add_tags=("kept",)).to_body()
    put("note", Kind.NOTE, *((f"notes/{manifest_id.hex()}.{n:016x}", note) for n in (1, 2)))
    gone = (bytes([9]) * 32,)
    for stage, kind, make in (
        ("mark", Kind.MARK, lambda n: Mark(generation=n, time=NOW, packs=gone)),
        ("sweep", Kind.SWEEP, lambda n: Sweep(generation=n, time=NOW, packs=gone)),
        ("done", Kind.DONE, lambda n: Done(generation=n, time=NOW)),
    ):
        put(stage, kind, *((f"gc/{n:010d}.{stage}", make(n).to_body()) for n in (2, 1)))
    records = [LedgerRecord(id=i, time=NOW, depth="data") for i in elsewhere]
    put("ledger record", Kind.LEDGER, *((f"ledger/{r.id.hex()}", r.to_body()) for r in records))
    return chosen


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Scene]]:
    """The scene that is damaged, and that of another repository."""
    with pytest.MonkeyPatch.context() as patch:
        # Several frames to a pack, so that one damaged frame is seen to cost one frame.
        patch.setattr(chunk_writer, "FRAME_BYTES", 64 * 1024)
        # What did not change is trusted at once: a snapshot must not heal by reading everything anyway.
        patch.setattr("engine.sources.unchanged.RACY_MARGIN_NS", -(10**15))
        yield make_scene(tmp_path_factory.mktemp("here")), make_scene(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def warm_host(scenes: tuple[Scene, Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a host that has read everything before the damage."""
    folder = tmp_path_factory.mktemp("warm")
    session = open_on(scenes[0], scenes[0].objects, folder)
    for manifest in session.read_manifests().live:
        restore_manifest(
            session, manifest, str(folder / manifest.id.hex()), options=TargetOptions(durable=False)
        )
    return folder


def open_on(
    scene: Scene, objects: Mapping[str, bytes] | SimulatedDisk, folder: Path, operation: str = "read"
) -> Session:
    """Open the repository in this state on the host that lives in `folder`."""
    disk = objects if isinstance(objects, SimulatedDisk) else SimulatedDisk(objects)
    places = Places(folder / "cache", folder / "state")
    storage = SimulatedStorage(disk)
    repository = open_repository(storage, scene.made.key_file, str(places.state_dir), operation=operation)
    return session_of(repository, places, operation=operation)


def damaged_objects(scenes: tuple[Scene, Scene], kind: str, way: str) -> dict[str, bytes]:
    """Return all objects, those of `kind` damaged."""
    scene, foreign = scenes
    objects, theirs = scene.objects, foreign.objects
    for name, their_name in zip(scene.names[kind], foreign.names[kind], strict=True):
        data = DAMAGES[way](objects[name], objects[scene.others[kind]], theirs[their_name])
        objects.pop(name)
        if data is not None:
            objects[name] = data
    return objects


def lost_files(scene: Scene, objects: Mapping[str, bytes]) -> dict[str, set[str] | None]:
    """Return by manifest which files the slow repository cannot read; None where it has no tree or no manifest."""
    slow = SlowRepository(objects, secrets_of(scene.ring))
    bodies = slow.manifests()
    lost: dict[str, set[str] | None] = {}
    for label, manifest in scene.manifests.items():
        lost[label] = None
        if manifest.id.hex() in bodies:
            try:
                entries = slow.entries(bodies[manifest.id.hex()])
            except Lost:
                continue
            lost[label] = {b"/".join(path).decode() for path, row in entries if not _reads(slow, row)}
    return lost


def _reads(slow: SlowRepository, row: list[object]) -> bool:
    try:
        slow.content(row)
    except Lost:
        return False
    return True


CASES = [pytest.param(kind, way, id=f"{kind} {way}") for kind in EXPECTED for way in DAMAGES]


def seen_by(kind: str, way: str) -> str:
    """Return the quickest verification that must see the damage."""
    expected = EXPECTED[kind]
    if way == "is deleted":
        return expected.deleted
    # One of another repository that holds the same has the same size, too.
    return expected.flipped if "wrong bit" in way or "another repository" in way else STRUCTURE


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_verify_names_it_and_exactly_what_it_hurts_when(
    scenes: tuple[Scene, Scene], tmp_path: Path, warm_host: Path, kind: str, way: str
) -> None:
    scene = scenes[0]
    objects = damaged_objects(scenes, kind, way)
    lost = lost_files(scene, objects)
    hurt = {label for label, files in lost.items() if files is None or files}
    assert hurt == EXPECTED[kind].hurts, "the slow repository and the table agree"
    if way == "is deleted" and kind == "manifest":
        hurt = set()  # nobody can tell that it was there
    ids = {scene.manifests[label].id.hex() for label in hurt}
    shutil.copytree(warm_host, tmp_path / "warm")
    for host in ("fresh", "warm"):
        for depth, data in ((STRUCTURE, False), (DATA, True)):
            report = verify_repository(open_on(scene, objects, tmp_path / host), data=data)
            must_see = seen_by(kind, way) in (STRUCTURE, depth)
            _check_report(report, set(scene.names[kind]), ids, must_see=must_see)


def _check_report(report: VerifyReport, names: set[str], hurt: set[str], *, must_see: bool) -> None:
    told = {name: found.manifests for name, found in report.damaged.items()}
    assert set(told) <= names, "nothing else is called damaged"
    if must_see:
        assert told == dict.fromkeys(names, hurt)
    assert all(manifests <= hurt for manifests in told.values())


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_restore_gives_everything_else_when(
    scenes: tuple[Scene, Scene], tmp_path: Path, warm_host: Path, kind: str, way: str
) -> None:
    scene = scenes[0]
    objects = damaged_objects(scenes, kind, way)
    lost = lost_files(scene, objects)
    shutil.copytree(warm_host, tmp_path / "warm")
    for host in ("fresh", "warm"):
        session = open_on(scene, objects, tmp_path / host)
        live = {manifest.id: manifest for manifest in session.read_manifests().live}
        for label, manifest in scene.manifests.items():
            if manifest.id not in live:
                assert lost[label] is None
                continue
            gone = lost[label]
            if kind == "manifest" and label in EXPECTED[kind].hurts:
                assert host == "warm", "only a host that has read it before still knows the manifest"
                gone = set()
            _restore_and_compare(scene, session, live[manifest.id], label, gone, tmp_path / f"{host}-{label}")


def _restore_and_compare(
    scene: Scene, session: Session, manifest: Manifest, label: str, gone: set[str] | None, out: Path
) -> None:
    result = restore_manifest(session, manifest, str(out), options=TargetOptions(durable=False))
    restored = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    wanted = {} if gone is None else {n: data for n, data in scene.content[label].items() if n not in gone}
    assert restored == wanted, "all the rest, bit for bit, and nothing else under any name"
    told = {b"/".join(p.path).decode() for p in result.problems if p.kind == ProblemKind.DAMAGED}
    assert told == ({""} if gone is None else gone)
    assert result.damaged == bool(told)


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_the_next_snapshot_after_a_verification_is_whole_when(
    scenes: tuple[Scene, Scene], tmp_path: Path, kind: str, way: str
) -> None:
    scene = scenes[0]
    disk = SimulatedDisk(damaged_objects(scenes, kind, way))
    verify_repository(open_on(scene, disk, tmp_path / "verifier"), data=True)
    source = next(iter(scene.content["second"])).partition("/")[0]
    tree = scene.world.folder.parent / "source" / source
    options = SnapshotOptions(series="one", host="host")
    if EXPECTED[kind].snapshot == REFUSED and way != "is deleted":
        with pytest.raises(ObjectDamaged) as refused:
            snapshot_files(open_on(scene, disk, tmp_path / "writer", "write"), [str(tree)], options=options)
        assert refused.value.name == scene.names[kind][0]
        return
    result = snapshot_files(open_on(scene, disk, tmp_path / "writer", "write"), [str(tree)], options=options)
    new_bytes = result.manifest.statistics["new_bytes"]
    lost_data = kind.startswith("data pack")
    assert bool(new_bytes) == lost_data, "what was lost is stored anew, and only that"
    slow = SlowRepository(disk.objects(), secrets_of(scene.ring))
    body = slow.manifests()[result.manifest.id.hex()]
    found = {b"/".join(path).decode(): slow.content(row) for path, row in slow.entries(body) if row[1] == 0}
    assert found == scene.content["second"]
    session = open_on(scene, disk, tmp_path / "reader")
    (again,) = [m for m in session.read_manifests().live if m.id == result.manifest.id]
    _restore_and_compare(scene, session, again, "second", set(), tmp_path / "out")


@pytest.mark.parametrize("way", [way for way in DAMAGES if way != "is deleted"])
@pytest.mark.parametrize("kind", ["config", "slot", "bundle"])
def test_what_nothing_opens_without_is_named_when_both_copies_of_it_are_lost(
    scenes: tuple[Scene, Scene], tmp_path: Path, kind: str, way: str
) -> None:
    scene = scenes[0]
    objects = damaged_objects(scenes, kind, way)
    (name,) = scene.names[kind]
    objects[f"{name}.copy"] = objects[name]
    with pytest.raises(HoldfastError) as refused:
        open_on(scene, objects, tmp_path)
    whole_but_foreign = kind == "config" and "another repository" in way  # then it is the key that is wrong
    assert ("this is" if whole_but_foreign else name) in str(refused.value)
