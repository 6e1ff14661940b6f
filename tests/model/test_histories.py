"""No simulated history loses a chunk that a committed manifest needs, and each planted fault is found.

Method: history.py, a seed, everything else follows from it. `make test` runs 400 histories, --full 10,000,
`make simulate` as many as one has time for. A seed that fails is in the message; `make simulate SEED=…` runs it again.
"""

import pytest
from model.faults import FOUND
from model.simulate import outcomes, start

FIRST = 0
AT_ONCE = 4
"""The histories are split over so many tests, so that all cores have some."""
QUICKLY_FOUND = (
    "no_look_at_gc",
    "no_pending",
    "only_complete_traced",
    "condemns_what_is_new",
    "gives_up_without_tombstone",
    "absent_is_present",
)
"""Found within a few histories; the others are for --full."""
HISTORIES_MAX = 3000
"""A planted fault that is not found in so many is not found."""


def _run(first: int, number: int, step: int) -> list[dict[str, object]]:
    found = list(outcomes(start(first, number, step)))
    assert len(found) == number
    return found


@pytest.mark.parametrize("part", range(AT_ONCE))
@pytest.mark.parametrize("number", [100, pytest.param(2500, marks=pytest.mark.full)])
def test_no_history_loses_a_chunk(number: int, part: int) -> None:
    found = _run(FIRST + part, number, AT_ONCE)
    failed = {outcome["seed"]: outcome["failure"] for outcome in found if outcome["failure"]}
    assert not failed, "".join(f"\nmake simulate SEED={seed}    # {why}" for seed, why in failed.items())
    # A simulation in which nothing happens finds nothing.
    for what in ("commits", "deleted_packs", "cuts"):
        assert sum(int(str(outcome[what])) for outcome in found) >= number / 10, what
    assert len({outcome["digest"] for outcome in found}) == number


def test_the_same_seed_gives_the_same_history() -> None:
    once, again = _run(FIRST, 12, 1), _run(FIRST + 6, 6, 1)
    assert once[6:] == again


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(plant.__name__, marks=() if plant.__name__ in QUICKLY_FOUND else pytest.mark.full)
        for plant in FOUND
    ],
)
def test_a_planted_fault_is_found(fault: str) -> None:
    found = list(outcomes(start(FIRST, HISTORIES_MAX, fault=fault)))
    assert found[-1]["failure"], f"{len(found)} histories did not notice"
