"""The golden vectors of tests/vectors/chunking hold, on every kernel, and all of them are tried.

They were made by chunker/reference.py, so this also holds the C to the definition on inputs too
large for the reference to be run in a test.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chunker import KERNEL_VARIABLE, Algorithm, Chunker, Parameters, _cdc

FOLDER = Path(__file__).parents[1] / "vectors" / "chunking"
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "cuts.json").read_text())


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", FOLDER / "make_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


def parameters_of(vector: dict[str, Any]) -> Parameters:
    sizes = (vector["size_min"], vector["size_avg"], vector["size_max"], vector["phase"])
    return Parameters(vector["algorithm"], *sizes)


@pytest.mark.parametrize("kernel", _cdc.kernels())
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_a_vector_is_cut_as_it_always_was(
    vector: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    chunker = Chunker(parameters_of(vector), bytes.fromhex(vector["key"]))
    cuts = chunker.cuts(MAKER.make_input(vector["input"]))
    assert cuts == vector["cuts"]
    assert MAKER.digest_of(cuts) == vector["digest"]


@pytest.mark.parametrize(
    ("name", "digest", "first"),
    [
        ("gear64-random", "94a454b3911a6d14", [107011, 175050, 270850, 338835, 384993, 504055]),
        ("gear64-random-shifted-by-one", "d30441b638436b9a", [107012, 175051]),
        ("gear64-zeros", "a95dbd9e22eb0f5b", [262144, 524288, 786432, 1048576]),
        ("gear64-alphabet-repeated", "a95dbd9e22eb0f5b", [262144]),
        ("phte64-random", "01a38a04585c4548", [100891, 194021, 284267, 357650, 423992, 495028]),
        ("phte64-random-shifted-by-one", "2f4d24dab209b724", [100892, 194022]),
        ("phte64-zeros", "a95dbd9e22eb0f5b", [262144, 524288, 786432, 1048576]),
        ("phte64-alphabet-repeated", "a95dbd9e22eb0f5b", [262144]),
    ],
)
def test_the_vectors_agree_with_those_made_before_this_code(name: str, digest: str, first: list[int]) -> None:
    """Three programs agreed on these while the algorithm was chosen; they are typed in by hand."""
    (vector,) = (vector for vector in VECTORS if vector["name"] == name)
    assert vector["digest"] == digest
    assert vector["cuts"][: len(first)] == first


def test_every_scenario_of_the_maker_is_in_the_file_and_the_other_way_round() -> None:
    assert [vector["name"] for vector in VECTORS] == [name for name, *_ in MAKER.scenarios()]


def test_every_built_algorithm_has_vectors() -> None:
    built = {algorithm.value for algorithm in Algorithm} - {Algorithm.PHTE96.value}
    assert {vector["algorithm"] for vector in VECTORS} == built


@pytest.mark.full
def test_the_reference_still_makes_the_same_vectors() -> None:
    made = [MAKER.make_vector(*scenario) for scenario in MAKER.scenarios()]
    assert made == VECTORS
