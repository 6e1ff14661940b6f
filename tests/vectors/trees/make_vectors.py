"""Make the vectors in this folder, from the slow trees of tests/support/slow_tree.py. Never edit them by hand.

    PYTHONPATH=.:tests python tests/vectors/trees/make_vectors.py

`entries-*.json`: a tree cut key, entries as [parent, row] in order, the root as [id, height, entries] and the ids of
all nodes. `content-*.json`: pairs of [id, length], the content field, the size, the nodes. Byte strings are
{"hex": …} inside rows and plain hex elsewhere; maps are {"map": [[key, value], …]}. Here a node's id is
H(node), without key.
"""

import json
from pathlib import Path
from typing import Any

from support.entry_trees import Pairs, deep, scattered, wide
from support.node_store import file_entry
from support.slow_tree import node_id, slow_content, slow_entry_tree

FOLDER = Path(__file__).parent
KEY = node_id(b"the tree cut key of the vectors")


def to_json(value: Any) -> Any:
    """Return `value` in what JSON can say."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {"map": [[to_json(key), to_json(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def write(name: str, vector: dict[str, Any]) -> None:
    """Write one vector, a line for each item of its lists."""
    lines = []
    for key, value in vector.items():
        text = json.dumps(value)
        if isinstance(value, list) and len(value) > 4:
            text = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    made, path = "{\n" + ",\n".join(lines) + "\n}\n", FOLDER / name
    if path.exists() and path.read_text() != made:
        raise SystemExit(f"make_vectors: {name} would change: golden vectors never do")
    path.write_text(made)


def entries(name: str, pairs: Pairs) -> None:
    """Write the vector of one tree of entries."""
    tree = slow_entry_tree(KEY, pairs)
    assert tree.root is not None
    write(
        f"entries-{name}.json",
        {
            "tree_cut_key": KEY.hex(),
            "root": [tree.root[0].hex(), *tree.root[1:]],
            "nodes": sorted(node.hex() for node in tree.nodes),
            "entries": [[[part.hex() for part in path[:-1]], to_json(list(entry))] for path, entry in pairs],
        },
    )


def content(name: str, pairs: list[tuple[bytes, int]]) -> None:
    """Write the vector of one content."""
    field, size, nodes = slow_content(KEY, pairs)
    write(
        f"content-{name}.json",
        {
            "tree_cut_key": KEY.hex(),
            "content": to_json(field),
            "size": size,
            "nodes": sorted(node.hex() for node in nodes),
            "pairs": [[chunk_id.hex(), length] for chunk_id, length in pairs],
        },
    )


def main() -> None:
    """Write them all."""
    entries("one", [((b"only",), file_entry(b"only"))])
    entries("kinds", scattered(1, 60))
    entries("two-levels", wide(700))
    entries("deep", deep(90))
    chunks = [(node_id(number.to_bytes(4, "little")), 1000 + number) for number in range(1500)]
    hole = (bytes(32), 5000)
    content("nothing", [])
    content("one", chunks[:1])
    content("list", [chunks[0], hole, hole, *chunks[1:31]])
    content("leaf", chunks[:33])
    content("tree", [*chunks, (bytes(32), 2**40 + 1)])


if __name__ == "__main__":
    main()
