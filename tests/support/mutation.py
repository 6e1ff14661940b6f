"""Mutation: decoded MessagePack with one place changed, for fuzzing what reads it."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

STRANGE: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, 2, -1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1]),
    st.floats(),
    st.binary(max_size=40),
    st.binary(min_size=32, max_size=32),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def mutate(draw: Draw, value: Any) -> Any:
    """Return a copy of `value` in which one place is replaced, removed, doubled, swapped or added."""
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutate(draw, value[at]), *value[at + 1 :]]
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value, key=repr)))
        if draw(st.integers(0, 3)):
            return {**value, key: mutate(draw, value[key])}
        return {name: item for name, item in value.items() if name != key}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return draw(
            st.sampled_from(
                [
                    value[:at],
                    value[at + 1 :],
                    [*value, value[at]],
                    [*value[:at], value[at], *value[at:]],
                    value[::-1],
                ]
            )
        )
    if isinstance(value, bytes) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return value[:at] + draw(st.binary(max_size=1)) + value[at + 1 :]
    if isinstance(value, int) and draw(st.booleans()):
        return value + draw(st.sampled_from([-1, 1, 2**32]))
    return draw(STRANGE)
