"""`snapshot git`, `git restore` and `git verify` as scripts call them."""

from pathlib import Path

from support.cli import Cli, damage
from support.git_repositories import assert_same, git, make_bare, push

KEYS = {"name", "status", "refs_digest", "refs", "new_objects"}


def test_scripts_get_what_the_contract_says(cli: Cli, tmp_path: Path) -> None:
    cli.init()
    bare = make_bare(tmp_path / "srv" / "owner" / "name.git")
    push(bare, "main", {"a": b"1"})
    answer = cli("snapshot", "git", "--under", "srv", "--json")
    assert answer.code == 0
    document = answer.document
    assert document["status"] == "complete" and document["stored_bytes"] > 0
    (repository,) = document["repositories"]
    assert set(repository) == KEYS
    assert (repository["name"], repository["status"], repository["new_objects"]) == (
        "owner/name.git",
        "new",
        3,
    )
    restored = cli("git", "restore", document["manifest"], "--to", "out", "--json")
    assert restored.code == 0 and restored.document["status"] == "complete"
    assert_same(tmp_path / "out" / "owner" / "name.git", bare)
    verified = cli("git", "verify", "--json")
    assert verified.code == 0 and verified.document["status"] == "ok"
    assert [each["refs_digest"] for each in verified.document["repositories"]] == [repository["refs_digest"]]
    again = cli("snapshot", "git", "--under", "srv", "--json").document
    assert [each["status"] for each in again["repositories"]] == ["unchanged"]
    assert again["stored_bytes"] == 0


def test_a_person_reads_what_was_new(cli: Cli, tmp_path: Path) -> None:
    cli.init()
    push(make_bare(tmp_path / "srv" / "name.git"), "main", {"a": b"1"})
    code, out, err = cli("snapshot", "git", "srv/name.git")
    assert (code, err) == (0, "")
    assert out.startswith("name.git: new, 3 new objects\nsnapshot <id>: 1 repository, ")
    code, out, err = cli("git", "verify")
    assert (code, out, err) == (0, "verified 1 repository of 1\n", "")
    code, out, err = cli("git", "restore", "latest", "--to", "srv")
    assert code == 0 and "what was at name.git is now " in out
    assert out.endswith("restored 1 repository of 1\n")


def test_one_repository_that_fails_makes_exit_code_3(cli: Cli, tmp_path: Path) -> None:
    cli.init()
    for name in ("a.git", "b.git"):
        push(make_bare(tmp_path / "srv" / name), "main", {"a": name.encode()})
    blob = git(tmp_path / "srv" / "a.git", "rev-parse", "main:a").decode()
    (tmp_path / "srv" / "a.git" / "objects" / blob[:2] / blob[2:]).unlink()
    answer = cli("snapshot", "git", "--under", "srv", "--json")
    assert answer.code == 3 and answer.document["status"] == "incomplete"
    assert [each["status"] for each in answer.document["repositories"]] == ["failed", "new"]
    assert [each["path"] for each in answer.document["problems"]] == ["a.git"]
    assert answer.err.startswith("holdfast: a.git: git ")


def test_damage_makes_exit_code_4_and_leaves_no_half_repository(cli: Cli, tmp_path: Path) -> None:
    cli.init()
    push(make_bare(tmp_path / "srv" / "name.git"), "main", {"a": b"1" * 1000})
    cli.snapshot("git", "--under", "srv")
    for path in cli.objects("packs"):
        if path.read_bytes()[-11] == 10:
            damage(path)
    answer = cli("git", "verify", "--json")
    assert answer.code == 4 and answer.document["status"] == "damaged"
    answer = cli("git", "restore", "latest", "--to", "out", "--json")
    assert answer.code == 4 and answer.document["status"] == "damaged"
    assert list((tmp_path / "out").iterdir()) == []


def test_what_makes_no_sense_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli.init()
    assert cli("snapshot", "git").code == 2
    cli.write("tree/file", b"x")
    manifest = cli.snapshot("files", "tree")
    code, _, err = cli("git", "restore", manifest, "--to", "out")
    assert code == 2 and "is of source files, not of git repositories" in err
    push(make_bare(tmp_path / "srv" / "name.git"), "main", {"a": b"1"})
    cli.snapshot("git", "srv/name.git")
    code, _, err = cli("git", "restore", "latest", "other.git", "--to", "out")
    assert code == 2 and "other.git: not in manifest" in err
