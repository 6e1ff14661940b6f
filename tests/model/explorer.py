"""The explorer: every state that a protocol can reach, or the shortest way to one that must not be.

Breadth first, so the history of a violation is a shortest one. Two states that differ only in which writer is called
the first, or which prune, are one state (`canonical`): whatever one can lead to, so can the other, with the names
exchanged.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from model.protocol import (
    COMMIT,
    NO_VIEW,
    Broken,
    Generation,
    Mask,
    Prune,
    Rules,
    Scenario,
    State,
    Step,
    View,
    Writer,
    highest,
    is_broken,
    start,
)
from model.prune_steps import cleaning_steps, prune_steps
from model.writer_steps import writer_steps


@dataclass(frozen=True)
class Explored:
    """How many states there are, and if one of them is bad, the steps that lead to it."""

    states: int
    history: list[str] = field(default_factory=list)
    complete: bool = True


def explore(scenario: Scenario, rules: Rules | None = None, *, states_max: int | None = None) -> Explored:
    """Visit every state of a scenario under some rules, or until one is broken."""
    rules = rules or Rules()
    first = start(scenario)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        if states_max is not None and len(came_from) > states_max:
            return Explored(len(came_from), complete=False)
        if is_broken(scenario, state):
            return Explored(len(came_from), _history(came_from, state))
        try:
            for label, reached in steps(scenario, rules, state):
                after = canonical(scenario, reached)
                if after not in came_from:
                    came_from[after] = (state, label)
                    waiting.append(after)
        except Broken as broken:
            return Explored(len(came_from), [*_history(came_from, state), str(broken)])
    return Explored(len(came_from))


def steps(scenario: Scenario, rules: Rules, state: State) -> Iterator[Step]:
    """Yield everything that one step may lead to, whoever takes it."""
    for number in range(scenario.writers):
        yield from writer_steps(scenario, rules, state, number)
    for number in range(scenario.prunes):
        yield from prune_steps(scenario, rules, state, number)
    yield from cleaning_steps(scenario, rules, state)


def canonical(scenario: Scenario, state: State) -> State:
    """Return the one state that stands for this one and all that can only lead to the same.

    What is never read again is taken out: packs that are gone (no pack comes twice) from every list, the mark behind
    a sweep, what a finished generation found once there is a later one, what a writer saw once it has looked.
    """
    packs, ids, generations, writers, prunes = state
    top = highest(generations)
    generations = tuple([_read_again(g, packs, n < top, scenario.by_name) for n, g in enumerate(generations)])
    writers = tuple([_read_again_by_writer(writer, packs, scenario.commits) for writer in writers])
    if len(prunes) > 1:
        prunes = tuple(sorted([Prune(p[0], p[1], p[2] & packs, p[3], p[4], p[5]) for p in prunes]))
    if len(writers) == 2:
        last = 1 + scenario.commits
        if (writers[0], ids[1:last]) > (writers[1], ids[last:]):
            return _exchanged(State(packs, (ids[0], *ids[last:], *ids[1:last]), generations, writers, prunes))
    return State(packs, ids, generations, writers, prunes)


def _read_again(records: Generation, packs: Mask, below: bool, by_name: bool) -> Generation:
    mark, sweep, done = records
    if mark is not None:
        mark = mark & packs if done is None and (sweep is None or by_name) else 0
    if sweep is not None:
        sweep &= packs
    if done is not None:
        done = 0 if below else done & packs
    return Generation(mark, sweep, done)


def _read_again_by_writer(writer: Writer, packs: Mask, commits: int) -> Writer:
    step, seen, now, begun, carried = writer
    if step >= COMMIT and begun == commits:
        return Writer(step, NO_VIEW, NO_VIEW, begun, False)
    return Writer(step, _present(seen, packs), _present(now, packs), begun, carried)


def _present(view: View, packs: Mask) -> View:
    return View(view[0], view[1], view[2] & packs) if view[2] & ~packs else view


def _exchanged(state: State) -> State:
    """Exchange the two writers, and their packs wherever they are named."""
    packs, ids, generations, (one, two), prunes = state
    new = EXCHANGED
    return State(
        new[packs],
        ids,
        tuple([Generation(*[v if v is None else new[v] for v in records]) for records in generations]),
        (_exchanged_writer(two), _exchanged_writer(one)),
        tuple(sorted([Prune(p[0], p[1], new[p[2]], p[3], p[4], p[5]) for p in prunes])),
    )


def _exchanged_writer(writer: Writer) -> Writer:
    step, seen, now, begun, carried = writer
    new = EXCHANGED
    return Writer(
        step, View(seen[0], seen[1], new[seen[2]]), View(now[0], now[1], new[now[2]]), begun, carried
    )


EXCHANGED = [packs & ~0b11110 | (packs & 0b00110) << 2 | (packs & 0b11000) >> 2 for packs in range(256)]
"""A set of packs, and what becomes of it when the two writers exchange theirs."""


def _history(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    labels = []
    while (before := came_from[state]) is not None:
        state, label = before
        labels.append(label)
    return labels[::-1]
