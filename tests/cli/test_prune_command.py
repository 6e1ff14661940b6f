"""holdfast prune: what scripts rely on."""

import pytest
from support.cli import Cli, damage


@pytest.fixture
def three(cli: Cli) -> list[str]:
    """A repository with three manifests, two of them forgotten."""
    cli.init()
    made = [cli.snapshot("stdin", "app.sql", stdin=bytes([n]) * 9 + b"dump %d " % n * 5000) for n in range(3)]
    assert cli("forget", "--keep-last", "1", "--yes").code == 0
    return made


def test_two_prunes_free_what_was_forgotten(cli: Cli, three: list[str]) -> None:
    before = {path.name for path in cli.objects("packs")}
    first = cli("prune", "--json")
    assert first.code == 0
    document = first.document
    assert (document["dry_run"], document["generation"], document["adopted"]) == (False, 1, False)
    assert (document["packs_deleted"], document["manifests_removed"]) == (0, 2)
    assert document["bytes_next"] > 0
    assert cli("stats", "--json").document["prunable_bytes"] == document["bytes_next"]
    planned = cli("prune", "--dry-run", "--json").document
    assert planned["dry_run"] is True and planned["packs_deleted"] > 0
    assert {path.name for path in cli.objects("packs")} >= before, "--dry-run deletes nothing"
    second = cli("prune", "--json").document
    assert second["packs_deleted"] == planned["packs_deleted"]
    assert second["bytes_freed"] >= planned["bytes_freed"] == document["bytes_next"]
    assert second["bytes_left"] == sum(path.stat().st_size for path in cli.objects("packs"))
    assert set(second) >= {"packs_repacked", "tables_merged", "sparse_frames", "frames_compacted", "damaged"}
    assert cli("verify", "--data").code == 0
    assert cli("cat", three[-1], "app.sql").out.startswith("\x02" * 9 + "dump 2 ")


def test_at_once_frees_in_one_run(cli: Cli, three: list[str]) -> None:
    answer = cli("prune", "--at-once", "--compact")
    assert answer.code == 0
    assert " freed in " in answer.out and "the next prune frees them" not in answer.out
    assert "would free 0 B in 0 packs" in cli("prune", "--dry-run").out


def test_a_prune_says_what_the_next_one_frees(cli: Cli, three: list[str]) -> None:
    assert "are no longer needed: the next prune frees them" in cli("prune").out
    assert "that the next prune may free" in cli("stats").out


def test_damage_to_what_is_needed_ends_with_4_and_frees_nothing(cli: Cli, three: list[str]) -> None:
    cli("prune")
    (path,) = [each for each in cli.objects("manifests") if each.name.startswith(three[-1][:8])]
    damage(path)
    before = cli.objects("packs")
    answer = cli("prune", "--cache-dir", str(cli.directory / "another"))
    assert answer.code == 4
    assert f"manifests/{path.name}: damaged: " in answer.err and "so nothing was removed" in answer.err
    assert cli.objects("packs") == before


@pytest.mark.parametrize("wrong", ["much", "-1G", "5 bananas"])
def test_a_size_that_is_none_is_a_usage_error(cli: Cli, three: list[str], wrong: str) -> None:
    answer = cli("prune", f"--max-repack={wrong}")
    assert answer.code == 2 and "is not a size" in answer.err
