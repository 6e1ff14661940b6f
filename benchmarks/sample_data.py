"""Sample data for the benchmarks: the same bytes on every machine, made in a few seconds.

    tree     files like those of a large source tree: 2 to 60 KB, in directories of about twelve
    small    text files of 200 to 2,000 bytes, a thousand to a directory
    random   one file that nothing compresses
    dump     one file like a text dump of tables: rows of numbers, words and times

Text is joined from a pool of fragments, common ones more often, so that `zstd -3` makes it 4 to 5 times smaller, as it
does with source code. Nothing here is measured.
"""

import argparse
import os
import random
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from blake3 import blake3

KINDS = ("tree", "small", "random", "dump")
TREE_FILES, SMALL_FILES, RANDOM_BYTES, DUMP_BYTES = 46_000, 100_000, 1024**3, 1024**3
"""Sizes at scale 1."""

_BLOCK_BYTES = 4 * 1024 * 1024
_SMALL_IN_A_FOLDER = 1_000


def make_sample(kind: str, folder: Path, scale: float = 1.0) -> Path:
    """Make the sample of this kind in the new directory `folder`, and return it."""
    folder.mkdir(parents=True)
    if kind == "tree":
        _make_tree(folder, int(TREE_FILES * scale))
    elif kind == "small":
        _make_small(folder, int(SMALL_FILES * scale))
    elif kind == "random":
        _write(folder / "random.bin", random_blocks(int(RANDOM_BYTES * scale)))
    elif kind == "dump":
        _write(folder / "dump.sql", dump_blocks(int(DUMP_BYTES * scale)))
    else:
        raise ValueError(f"{kind}: no such sample")
    return folder


def change_sample(kind: str, folder: Path) -> None:
    """Change the sample as a day would: two files of a hundred rewritten and one new, or a piece of a large one."""
    choice = random.Random(2)
    if kind in ("random", "dump"):
        (path,) = folder.iterdir()
        size = path.stat().st_size
        with path.open("r+b") as file:
            for at in range(0, size, max(size // 8, 1)):
                file.seek(at)
                file.write(choice.randbytes(min(64 * 1024, size - at)))
        return
    pool = _fragments(choice)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        if number % 50 == 0:
            path.write_bytes(_text(choice, pool, path.stat().st_size))
        elif number % 100 == 1:
            path.with_suffix(".new").write_bytes(_text(choice, pool, path.stat().st_size))


def random_blocks(length: int) -> Iterator[bytes]:
    """Yield `length` bytes that do not compress, in blocks."""
    hasher = blake3(b"holdfast benchmark")
    for at in range(0, length, _BLOCK_BYTES):
        yield hasher.digest(min(_BLOCK_BYTES, length - at), seek=at)


def dump_blocks(length: int) -> Iterator[bytes]:
    """Yield `length` bytes of a dump, in blocks: rows of tables, in an order of which little repeats."""
    choice = random.Random(3)
    pool = _fragments(choice)
    heads = [
        b"\n%d\t%d.%02d\t2026-11-%02d %02d:%02d:%02d\t"
        % (choice.getrandbits(27), choice.getrandbits(13), *(choice.randrange(1, 24) for _ in range(5)))
        for _ in range(100_000)
    ]
    rows = _BLOCK_BYTES // 48
    while length > 0:
        columns = [choice.choices(heads, k=rows), choice.choices(pool, k=rows), choice.choices(pool, k=rows)]
        block = b"".join(chain.from_iterable(zip(*columns, strict=True)))[: min(_BLOCK_BYTES, length)]
        yield block
        length -= len(block)


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(blocks)


def _make_tree(folder: Path, files: int) -> None:
    choice = random.Random(1)
    pool = _fragments(choice)
    for number in range(files):
        directory = folder / f"part{number // 1200:02}" / f"module{number // 12 % 100:02}"
        if number % 12 == 0:
            directory.mkdir(parents=True, exist_ok=True)
        size = min(60_000, int(choice.lognormvariate(8.75, 0.9)) + 200)
        (directory / f"source{number:06}.c").write_bytes(_text(choice, pool, size))


def _make_small(folder: Path, files: int) -> None:
    choice = random.Random(4)
    pool = _fragments(choice)
    for number in range(files):
        directory = folder / f"{number // _SMALL_IN_A_FOLDER:03}"
        if number % _SMALL_IN_A_FOLDER == 0:
            directory.mkdir()
        text = _text(choice, pool, choice.randrange(200, 2_000))
        fd = os.open(directory / f"note{number:06}.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, text)
        os.close(fd)


def _fragments(choice: random.Random) -> list[bytes]:
    """Return a pool of statements and parts of them, common ones several times."""
    letters = b"etaoinshrdlucmfwypvbgkqjxz"
    words = [bytes(choice.choices(letters[:20], k=choice.randrange(2, 10))) for _ in range(4_000)]
    joints = [
        b" ",
        b"_",
        b"(",
        b", ",
        b" = ",
        b"->",
        b" + ",
        b");\n\t",
        b";\n\t\t",
        b" {\n\t",
        b"\n}\n\n",
        b".\n",
        b"0x1f",
    ]
    pool: list[bytes] = []
    for rank in range(1, 24_000):
        parts = choice.choice((1, 1, 2, 4, 8))
        text = b"".join(choice.choice(words) + choice.choice(joints) for _ in range(parts))
        pool += [text] * (1 + 3_000 // rank)
    return pool


def _text(choice: random.Random, pool: list[bytes], length: int) -> bytes:
    return b"".join(choice.choices(pool, k=length // 16 + 16))[:length].ljust(length, b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make or change sample data.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--change", action="store_true", help="change what is there")
    parser.add_argument(
        "--bytes", type=int, help="so many bytes of random or dump to standard output instead"
    )
    given = parser.parse_args()
    if given.bytes is not None:
        blocks = dump_blocks if given.kind == "dump" else random_blocks
        sys.stdout.buffer.writelines(blocks(given.bytes))
    elif given.change:
        change_sample(given.kind, given.folder)
    else:
        make_sample(given.kind, given.folder, given.scale)


if __name__ == "__main__":
    main()
