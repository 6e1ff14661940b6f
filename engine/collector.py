"""Collector: Python's search for cycles among objects, kept out of the way of a long run.

A run makes hundreds of thousands of tuples and drops them again, none in a cycle. By default Python looks through the
youngest every 700 and through all of them again and again: a sixth of the time of a restore. Memory of cycles (errors with
their tracebacks, mostly) is still given back, a little later.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 50_000
"""Objects made and not dropped before the youngest are looked through: about 10 MB."""


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Let the collector run less often while this is open. Whatever was set before comes back."""
    before = gc.get_threshold()
    if gc.isenabled() and before[0] < _OBJECTS:
        gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
