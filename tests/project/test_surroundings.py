"""tests/conftest.py keeps its promise: a test sees nothing of whoever runs it, and leaves nothing for the next."""

import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("time", ["first", "second"])
def test_the_home_of_a_test_is_its_own_and_empty(time: str, home: Path) -> None:
    assert Path.home() == home
    assert list(home.iterdir()) == []
    assert Path(os.environ["XDG_CACHE_HOME"]).is_relative_to(home)
    (home / "left over").write_text(time)


def test_no_setting_of_holdfast_or_its_libraries_reaches_a_test() -> None:
    settings = [name for name in os.environ if name.startswith(("HOLDFAST_", "AWS_", "PG"))]
    assert set(settings) <= {"HOLDFAST_CDC_KERNEL"}
