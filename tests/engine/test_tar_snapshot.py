"""Snapshots of tar streams: what tar would extract is what a restore gives back, and no half archive becomes a manifest."""

import os
import subprocess
import tarfile
import threading
from contextlib import suppress
from pathlib import Path as FilePath

import pytest
from support.local_sessions import LocalWorld, make_local_world
from support.tars import Member, archive, member

from engine.diff import diff_manifests
from engine.files_snapshot import snapshot_files
from engine.problems import printable_path
from engine.progress import Interrupted, Progress
from engine.reading_back import list_entries, read_content
from engine.restore import restore_manifest
from engine.snapshot_run import SnapshotOptions, SnapshotResult
from engine.stream_snapshot import snapshot_command, snapshot_stdin
from repo_store.entry import Entry, Path
from repo_store.errors import SourceError

NAME = b"x.tar"


@pytest.fixture
def world(tmp_path: FilePath) -> LocalWorld:
    return make_local_world(tmp_path)


def store(world: LocalWorld, data: bytes, **options: object) -> SnapshotResult:
    """Put an archive through a pipe."""
    reader, writer = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return snapshot_stdin(world.session(), NAME, reader, tar=True, **options)  # type: ignore[arg-type]
    finally:
        os.close(reader)
        thread.join()


def entries(world: LocalWorld, result: SnapshotResult) -> dict[str, Entry]:
    listed = list_entries(world.session("read"), result.manifest)
    return {printable_path(path): entry for path, entry in listed}


def content(world: LocalWorld, result: SnapshotResult, *path: bytes) -> bytes:
    return b"".join(map(bytes, read_content(world.session("read"), result.manifest, (NAME, *path))))


def problems(result: SnapshotResult) -> list[tuple[str, str]]:
    return [(printable_path(each.path), each.message) for each in result.problems]


def make_tree(top: FilePath) -> None:
    """A tree with one of each, and with the order of names that sorts trickily."""
    (top / "a/deep/er").mkdir(parents=True)
    (top / "a-b").write_bytes(b"between a and a/b")
    (top / "a/file").write_bytes(os.urandom(300_000))
    (top / "a/deep/empty").touch()
    os.link(top / "a/file", top / "hard")
    os.symlink("../nowhere", top / "a/link")
    os.mkfifo(top / "pipe")
    with open(top / "holes", "wb") as file:
        for place in (100_000, 5_000_000):
            file.seek(place)
            file.write(b"data")
        file.truncate(9_000_000)
    (top / "n" / ("y" * 200)).mkdir(parents=True)
    (top / "n" / ("y" * 200) / ("z" * 200)).write_bytes(b"long")
    with open(os.fsencode(top) + b"/\xff\n", "wb") as named:
        named.write(b"no text")
    os.setxattr(top / "a-b", "user.test", b"\x00\xff\n=")
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789), follow_symlinks=False)


FORMATS = ("--format=pax --xattrs", "--format=pax --xattrs --sparse", "--format=gnu --sparse", "--format=gnu")


@pytest.mark.parametrize("options", FORMATS)
def test_what_gnu_tar_packs_comes_back_as_the_files_themselves(
    world: LocalWorld, tmp_path: FilePath, options: str
) -> None:
    make_tree(tmp_path / "t")
    files = snapshot_files(world.session(), [os.fsencode(tmp_path / "t")])
    argv = ["tar", "-C", str(tmp_path), *options.split(), "-cf", "-", "t"]
    made = snapshot_command(world.session(), b"t", argv, tar=True)
    assert (made.manifest.status, made.problems) == ("complete", [])
    # Everything is known from the file snapshot, the parts around holes included, where tar keeps them.
    assert made.manifest.statistics["new_bytes"] < (1 if "sparse" in options else 1_000_000)
    assert made.manifest.statistics["bytes"] == files.manifest.statistics["bytes"]
    found = entries(world, made)
    expected = entries(world, files)
    assert [name for name in found if name != "t"] == [f"t/{name}" for name in expected]
    kept = ("xattrs", "target", "rdev") if "pax" in options else ("target", "rdev")
    for name, entry in expected.items():
        other = found[f"t/{name}"]
        fields = ("kind", "mode", "uid", "gid", "size")
        assert [getattr(other, each) for each in fields] == [getattr(entry, each) for each in fields], name
        assert other.mtime_ns // 10**9 == entry.mtime_ns // 10**9
        if "pax" in options:
            assert other.mtime_ns == entry.mtime_ns
        assert [(other.extra or {}).get(each) for each in kept] == [
            (entry.extra or {}).get(each) for each in kept
        ]
        if "sparse" in options or entry.name != b"holes":
            assert other.content == entry.content, name
    linked = [found[f"t/t/{name}"].extra for name in ("a/file", "hard")]
    assert linked[0] is not None and linked[0] == linked[1]


