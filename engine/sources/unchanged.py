"""Unchanged: may this file's content be taken from the previous snapshot, unread?

Same kind, size, mtime, ctime and inode, and both times well before the previous snapshot began. Each part is
there for a way in which a file changes and looks the same:

* replaced by a copy that keeps the mtime (`cp -p`, `rsync -t`, `mv`): another inode, and a new ctime;
* rewritten in place and the mtime set back (`touch -r`): the ctime cannot be set back;
* rewritten with the same size within the granularity of the clock, right after it was read: only the racy
  rule sees it: times that were not well in the past when the previous snapshot began prove nothing;
* renamed over: the name now has another inode, or the same inode with a new ctime;
* written after the clock was set back: the ctime differs, it is not compared for "newer"; and a time in the
  future never counts as in the past.

Where the clock of a file server lags more than the margin behind ours, or a writer owns the disk beneath the
file system, this cannot hold; the full re-read every N days is for them.
"""

from repo_store.entry import Entry

RACY_MARGIN_NS = 2_000_000_000
"""The coarsest timestamps in use: two seconds, on FAT."""

_LSTAT_FIELDS = Entry._fields.index("content")
"""The fields of an entry that come from lstat stand before this one."""


def trusted_before(previous_start_ns: int) -> int:
    """Return the time before which a timestamp in the snapshot begun at `previous_start_ns` can be trusted."""
    return previous_start_ns - RACY_MARGIN_NS


def unchanged(previous: Entry, current: Entry, trusted_before_ns: int) -> bool:
    """Say whether `current`, fresh from lstat, surely has the content and extra of `previous`."""
    return (
        previous.ctime_ns == current.ctime_ns
        and previous.mtime_ns == current.mtime_ns
        and previous.inode == current.inode
        and previous.size == current.size
        and previous.kind == current.kind
        and previous.ctime_ns < trusted_before_ns
        and previous.mtime_ns < trusted_before_ns
        and not (previous.extra is not None and "unstable" in previous.extra)
    )


def carried(previous: Entry, current: Entry) -> Entry:
    """Return the entry of an unchanged file: `current` with the content and extra of `previous`.

    That is `previous` itself where nothing at all differs. The link number is the one of this walk, so that
    it fits those of links that are new to the snapshot.
    """
    link = None if current.extra is None else current.extra.get("link")
    link_before = None if previous.extra is None else previous.extra.get("link")
    if link == link_before and current[:_LSTAT_FIELDS] == previous[:_LSTAT_FIELDS]:
        return previous
    extra = dict(previous.extra or {})
    extra.pop("link", None)
    if link is not None:
        extra["link"] = link
    return current._replace(content=previous.content, extra=extra or None)
