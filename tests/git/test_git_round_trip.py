"""Git repositories come back with the refs and objects that they had, and cost what is new in them."""

from pathlib import Path

import pytest
from support.git_repositories import assert_same, commit, git, make_bare, objects_of, push, refs_of
from support.repositories import KeyFiles
from support.sessions import World, make_world

from engine import git_snapshot
from engine.git_restore import restore_repositories, verify_repositories
from engine.git_snapshot import GitSnapshotResult, snapshot_git
from engine.reading_back import list_entries
from engine.session import session_of
from engine.sources import git_command
from repo_store.key_ops import add_slot
from repo_store.repository import open_repository


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "hosts")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "srv").mkdir()
    return tmp_path / "srv"


def snapshot(world: World, top: Path) -> GitSnapshotResult:
    result = snapshot_git(world.session(), under=str(top))
    assert result.manifest.status == "complete", result.problems
    return result


def restored(world: World, result: GitSnapshotResult, to: Path) -> Path:
    done = restore_repositories(world.session(), result.manifest, str(to))
    assert done.status == "complete", done.problems
    return to


def statuses(result: GitSnapshotResult) -> list[tuple[bytes, str]]:
    return [(b"/".join(each.name), each.status) for each in result.repositories]


def packfiles(world: World, result: GitSnapshotResult) -> list[bytes]:
    return [
        path[-1]
        for path, entry in list_entries(world.session(), result.manifest)
        if b"packfiles" in path[:-1]
    ]


def stored_bytes(result: GitSnapshotResult) -> int:
    return result.manifest.statistics["stored_bytes"]


