"""A node store for tests of trees: a dictionary that counts what was read."""

from typing import Any

import msgpack
from support.slow_tree import node_id

from repo_store.entry import Entry
from repo_store.errors import ObjectMissing


class NodeStore:
    """Nodes in memory, by id."""

    def __init__(self, nodes: dict[bytes, bytes] | None = None) -> None:
        self.nodes = nodes or {}
        self.reads: list[bytes] = []
        self.puts = 0

    def put(self, data: bytes) -> bytes:
        name = node_id(data)
        self.nodes[name] = data
        self.puts += 1
        return name

    def get(self, name: bytes) -> bytes:
        self.reads.append(name)
        try:
            return self.nodes[name]
        except KeyError:
            raise ObjectMissing(f"tree node {name.hex()[:16]}") from None

    def put_raw(self, node: Any) -> bytes:
        """Store anything as a node."""
        return self.put(msgpack.packb(node))


def file_entry(name: bytes, number: int = 0, **changes: Any) -> Entry:
    """Return a plain entry of a file that is empty, unless `changes` say otherwise."""
    entry = Entry(name, 0, 0o644, 1000, 1000, 10**18 + number, 10**18, number, 0, None, None)
    return entry._replace(**changes)
