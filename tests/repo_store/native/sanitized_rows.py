"""A plugin of pytest: the build of _rows.c named by SANITIZED_ROWS stands in for the usual one. See the Makefile."""

import importlib.util
import os
import sys
from importlib.machinery import ExtensionFileLoader

import repo_store

_NAME = "repo_store._rows"
_PATH = os.environ["SANITIZED_ROWS"]

_loader = ExtensionFileLoader(_NAME, _PATH)
_spec = importlib.util.spec_from_file_location(_NAME, _PATH, loader=_loader)
assert _spec is not None
_module = importlib.util.module_from_spec(_spec)
_loader.exec_module(_module)
sys.modules[_NAME] = repo_store._rows = _module


def pytest_report_header() -> str:
    """Say which build is under test."""
    return f"_rows: {_module.__file__}"


def pytest_sessionfinish() -> None:
    """Make sure that nothing has brought the usual build back."""
    assert sys.modules[_NAME].__file__ == _PATH