def with_every_kind_of_ref(bare: Path) -> None:
    first = push(bare, "main", {"a": b"a\n", "b": b"b" * 5000})
    push(bare, "main", {"a": b"a changed\n", "b": b"b" * 5000})
    push(bare, "topic/deep/er", {"c": b"c"})
    git(bare, "tag", "-a", "v1", "-m", "one", first)
    git(bare, "tag", "light", first)
    blob = git(bare, "hash-object", "-w", "--stdin", stdin=b"a tagged blob")
    git(bare, "update-ref", "refs/tags/blob", blob)
    git(bare, "update-ref", "refs/tags/tree", git(bare, "rev-parse", "main^{tree}"))
    git(bare, "update-ref", b"refs/heads/caf\xe9", first)
    git(bare, "update-ref", "refs/notes/commits", first)
    git(bare, "replace", first, commit(bare, {"other": b"replaced"}))
    git(bare, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/main")


def test_every_kind_of_ref_and_all_that_it_reaches_comes_back(
    world: World, top: Path, tmp_path: Path
) -> None:
    bare = make_bare(top / "owner" / "name.git")
    with_every_kind_of_ref(bare)
    (bare / "description").write_text("what it is\n")
    hook = bare / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    git(bare, "config", "receive.denyDeletes", "true")
    back = restored(world, snapshot(world, top), tmp_path / "out") / "owner" / "name.git"
    assert_same(back, bare)
    assert b"refs/heads/caf\xe9" in refs_of(back) and b"refs/replace/" in refs_of(back)
    assert (back / "description").read_text() == "what it is\n"
    assert (back / "hooks" / "post-receive").stat().st_mode & 0o777 == 0o755
    assert git(back, "config", "receive.denyDeletes") == b"true"


def test_an_unchanged_repository_is_read_by_one_call_of_git_and_stores_nothing(
    world: World, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.git", "b.git"):
        with_every_kind_of_ref(make_bare(top / name))
    first = snapshot(world, top)
    log, wrapper = tmp_path / "calls", tmp_path / "git"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec {git_command.git_program()} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(git_command, "git_program", lambda: str(wrapper))
    second = snapshot(world, top)
    assert statuses(second) == [(b"a.git", "unchanged"), (b"b.git", "unchanged")]
    calls = log.read_text().splitlines()
    assert len(calls) == 2 and all("for-each-ref" in call for call in calls)
    assert stored_bytes(second) == 0 and second.manifest.root == first.manifest.root
    assert_same(restored(world, second, tmp_path / "out") / "a.git", top / "a.git")


def test_each_snapshot_of_a_history_restores_to_its_own_moment(
    world: World, top: Path, tmp_path: Path
) -> None:
    bare = make_bare(top / "name.git")
    states: list[tuple[GitSnapshotResult, bytes, list[bytes]]] = []

    def take() -> None:
        states.append((snapshot(world, top), refs_of(bare), objects_of(bare)))

    first = push(bare, "main", {"a": b"1"})
    take()
    push(bare, "main", {"a": b"2", "b": b"new"})
    push(bare, "topic", {"t": b"topic"})
    take()
    git(bare, "update-ref", "refs/heads/main", commit(bare, {"forced": b"x"}, parents=(first,)))
    take()
    git(bare, "update-ref", "-d", "refs/heads/topic")
    take()
    git(bare, "update-ref", "-d", "refs/heads/main")
    take()
    for number, (result, refs, objects) in enumerate(states):
        back = restored(world, result, tmp_path / f"out{number}") / "name.git"
        assert (refs_of(back) if objects else refs) == refs
        assert objects_of(back) == objects
    assert [each.repositories[0].new_objects for each, _, _ in states] == [3, 7, 3, 0, 0]
    assert packfiles(world, states[-1][0]) == [b"000001", b"000002", b"000003"]


def test_an_empty_repository_is_a_success(world: World, top: Path, tmp_path: Path) -> None:
    bare = make_bare(top / "empty.git")
    git(bare, "symbolic-ref", "HEAD", "refs/heads/unborn")
    result = snapshot(world, top)
    assert statuses(result) == [(b"empty.git", "new")]
    back = restored(world, result, tmp_path / "out") / "empty.git"
    assert git(back, "symbolic-ref", "HEAD") == b"refs/heads/unborn"


def test_a_detached_head_keeps_what_only_it_reaches(world: World, top: Path, tmp_path: Path) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    alone = commit(bare, {"alone": b"only HEAD has this"})
    git(bare, "update-ref", "--no-deref", "HEAD", alone)
    back = restored(world, snapshot(world, top), tmp_path / "out") / "name.git"
    assert git(back, "cat-file", "-p", "HEAD:alone") == b"only HEAD has this"
    assert git(back, "rev-parse", "HEAD").decode() == alone


def test_sha256_repositories_grow_and_come_back(world: World, top: Path, tmp_path: Path) -> None:
    bare = make_bare(top / "name.git", object_format="sha256")
    for number in range(3):
        push(bare, "main", {"a": b"%d" % number, "long": b"line\n" * 1000 + b"%d" % number})
        result = snapshot(world, top)
    back = restored(world, result, tmp_path / "out") / "name.git"
    assert_same(back, bare)
    assert git(back, "rev-parse", "--show-object-format") == b"sha256"


def test_one_of_many_refs_that_moves_costs_little(world: World, top: Path, tmp_path: Path) -> None:
    bare = make_bare(top / "name.git")
    tip = push(bare, "main", {"a": b"1"})
    created = b"".join(b"create refs/heads/b%d/x%d %s\n" % (n % 100, n, tip.encode()) for n in range(10_000))
    git(bare, "update-ref", "--stdin", stdin=created)
    first = snapshot(world, top)
    git(bare, "update-ref", "refs/heads/b7/x7", commit(bare, {"b": b"2"}))
    second = snapshot(world, top)
    assert stored_bytes(second) < stored_bytes(first) / 2
    assert_same(restored(world, second, tmp_path / "out") / "name.git", bare)


def test_a_full_repack_on_the_server_stores_nothing(world: World, top: Path, tmp_path: Path) -> None:
    bare = make_bare(top / "name.git")
    for number in range(10):
        push(bare, "main", {"a": b"line %d\n" % number * 500, f"f{number}": b"x%d" % number})
    snapshot(world, top)
    git(bare, "repack", "-a", "-d", "-f", "-q")
    git(bare, "pack-refs", "--all")
    second = snapshot(world, top)
    assert stored_bytes(second) == 0 and statuses(second) == [(b"name.git", "unchanged")]
    assert_same(restored(world, second, tmp_path / "out") / "name.git", bare)


def test_what_was_added_is_packed_anew_once_it_has_grown(
    world: World, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_snapshot, "REBASE_BYTES_MIN", 1)
    bare = make_bare(top / "name.git")
    counts = []
    for number in range(6):
        push(bare, "main", {f"f{number}": b"%d" % number * 200})
        result = snapshot(world, top)
        counts.append(len(packfiles(world, result)))
        assert_same(restored(world, result, tmp_path / f"out{number}") / "name.git", bare)
    assert max(counts) > 1 and 1 in counts[1:]


def test_deltas_go_against_what_was_stored_before(world: World, top: Path, tmp_path: Path) -> None:
    import random

    bare = make_bare(top / "name.git")
    noise = random.Random(1).randbytes(200_000)
    push(bare, "main", {"noise": noise})
    first = snapshot(world, top)
    push(bare, "main", {"noise": noise + b"a little more"})
    second = snapshot(world, top)
    assert stored_bytes(first) > 200_000 and stored_bytes(second) < 20_000
    assert_same(restored(world, second, tmp_path / "out") / "name.git", bare)


def test_previous_tips_that_are_gone_from_the_source_are_no_hindrance(
    world: World, top: Path, tmp_path: Path
) -> None:
    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    push(bare, "kept", {"k": b"k"})
    snapshot(world, top)
    git(bare, "update-ref", "refs/heads/main", commit(bare, {"other": b"2"}))
    git(bare, "-c", "gc.reflogExpire=now", "gc", "--prune=now", "-q")
    result = snapshot(world, top)
    assert result.repositories[0].new_objects == 3  # what is on the other branch is not stored again
    assert_same(restored(world, result, tmp_path / "out") / "name.git", bare)


def test_a_repository_with_a_working_tree_comes_back_as_its_git_directory(
    world: World, top: Path, tmp_path: Path
) -> None:
    tree = top / "group" / "app"
    tree.mkdir(parents=True)
    git(tree, "init", "-q")
    (tree / "file").write_text("content")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "one")
    git(tree, "config", "core.worktree", str(tree))
    result = snapshot(world, top)
    assert statuses(result) == [(b"group/app/.git", "new")]
    back = restored(world, result, tmp_path / "out") / "group" / "app"
    git(back, "reset", "--hard", "-q")
    assert (back / "file").read_text() == "content"


def test_what_a_shallow_clone_gets_later_is_stored(world: World, top: Path, tmp_path: Path) -> None:
    origin = make_bare(tmp_path / "origin.git")
    for number in range(5):
        push(origin, "main", {"a": b"%d" % number})
    git(tmp_path, "clone", "-q", "--bare", "--depth=2", f"file://{origin}", str(top / "name.git"))
    first = snapshot(world, top)
    assert any("shallow" in problem.message for problem in first.problems)
    assert_same(restored(world, first, tmp_path / "shallow") / "name.git", top / "name.git")
    git(top / "name.git", "fetch", "-q", "--unshallow")
    second = snapshot(world, top)
    back = restored(world, second, tmp_path / "whole") / "name.git"
    assert_same(back, top / "name.git")
    assert len(git(back, "rev-list", "main").splitlines()) == 5


def test_a_fork_comes_back_whole_without_the_pool_that_it_borrows_from(
    world: World, top: Path, tmp_path: Path
) -> None:
    pool = make_bare(tmp_path / "pool.git")
    push(pool, "main", {"a": b"from the pool"})
    git(tmp_path, "clone", "-q", "--bare", "--shared", str(pool), str(top / "fork.git"))
    push(top / "fork.git", "main", {"b": b"own"})
    result = snapshot(world, top)
    expected = objects_of(top / "fork.git")
    back = restored(world, result, tmp_path / "out") / "fork.git"
    pool.rename(tmp_path / "away")
    assert objects_of(back) == expected


def test_lfs_objects_are_kept_and_proven_by_their_names(world: World, top: Path, tmp_path: Path) -> None:
    from hashlib import sha256

    bare = make_bare(top / "name.git")
    data = b"large" * 100_000
    name = sha256(data).hexdigest()
    place = bare / "lfs" / "objects" / name[:2] / name[2:4] / name
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    result = snapshot(world, top)
    back = restored(world, result, tmp_path / "out") / "name.git"
    assert (back / place.relative_to(bare)).read_bytes() == data
    assert stored_bytes(snapshot(world, top)) == 0
    other = place.with_name(name[:-1] + ("0" if name[-1] != "0" else "1"))
    other.write_bytes(b"not what its name says")
    broken = snapshot_git(world.session(), under=str(top))
    assert broken.manifest.status == "incomplete"
    assert [problem.path[-1] for problem in broken.problems] == [other.name.encode()]


def test_a_writer_that_cannot_read_contents_stores_only_what_is_new(
    world: World, top: Path, tmp_path: Path
) -> None:
    keys = KeyFiles()
    add_slot(world.session().repository, secret=keys.new(), role="writer", label="git server", now_ns=1)

    def take() -> GitSnapshotResult:
        repository = open_repository(world.session().storage, keys.saved[-1], None, operation="write")
        return snapshot_git(session_of(repository, world.places(), operation="write"), under=str(top))

    bare = make_bare(top / "name.git")
    push(bare, "main", {"a": b"1"})
    take()
    push(bare, "main", {"a": b"2"})
    second = take()
    assert second.repositories[0].new_objects == 3
    assert take().repositories[0].status == "unchanged"
    assert_same(restored(world, second, tmp_path / "out") / "name.git", bare)


def test_a_verification_makes_every_repository_and_compares_its_refs(world: World, top: Path) -> None:
    for name in ("a.git", "b.git"):
        push(make_bare(top / name), "main", {"a": name.encode()})
    result = snapshot(world, top)
    verified = verify_repositories(world.session(), result.manifest)
    assert [(each.name, each.status) for each in verified.repositories] == [
        ((b"a.git",), "ok"),
        ((b"b.git",), "ok"),
    ]
    assert [each.refs_digest for each in verified.repositories] == [
        each.refs_digest for each in result.repositories
    ]
