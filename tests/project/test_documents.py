"""The documents keep their form, and what they claim about the code and the tests exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import exit_codes

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LAYERS = ("cli", "engine", "repo_store", "chunker")

DOCUMENTS = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
DECISION_LINES_MAX = 60
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
QUOTED = re.compile(r"`([^`]+)`")

Row = list[str]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> list[str]:
    """Return the lines outside fenced code."""
    lines, fenced = [], False
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            lines.append(line)
    return lines


def tables(path: Path) -> dict[str, list[Row]]:
    """Return the rows of every table in a document, by the first cell of its head."""
    found: dict[str, list[Row]] = {}
    rows: list[Row] | None = None
    for line in prose(path):
        if not line.startswith("|"):
            rows = None
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if rows is None:
            rows = found[cells[0]] = []
        elif not all(set(cell) <= set("-:") for cell in cells):
            rows.append(cells)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_has_one_title_and_starts_with_it(document: Path) -> None:
    lines = prose(document)
    assert [line for line in lines if line.startswith("# ")] == lines[:1]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    links = [link for line in prose(document) for link in LINK.findall(line) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("decision", DECISIONS, ids=name)
def test_a_decision_is_half_a_page_of_context_options_choice_price(decision: Path) -> None:
    lines = prose(decision)
    assert [line for line in lines if line.startswith("## ")] == [
        "## Context",
        "## Options",
        "## Choice",
        "## Price",
    ]
    assert len(lines) <= DECISION_LINES_MAX


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [decision.name[:5] for decision in DECISIONS]
    assert numbers == [f"{number:04}-" for number in range(1, len(DECISIONS) + 1)]


# Invariants


INVARIANTS = tables(DOCS / "invariants.md")["number"]


def defines(path: Path, qualified_name: str) -> bool:
    """Return whether a file defines a function, method or class of this dotted name."""
    if not path.is_file():
        return False
    if path.suffix in {".c", ".h"}:
        return (
            re.search(rf"^\w[^;]*\b{re.escape(qualified_name)}\(", path.read_text(), re.MULTILINE) is not None
        )
    body = ast.parse(path.read_text()).body
    for part in qualified_name.split("."):
        named = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and node.name == part
        ]
        if not named:
            return False
        body = named[0].body
    return True


def is_kept_by(reference: str) -> bool:
    """Return whether `repo_store.commit:commit_manifest` or `chunker/gear.c:gear_cut` exists."""
    module, _, function = reference.partition(":")
    path = ROOT / (module if module.endswith((".c", ".h")) else module.replace(".", "/") + ".py")
    return module.startswith(LAYERS) and defines(path, function)


def is_attacked_by(reference: str) -> bool:
    """Return whether `tests/x/test_y.py::test_z` exists, with or without a class in between."""
    path, _, test = reference.partition("::")
    last = test.rpartition("::")[2]
    return (
        path.startswith("tests/")
        and last.startswith("test_")
        and defines(ROOT / path, test.replace("::", "."))
    )


def test_invariants_are_numbered_without_gaps() -> None:
    assert [row[0] for row in INVARIANTS] == [f"I{number}" for number in range(1, len(INVARIANTS) + 1)]


@pytest.mark.parametrize("row", INVARIANTS, ids=lambda row: row[0])
def test_an_invariant_names_the_code_that_keeps_it_and_the_tests_that_attack_it(row: Row) -> None:
    _, statement, kept_by, attacked_by = row
    assert statement
    keepers, attackers = QUOTED.findall(kept_by), QUOTED.findall(attacked_by)
    assert keepers and attackers
    assert [keeper for keeper in keepers if not is_kept_by(keeper)] == []
    assert [attacker for attacker in attackers if not is_attacked_by(attacker)] == []


@pytest.mark.parametrize(
    "claim",
    [
        "engine.no_such_module:run",
        "repo_store.errors:NoSuchError",
        "tests.support:x",
        "chunker/gear.c:no_such_function",
    ],
)
def test_a_function_that_does_not_exist_keeps_nothing(claim: str) -> None:
    assert not is_kept_by(claim)


# Glossary


GLOSSARY = tables(DOCS / "glossary.md")


def words(identifier: str) -> list[str]:
    """Split `PackIds_max` into pack, ids, max."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)]


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and name of everything that a module defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case (
                ast.FunctionDef(name=defined)
                | ast.AsyncFunctionDef(name=defined)
                | ast.ClassDef(name=defined)
            ):
                yield node.lineno, defined
            case ast.arg(arg=defined):
                yield node.lineno, defined
            case ast.Name(id=defined, ctx=ast.Store()) | ast.Attribute(attr=defined, ctx=ast.Store()):
                yield node.lineno, defined


def test_the_glossary_has_each_word_once_in_order() -> None:
    defined = [row[0] for row in GLOSSARY["word"]]
    assert defined == sorted(set(defined), key=str.lower)
    assert all(row[1] and not row[1].endswith(".") for row in GLOSSARY["word"])


def test_the_code_uses_the_words_of_the_glossary_and_not_others() -> None:
    homes = {row[0]: row[2].split(", ") for row in GLOSSARY["reserved"]}
    foreign = [
        f"{name(path)}:{line}: {identifier}"
        for layer in LAYERS
        for path in sorted((ROOT / layer).rglob("*.py"))
        for line, identifier in identifiers(path)
        for word in words(identifier)
        for reserved in (word, word.removesuffix("s"))
        if reserved in homes and not any(home in name(path) for home in homes[reserved])
    ]
    assert foreign == []


# Exit codes


def test_every_exit_code_of_the_code_is_documented() -> None:
    codes = [
        code for constant, code in vars(exit_codes).items() if constant.isupper() and isinstance(code, int)
    ]
    documented = [int(row[0]) for row in tables(DOCS / "exit-codes.md")["code"]]
    assert len(set(codes)) == len(codes) > 1
    assert set(codes) <= set(documented)
