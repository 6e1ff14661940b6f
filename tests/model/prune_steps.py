"""The prune of the model: what it asks of the storage, one request a step.

    SURVEY               read gc/: adopt the highest generation if it is open, else begin the next
    MARK, CHECK_MARK     put the mark, of any packs that were there when the last one ended; void if there is a higher one
    PENDINGS, MANIFESTS, DECIDE     trace; what is needed is spared, or carried
    SWEEP, CHECK_SWEEP   put the sweep: the point of no return; void as above
    DELETE               delete, and say that it is done

What a prune traces before its mark only makes the mark a good one; safety must not rest on it, so it is not in the model.
One that adopts a sweep traces the committed manifests again, and refuses a sweep that names the last copy of what they
need. One that finds a record of its name there already lost a race, and begins again with SURVEY.
"""

from collections.abc import Iterator

from model.protocol import (
    CHECK_MARK,
    CHECK_SWEEP,
    COMMITTED,
    DECIDE,
    DELETE,
    IDLE,
    MANIFESTS,
    MARK,
    NO_RECORDS,
    NOTHING,
    PENDINGS,
    REFUSED,
    SURVEY,
    SWEEP,
    TOMBSTONE,
    Broken,
    Generation,
    Id,
    Mask,
    Prune,
    Rules,
    Scenario,
    State,
    Step,
    bits,
    highest,
    put,
)


def prune_steps(scenario: Scenario, rules: Rules, state: State, number: int) -> Iterator[Step]:
    """Yield what a prune's next step may lead to."""
    step = state.prunes[number].step
    if step == SURVEY:
        yield from _survey(rules, state, number)
    elif step in (PENDINGS, MANIFESTS):
        yield from _list(scenario, rules, state, number)
    elif step == DECIDE:
        yield from _decide(scenario, rules, state, number)
    elif step == MARK:
        yield _mark(scenario, rules, state, number)
    elif step in (CHECK_MARK, CHECK_SWEEP):
        yield _check(rules, state, number)
    elif step == SWEEP:
        yield _sweep(scenario, state, number)
    elif step == DELETE:
        yield _delete(state, number)


def _survey(rules: Rules, state: State, number: int) -> Iterator[Step]:
    top = highest(state.generations)
    mark, sweep, done = state.generations[top]
    name = f"prune {number} "
    if mark is not None and done is None:
        if sweep is None:
            adopted = IDLE._replace(step=_traced(rules), generation=top, packs=mark)
        else:
            # Pendings that came after the sweep rely on nothing that it names: their writers have seen it.
            step = MANIFESTS if rules.trace_adopted else DELETE
            adopted = IDLE._replace(step=step, generation=top, packs=sweep, adopted=True)
        yield f"{name}adopts {top}", _with(state, number, adopted)
    elif top + 1 < len(state.generations):
        before = (done or 0) if rules.only_unreferenced_before else state.packs
        for packs in _parts(before & state.packs):
            begun = IDLE._replace(step=MARK, generation=top + 1, packs=packs)
            yield f"{name}begins {top + 1} with {packs:b}", _with(state, number, begun)


def _parts(packs: Mask) -> Iterator[Mask]:
    """Yield every part of a set, the whole and nothing too."""
    part = packs
    while part:
        yield part
        part = (part - 1) & packs
    yield 0


def _traced(rules: Rules) -> int:
    """Return the first step of the trace behind the mark."""
    if not rules.trace_after_mark:
        return SWEEP
    return PENDINGS if rules.pendings_before_manifests else MANIFESTS


def _list(scenario: Scenario, rules: Rules, state: State, number: int) -> Iterator[Step]:
    """Look at pendings or manifests: all at once, or at one name."""
    prune = state.prunes[number]
    pendings = prune.step == PENDINGS
    names = state.ids[prune.at : prune.at + 1] if scenario.by_name else state.ids
    live = prune.live or any(
        pending if pendings else manifest == COMMITTED and not marker for pending, manifest, marker in names
    )
    if not scenario.by_name or prune.at + 1 == len(state.ids):
        last = prune.adopted or pendings != rules.pendings_before_manifests
        after = prune._replace(step=DECIDE if last else PENDINGS + MANIFESTS - prune.step, live=live, at=0)
    else:
        after = prune._replace(live=live, at=prune.at + 1)
    yield (
        f"prune {number} lists {'pendings' if pendings else 'manifests'}: {live}",
        _with(state, number, after),
    )
    if pendings and scenario.give_up:
        for index, (pending, manifest, marker) in enumerate(state.ids):
            if pending and manifest == NOTHING:
                gone = (
                    Id(True, TOMBSTONE, marker)
                    if rules.tombstone_before_giving_up
                    else Id(False, NOTHING, marker)
                )
                yield f"prune {number} gives up {index}", state._replace(ids=put(state.ids, index, gone))


def _whole(scenario: Scenario, rules: Rules, packs: Mask) -> Mask:
    """Return those of `packs` that may be the copy that is kept."""
    return (packs & ~scenario.shunned or packs) if rules.survivor_is_whole else packs


def _carried(scenario: Scenario, generation: int) -> Mask:
    return 1 << (2 * scenario.writers + generation)


