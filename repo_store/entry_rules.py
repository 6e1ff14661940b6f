"""Entry rules: what a row that was read must be before it counts as an Entry.

A leaf comes from storage and is taken for hostile until each field has its type and range. `rows_fit` decides for
a whole leaf at once, column by column, because a snapshot reads millions of rows and nearly all are fine;
`why_no_entry` says of one row what is wrong with it. The two agree, and tests hold them to it.
docs/format.md, section 9, is the authority.
"""

from typing import Any

from repo_store.content import CHUNK_BYTES_MAX, content_fits, why_no_content
from repo_store.entry import ID_BYTES, Entry, EntryKind
from repo_store.tree_node import NUMBER_MAX, are_names, why_no_name

_ID32_MAX = 2**32 - 1
_NUMBER64_MAX = 2**64 - 1
_RANGES: dict[str, tuple[int, int]] = {
    "kind": (0, max(EntryKind)),
    "mode": (0, 0o7777),
    "uid": (0, _ID32_MAX),
    "gid": (0, _ID32_MAX),
    "mtime_ns": (-(2**63), _NUMBER64_MAX),  # there are files from before 1970
    "ctime_ns": (-(2**63), _NUMBER64_MAX),
    "inode": (0, _NUMBER64_MAX),
    "size": (0, NUMBER_MAX),
}
_FIELDS = len(Entry._fields)
_WITH_CONTENT = (int(EntryKind.FILE), int(EntryKind.STREAM))
assert Entry._fields == ("name", *_RANGES, "content", "extra")


def rows_fit(rows: list[Any]) -> bool:
    """Say whether each of `rows`, at least one, is an entry."""
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {_FIELDS}:
        return False
    names, *numbers, contents, extras = zip(*rows, strict=True)
    for column, (lowest, highest) in zip(numbers, _RANGES.values(), strict=True):
        if set(map(type, column)) != {int} or min(column) < lowest or max(column) > highest:
            return False
    if not are_names(names):
        return False
    kinds, sizes = numbers[0], numbers[-1]
    for kind, size, content in zip(kinds, sizes, contents, strict=True):
        if content is None:
            if size:
                return False
        elif kind not in _WITH_CONTENT:
            return False
        elif type(content) is bytes:
            if len(content) != ID_BYTES or not (0 < size <= CHUNK_BYTES_MAX or content_fits(content, size)):
                return False
        elif not content_fits(content, size):
            return False
    return all(why_no_extra(extra) is None for extra in extras if extra is not None)


def why_no_entry(row: Any) -> str | None:
    """Return what is wrong with one row, for a message; None if nothing is."""
    if type(row) is not list or len(row) != _FIELDS:
        return "an entry that is no list of its fields"
    name, *numbers, content, extra = row
    if (why := why_no_name(name)) is not None:
        return why
    shown = repr(name[:80])
    for (field, (lowest, highest)), value in zip(_RANGES.items(), numbers, strict=True):
        if type(value) is not int:
            return f"entry {shown} with a {field} that is no number"
        if not lowest <= value <= highest:
            return f"entry {shown} with a {field} of {value}"
    if content is not None and numbers[0] not in _WITH_CONTENT:
        return f"entry {shown} with content, which its kind {numbers[0]} has not"
    why = why_no_content(content, numbers[-1]) or (None if extra is None else why_no_extra(extra))
    return None if why is None else f"entry {shown} with {why}"


def why_no_extra(extra: Any) -> str | None:
    """Return what is wrong with the rarer metadata of an entry; None if nothing is. Unknown keys are fine."""
    if type(extra) is not dict:
        return "an extra that is no map"
    for key, value in extra.items():
        if type(key) is not str:
            return "a key in extra that is no text"
        check = _EXTRA.get(key)
        if check is not None and not check(value):
            return f"a wrong {key!r} in extra"
    return None


def _is_link(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_device(value: Any) -> bool:
    return (
        type(value) is list and len(value) == 2 and all(type(n) is int and 0 <= n <= _ID32_MAX for n in value)
    )


def _is_target(value: Any) -> bool:
    return type(value) is bytes and value != b"" and b"\0" not in value


def _are_xattrs(value: Any) -> bool:
    return type(value) is dict and all(
        type(name) is bytes and name and b"\0" not in name and type(data) is bytes
        for name, data in value.items()
    )


_EXTRA = {
    "link": _is_link,
    "rdev": _is_device,
    "target": _is_target,
    "unstable": lambda value: value is True,
    "xattrs": _are_xattrs,
}
