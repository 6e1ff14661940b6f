"""Damaged, hostile and vanishing repositories: the one is named, the others are stored, and nothing of theirs is run."""

import zlib
from pathlib import Path

import pytest
from support.git_repositories import assert_same, commit, git, make_bare, push, refs_of
from support.sessions import World, make_world

from engine.git_restore import restore_repositories, verify_repositories
from engine.git_snapshot import GitSnapshotResult, snapshot_git
from engine.git_tree import RepositoryTree
from engine.problems import ProblemKind
from engine.progress import Progress
from engine.sources import git_packfile
from engine.sources.git_refs import READINGS_MAX, Refs, read_refs
from repo_store.entry import Entry, EntryKind
from repo_store.errors import ObjectDamaged, SourceError, UsageError
from repo_store.sealed import Kind


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "hosts")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "srv").mkdir()
    return tmp_path / "srv"


def snapshot(world: World, top: Path) -> GitSnapshotResult:
    return snapshot_git(world.session(), under=str(top))


def loose(bare: Path, object_id: str) -> Path:
    return bare / "objects" / object_id[:2] / object_id[2:]


def make_loose(bare: Path, object_id: str, data: bytes) -> None:
    """Put other content into the place of a loose object, whole as far as zlib can tell."""
    path = loose(bare, object_id)
    path.chmod(0o600)
    path.write_bytes(zlib.compress(b"blob %d\0%s" % (len(data), data)))


@pytest.mark.parametrize("trouble", ["missing", "garbage", "another"])
def test_a_damaged_repository_is_named_and_the_others_are_stored(
    world: World, top: Path, tmp_path: Path, trouble: str
) -> None:
    good, bad = make_bare(top / "good.git"), make_bare(top / "bad.git")
    push(good, "main", {"a": b"1"})
    push(bad, "main", {"a": b"content that will be lost"})
    blob = git(bad, "rev-parse", "main:a").decode()
    if trouble == "missing":
        loose(bad, blob).unlink()
    elif trouble == "garbage":
        loose(bad, blob).chmod(0o600)
        loose(bad, blob).write_bytes(b"no zlib at all")
    else:
        make_loose(bad, blob, b"content that has not this id")
    result = snapshot(world, top)
    assert [(each.name, each.status) for each in result.repositories] == [
        ((b"bad.git",), "failed"),
        ((b"good.git",), "new"),
    ]
    assert result.manifest.status == "incomplete"
    assert [problem.path for problem in result.problems] == [(b"bad.git",)]
    done = restore_repositories(world.session(), result.manifest, str(tmp_path / "out"))
    assert [each.name for each in done.repositories] == [(b"good.git",)]
    assert_same(tmp_path / "out" / "good.git", good)