def test_a_restore_gives_back_what_tar_extracts(world: LocalWorld, tmp_path: FilePath) -> None:
    make_tree(tmp_path / "t")
    data = subprocess.run(
        ["tar", "-C", str(tmp_path), "--xattrs", "-Scf", "-", "t"], capture_output=True, check=True
    ).stdout
    made = store(world, data)
    restored = tmp_path / "restored"
    result = restore_manifest(world.session("read"), made.manifest, os.fsencode(restored))
    assert result.problems == []
    again = snapshot_files(world.session(), [os.fsencode(restored / "x.tar" / "t")])
    direct = snapshot_files(world.session(), [os.fsencode(tmp_path / "t")])
    changes = list(diff_manifests(world.session("read"), direct.manifest, again.manifest))
    assert [(change.path, change.fields) for change in changes] == []


def test_the_same_archive_in_another_order_is_the_same_tree(world: LocalWorld) -> None:
    members = [member(f"d{n % 7}/f{n}", b"%d" % n) for n in range(300)]
    members += [member(f"d{n}", type=tarfile.DIRTYPE, mode=0o700) for n in range(7)]
    one, other = store(world, archive(members)), store(world, archive(members[::-1]))
    assert one.manifest.root == other.manifest.root
    assert other.manifest.statistics["new_bytes"] == 0


def test_of_a_name_that_comes_twice_the_later_counts(world: LocalWorld) -> None:
    made = store(
        world,
        archive(
            [
                member("a", b"first"),
                member("first", type=tarfile.LNKTYPE, linkname="a"),
                member("d", type=tarfile.DIRTYPE, mode=0o700),
                member("d/x", b"x"),
                member("a", b"second"),
                member("d", type=tarfile.DIRTYPE, mode=0o711),
            ]
        ),
    )
    assert (made.manifest.status, problems(made)) == ("complete", [])
    assert (content(world, made, b"a"), content(world, made, b"first")) == (b"second", b"first")
    found = entries(world, made)
    assert list(found) == ["x.tar", "x.tar/a", "x.tar/d", "x.tar/d/x", "x.tar/first"]
    assert found["x.tar/d"].mode == 0o711


HOSTILE: list[tuple[list[Member], dict[str, str], dict[str, str]]] = [
    ([member("../up", b"1"), member("a/../../up", b"1")], {}, {"x.tar/../up": "leads out", "x.tar/a/../../up": "leads out"}),
    ([member("/etc/passwd", b"1")], {"etc/passwd": "1"}, {"x.tar/etc/passwd": "without the leading slash"}),
    ([member("./a/./b//c", b"1")], {"a/b/c": "1"}, {}),
    (
        [member("a", type=tarfile.SYMTYPE, linkname="/etc"), member("a/passwd", b"1")],
        {"a/passwd": "1"},
        {"x.tar/a": "gave way to x.tar/a/passwd"},
    ),
    (
        [member("a/b", b"1"), member("a", b"file")],
        {"a": "file"},
        {"x.tar/a/b": "gave way to x.tar/a"},
    ),
    ([member("h", type=tarfile.LNKTYPE, linkname="../../etc/shadow")], {}, {"x.tar/h": "leads out"}),
    (
        [member("h", type=tarfile.LNKTYPE, linkname="later"), member("later", b"1")],
        {"later": "1"},
        {"x.tar/h": "is a hard link to x.tar/later"},
    ),
    ([member("h", b"1"), member("h", type=tarfile.LNKTYPE, linkname="h")], {"h": "1"}, {"x.tar/h": "hard link to itself"}),
    ([member("d", type=tarfile.DIRTYPE), member("h", type=tarfile.LNKTYPE, linkname="d")], {}, {"x.tar/h": "is no file"}),
    ([member(".", b"1"), member("ok", b"2")], {"ok": "2"}, {"x.tar": "has no name"}),
    ([member("n", b"1", pax_headers={"path": "a\0b"})], {}, {r"x.tar/a\x00b": "with a slash or NUL"}),
    ([member("n" * 5000, b"1"), member("ok", b"2")], {"ok": "2"}, {"x.tar/" + "n" * 5000: "a name of 5000 bytes"}),
    ([member("o", b"1", uid=2**40), member("ok", b"2")], {"ok": "2"}, {"x.tar/o": "with a uid of"}),
    ([member("t", b"1", pax_headers={"mtime": "nan"})], {}, {"x.tar/t": "modification time"}),
    ([member("t", b"1", pax_headers={"mtime": "1e99"})], {}, {"x.tar/t": "with a mtime_ns of"}),
    ([member("s", type=tarfile.SYMTYPE, linkname="")], {}, {"x.tar/s": "wrong 'target'"}),
    ([member("u", b"1", type=b"Q"), member("ok", b"2")], {"ok": "2"}, {"x.tar/u": "type b'Q' is not known"}),
]  # fmt: skip


