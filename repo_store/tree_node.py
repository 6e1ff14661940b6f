"""Tree nodes: what the trees of entries and the trees of content have in common.

    leaf         [0, what it holds ...]
    inner node   [height, [child, child, ...]]         a child: what is needed to find it and check it

docs/format.md, section 9, is the authority. A tree is named by its root; nodes are metadata chunks, named by
their hash, so an unchanged region of a tree is the same nodes. Nodes come from `get` and go to `put`; nothing
here touches storage. What `get` returns is taken for hostile: whatever does not fit is ObjectDamaged.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgpack

from repo_store.entry import ID_BYTES, Path
from repo_store.errors import ObjectDamaged

NODE_BYTES_MAX: Final = 8 * 1024 * 1024
HEIGHT_MAX: Final = 8
FANOUT_MIN: Final = 16
FANOUT_MAX: Final = 256
CUT_BYTES: Final = 1024 * 1024
"""A node ends once what it holds is encoded in this many bytes, however few its items are."""
NAME_BYTES_MAX: Final = 4096
PATH_COMPONENTS_MAX: Final = 4096
PATH_BYTES_MAX: Final = 64 * 1024
"""Bytes of a path, one between components included."""
NUMBER_MAX: Final = 2**63 - 1
"""The largest count or size: what a file can have."""

_LIST_MAX = 4096  # no list in a node is longer: pairs of a content leaf, components of a path
_FORBIDDEN = frozenset((b"", b".", b".."))

Get = Callable[[bytes], bytes]
"""Returns the bytes of the node with this id. Raises ObjectMissing or ObjectDamaged."""

Put = Callable[[bytes], bytes]
"""Stores the bytes of a node and returns its id."""


class TreeRoot(NamedTuple):
    """A whole tree of entries: the id and height of its top node, and how many entries it has."""

    id: bytes
    height: int
    entries: int


def node_name(node_id: bytes) -> str:
    """Return how messages call a node."""
    return f"tree node {node_id.hex()[:16]}"


def open_node(get: Get, node_id: bytes, height: int) -> list[Any]:
    """Return the node as the list it was encoded from, its height checked; the rest is up to the caller.

    Raises ObjectDamaged, and what `get` raises.
    """
    name = node_name(node_id)
    data = get(node_id)
    if len(data) > NODE_BYTES_MAX:
        raise ObjectDamaged(name, f"has {len(data)} bytes, above the limit")
    try:
        # Keys of maps are text or bytes (strict_map_key): others may not even be hashable.
        node = msgpack.unpackb(data, max_array_len=_LIST_MAX, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ObjectDamaged(name, f"is not encoded as it should be: {error}") from None
    if type(node) is not list or len(node) < 2 or type(node[0]) is not int:
        raise ObjectDamaged(name, "is no node of a tree")
    if node[0] != height:
        raise ObjectDamaged(name, f"has height {node[0]}, where {height} belongs")
    return node


def check_children(name: str, node: list[Any], length: int) -> list[list[Any]]:
    """Return the children of an inner node, each a list of `length` items. Raises ObjectDamaged."""
    children = node[1]
    if len(node) != 2 or type(children) is not list or set(map(type, children)) != {list}:
        raise ObjectDamaged(name, "has no list of children")
    if len(children) > FANOUT_MAX:
        raise ObjectDamaged(name, f"has {len(children)} children, above the limit")
    if set(map(len, children)) != {length}:
        raise ObjectDamaged(name, "has a child of the wrong form")
    return children


def is_id(value: object) -> bool:
    """Say whether `value` can be the id of a chunk or hole."""
    return type(value) is bytes and len(value) == ID_BYTES


def is_count(value: object) -> bool:
    """Say whether `value` can be a number of entries or bytes of something that is not empty."""
    return type(value) is int and 0 < value <= NUMBER_MAX


def are_names(names: Iterable[Any]) -> bool:
    """Say whether each of `names` can be the name of an entry; quick for many."""
    names = list(names)
    if not names:
        return True
    if set(map(type, names)) != {bytes}:
        return False
    distinct = set(names)
    if not _FORBIDDEN.isdisjoint(distinct):
        return False
    joined = b"/".join(distinct)
    return (
        joined.count(b"/") < len(distinct)
        and b"\0" not in joined
        and max(map(len, distinct)) <= NAME_BYTES_MAX
    )


def why_no_name(name: object) -> str | None:
    """Return what is wrong with the name of an entry, for a message; None if nothing is."""
    if type(name) is not bytes:
        return "a name that is no byte string"
    if name in _FORBIDDEN:
        return f"the name {name!r}"
    if b"/" in name or b"\0" in name:
        return f"the name {name[:80]!r}, with a slash or NUL"
    if len(name) > NAME_BYTES_MAX:
        return f"a name of {len(name)} bytes"
    return None


def why_no_path(path: object) -> str | None:
    """Return what is wrong with a path, given as a list or tuple of names, for a message; None if nothing is."""
    if not isinstance(path, list | tuple):
        return "a path that is no list"
    if len(path) > PATH_COMPONENTS_MAX:
        return f"a path of {len(path)} components"
    if are_names(path) and path_bytes(path) <= PATH_BYTES_MAX:
        return None
    for name in path:
        if (why := why_no_name(name)) is not None:
            return why
    return f"a path of {path_bytes(path)} bytes"


def path_bytes(path: Path | list[bytes]) -> int:
    """Return the bytes of a path, one between components included."""
    return sum(map(len, path)) + max(0, len(path) - 1)
