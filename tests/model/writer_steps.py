"""The writer of the model: engine/snapshot_run.py and repo_store/commit.py, reduced to what they ask of the storage.

START    read gc/                               FIND     read tables and packs: is the chunk there?
UPLOAD   put a pack                             PEND     put the pending
LOOK     read gc/ again                         RESOLVE  find all dependencies without what gc/ condemns
CARRY    carry the chunk from a condemned pack  COMMIT   put the manifest, create-only
UNPEND   delete the pending                     LATE     over; but a request may still be on its way
"""

from collections.abc import Iterator

from model.protocol import (
    CARRY,
    COMMIT,
    COMMITTED,
    ENDED,
    FIND,
    LATE,
    LOOK,
    LOOK_ON,
    NO_VIEW,
    NOTHING,
    PEND,
    RESOLVE,
    START,
    UNPEND,
    UPLOAD,
    Generation,
    Id,
    Mask,
    Rules,
    Scenario,
    State,
    Step,
    View,
    Writer,
    highest,
    put,
)
from model.protocol import FIRST as FIRST_PACK


def view(generations: tuple[Generation, ...]) -> View:
    """Return what a writer that sees all of gc/ at once takes from it."""
    condemned, is_open = 0, False
    for mark, sweep, done in generations:
        if sweep is not None:
            condemned |= sweep
        elif mark is not None and done is None:
            condemned |= mark
        is_open |= mark is not None and done is None
    return View(highest(generations), is_open, condemned)


def writer_steps(scenario: Scenario, rules: Rules, state: State, number: int) -> Iterator[Step]:
    """Yield what a writer's next step may lead to."""
    writer = state.writers[number]
    step = writer.step
    if step in (ENDED, LATE) and writer.commits == 0:
        return
    name = f"writer {number}"

    def then(next_step: int, **changes: object) -> State:
        return _with(state, number, writer._replace(step=next_step, **changes))  # type: ignore[arg-type]

    if step == START:
        yield f"{name} reads gc/", then(FIND, seen=view(state.generations))
    elif step == FIND:
        found = state.packs & ~_absent(scenario, rules, writer.seen)
        first = PEND if rules.pending_before_look else LOOK
        yield f"{name} finds {found:b}", then(first if found else UPLOAD)
    elif step == UPLOAD:
        first = PEND if rules.pending_before_look else LOOK
        yield f"{name} puts its pack", then(first)._replace(packs=state.packs | _own(number))
    elif step in (LOOK, LOOK_ON):
        yield from _look(scenario, rules, state, number)
    elif step == RESOLVE:
        yield _resolve(scenario, rules, state, number)
    elif step == CARRY:
        if state.packs & writer.now.condemned & ~scenario.shunned:
            carried = then(LOOK, carried=True)
            yield f"{name} carries", carried._replace(packs=state.packs | _own(number) << 1)
        else:
            yield f"{name} comes too late to carry", then(ENDED)
    else:
        yield from _publish(scenario, rules, state, number)


def _publish(scenario: Scenario, rules: Rules, state: State, number: int) -> Iterator[Step]:
    """The steps that write under the manifest's id."""
    writer = state.writers[number]
    index = 1 + number * scenario.commits + min(writer.commits, scenario.commits) - (writer.step != PEND)
    (pending, manifest, marker), name = state.ids[index], f"writer {number}"

    def then(step: int, changed: Id, commits: int) -> State:
        after = _with(state, number, writer._replace(step=step, commits=commits))
        return after._replace(ids=put(state.ids, index, changed))

    if writer.step == PEND:
        first = LOOK if rules.look_after_pending and rules.pending_before_look else COMMIT
        yield f"{name} puts its pending", then(first, Id(True, manifest, marker), writer.commits + 1)
    elif writer.step == COMMIT:
        if manifest == NOTHING or (manifest != COMMITTED and not rules.commit_creates_only):
            created = Id(pending, COMMITTED, marker)
            yield f"{name} commits", then(UNPEND, created, writer.commits)
            if scenario.lost_answers:
                yield f"{name} commits, no answer", then(COMMIT, created, writer.commits)
        elif manifest == COMMITTED:
            yield f"{name} finds its manifest", then(UNPEND, state.ids[index], writer.commits)
        else:
            yield f"{name} was given up", then(ENDED, state.ids[index], 0)
    elif writer.step == UNPEND:
        more = writer.commits < scenario.commits
        last = PEND if more else (LATE if scenario.late else ENDED)
        yield f"{name} deletes its pending", then(last, Id(False, manifest, marker), writer.commits)
    elif writer.step == LATE and manifest == NOTHING:
        yield f"{name}'s late request commits", then(LATE, Id(pending, COMMITTED, marker), writer.commits)


def _look(scenario: Scenario, rules: Rules, state: State, number: int) -> Iterator[Step]:
    """Read gc/; name by name in the worst order: sweeps first, then marks and dones."""
    writer = state.writers[number]
    name = f"writer {number}"
    if scenario.by_name and writer.step == LOOK:
        swept = sum(1 << n for n, (_, sweep, _) in enumerate(state.generations) if sweep is not None)
        condemned = view(_only_sweeps(state.generations)).condemned
        partly = writer._replace(step=LOOK_ON, now=View(swept, False, condemned))
        yield f"{name} looks at the sweeps", _with(state, number, partly)
        return
    now = view(state.generations)
    if writer.step == LOOK_ON:
        condemned = writer.now.condemned
        for n, (mark, _, done) in enumerate(state.generations):
            if mark is not None and done is None and not writer.now.highest >> n & 1:
                condemned |= mark
        now = now._replace(condemned=condemned)
    known = (
        (now == writer.seen and not now.open)
        if rules.resolve_when_unknown
        else not (now.condemned & ~writer.seen.condemned)
    )
    last = COMMIT if rules.pending_before_look else PEND
    # What it saw is of no further use once nothing can come between: states that differ in it alone are one.
    after = writer._replace(step=last if known else RESOLVE, now=NO_VIEW if known else now)
    yield f"{name} looks at gc/", _with(state, number, after)


def _only_sweeps(generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
    return tuple(Generation(None, sweep, None) for _, sweep, _ in generations)


def _resolve(scenario: Scenario, rules: Rules, state: State, number: int) -> Step:
    writer = state.writers[number]
    listed = state.packs if rules.missing_packs_are_absent else state.packs | FIRST_PACK
    stays = listed & ~_absent(scenario, rules, writer.now)
    last = COMMIT if rules.pending_before_look else PEND
    if stays:
        step = last
    elif scenario.carry and not writer.carried:
        step = CARRY
    else:
        step = ENDED
    kept = writer.now if step == CARRY else NO_VIEW
    return f"writer {number} finds {stays:b}", _with(state, number, writer._replace(step=step, now=kept))


def _absent(scenario: Scenario, rules: Rules, seen: View) -> Mask:
    condemned = seen.condemned if rules.condemned_are_absent else 0
    return condemned | (scenario.shunned if rules.shunned_are_absent else 0)


def _own(number: int) -> Mask:
    return 1 << (1 + 2 * number)


def _with(state: State, number: int, writer: Writer) -> State:
    return state._replace(writers=put(state.writers, number, writer))
