"""holdfast find: in which snapshots something is."""

import os

import pytest
from support.cli import Cli, damage, lines


@pytest.fixture
def three(cli: Cli) -> list[str]:
    """Three snapshots of a tree in which one file changes and one goes, and one of a stream."""
    cli.init()
    cli.write("tree/sub/a.jpg", "a" * 3000)
    cli.write("tree/sub/deep/b.JPG")
    cli.write("tree/notes", "one")
    for path in ("tree/sub/a.jpg", "tree/sub/deep/b.JPG", "tree/notes", "tree/sub/deep", "tree/sub"):
        os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    made = [cli.snapshot("files", "tree")]
    cli.write("tree/notes", "two!")
    os.utime("tree/notes", ns=(0, 1_800_000_000_000_000_000))
    made.append(cli.snapshot("files", "tree"))
    os.unlink("tree/sub/deep/b.JPG")
    made.append(cli.snapshot("files", "tree"))
    made.append(cli.snapshot("stdin", "app.jpg", stdin=b"dump"))
    return made


def found(cli: Cli, *args: str) -> list[tuple[str, int, list[str]]]:
    matches = cli("find", *args, "--json").document["matches"]
    return [(each["path"], each["size"], each["manifests"]) for each in matches]


def test_each_version_is_named_with_the_snapshots_that_have_it(cli: Cli, three: list[str]) -> None:
    one, two, last, stream = three
    assert found(cli, "notes") == [("tree/notes", 4, [last, two]), ("tree/notes", 3, [one])]
    assert found(cli, "*.jpg") == [("app.jpg", 4, [stream]), ("tree/sub/a.jpg", 3000, [last, two, one])]
    assert found(cli, "*.jpg", "-i", "--type", "f", "--smaller", "1") == [
        ("tree/sub/deep/b.JPG", 0, [two, one])
    ]
    assert found(cli, "no such") == []
    assert cli("find", "notes", "--json").document["matches"][1] == {
        "path": "tree/notes",
        "kind": "file",
        "size": 3,
        "mtime": "2023-11-14T22:13:20Z",
        "manifests": [one],
    }


def test_lines_for_a_person(cli: Cli, three: list[str]) -> None:
    assert cli("find", "notes", "a.jpg").out == lines(
        f"           4 2027-01-15 08:00:00 {three[2][:12]} (2)    tree/notes",
        f"           3 2023-11-14 22:13:20 {three[0][:12]} (1)    tree/notes",
        f"        3000 2023-11-14 22:13:20 {three[2][:12]} (3)    tree/sub/a.jpg",
    )
    assert tuple(cli("find", "no such")) == (0, "", "")


def test_paths_sizes_times_and_types_narrow_it_down(cli: Cli, three: list[str]) -> None:
    def paths(*args: str) -> list[str]:
        return sorted({path for path, _, _ in found(cli, *args)})

    assert paths("sub/*.jpg") == ["tree/sub/a.jpg"]
    assert paths("/sub/*.jpg") == []
    assert paths("--path", "/tree/**", "--type", "d") == ["tree/sub", "tree/sub/deep"]
    assert paths("*", "--larger", "2.5K") == ["tree/sub/a.jpg"]
    assert paths("*", "--newer", "2026-12-31T00:00:00Z", "--type", "f", "--source", "files") == ["tree/notes"]
    assert paths("*", "--older", "2024-01-01", "--larger", "0") == ["tree/notes", "tree/sub/a.jpg"]
    assert paths("--name", "sub", "--name", "deep") == ["tree/sub", "tree/sub/deep"]


def test_manifests_are_chosen_by_id_by_latest_and_by_what_they_are(cli: Cli, three: list[str]) -> None:
    one, two, last, stream = three
    assert found(cli, "notes", "-m", one[:8], "-m", two) == [
        ("tree/notes", 4, [two]),
        ("tree/notes", 3, [one]),
    ]
    assert found(cli, "a.jpg", "-m", "latest", "--source", "files") == [("tree/sub/a.jpg", 3000, [last])]
    assert found(cli, "*.jpg", "--source", "stdin") == [("app.jpg", 4, [stream])]
    assert found(cli, "*", "--host", "other") == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no pattern is given"),
        (["a", "--type", "x"], "--type: 'x' is none of f, d, l, p, c, b"),
        (["a", "--larger", "many"], "--larger: 'many' is not a size"),
        (["a", "--newer", "then"], "then: not a time"),
        (["--name", "a/b"], "a/b: a name has no slash"),
        (["a", "--at", "2026-01-01"], "a time is given without a manifest"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, args: list[str], message: str) -> None:
    cli.init()
    code, out, err = cli("find", *args)
    assert (code, out, err.splitlines()[0]) == (2, "", f"holdfast: {message}")


def test_what_ls_prints_is_found(cli: Cli) -> None:
    cli.init()
    os.mkdir("tree")
    with open(os.fsencode(cli.directory) + b"/tree/\xff\n\\n", "wb"):
        pass
    cli.snapshot("files", "tree")
    shown = cli("ls", "latest").out.splitlines()[1]
    assert [path for path, _, _ in found(cli, f"/{shown}")] == [shown]


def test_damage_costs_what_it_hit_and_ends_with_code_4(cli: Cli, three: list[str]) -> None:
    damage(cli.directory / "repository" / "manifests" / three[0])
    answer = cli("find", "notes", "--json", "--cache-dir", "another")
    assert (answer.code, answer.document["damaged"]) == (4, 1)
    assert [each["manifests"] for each in answer.document["matches"]] == [[three[2], three[1]]]
    for pack in cli.objects("packs"):
        damage(pack)
    answer = cli("find", "notes", "--cache-dir", "third")
    assert (answer.code, answer.out) == (4, "")
    assert "could not be looked at" in answer.err
