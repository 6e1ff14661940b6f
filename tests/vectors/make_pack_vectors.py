"""Make the golden packs in tests/vectors/packs: `python tests/vectors/make_pack_vectors.py`.

One scenario each, random keys that serve nothing else. The files are kept for ever and never edited: every later
version reads the good ones and refuses the bad ones in the words given. The script adds what is missing and
overwrites nothing; keys once made are used again.
"""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pack_vectors import FOLDER, RING_FILE, dump_ring, load_ring
from support.packs import DATA, METADATA, frames_of, make_frame, make_pack, resealed
from support.rings import make_ring

from repo_store import hpke
from repo_store.frame import Base
from repo_store.key_ring import KeyRing
from repo_store.pack import carry
from repo_store.pack_key import make_pack_key

TEXT = b"nothing is as lasting as what is written down twice; " * 12
Good = tuple[list[list[bytes]], bytes]


def good_packs(ring: KeyRing, earlier: KeyRing) -> dict[str, Good]:
    """Return, by scenario, the chunks of each frame and the bytes of the pack."""
    plain = [[TEXT, b"one"], [bytes(range(256))], [b"a", b"b", TEXT[:99]]]
    old, new = make_pack(earlier, plain), make_pack(ring, plain)
    carried = carry(ring, DATA, [frames_of(old)[2], frames_of(new)[0]])
    first_key, second_key = make_pack_key(ring, DATA), make_pack_key(ring, DATA)
    base = make_frame(ring, first_key, 7, [TEXT])
    delta = make_frame(ring, second_key, 0, [TEXT[5:], b"and changed"], base=Base(base.place.name, TEXT))
    packs = {
        "data": (plain, new),
        "metadata": (plain, make_pack(ring, plain, kind=METADATA)),
        "earlier-epoch": (plain, old),
        "carried": ([plain[2], plain[0]], carried),
        "with-base": ([[TEXT[5:], b"and changed"], [TEXT]], carry(ring, DATA, [delta, base])),
    }
    return {scenario: (chunks, b"".join(pack.buffers)) for scenario, (chunks, pack) in packs.items()}


def bad_packs(ring: KeyRing) -> dict[str, tuple[str, bytes]]:
    """Return, by scenario, the words in which each is refused and the bytes of the pack."""
    data = b"".join(
        make_pack(ring, [[TEXT, b"one"], [bytes(range(256))], [bytes(range(255, -1, -1))]]).buffers
    )
    origin = os.urandom(16)
    info = b"holdfast 1 pack key" + ring.repository + origin
    false = hpke.seal_to(ring.epochs[2].data_public, os.urandom(32), info=info)
    second = struct.unpack_from("<I", _rows(ring, data), 48 + 8)[0]
    frame = 256 + 16
    swapped = data[:second] + data[second + frame : second + 2 * frame] + data[second : second + frame]
    return {
        "unknown-codec": (
            "uses codec 9, which this version does not know",
            _changed(ring, data, 48 + 2, b"\x09"),
        ),
        "unknown-suite": (
            "uses suite 2, which this version does not know",
            resealed(ring, data, lambda body: body["keys"][0].__setitem__(2, 2)),
        ),
        "false-origin": (
            "opens to a key of another origin",
            resealed(ring, data, lambda body: body.update(keys=[[origin, 2, 1, false]])),
        ),
        "base-of-a-base": ("which has a base itself", resealed(ring, data, _chain)),
        "gap": ("leaves a gap or overlaps", _changed(ring, data, 48 + 8, struct.pack("<I", second + 1))),
        "swapped-frames": ("fails authentication", swapped + data[len(swapped) :]),
        "flipped-bit": ("fails authentication", bytes([data[0] ^ 1]) + data[1:]),
        "unknown-format": ("has pack format 2", data[:-12] + b"\x02" + data[-11:]),
        "truncated": ("does not end like a pack", data[:-1]),
    }


def _rows(ring: KeyRing, data: bytes) -> bytes:
    seen: list[bytes] = []
    resealed(ring, data, lambda body: seen.append(body["frames"]))
    return seen[0]


def _changed(ring: KeyRing, data: bytes, at: int, value: bytes) -> bytes:
    def change(body: dict[str, Any]) -> None:
        body["frames"] = body["frames"][:at] + value + body["frames"][at + len(value) :]

    return resealed(ring, data, change)


def _chain(body: dict[str, Any]) -> None:
    rows, origin = bytearray(body["frames"]), body["keys"][0][0]
    for row, base in ((0, 5), (1, 0)):  # frame 1 needs frame 0, which needs frame 5
        rows[48 * row + 2] = 2
        rows[48 * row + 24 : 48 * row + 44] = origin + struct.pack("<I", base)
    body["frames"] = bytes(rows)


def _write(scenario: str, data: bytes, expected: dict[str, Any]) -> None:
    pack, story = FOLDER / f"{scenario}.pack", FOLDER / f"{scenario}.json"
    if not story.exists():
        pack.write_bytes(data)
        story.write_text(json.dumps(expected, indent=1) + "\n")


def main() -> None:
    """Write what is not there yet."""
    FOLDER.mkdir(exist_ok=True)
    if not RING_FILE.exists():
        RING_FILE.write_text(json.dumps(dump_ring(make_ring(epochs=(1, 2))), indent=1) + "\n")
    ring, earlier = load_ring(), load_ring(epochs=(1,))
    for scenario, (chunks, data) in good_packs(ring, earlier).items():
        _write(scenario, data, {"frames": [[chunk.hex() for chunk in frame] for frame in chunks]})
    for scenario, (words, data) in bad_packs(ring).items():
        _write(scenario, data, {"refused": words})


if __name__ == "__main__":
    main()
