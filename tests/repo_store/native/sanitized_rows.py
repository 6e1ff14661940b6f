"""A plugin of pytest: the builds in the folder SANITIZED stand in for the usual C of repo_store. See the Makefile."""

import importlib.util
import os
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import repo_store

_BUILDS = {f"repo_store.{path.stem}": str(path) for path in Path(os.environ["SANITIZED"]).glob("_*.so")}
assert _BUILDS

for _name, _path in _BUILDS.items():
    _loader = ExtensionFileLoader(_name, _path)
    _spec = importlib.util.spec_from_file_location(_name, _path, loader=_loader)
    assert _spec is not None
    _module = importlib.util.module_from_spec(_spec)
    _loader.exec_module(_module)
    sys.modules[_name] = _module
    setattr(repo_store, _name.rpartition(".")[2], _module)


def pytest_report_header() -> str:
    """Say which builds are under test."""
    return f"sanitized: {', '.join(sorted(_BUILDS))}"


def pytest_sessionfinish() -> None:
    """Make sure that nothing has brought a usual build back."""
    assert all(sys.modules[name].__file__ == path for name, path in _BUILDS.items())
