"""The style of the product code as far as a program can judge it. tests/project/test_documents.py does it for docs/.

Every test collects all that it finds and compares it with an empty list, so that one run shows everything.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("cli", "engine", "repo_store", "chunker")

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|(?i:placeholder))\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|home|work|Users)/\w+")
KERNEL_VARIABLE = (
    "HOLDFAST_CDC_KERNEL"  # the one variable that chunker/ may read: chunker/chunker.py says why
)

ENVIRONMENT = {("os", name) for name in ("environ", "environb", "getenv", "getenvb", "putenv")}
EXIT = {("sys", "exit"), ("os", "_exit"), ("os", "abort")}
TERMINAL = {("sys", name) for name in ("stdin", "stdout", "stderr", "argv")}
ONLY_CLI = ENVIRONMENT | EXIT | TERMINAL
ONLY_CLI_BUILTINS = {"print", "input", "exit", "quit"}

C_FUNCTION = re.compile(r"^[A-Za-z][^;={]*\([^;={]*\)\s*\{\n(?:(?!\}).*\n)*\}", re.MULTILINE)


def product_files(*suffixes: str) -> list[Path]:
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*") if path.suffix in suffixes)


def text_files() -> Iterator[Path]:
    """Every file a person wrote: what git does not ignore, found without git."""
    made = {"build", "dist", "__pycache__"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts[:-1])
        if not hidden and not made & set(parts) and not path.is_symlink() and path.is_file():
            yield path


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def place(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}:{line}" if line else str(path.relative_to(ROOT))


def python_nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path in product_files(".py"):
        for node in ast.walk(syntax(path)):
            yield path, node


def test_no_product_file_is_longer_than_its_noun_needs() -> None:
    lines = {place(path): path.read_text().count("\n") for path in product_files(".py", ".c", ".h")}
    assert {path: count for path, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_every_function_fits_a_screen() -> None:
    long = []
    for path, node in python_nodes():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{place(path, node.lineno)}: {node.name}: {lines} lines")
    for path in product_files(".c", ".h"):
        text = path.read_text()
        for match in C_FUNCTION.finditer(text):
            lines = match[0].count("\n") + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{place(path, text[: match.start()].count(chr(10)) + 1)}: {lines} lines")
    assert long == []


def test_the_pattern_for_functions_in_c_finds_them() -> None:
    found = [
        match[0].split("(")[0]
        for match in C_FUNCTION.finditer("int a;\nint f(int x)\n{\n  if (x) {\n  }\n}\n")
    ]
    assert found == ["int f"]


def test_every_module_says_what_it_is() -> None:
    silent = [
        place(path)
        for path in product_files(".py")
        if path.stat().st_size and not ast.get_docstring(syntax(path))
    ]
    assert silent == []


def test_nothing_in_the_product_is_unfinished() -> None:
    found = [
        f"{place(path, number)}: {match[0]}"
        for path in product_files(".py", ".c", ".h", ".pyi")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in UNFINISHED.finditer(line)
    ]
    assert found == []


def test_imports_point_downwards() -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what a node takes from a module: `os.environ` or `from os import environ`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield node.value.id, node.attr
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield node.module, alias.name


def is_the_kernel_variable(path: Path, node: ast.AST) -> bool:
    line = path.read_text().splitlines()[getattr(node, "lineno", 1) - 1]
    return path.is_relative_to(ROOT / "chunker") and ("KERNEL_VARIABLE" in line or KERNEL_VARIABLE in line)


def test_only_cli_prints_exits_and_reads_the_environment() -> None:
    found = []
    for path, node in python_nodes():
        if path.is_relative_to(ROOT / "cli"):
            continue
        line = getattr(node, "lineno", 0)
        for module, name in imported(node):
            if (module, name) in ONLY_CLI and not is_the_kernel_variable(path, node):
                found.append(f"{place(path, line)}: {module}.{name}")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ONLY_CLI_BUILTINS
        ):
            found.append(f"{place(path, line)}: {node.func.id}()")
        if isinstance(node, ast.Name) and node.id == "SystemExit":
            found.append(f"{place(path, line)}: SystemExit")
    assert found == []


def test_the_c_neither_prints_nor_exits_nor_reads_the_environment() -> None:
    calls = re.compile(r"\b(f?printf|v?fprintf|puts|perror|getenv|exit|abort)\s*\(")
    found = [
        f"{place(path, number)}: {match[1]}"
        for path in product_files(".c", ".h")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in calls.finditer(line)
    ]
    assert found == []


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_a_typed_package(layer: str) -> None:
    assert (ROOT / layer / "__init__.py").is_file()
    assert (ROOT / layer / "py.typed").is_file()


def test_nothing_names_a_place_on_somebodys_machine() -> None:
    found = []
    for path in text_files():
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # a vector or a repository of the tests: bytes, not words
        found += [
            f"{place(path, number)}: {match[0]}"
            for number, line in enumerate(text.splitlines(), 1)
            for match in MACHINE_PATH.finditer(line)
        ]
    assert found == []