def _mark(scenario: Scenario, rules: Rules, state: State, number: int) -> Step:
    prune = state.prunes[number]
    mark, sweep, done = state.generations[prune.generation]
    if mark is not None:
        return f"prune {number} finds a mark {prune.generation}", _with(state, number, IDLE)
    before = state.generations[prune.generation - 1].done
    if highest(state.generations) < prune.generation and prune.packs & ~(before or 0):
        raise Broken(f"mark {prune.generation} condemns what came after the generation before it was over")
    after = prune._replace(step=CHECK_MARK if scenario.clean_records else _traced(rules))
    marked = Generation(prune.packs, sweep, done)
    return f"prune {number} marks {prune.generation}: {prune.packs:b}", _record(state, number, after, marked)


def _check(rules: Rules, state: State, number: int) -> Step:
    prune = state.prunes[number]
    marking = prune.step == CHECK_MARK
    if rules.void_below_highest and highest(state.generations) > prune.generation:
        _, sweep, done = state.generations[prune.generation]
        rest = Generation(None, sweep if marking else None, done)
        return f"prune {number} finds {prune.generation} void", _record(state, number, IDLE, rest)
    step = _traced(rules) if marking else DELETE
    return f"prune {number} finds {prune.generation} valid", _with(state, number, prune._replace(step=step))


def _decide(scenario: Scenario, rules: Rules, state: State, number: int) -> Iterator[Step]:
    prune = state.prunes[number]
    mine = prune.packs & state.packs
    name = f"prune {number} "
    others = state.packs & ~prune.packs & ~(scenario.shunned if rules.survivor_is_whole else 0)
    if prune.live and mine and not others:
        if prune.adopted:
            yield name + "refuses", _with(state, number, IDLE._replace(step=REFUSED))
            return
        if rules.rescue_before_sweep:
            for kept in bits(_whole(scenario, rules, mine)):
                yield name + f"spares {kept:b}", _decided(state, number, prune.packs & ~kept)
            if scenario.carry:
                carried = state.packs | _carried(scenario, prune.generation)
                yield name + "carries", _decided(state, number, prune.packs)._replace(packs=carried)
            return
    yield name + "takes all", _decided(state, number, prune.packs)


def _decided(state: State, number: int, sweep: Mask) -> State:
    prune = state.prunes[number]
    step = DELETE if prune.adopted else SWEEP
    return _with(state, number, prune._replace(step=step, packs=sweep, live=False))


def _sweep(scenario: Scenario, state: State, number: int) -> Step:
    prune = state.prunes[number]
    mark, sweep, done = state.generations[prune.generation]
    if sweep is not None:
        return f"prune {number} finds a sweep {prune.generation}", _with(state, number, IDLE)
    after = prune._replace(step=CHECK_SWEEP if scenario.clean_records else DELETE)
    swept = Generation(mark, prune.packs, done)
    return f"prune {number} sweeps {prune.generation}: {prune.packs:b}", _record(state, number, after, swept)


def _delete(state: State, number: int) -> Step:
    prune = state.prunes[number]
    left = prune.packs & state.packs
    if left:
        return f"prune {number} deletes {left & -left:b}", state._replace(packs=state.packs & ~(left & -left))
    mark, sweep, done = state.generations[prune.generation]
    finished = Generation(mark, sweep, state.packs if done is None else done)
    return f"prune {number} is done with {prune.generation}", _record(state, number, IDLE, finished)


def cleaning_steps(scenario: Scenario, rules: Rules, state: State) -> Iterator[Step]:
    """Yield what forgetting, and any prune at any time while it cleans up, may lead to."""
    for index, (pending, manifest, marker) in enumerate(state.ids):
        changed: dict[str, Id] = {}
        if manifest == COMMITTED and not marker and scenario.forget:
            removed = Id(pending, NOTHING, False)
            changed["forget"] = Id(pending, manifest, True) if rules.marker_before_deletion else removed
        if pending and manifest != NOTHING and (scenario.clean or scenario.give_up):
            changed["remove pending"] = Id(False, manifest, marker)
        if manifest == COMMITTED and marker and scenario.clean:
            changed["remove manifest"] = Id(pending, NOTHING, marker)
        if manifest == NOTHING and marker and not rules.marker_stays:
            changed["remove marker"] = Id(pending, NOTHING, False)
        if manifest == TOMBSTONE and not pending and not rules.tombstones_stay:
            changed["remove tombstone"] = Id(pending, NOTHING, marker)
        for what, after in changed.items():
            yield f"{what} {index}", state._replace(ids=put(state.ids, index, after))
    if scenario.clean_records:
        top = highest(state.generations)
        for g, records in enumerate(state.generations):
            if records != NO_RECORDS and (g < top or (not rules.highest_stays and records.done is not None)):
                rest = put(state.generations, g, NO_RECORDS)
                yield f"remove records of {g}", state._replace(generations=rest)


def _record(state: State, number: int, prune: Prune, generation: Generation) -> State:
    at = state.prunes[number].generation
    return _with(state, number, prune)._replace(generations=put(state.generations, at, generation))


def _with(state: State, number: int, prune: Prune) -> State:
    return state._replace(prunes=put(state.prunes, number, prune))
