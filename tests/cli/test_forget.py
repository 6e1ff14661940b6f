"""holdfast forget, tag and hold: what they answer, what they refuse, and how they end."""

import shutil
from pathlib import Path

import pytest
from support.cli import Cli, damage, lines


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first test leaves its repository and the ids for the others."""
    return tmp_path_factory.mktemp("five")


@pytest.fixture
def five(cli: Cli, template: Path) -> list[str]:
    """A repository with five snapshots of one series, oldest first."""
    ids = template / "ids"
    if not ids.exists():
        cli.init()
        made = [cli.snapshot("stdin", "db", stdin=str(n).encode()) for n in range(5)]
        shutil.copytree(cli.directory / "repository", template / "repository")
        shutil.copy(cli.directory / "key", template / "key")
        ids.write_text("\n".join(made))
    else:
        shutil.copytree(template / "repository", cli.directory / "repository")
        shutil.copy(template / "key", cli.directory / "key")
    return ids.read_text().split()


def listed(cli: Cli, *args: str) -> list[str]:
    return [each["manifest"] for each in cli("manifests", *args, "--json").document]


def test_the_contract_of_forget(cli: Cli, five: list[str]) -> None:
    answer = cli("forget", "--keep-last", "3", "--yes", "--json")
    assert (answer.code, answer.err) == (0, "")
    document = answer.document
    assert sorted(document) == ["dry_run", "forgotten", "kept", "refused"]
    assert [each["manifest"] for each in document["forgotten"]] == five[:2]
    assert [each["manifest"] for each in document["kept"]] == five[2:]
    assert {tuple(each["reasons"]) for each in document["kept"]} == {("last 3",)}
    assert {tuple(each["reasons"]) for each in document["forgotten"]} == {("no rule keeps it",)}
    assert {each["series"] for each in document["kept"] + document["forgotten"]} == {"stdin:vm:db"}
    assert all(each["end"] for each in document["kept"])
    assert listed(cli) == five[2:]
    assert cli("forget", "--keep-last", "3", "--json").document["forgotten"] == []
    assert cli("show", "latest", "--json").document["manifest"] == five[-1]


def test_a_dry_run_says_what_and_why_and_does_nothing(cli: Cli, five: list[str]) -> None:
    objects = cli.objects()
    assert tuple(cli("forget", "--keep-last", "4", "--dry-run")) == (
        0,
        lines(
            "        MANIFEST      END                  STATUS    SERIES       REASON",
            "forget  <id>  <time>  complete  stdin:vm:db  no rule keeps it",
            *["keep    <id>  <time>  complete  stdin:vm:db  last 4"] * 4,
            "would forget 1 manifest, kept 4",
        ),
        "",
    )
    answer = cli("forget", "--keep-last", "1", "--dry-run", "--json")
    too_many = "4 of 5 complete manifests would be forgotten, more than 50 %"
    assert (answer.code, answer.err) == (0, f"holdfast: warning: this needs --yes: {too_many}\n")
    assert (answer.document["dry_run"], answer.document["refused"]) == (True, [too_many])
    assert [each["manifest"] for each in answer.document["forgotten"]] == five[:4]
    assert (cli.objects(), listed(cli)) == (objects, five)


def test_forget_says_what_it_did(cli: Cli, five: list[str]) -> None:
    assert tuple(cli("forget", "--keep-last", "4")) == (
        0,
        lines(
            "        MANIFEST      END                  STATUS    SERIES       REASON",
            "forget  <id>  <time>  complete  stdin:vm:db  no rule keeps it",
            "forgot 1 manifest, kept 4",
        ),
        "",
    )
    assert cli("forget", "--keep-last", "4", "--quiet").out == ""
    assert cli("forget", five[1]).out.startswith("        MANIFEST ")
    assert listed(cli) == five[2:]


REFUSED_BY_FORGET: list[tuple[list[str], int, str]] = [
    ([], 2, "nothing says what to keep"),
    (["--series", "stdin:vm:db"], 2, "nothing says what to keep"),
    (["--keep-last", "0"], 2, "invalid value for '--keep-last': it should be greater"),
    (["--keep-within", "7"], 2, "7: not a duration"),
    (["--keep-daily", "7", "--timezone", "Mars/Olympus"], 2, "Mars/Olympus: no such time zone"),
    (["--keep-last", "1", "0123"], 2, "manifests are named beside a rule or a filter"),
    (["--host", "vm", "0123"], 2, "manifests are named beside a rule or a filter"),
    (["--keep-last", "1"], 11, "4 of 5 complete manifests would be forgotten, more than 50 %"),
    (["--keep-tag", "x", "--max-share", "100"], 11, "stdin:vm:db: its newest complete manifest"),
    ([""], 2, "'': too short to forget a manifest by"),
    (["latest"], 2, "latest: no such manifest"),
]


def test_what_forget_refuses(cli: Cli, five: list[str]) -> None:
    for args, code, message in REFUSED_BY_FORGET:
        answer = cli("forget", *args)
        assert (answer.code, answer.out) == (code, ""), args
        assert answer.err.startswith(f"holdfast: {message}")
        assert "\nhint: " in answer.err
    assert listed(cli) == five
    assert cli.objects("forgotten") == []


def test_only_what_the_filters_choose_is_judged(cli: Cli, five: list[str]) -> None:
    other = [cli.snapshot("stdin", "app", "--tag", tag, stdin=tag.encode()) for tag in ("a", "b", "a", "b")]
    document = cli("forget", "--keep-last", "1", "--tag", "a", "--json").document
    assert [each["manifest"] for each in document["forgotten"]] == [other[0]]
    assert [each["manifest"] for each in document["kept"]] == [other[2]]
    document = cli("forget", "--keep-last", "2", "--series", "stdin:vm:app", "--json").document
    assert [each["manifest"] for each in document["forgotten"]] == [other[1]]
    assert listed(cli) == [*five, *other[2:]]


def test_a_hold_keeps_until_it_is_lifted(cli: Cli, five: list[str]) -> None:
    answer = cli("hold", five[0][:8], five[1], "--until", "2100-01-01", "--json")
    assert (answer.code, [each["manifest"] for each in answer.document]) == (0, five[:2])
    assert {each["hold_until"] for each in answer.document} == {"2100-01-01T00:00:00Z"}
    shown = cli("show", five[0])
    assert "hold until  2100-01-01 00:00:00\n" in shown.out
    answer = cli("forget", five[0])
    assert answer.code == 11
    assert answer.err == lines(
        f"holdfast: manifest {five[0][:12]} is held until 2100-01-01T00:00:00Z",
        f"hint: `holdfast hold {five[0][:12]} --lift` ends that",
    )
    document = cli("forget", "--keep-last", "1", "--yes", "--json").document
    assert [each["reasons"] for each in document["kept"]][:2] == [["held until 2100-01-01T00:00:00Z"]] * 2
    assert tuple(cli("hold", five[0], "--lift")) == (0, "manifest <id> is not held\n", "")
    assert cli("forget", five[0]).code == 0
    assert listed(cli) == [five[1], five[4]]


def test_tags_are_added_taken_away_and_found(cli: Cli, five: list[str]) -> None:
    assert tuple(cli("tag", five[1], "latest", "--add", "x", "--add", "y")) == (
        0,
        "manifest <id> has the tags x, y\n" * 2,
        "",
    )
    assert listed(cli, "--tag", "x") == [five[1], five[4]]
    assert cli("cat", "latest", "db", "--tag", "x").out == "4"
    assert cli("tag", five[4], "--remove", "x", "--json").document[0]["tags"] == ["y"]
    assert cli("cat", "latest", "db", "--tag", "x").out == "1"
    document = cli("forget", "--keep-last", "1", "--keep-tag", "x", "--yes", "--json").document
    assert [each["reasons"] for each in document["kept"]] == [["tag x"], ["last 1"]]
    assert tuple(cli("tag", five[1], "--remove", "x", "--remove", "y")) == (
        0,
        "manifest <id> has no tags\n",
        "",
    )


REFUSED_BY_TAG_AND_HOLD = [
    (["tag", "latest"], "no tag is given"),
    (["tag", "latest", "--add", "x", "--remove", "x"], "x: cannot be added and taken away at once"),
    (["tag", "latest", "--add", ""], "--add: an empty tag"),
    (["tag", "latest", "--add", "a\nb"], "--add: the value is not printable text on one line"),
    (["hold", "latest"], "give either --until or --lift"),
    (["hold", "latest", "--lift", "--until", "2100-01-01"], "give either --until or --lift"),
    (["hold", "latest", "--until", "2020-01-01"], "--until: 2020-01-01 is past"),
    (["hold", "latest", "--until", "soon"], "soon: not a time"),
    (["hold", "ffff", "--lift"], "ffff: no such manifest"),
]


def test_what_tag_and_hold_refuse(cli: Cli) -> None:
    cli.init()
    cli.snapshot("stdin", "db", stdin=b"1")
    for args, message in REFUSED_BY_TAG_AND_HOLD:
        answer = cli(*args)
        assert (answer.code, answer.out) == (2, ""), args
        assert answer.err.startswith(f"holdfast: {message}")
    assert cli.objects("notes") == []


def test_a_forgotten_manifest_is_brought_back_by_its_whole_id_with_a_warning(
    cli: Cli, five: list[str], tmp_path: Path
) -> None:
    assert cli("forget", five[2], "--quiet").code == 0
    assert cli("forget", five[2]).err == f"holdfast: {five[2]}: is forgotten already\n"
    assert cli("restore", five[2][:12], "--to", "out").code == 2
    answer = cli("restore", five[2], "--to", "out")
    warning = f"holdfast: warning: manifest {five[2][:12]} is forgotten: a prune takes away what it needs\n"
    assert (answer.code, answer.err) == (0, warning)
    assert (tmp_path / "out" / "db").read_bytes() == b"2"
    assert cli("cat", five[2], "db").out == "2"
    assert cli("show", five[2], "--json").document["manifest"] == five[2]
    assert cli("verify", "--data").code == 0


def test_a_damaged_note_is_named_and_nothing_is_lost_by_it(cli: Cli, five: list[str]) -> None:
    assert cli("tag", five[0], "--add", "x").code == 0
    (note,) = cli.objects("notes")
    damage(note)
    answer = cli("manifests", "--json", "--cache-dir", "another")
    assert (answer.code, [each["manifest"] for each in answer.document]) == (4, five)
    assert answer.err.startswith(f"holdfast: warning: notes/{five[0]}.")
    document = cli("forget", "--keep-last", "4", "--json", "--cache-dir", "another").document
    assert document["forgotten"] == []
    assert document["kept"][0]["reasons"] == ["a note of it cannot be read"]


def test_a_damaged_manifest_goes_by_its_whole_id_and_a_yes(cli: Cli, five: list[str]) -> None:
    damage(cli.directory / "repository" / "manifests" / five[0])
    here = ["--cache-dir", "another"]
    assert cli("manifests", *here).code == 4
    answer = cli("forget", five[0], *here)
    assert (answer.code, answer.err.splitlines()[0]) == (
        11,
        f"holdfast: manifest {five[0][:12]} cannot be read, so it may be held",
    )
    (gone,) = cli("forget", five[0], "--yes", "--json", *here).document["forgotten"]
    assert (gone["manifest"], gone["status"]) == (five[0], "damaged")
    assert cli("manifests", *here).code == 0


def test_a_writers_key_may_do_neither(cli: Cli, five: list[str]) -> None:
    added = cli("key", "add", "--role", "writer", "--new-key-file", "writer", "--quiet")
    assert added.code == 0
    for args in (
        ["forget", five[0]],
        ["tag", five[0], "--add", "x"],
        ["hold", five[0], "--until", "2100-01-01"],
    ):
        answer = cli(*args, "--key-file", "writer")
        assert (answer.code, answer.out) == (11, "")
        assert "has the role writer, which may not" in answer.err
    assert cli.objects("notes") + cli.objects("forgotten") == []