def test_a_packfile_that_git_wrote_wrongly_is_not_stored(
    world: World, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(make_bare(top / "name.git"), "main", {"a": b"1", "b": b"2"})
    honest = git_packfile.Git.run_on_files

    def one_less(self: git_packfile.Git, *args: str, stdin: object, stdout: object) -> bytes:
        if args[0] == "pack-objects":
            lines = stdin.read().splitlines(keepends=True)  # type: ignore[attr-defined]
            stdin.seek(0)  # type: ignore[attr-defined]
            stdin.truncate()  # type: ignore[attr-defined]
            stdin.writelines(lines[:-1])  # type: ignore[attr-defined]
            stdin.seek(0)  # type: ignore[attr-defined]
        return honest(self, *args, stdin=stdin, stdout=stdout)  # type: ignore[arg-type]

    monkeypatch.setattr(git_packfile.Git, "run_on_files", one_less)
    result = snapshot(world, top)
    assert result.repositories[0].status == "failed"
    assert "does not hold the objects" in result.problems[0].message


def test_a_repository_that_fails_is_kept_as_it_was_and_said_to_be_old(
    world: World, top: Path, tmp_path: Path
) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    before = refs_of(bare)
    assert snapshot(world, top).manifest.status == "complete"
    push(bare, "main", {"a": b"2"})
    blob = git(bare, "rev-parse", "main:a").decode()
    data = loose(bare, blob).read_bytes()
    loose(bare, blob).unlink()
    failed = snapshot(world, top)
    assert failed.manifest.status == "incomplete" and failed.repositories[0].status == "failed"
    done = restore_repositories(world.session(), failed.manifest, str(tmp_path / "old"))
    assert done.status == "incomplete" and done.repositories[0].status == "stale"
    assert refs_of(tmp_path / "old" / "name.git") == before
    loose(bare, blob).write_bytes(data)
    healed = snapshot(world, top)
    assert healed.manifest.status == "complete" and healed.repositories[0].new_objects == 3
    done = restore_repositories(world.session(), healed.manifest, str(tmp_path / "new"))
    assert done.status == "complete"
    assert_same(tmp_path / "new" / "name.git", bare)


def test_no_program_that_a_repository_names_is_run(world: World, top: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    evil = tmp_path / "evil"
    evil.write_text(f'#!/bin/sh\necho "$0 $@" >>{ran}\ncat\n')
    evil.chmod(0o755)
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1", ".gitattributes": b"* filter=evil diff=evil\n"})
    for setting in (
        *("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.pager", "core.editor", "core.askPass"),
        *("core.alternateRefsCommand", "uploadpack.packObjectsHook", "gpg.program", "credential.helper"),
        *("filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv", "diff.external", "pager.fsck"),
        *(
            "remote.origin.uploadpack",
            "remote.origin.vcs",
            "alias.rev-list",
            "alias.fsck",
            "trace2.eventTarget",
        ),
    ):
        git(bare, "config", setting, str(evil))
    git(bare, "config", "core.hooksPath", str(tmp_path / "hooks"))
    git(bare, "config", "remote.origin.url", f"ext::{evil}")
    for folder in (bare / "hooks", tmp_path / "hooks"):
        folder.mkdir(exist_ok=True)
        for hook in ("post-index-change", "reference-transaction", "pre-auto-gc", "post-checkout", "update"):
            (folder / hook).write_text(evil.read_text())
            (folder / hook).chmod(0o755)
    ran.unlink(missing_ok=True)  # what the pushes above set off
    result = snapshot(world, top)
    assert result.manifest.status == "complete", result.problems
    assert verify_repositories(world.session(), result.manifest).status == "complete"
    assert restore_repositories(world.session(), result.manifest, str(tmp_path / "out")).status == "complete"
    assert not ran.exists(), ran.read_text()
    # Not even by calls that do more than a snapshot needs.
    careful = git_packfile.Git(bytes(bare), Progress())
    careful.run("update-ref", "refs/heads/other", git(bare, "rev-parse", "main"))
    with pytest.raises(SourceError, match="not allowed"):
        careful.run("fetch", "origin")
    assert not ran.exists(), ran.read_text()
    git(bare, "update-ref", "-d", "refs/heads/other")
    assert ran.exists()  # as git runs it for others, the hook is alive
    assert refs_of(tmp_path / "out" / "name.git") == refs_of(bare)


def test_a_missing_object_is_not_fetched_from_where_the_repository_says(
    world: World, top: Path, tmp_path: Path
) -> None:
    origin = make_bare(tmp_path / "origin.git")
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    push(origin, "main", {"a": b"only there"})
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", f"file://{origin}", str(top / "name.git"))
    result = snapshot(world, top)
    assert result.repositories[0].status == "failed"
    assert "partial clone" in result.problems[0].message
    blob = git(origin, "rev-parse", "main:a").decode()
    assert not loose(top / "name.git", blob).exists()


def test_links_out_of_a_repository_are_kept_as_links(world: World, top: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not of this repository")
    bare = make_bare(top / "name.git")
    (bare / "hooks").mkdir(exist_ok=True)
    (bare / "hooks" / "stolen").symlink_to(secret)
    (bare / "description").unlink(missing_ok=True)
    (bare / "description").symlink_to(secret)
    result = snapshot(world, top)
    done = restore_repositories(world.session(), result.manifest, str(tmp_path / "out"))
    assert done.status == "complete"
    assert (tmp_path / "out" / "name.git" / "description").readlink() == secret
    assert (tmp_path / "out" / "name.git" / "hooks" / "stolen").readlink() == secret


def test_what_stands_in_the_place_of_a_restore_is_moved_aside_and_kept(
    world: World, top: Path, tmp_path: Path
) -> None:
    bare = make_bare(top / "owner" / "name.git")
    push(bare, "main", {"a": b"1"})
    result = snapshot(world, top)
    push(bare, "main", {"a": b"later, not in the backup"})
    later = refs_of(bare)
    done = restore_repositories(world.session(), result.manifest, str(top), names=[(b"owner", b"name.git")])
    assert done.status == "complete"
    (check,) = done.repositories
    assert check.aside is not None and refs_of(Path(check.aside.decode())) == later
    assert refs_of(bare) != later


def test_a_restore_that_fails_leaves_what_is_there_untouched(
    world: World, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    result = snapshot(world, top)
    push(bare, "main", {"a": b"2"})
    there, names = refs_of(bare), sorted(path.name for path in top.iterdir())
    monkeypatch.setattr(RepositoryTree, "digest", bytes(32))
    done = restore_repositories(world.session(), result.manifest, str(top))
    assert done.status == "damaged" and done.repositories[0].status == "damaged"
    assert "digest" in done.problems[0].message
    assert refs_of(bare) == there and sorted(path.name for path in top.iterdir()) == names


def test_damage_to_a_packfile_is_found_by_a_verification(world: World, top: Path) -> None:
    for name in ("a.git", "b.git"):
        push(make_bare(top / name), "main", {"a": name.encode() * 100})
    result = snapshot(world, top)
    for name, data in world.disk.objects().items():
        if name.startswith("packs/") and data[-11] == Kind.DATA_DIRECTORY:
            world.disk.damage(name, data[:40] + bytes((data[40] ^ 1,)) + data[41:])
    verified = verify_repositories(world.session(), result.manifest)
    assert verified.status == "damaged"
    assert {each.status for each in verified.repositories} == {"damaged"}
    assert {problem.path for problem in verified.problems} == {(b"a.git",), (b"b.git",)}


def test_a_restore_from_which_an_object_is_missing_is_no_restore(
    world: World, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    snapshot(world, top)
    push(bare, "main", {"a": b"2"})
    result = snapshot(world, top)
    whole = RepositoryTree.packfiles.fget
    assert whole is not None
    monkeypatch.setattr(RepositoryTree, "packfiles", property(lambda tree: whole(tree)[:-1]))
    done = restore_repositories(world.session(), result.manifest, str(tmp_path / "out"))
    assert done.status == "damaged" and "git fsck" in done.problems[0].message
    assert list((tmp_path / "out").iterdir()) == []


def test_malformed_objects_that_real_histories_have_block_nothing_and_are_said(
    world: World, top: Path, tmp_path: Path
) -> None:
    bare = make_bare(top / "name.git")
    tree = git(bare, "mktree").decode()
    text = f"tree {tree}\nauthor A <a@b> 1 +0000\ncommitter no email 1 +0000\n\nold\n"
    made = git(bare, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=text.encode())
    git(bare, "update-ref", "refs/heads/main", made)
    result = snapshot(world, top)
    assert result.manifest.status == "complete", result.problems
    done = restore_repositories(world.session(), result.manifest, str(tmp_path / "out"))
    assert done.status == "complete", done.problems
    assert any("missingEmail" in problem.message for problem in done.problems)
    assert all(problem.kind == ProblemKind.NOTE for problem in done.problems)
    assert refs_of(tmp_path / "out" / "name.git") == refs_of(bare)


def test_a_repository_that_never_holds_still_is_recorded_as_moving(
    world: World, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"0"})
    readings = 0

    def read_then_push(git_of: git_packfile.Git) -> Refs:
        nonlocal readings
        readings += 1
        refs = read_refs(git_of)
        push(bare, "main", {"a": b"%d" % readings})
        return refs

    monkeypatch.setattr("engine.sources.git_refs.read_refs", read_then_push)
    result = snapshot(world, top)
    assert readings == READINGS_MAX and result.repositories[0].moving
    assert result.manifest.status == "complete"
    assert any("not those of one moment" in problem.message for problem in result.problems)
    done = restore_repositories(world.session(), result.manifest, str(tmp_path / "out"))
    assert done.status == "complete"


def test_repositories_are_found_at_any_depth_and_none_inside_another(world: World, top: Path) -> None:
    for name in ("a.git", "group/b.git", "group/sub/deep/c.git"):
        push(make_bare(top / name), "main", {"a": b"1"})
    make_bare(top / "a.git" / "inner.git")
    (top / "group" / "no repository").mkdir()
    (top / "group" / "link.git").symlink_to(top / "a.git")
    names = [b"/".join(each.name) for each in snapshot(world, top).repositories]
    assert names == [b"a.git", b"group/b.git", b"group/sub/deep/c.git"]
    shallow = snapshot_git(world.session(), under=str(top), depth=2)
    assert [b"/".join(each.name) for each in shallow.repositories] == [b"a.git", b"group/b.git"]


def test_where_there_is_no_repository_there_is_no_snapshot(world: World, top: Path) -> None:
    with pytest.raises(SourceError, match="no git repository is there"):
        snapshot(world, top)
    with pytest.raises(SourceError, match="not a git repository"):
        snapshot_git(world.session(), [str(top)])
    make_bare(top / "one" / "name.git")
    make_bare(top / "two" / "name.git")
    with pytest.raises(UsageError, match="would be stored in one place"):
        snapshot_git(world.session(), [str(top / "one" / "name.git"), str(top / "two" / "name.git")])


@pytest.mark.parametrize("path", [(b"objects", b"x"), (b"hooks", b"link", b"x")])
def test_a_manifest_made_to_write_elsewhere_is_refused(
    tmp_path: Path, world: World, path: tuple[bytes, ...]
) -> None:
    from engine.git_rebuild import write_kept

    gitdir = tmp_path / "name.git"
    (gitdir / "hooks").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (gitdir / "hooks" / "link").symlink_to(tmp_path / "outside")
    entry = Entry(path[-1], int(EntryKind.FILE), 0o644, 0, 0, 0, 0, 0, 0, None, None)
    with pytest.raises(ObjectDamaged):
        write_kept(world.session(), bytes(gitdir), path, entry)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_commit_that_a_push_took_away_while_it_was_packed_is_no_failure(
    world: World, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    honest = git_packfile.make_packfile
    tries = 0

    def make(*args: object) -> object:
        nonlocal tries
        tries += 1
        if tries == 1:
            git(bare, "update-ref", "refs/heads/main", commit(bare, {"forced": b"2"}))
            git(bare, "-c", "gc.reflogExpire=now", "gc", "--prune=now", "-q")
        return honest(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.git_snapshot.make_packfile", make)
    result = snapshot(world, top)
    assert tries == 2 and result.manifest.status == "complete"
    assert restore_repositories(world.session(), result.manifest, str(tmp_path / "out")).status == "complete"
    assert_same(tmp_path / "out" / "name.git", bare)
