"""Makes cuts.json, the golden vectors of chunking, with the slow reference and nothing else.

    python tests/vectors/chunking/make_vectors.py        takes some minutes

Run it to add a scenario, never to change one: repositories in the world are cut as these vectors
say. The script refuses to write when a vector that exists would come out differently.

Each vector holds the parameters, the key, a recipe for the input and every cut. `digest` is the
first 16 hex digits of the BLAKE3 of the cuts as little-endian u64, for those who compare by eye.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from blake3 import blake3

from chunker import Algorithm, Parameters, reference

TARGET = Path(__file__).with_name("cuts.json")
KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
MIB = 1024 * 1024

FILES = (32 * 1024, 64 * 1024, 256 * 1024)
SMALL = (64, 256, 1024)
ODD = (777, 1024, 1025)  # sizes that are no powers of two where they need not be
NARROW = (512, 512, 512)  # nothing left for the hash to decide

RANDOM_4M = {"prefix": "", "xof": "cdc-test", "size": 4 * MIB}
SHIFTED_4M = {"prefix": "00", "xof": "cdc-test", "size": 4 * MIB}
RANDOM_64K = {"prefix": "", "xof": "cdc-test-small", "size": 65536}
ZEROS = {"repeat": "00", "size": MIB}
ALPHABET = {"repeat": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ".hex(), "size": MIB}
ALL_ONES = {"repeat": "ff", "size": 5000}
LAST_IS_SHORT = {"prefix": "", "xof": "cdc-test-small", "size": 63}
EMPTY = {"prefix": "", "xof": "cdc-test-small", "size": 0}


def scenarios() -> list[tuple[str, Parameters, bytes, dict[str, Any]]]:
    found = []
    for algorithm in (Algorithm.GEAR64, Algorithm.PHTE64):
        for name, sizes, key, recipe in (
            ("random", FILES, KEY, RANDOM_4M),
            ("random-shifted-by-one", FILES, KEY, SHIFTED_4M),
            ("zeros", FILES, KEY, ZEROS),
            ("alphabet-repeated", FILES, KEY, ALPHABET),
            ("small-chunks", SMALL, KEY, RANDOM_64K),
            ("small-chunks-other-key", SMALL, OTHER_KEY, RANDOM_64K),
            ("odd-sizes", ODD, KEY, RANDOM_64K),
            ("one-size", NARROW, KEY, RANDOM_64K),
            ("all-ones", SMALL, KEY, ALL_ONES),
            ("shorter-than-a-window", SMALL, KEY, LAST_IS_SHORT),
            ("empty", SMALL, KEY, EMPTY),
        ):
            found.append((f"{algorithm.label}-{name}", Parameters(algorithm, *sizes), key, recipe))
    found.append(("fixed-pages", Parameters.fixed(8192), KEY, RANDOM_64K))
    found.append(("fixed-pages-with-phase", Parameters.fixed(8192, phase=512), KEY, RANDOM_64K))
    return found


def make_input(recipe: dict[str, Any]) -> bytes:
    """Return the bytes a recipe stands for: repeated, or a prefix and then the output of BLAKE3."""
    size = int(recipe["size"])
    if "repeat" in recipe:
        pattern = bytes.fromhex(recipe["repeat"])
        return (pattern * (size // len(pattern) + 1))[:size]
    stream = blake3(recipe["xof"].encode()).digest(length=size) if size else b""
    return bytes.fromhex(recipe["prefix"]) + stream


def digest_of(cuts: list[int]) -> str:
    return blake3(struct.pack(f"<{len(cuts)}Q", *cuts)).hexdigest()[:16]


def make_vector(name: str, parameters: Parameters, key: bytes, recipe: dict[str, Any]) -> dict[str, Any]:
    cuts = reference.cuts(parameters, key, make_input(recipe))
    return {
        "name": name,
        "algorithm": int(parameters.algorithm),
        "size_min": parameters.size_min,
        "size_avg": parameters.size_avg,
        "size_max": parameters.size_max,
        "phase": parameters.phase,
        "key": key.hex(),
        "input": recipe,
        "digest": digest_of(cuts),
        "cuts": cuts,
    }


def main() -> None:
    made = [make_vector(*scenario) for scenario in scenarios()]
    before = json.loads(TARGET.read_text()) if TARGET.exists() else []
    for vector in before:
        if vector not in made:
            raise SystemExit(f"make_vectors: {vector['name']} would change: golden vectors never do")
    TARGET.write_text("[\n" + ",\n".join(json.dumps(vector) for vector in made) + "\n]\n")


if __name__ == "__main__":
    main()