@pytest.mark.parametrize(("members", "kept", "said"), HOSTILE)
def test_a_hostile_member_is_kept_harmless_or_left_out_and_named(
    world: LocalWorld, members: list[Member], kept: dict[str, str], said: dict[str, str]
) -> None:
    made = store(world, archive(members))
    found = dict(problems(made))
    assert found.keys() == said.keys()
    assert all(said[path] in found[path] for path in said), found
    only_notes = all("without the leading slash" in message for message in said.values())
    assert made.manifest.status == ("complete" if only_notes else "incomplete")
    files = {name.partition("/")[2]: entry for name, entry in entries(world, made).items() if entry.kind == 0}
    assert {name: content(world, made, *map(os.fsencode, name.split("/"))).decode() for name in files} == kept


def test_an_archive_without_members_is_an_empty_directory(world: LocalWorld) -> None:
    made = store(world, bytes(10240))
    assert [(name, entry.kind) for name, entry in entries(world, made).items()] == [("x.tar", 1)]


def whole() -> bytes:
    return archive([member(f"f{n}", os.urandom(200_000)) for n in range(6)])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_a_stream_that_breaks_off_makes_no_manifest(world: LocalWorld, share: float) -> None:
    data = whole()
    with pytest.raises(SourceError, match="tar stream"):
        store(world, data[: int(share * len(data))])
    session = world.session("read")
    assert session.read_manifests().live == []
    made = store(world, data)  # and what was stored until then is used
    assert made.manifest.status == "complete"
    assert made.manifest.statistics["new_bytes"] <= 1_200_000


def test_damage_in_the_middle_makes_no_manifest(world: LocalWorld) -> None:
    data = bytearray(whole())
    at = data.index(b"f3\0")
    data[at + 1] ^= 1
    with pytest.raises(SourceError, match=f"damaged at byte {at}"):
        store(world, bytes(data))
    assert world.session("read").read_manifests().live == []


def test_a_command_that_fails_behind_a_whole_archive_makes_no_manifest(
    world: LocalWorld, tmp_path: FilePath
) -> None:
    (tmp_path / "whole.tar").write_bytes(whole())
    with pytest.raises(SourceError, match="exited with status 2"):
        snapshot_command(world.session(), NAME, ["sh", "-c", f"cat {tmp_path}/whole.tar; exit 2"], tar=True)
    assert world.session("read").read_manifests().live == []


def test_checkpoints_hold_the_members_that_are_whole(world: LocalWorld) -> None:
    made = store(world, whole(), options=SnapshotOptions(checkpoint_bytes=300_000))
    manifests = world.session("read").read_manifests().live
    partial = [each for each in manifests if each.status == "partial"]
    assert len(partial) >= 2 and manifests[-1].id == made.manifest.id
    counts = [len(list(list_entries(world.session("read"), each))) for each in manifests]
    assert counts == sorted(counts) and counts[-1] == 7
    session = world.session("read")
    last = max(partial, key=lambda each: each.sequence)
    whole_files: dict[Path, Entry] = dict(list_entries(session, made.manifest))
    assert all(entry == whole_files[path] for path, entry in list_entries(session, last) if len(path) > 1)


def test_an_interrupted_run_keeps_what_it_has_and_counts_as_no_backup(world: LocalWorld) -> None:
    class Stopping(Progress):
        def check_stop(self) -> None:
            if self.files == 3:
                raise Interrupted("interrupted")

    with pytest.raises(Interrupted) as caught:
        store(world, whole(), progress=Stopping())
    (kept,) = world.session("read").read_manifests().live
    assert (kept.status, kept.id.hex()) == ("partial", caught.value.manifest)
    assert len(list(list_entries(world.session("read"), kept))) == 4


def test_owners_have_their_names(world: LocalWorld) -> None:
    made = store(world, archive([member("a", b"", uid=7, gid=8, uname="alice", gname="staff")]))
    assert made.manifest.owners == {"users": [(7, b"alice")], "groups": [(8, b"staff")]}
