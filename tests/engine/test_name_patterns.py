"""Patterns of names and paths."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.name_patterns import PathPattern, name_pattern, shown_name
from repo_store.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "x/y/a/b", True),
        ("a/b", "x/y/a/b/c", False),
        ("/a/b", "a/b", True),
        ("/a/b", "x/a/b", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("/a/**/c", "a/c", True),
        ("/a/**/c", "a/x/y/c", True),
        ("/a/**/c", "b/x/y/c", False),
        ("/a/**/b/**/c", "a/b/x/b/c", True),
        ("./a/b/", "a/b", True),
        ("a/?", "a/ü", True),
        ("a/[!x]", "a/x", False),
        ("/*", "a", True),
        ("/*", "a/b", False),
    ],
)
def test_a_pattern_with_a_slash(pattern: str, path: str, fits: bool) -> None:
    *parent, name = path.split("/")
    assert PathPattern(pattern).matches(tuple(map(str.encode, parent)), name) is fits


@given(
    st.lists(st.sampled_from(("**", "a", "b", "?", "*", "a*")), min_size=1, max_size=6),
    st.lists(st.sampled_from((b"a", b"b", b"ab")), min_size=1, max_size=6),
    st.booleans(),
)
def test_any_depth_means_any_depth(parts: list[str], names: list[bytes], anchored: bool) -> None:
    def slowly(parts: list[str], names: list[bytes]) -> bool:
        if not parts:
            return not names
        if parts[0] == "**":
            least = 1 if len(parts) == 1 else 0
            return any(slowly(parts[1:], names[at:]) for at in range(least, len(names) + 1))
        expression = "".join({"?": ".", "*": ".*"}.get(each, each) for each in parts[0])
        return (
            bool(names) and bool(re.fullmatch(expression, names[0].decode())) and slowly(parts[1:], names[1:])
        )

    pattern = PathPattern(("/" if anchored else "./") + "/".join(parts))
    expected = slowly(parts if anchored or parts[0] == "**" else ["**", *parts], names)
    assert pattern.matches(tuple(names[:-1]), names[-1].decode()) is expected


def test_many_depths_cost_little() -> None:
    pattern = PathPattern("/" + "**/a/" * 40 + "b")
    assert not pattern.matches((b"a",) * 2000, "c")
    assert not PathPattern("/" + "**/a/" * 40 + "x/b").matches((b"a",) * 1000, "b")


def test_names_that_are_no_text_are_found_as_ls_shows_them() -> None:
    name = shown_name(b"caf\xe9 \n")
    for pattern, fits in (("caf? ?", True), (r"caf\xe9*", True), ("café*", False), (r"*\n", True)):
        assert bool(name_pattern(pattern).match(name)) is fits
    assert name_pattern("CAF*", ignore_case=True).match(name)


def test_no_two_names_have_one_form() -> None:
    names = [bytes(each) for each in product((0x61, 0xC3, 0xA9, 0xFF), repeat=3)]
    assert len(set(map(shown_name, names))) == len(names)


@pytest.mark.parametrize("text", ["", "/", "//", "./", "."])
def test_what_can_match_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        PathPattern(text)


def test_a_pattern_has_a_limit_and_a_name_no_slash() -> None:
    with pytest.raises(UsageError, match="too long"):
        name_pattern("*" * 5000)
    with pytest.raises(UsageError, match="a name has no slash"):
        name_pattern("a/b")
