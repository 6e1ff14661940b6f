"""Names are shown on one line, harmlessly, and can be taken back from what is shown."""

from hypothesis import given
from hypothesis import strategies as st
from support.trees import HOSTILE_NAMES

from engine.problems import Problem, from_printable, printable, printable_path, reason


def test_plain_names_are_shown_as_they_are() -> None:
    assert printable(b"notes 2026.txt") == "notes 2026.txt"
    assert printable("café — 日本".encode()) == "café — 日本"


def test_what_could_harm_a_terminal_or_a_line_is_escaped() -> None:
    assert printable(b"a\nb\x1b[31m\x7f") == "a\\nb\\x1b[31m\\x7f"
    assert printable(b"\xff\xfe") == "\\xff\\xfe"
    assert printable(b"a\\b") == "a\\\\b"
    assert printable("\u202e\u2028\U000e0001\x85".encode()) == "\\u202e\\u2028\\U000e0001\\u0085"


def test_a_path_is_shown_with_slashes() -> None:
    assert printable_path((b"root", b"a b", b"\n")) == "root/a b/\\n"


def test_every_hostile_name_is_one_printable_line_that_leads_back() -> None:
    for name in HOSTILE_NAMES:
        assert printable(name).isprintable()
        assert from_printable(printable(name)) == name


@given(st.binary(max_size=30))
def test_any_name_is_one_printable_line_that_leads_back(name: bytes) -> None:
    assert printable(name).isprintable()
    assert from_printable(printable(name)) == name


@given(st.text(alphabet="\\xuUn0dfF9\u20ac", max_size=12))
def test_any_text_is_taken_as_a_name_without_failing(text: str) -> None:
    from_printable(text)


def test_a_problem_reads_as_path_and_message() -> None:
    assert str(Problem((b"a", b"b\n"), "cannot be read")) == "a/b\\n: cannot be read"
    assert str(Problem((), "not root")) == "not root"
    assert reason(PermissionError(13, "Permission denied")) == "permission denied"
    assert reason(ValueError()) == "ValueError"
