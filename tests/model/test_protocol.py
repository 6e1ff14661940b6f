"""The protocol explored to its end: no history loses a chunk, and without any one of its rules some history does.

Method: tests/model/protocol.py says what is in the model. Each scenario is explored completely; how many states it has is
asserted, so that a change that makes some unreachable shows. Each rule is then taken away in a small scenario, and
the explorer must find a history that loses data: a rule without which nothing is lost would be idle or the model
blind. Scenarios with two prunes have some features only in --full: they multiply, and Python visits 20,000 states a second.
"""

from dataclasses import fields

import pytest
from model.explorer import explore
from model.protocol import FIRST, Rules, Scenario

SMALL = Scenario(writers=1, prunes=1)
CONTROLS: dict[str, Scenario] = {
    "pending_before_look": SMALL,
    "look_after_pending": SMALL,
    "resolve_when_unknown": Scenario(writers=1, prunes=1, clean_records=True),
    "missing_packs_are_absent": Scenario(writers=1, prunes=1, clean_records=True),
    "condemned_are_absent": SMALL,
    "shunned_are_absent": Scenario(writers=1, prunes=1, shunned=FIRST),
    "commit_creates_only": SMALL,
    "pendings_before_manifests": SMALL,
    "trace_after_mark": SMALL,
    "rescue_before_sweep": SMALL,
    "trace_adopted": Scenario(writers=1, prunes=1, rogue=True),
    "only_unreferenced_before": SMALL,
    "void_below_highest": Scenario(
        writers=1, prunes=2, clean_records=True, clean=False, give_up=False, lost_answers=False
    ),
    "highest_stays": Scenario(writers=1, prunes=1, clean_records=True),
    "tombstone_before_giving_up": SMALL,
    "tombstones_stay": SMALL,
    "marker_before_deletion": SMALL,
    "marker_stays": SMALL,
    "survivor_is_whole": Scenario(writers=1, prunes=1, shunned=FIRST),
}

LONG = {"void_below_highest"}
"""Controls whose shortest history is so long that finding it is for --full: 25 steps, 315,166 states."""

PLAIN = {"clean": False, "give_up": False, "lost_answers": False}
SOUND: dict[str, tuple[Scenario, int]] = {
    "late requests, slow listings, carrying": (
        Scenario(writers=1, prunes=1, late=True, carry=True, by_name=True),
        72_956,
    ),
    "a checkpoint and a result": (
        Scenario(writers=1, prunes=1, commits=2, clean=False, give_up=False),
        9_590,
    ),
    "records removed": (Scenario(writers=1, prunes=1, clean_records=True, late=True), 58_956),
    "a damaged copy": (Scenario(writers=1, prunes=1, carry=True, shunned=FIRST), 6_803),
    "a sweep that lies": (Scenario(writers=1, prunes=2, rogue=True, **PLAIN), 5_884),
    "two prunes": (Scenario(writers=1, prunes=2, **PLAIN), 55_381),
}
SOUND_FULL: dict[str, Scenario] = {
    "a checkpoint and a result, with all else": Scenario(
        writers=1, prunes=1, commits=2, carry=True, late=True
    ),
    "two writers": Scenario(writers=2, prunes=1),
    "two prunes, records removed": Scenario(writers=1, prunes=2, clean_records=True),
    "two prunes, late requests, slow listings": Scenario(writers=1, prunes=2, late=True, by_name=True),
    "two writers, two prunes": Scenario(writers=2, prunes=2, **PLAIN),
}


def test_every_rule_has_a_control() -> None:
    assert {field.name for field in fields(Rules)} == CONTROLS.keys()


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=pytest.mark.full if rule in LONG else ()) for rule in CONTROLS]
)
def test_without_a_rule_something_is_lost(rule: str) -> None:
    found = explore(CONTROLS[rule], Rules(**{rule: False}))
    assert found.history, f"nothing is lost without {rule} in {found.states} states"


@pytest.mark.parametrize("name", SOUND)
def test_with_all_rules_nothing_is_lost(name: str) -> None:
    scenario, states = SOUND[name]
    found = explore(scenario)
    assert not found.history, "\n".join(found.history)
    assert found.states == states


@pytest.mark.full
@pytest.mark.parametrize("name", SOUND_FULL)
def test_with_all_rules_nothing_is_lost_at_full_size(name: str) -> None:
    found = explore(SOUND_FULL[name])
    assert not found.history, "\n".join(found.history)
    assert found.complete
