"""holdfast, restic, borg, kopia and rustic on the same data, step by step in turn.

    make bench-peers
    python benchmarks/peers.py [--quick | --scale X] [--rounds N] [--only tree,small,…] [--with restic,borg]
                               [--releases DIR] [--folder DIR] [--save FILE] [--from FILE]

Every program does a step before any does the next, and each round begins with another one, so that a busy moment hits all of
them. A figure is the least of the rounds. Each restore is counted, file by file and byte by byte. `--save` keeps every
single figure; `--from` prints the tables of a saved run again. docs/benchmarks.md says what the figures mean.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measured import Failed, Usage, files_and_bytes, least, run_measured, stored_bytes, together
from peer_programs import PROGRAMS, Commands, Program, find_programs
from peer_tables import commands_table, print_tables

QUICK_SCALE = 0.01
KINDS = ("tree", "small", "random", "dump")
RELEASES = "releases"
STEPS = ("init", "first", "unchanged", "changed", "restore", "check", "prune")
Found = dict[str, Any]
"""What one step of one program came to: sample, step, program, usage, bytes of the repository, or what failed."""


def make(kind: str, folder: Path, scale: float, *, change: bool = False) -> None:
    """Make or change a sample in another process: the memory of this one counts for those it starts."""
    script = str(Path(__file__).with_name("sample_data.py"))
    flags = ["--change"] if change else []
    subprocess.run([sys.executable, script, kind, str(folder), "--scale", str(scale), *flags], check=True)


class Arena:
    """One folder in which the programs meet, each with a repository of its own."""

    def __init__(self, folder: Path, programs: dict[str, str], sample: str) -> None:
        self.folder, self.sample = folder, sample
        self.source = folder / "source"
        self.restored = folder / "restored"
        self.programs = [PROGRAMS[name](path, folder / name) for name, path in programs.items()]
        self.out: set[str] = set()

    def step(self, step: str) -> Iterator[Found]:
        """Let every program do the step that has not failed before; yield what it came to."""
        for program in self.programs:
            if program.name in self.out:
                continue
            found: Found = {"sample": self.sample, "step": step, "program": program.name}
            try:
                usage = self._run(program, step)
            except Failed as error:
                self.out.add(program.name)
                print(f"peers: {self.sample}, {step}: {error}", file=sys.stderr)
                yield found | {"failed": str(error)}
                continue
            if usage is not None:
                yield found | {"usage": usage, "stored": stored_bytes(program.repository)}

    def _run(self, program: Program, step: str) -> Usage | None:
        commands = self._commands(program, step)
        self.restored.mkdir()
        where = program.working_folder(step, self.restored)
        try:
            usages = [run_measured(each, program.environment, where)[0] for each in commands]
            if step == "restore":
                self._compare(program)
        finally:
            shutil.rmtree(self.restored)
        return together(usages) if commands else None

    def _commands(self, program: Program, step: str) -> Commands:
        if step == "restore":
            return program.restore(self.source, self.restored)
        if step in ("init", "check", "prune"):
            commands: Commands = getattr(program, step)()
            return commands
        return program.snapshot(self.source)

    def _compare(self, program: Program) -> None:
        wanted, got = files_and_bytes(self.source), files_and_bytes(self.restored)
        if wanted != got:
            raise Failed(f"{program.name} restored {got} (files, bytes) instead of {wanted}")


def run_sample(arena: Arena, kind: str, scale: float) -> Iterator[Found]:
    """Run all steps on one kind of sample."""
    make(kind, arena.source, scale)
    for step in STEPS:
        if step == "changed":
            make(kind, arena.source, scale, change=True)
        yield from arena.step(step)


def by_version(release: Path) -> list[int]:
    """Return a key that puts 1.9 before 1.10."""
    return [int(number) for number in re.findall(r"\d+", release.name)]


def run_releases(arena: Arena, releases: Path) -> Iterator[Found]:
    """Snapshot successive releases of a source tree, each at the same path; sums over all of them."""
    yield from arena.step("init")
    usages: dict[str, list[Usage]] = {}
    last: dict[str, Found] = {}
    for release in sorted((path for path in releases.iterdir() if path.is_dir()), key=by_version):
        if arena.source.exists():
            shutil.rmtree(arena.source)
        shutil.copytree(release, arena.source, symlinks=True)
        for found in arena.step("all releases"):
            last[found["program"]] = found
            usages.setdefault(found["program"], []).append(found.get("usage", Usage(0, 0, 0)))
    for name, found in last.items():
        yield found if "failed" in found else found | {"usage": together(usages[name])}
    for step in ("restore", "check"):
        yield from arena.step(step)


def run_rounds(given: argparse.Namespace, programs: dict[str, str], folder: Path) -> Iterator[Found]:
    """Run every sample in every round and yield what each step came to."""
    names = list(programs)
    samples = [*filter(None, given.only.split(",")), *([RELEASES] if given.releases else [])]
    for number in range(given.rounds):
        first = number % len(names)
        in_turn = {name: programs[name] for name in names[first:] + names[:first]}
        for sample in samples:
            place = folder / f"{sample}{number}"
            place.mkdir()
            arena = Arena(place, in_turn, sample)
            if sample == RELEASES:
                yield from run_releases(arena, given.releases)
            else:
                yield from run_sample(arena, sample, given.scale)
            shutil.rmtree(place)


def best_of(found: list[Found]) -> dict[tuple[str, str, str], Found]:
    """Return (sample, step, program) → the least of what its rounds took, in order; one that failed stays failed."""
    rounds: dict[tuple[str, str, str], list[Found]] = {}
    for each in found:
        rounds.setdefault((each["sample"], each["step"], each["program"]), []).append(each)
    best = {}
    for key, group in rounds.items():
        failed = [each for each in group if "failed" in each]
        usage = None if failed else least([Usage(*each["usage"]) for each in group])
        best[key] = (failed or group)[-1] | ({} if usage is None else {"usage": usage})
    return best


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Find the programs and run everything; a saved run is this."""
    programs = find_programs(given.others.split(","))
    run: dict[str, Any] = {"scale": given.scale, "rounds": given.rounds, "found": []}
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="holdfast-peers-") as folder:
        made = [PROGRAMS[name](path, Path(folder) / "versions" / name) for name, path in programs.items()]
        run["versions"] = {program.name: program.version() for program in made}
        run["commands"] = commands_table(made, STEPS)
        for found in run_rounds(given, programs, Path(folder)):
            run["found"].append(found)
            if given.save:
                given.save.write_text(json.dumps(run))
            took = found.get("usage")
            shown = f"{took.seconds:.2f} s, {took.cpu:.2f} CPU s" if took else "failed"
            print(f"{found['sample']}, {found['step']}: {found['program']} {shown}", file=sys.stderr)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure holdfast beside other backup programs.")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the data, one round")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the data (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--only", default=",".join(KINDS), help="which samples, with commas between them")
    parser.add_argument("--with", dest="others", default="restic,borg,kopia,rustic", help="which programs")
    parser.add_argument(
        "--releases", type=Path, help="a folder with a folder for each release of a source tree"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: among temporary files)")
    parser.add_argument("--save", type=Path, help="write every figure to this file, as JSON")
    parser.add_argument("--from", dest="saved", type=Path, help="print the tables of this file, run nothing")
    given = parser.parse_args()
    if given.quick:
        given.scale, given.rounds = QUICK_SCALE, 1
    run = json.loads(given.saved.read_text()) if given.saved else measure(given)
    print_tables(run, best_of(run["found"]))


if __name__ == "__main__":
    main()
