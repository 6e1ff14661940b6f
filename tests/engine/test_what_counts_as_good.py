"""A manifest that is partial or incomplete is never taken for a backup, and the clock never decides which is latest."""

from collections.abc import Mapping
from typing import Any

import pytest

from engine.selection import LATEST, Selection, parse_time, rfc3339, select_manifest
from repo_store.errors import UsageError
from repo_store.manifest import Manifest
from repo_store.manifest_store import ManifestList


def manifest(number: int, status: str = "complete", **changes: Any) -> Manifest:
    """Return the manifest that is the `number`th of its series, ended at `number` seconds, with `changes`."""
    fields: Mapping[str, Any] = {
        "id": bytes([number]) * 16,
        "series": "one",
        "sequence": number,
        "previous": None,
        "start": 0,
        "end": number * 10**9,
        "storage_date": None,
        "host": "host",
        "source": "files",
        "status": status,
        "root": None,
    }
    return Manifest(**{**fields, **changes})


@pytest.mark.parametrize("status", ["partial", "incomplete"])
def test_what_is_not_complete_is_never_the_latest(status: str) -> None:
    found = ManifestList([manifest(1), manifest(2, status), manifest(3, status)])
    assert select_manifest(found, LATEST) == manifest(1)
    assert select_manifest(found, LATEST, at_ns=10**10) == manifest(1)
    with pytest.raises(UsageError, match="no complete manifest matches"):
        select_manifest(ManifestList([manifest(2, status)]), LATEST)


@pytest.mark.parametrize("status", ["partial", "incomplete"])
def test_what_is_not_complete_is_found_by_its_id_alone(status: str) -> None:
    found = ManifestList([manifest(1), manifest(2, status)])
    assert select_manifest(found, "0202") == manifest(2, status)


def test_the_latest_follows_the_sequence_and_not_the_clock() -> None:
    set_back = manifest(3, end=1)
    found = ManifestList([manifest(1), manifest(2), set_back])
    assert select_manifest(found, LATEST) == set_back


def test_at_a_time_nothing_counts_that_had_not_ended() -> None:
    found = ManifestList([manifest(1), manifest(2), manifest(3)])
    assert select_manifest(found, LATEST, at_ns=2 * 10**9) == manifest(2)
    assert select_manifest(found, LATEST, at_ns=2 * 10**9 - 1) == manifest(1)
    with pytest.raises(UsageError, match=r"no complete manifest had ended by .*; the first ended at"):
        select_manifest(found, LATEST, at_ns=5)


def test_of_two_series_none_is_guessed() -> None:
    found = ManifestList([manifest(1), manifest(2, series="two")])
    with pytest.raises(UsageError, match="2 series match"):
        select_manifest(found, LATEST)
    assert select_manifest(found, LATEST, selection=Selection(series="two")).series == "two"


def test_a_time_reads_back_as_it_was_written() -> None:
    for time_ns in (0, 1_700_000_000_123_456_000):
        assert parse_time(rfc3339(time_ns)) == time_ns
