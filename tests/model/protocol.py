"""The protocol of commit and garbage collection as a state machine small enough to be explored to its end.

There is one chunk. A *state* says which packs hold it, what is under `pending/`, `manifests/`, `forgotten/` and `gc/`, and
how far each writer and each prune has come. `Protocol.steps` yields every state that one step of one process leads to. A
step is one request to the storage and nothing more, so all interleavings are there. What else may happen is there too:

    a process dies                any process may take no further step, for ever; others adopt what it began
    an acknowledgement is lost    the put of a manifest happens and is tried again
    a request comes late          one that the writer has given up is carried out after its end (`late`)
    a listing takes time          pendings, manifests and generations are looked at name by name (`by_name`)
    cleaning                      prune removes forgotten manifests, left pendings, records of lower generations, at any time

The rules are those of docs/format.md, section 10. Each is a field of `Rules`: taken away, the explorer must find a state
that loses data (tests/model/test_protocol.py). What must hold in every state and at every step stands in `broken`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

Mask = int
"""A set of packs: pack n is the bit 1 << n."""

FIRST = 1
"""The pack that is there from the start."""


@dataclass(frozen=True)
class Rules:
    """What the processes keep to. Each False is a negative control."""

    pending_before_look: bool = True
    look_after_pending: bool = True
    """The writer looks at gc/ between its pending and its manifest."""
    resolve_when_unknown: bool = True
    """Where gc/ says something else than at the start, the writer finds all dependencies afresh, even if nothing of what
    it remembers is named: what condemned them may have been removed again."""
    missing_packs_are_absent: bool = True
    """Finding dependencies afresh counts a pack that is not listed as absent, whatever tables say."""
    condemned_are_absent: bool = True
    shunned_are_absent: bool = True
    """Damaged and sparse frames are not reused."""
    commit_creates_only: bool = True
    pendings_before_manifests: bool = True
    trace_after_mark: bool = True
    rescue_before_sweep: bool = True
    trace_adopted: bool = True
    only_unreferenced_before: bool = True
    """A mark condemns only what the previous finished generation found without reference."""
    void_below_highest: bool = True
    """After its mark and after its sweep, a prune looks whether a higher generation exists: then its own is void."""
    highest_stays: bool = True
    tombstone_before_giving_up: bool = True
    tombstones_stay: bool = True
    marker_before_deletion: bool = True
    marker_stays: bool = True
    """The marker of a removed manifest goes only when no request of its writer can come any more."""
    survivor_is_whole: bool = True
    """Of several copies, the one that is kept is not one named damaged."""


@dataclass(frozen=True)
class Scenario:
    """What is in the model: how many processes, and what else may happen."""

    writers: int = 2
    prunes: int = 2
    generations: int = 2
    commits: int = 1
    """Manifests of each writer: checkpoints first."""
    late: bool = False
    by_name: bool = False
    give_up: bool = True
    """Prunes may take a pending for dead."""
    carry: bool = False
    """Prunes may rescue by carrying, and writers carry from condemned packs; else both spare or read again."""
    forget: bool = True
    clean: bool = True
    """Prunes remove forgotten manifests and left pendings."""
    clean_records: bool = False
    """Prunes remove the records of generations below the highest."""
    lost_answers: bool = True
    shunned: Mask = 0
    """Packs whose copy a ledger record names damaged."""
    rogue: bool = False
    """A broken prune has died behind a sweep that names what the first manifest needs."""


class Id(NamedTuple):
    """What is stored under one manifest id."""

    pending: bool
    manifest: int
    marker: bool


NOTHING, COMMITTED, TOMBSTONE = 0, 1, 2


class Generation(NamedTuple):
    """The records of one generation: packs condemned, packs swept, packs that existed when it was over; None: no record.

    The real `done` names the packs that were found without reference. Here it names all that existed, and the next
    mark any of them: whatever a prune thinks before its mark, the protocol must hold.
    """

    mark: Mask | None
    sweep: Mask | None
    done: Mask | None


class View(NamedTuple):
    """What a writer takes from gc/, as `repo_store.generations.Generations`."""

    highest: int
    open: bool
    condemned: Mask


class Writer(NamedTuple):
    """A writer: its next step, what it saw at the start, what it is about to rely on, manifests begun."""

    step: int
    seen: View
    now: View
    commits: int
    carried: bool


START, FIND, UPLOAD, PEND, LOOK, LOOK_ON, RESOLVE, CARRY, COMMIT, UNPEND, LATE, ENDED = range(12)


class Prune(NamedTuple):
    """A prune: its next step, the generation, packs (candidates, then what goes), and what it found so far."""

    step: int
    generation: int
    packs: Mask
    adopted: bool
    """Whether it traces for a sweep that another one put."""
    live: bool
    at: int
    """The next name of a listing."""


SURVEY, MARK, CHECK_MARK, PENDINGS, MANIFESTS, DECIDE, SWEEP, CHECK_SWEEP, DELETE, REFUSED = range(10)
IDLE = Prune(SURVEY, 0, 0, False, False, 0)
NO_VIEW = View(0, False, 0)
NO_RECORDS = Generation(None, None, None)


class State(NamedTuple):
    """Everything that is stored, and where everybody stands."""

    packs: Mask
    ids: tuple[Id, ...]
    generations: tuple[Generation, ...]
    writers: tuple[Writer, ...]
    prunes: tuple[Prune, ...]


class Broken(Exception):
    """A step did what must never be done."""


Item = TypeVar("Item")
Step = tuple[str, State]


def put(items: tuple[Item, ...], at: int, item: Item) -> tuple[Item, ...]:
    """Return `items` with another one at a place."""
    return (*items[:at], item, *items[at + 1 :])


def bits(mask: Mask) -> Iterator[Mask]:
    """Yield each pack of a mask as a mask of its own."""
    while mask:
        lowest = mask & -mask
        yield lowest
        mask ^= lowest


def highest(generations: tuple[Generation, ...]) -> int:
    """Return the number of the highest generation that has a record."""
    return max((n for n, g in enumerate(generations) if g != NO_RECORDS), default=0)


def start(scenario: Scenario) -> State:
    """Return the state in which everybody begins: one manifest needs the first pack, which a generation that is over
    has found without reference before the manifest came."""
    first = Id(False, NOTHING, True) if scenario.shunned else Id(False, COMMITTED, False)
    generations = [Generation(0, 0, FIRST)]
    if scenario.rogue:
        generations.append(Generation(FIRST, FIRST, None))
    generations += [NO_RECORDS] * (1 + scenario.generations - len(generations))
    return State(
        FIRST,
        (first, *[Id(False, NOTHING, False)] * (scenario.writers * scenario.commits)),
        tuple(generations),
        (Writer(START, NO_VIEW, NO_VIEW, 0, False),) * scenario.writers,
        (IDLE,) * scenario.prunes,
    )


def is_broken(scenario: Scenario, state: State) -> bool:
    """Whether a manifest that was committed and not forgotten lacks its chunk."""
    return not state.packs & ~scenario.shunned and any(
        manifest == COMMITTED and not marker for _, manifest, marker in state.ids
    )
