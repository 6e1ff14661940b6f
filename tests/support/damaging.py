"""Ways to damage bytes, all of them or enough of them to hit every field."""

from collections.abc import Iterator

from hypothesis import strategies as st


def flips(data: bytes) -> Iterator[bytes]:
    """Yield `data` with one bit flipped, once for every byte; which bit differs from byte to byte."""
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at * 5 % 8)
        yield bytes(changed)


def truncations(data: bytes) -> Iterator[bytes]:
    """Yield every shorter start of `data`, and `data` with something after it."""
    for length in range(len(data)):
        yield data[:length]
    yield data + b"\0"


def msgpack_values() -> st.SearchStrategy[object]:
    """Values that MessagePack can hold, also as keys."""
    leaves = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.text() | st.floats()
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )
