"""The tables of benchmarks/peers.py, in Markdown: time, CPU time, memory, size, versions, commands.

The last column of a row is holdfast's figure divided by the best of the others: below 1 is first.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measured import Usage
from peer_programs import Program

OWN = "holdfast"
FIRST_MARGIN = 1.0
Best = Mapping[tuple[str, str, str], Mapping[str, Any]]
Figure = Callable[[Mapping[str, Any]], float]

MEASURES: dict[str, Figure] = {
    "Time, s": lambda found: Usage(*found["usage"]).seconds,
    "CPU time, s": lambda found: Usage(*found["usage"]).cpu,
    "Peak memory, MB": lambda found: Usage(*found["usage"]).peak / 1e6,
}
SIZE_STEPS = ("first", "changed", "prune", "all releases")


def print_tables(run: Mapping[str, Any], best: Best) -> None:
    """Print everything about a run."""
    names = list(run["versions"])
    print(f"Scale {run['scale']}, least of {run['rounds']} rounds. Versions:", end=" ")
    print(", ".join(f"{name} {version}" for name, version in run["versions"].items()))
    for title, figure in MEASURES.items():
        print(f"\n### {title}\n")
        print("\n".join(table(best, names, figure)))
    sizes = {key: found for key, found in best.items() if key[1] in SIZE_STEPS}
    print("\n### Repository, MB\n")
    print("\n".join(table(sizes, names, lambda found: found["stored"] / 1e6)))
    print("\n### Commands\n")
    print("\n".join(run["commands"]))


def table(best: Best, names: Sequence[str], figure: Figure) -> list[str]:
    """Return the lines of one table: a row for each sample and step, a column for each program."""
    lines = [
        f"| sample | step | {' | '.join(names)} | {OWN} / best other |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for sample, step in dict.fromkeys(key[:2] for key in best):
        row = {
            name: figure(best[sample, step, name])
            for name in names
            if "failed" not in best.get((sample, step, name), {"failed": ""})
        }
        cells = [_cell(row.get(name), (sample, step, name) in best) for name in names]
        lines.append(f"| {sample} | {step} | {' | '.join(cells)} | {_verdict(row)} |")
    return lines


def _cell(value: float | None, tried: bool) -> str:
    if value is None:
        return "failed" if tried else ""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _verdict(row: Mapping[str, float]) -> str:
    """Return what holdfast needs compared with the best of the others, nothing if there is no comparison."""
    others = {name: value for name, value in row.items() if name != OWN}
    if OWN not in row or not others:
        return ""
    name = min(others, key=others.__getitem__)
    if not others[name]:
        return ""
    ratio = row[OWN] / others[name]
    return f"{ratio:.2f}" if ratio <= FIRST_MARGIN else f"**{ratio:.2f}** ({name})"


def commands_table(programs: Sequence[Program], steps: Sequence[str]) -> list[str]:
    """Return the lines of a table of what each program is called with; folders are shortened."""
    lines = ["| program | step | commands |", "|---|---|---|"]
    for program in programs:
        for step in steps:
            if step in ("unchanged", "changed"):
                continue
            for shown in (" ".join(_shortened(each, program)) for each in _commands(program, step)):
                lines.append(f"| {program.name} | {step} | `{shown}` |")
    return lines


def _commands(program: Program, step: str) -> list[list[str]]:
    if step == "restore":
        if program.name == "kopia":
            return [[program.program, "snapshot", "restore", "--no-progress", "ID", "TARGET"]]
        return program.restore(Path("SOURCE"), Path("TARGET"))
    if step == "first":
        return program.snapshot(Path("SOURCE"))
    made: list[list[str]] = getattr(program, step)()
    return made


def _shortened(command: list[str], program: Program) -> list[str]:
    return [program.name] + [word.replace(str(program.folder) + "/", "") for word in command[1:]]
