"""What the operating system's errors mean to a person: a message of one line and, where it helps, a hint."""

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from repo_store.errors import StorageError

_PLAIN_TREE = "the repository must be a plain directory tree, without symbolic links"
_ASK_OWNER = "check who owns the directory, and its permissions and attributes"

_HINTS = {
    errno.ENOSPC: "free some space; what was stored before is whole, and the next run reuses it",
    errno.EDQUOT: "the disk quota is used up: raise it",
    errno.EROFS: "the file system is mounted read-only; after an I/O error the kernel does that itself: see `dmesg`",
    errno.EACCES: _ASK_OWNER,
    errno.EPERM: _ASK_OWNER,
    errno.EIO: "the disk or its connection is failing: see `dmesg`, and check the disk before you rely on it",
    errno.ESTALE: "the network file system lost the directory: mount it anew",
    errno.ELOOP: _PLAIN_TREE,
    errno.ENOTDIR: _PLAIN_TREE,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


_CACHE_HINT = (
    "this is the local cache, not the repository: make room there or choose another place with --cache-dir"
)


@contextmanager
def failing(verb: str, path: str, *, advice: str | None = None) -> Iterator[None]:
    """Raise StorageError in place of every OSError inside: "<path>: cannot <verb>: <why>".

    The hint is `advice`, or what is known of the errno.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot {verb}: {reason(error)}", hint=advice or hint(error)) from error


def cache_failing(verb: str, path: str) -> AbstractContextManager[None]:
    """The same for a file of the local cache: what helps a repository would be wrong advice there."""
    return failing(verb, path, advice=_CACHE_HINT)


def reason(error: OSError) -> str:
    """Return why, in the voice of the messages: "no space left on device"."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def hint(error: OSError) -> str | None:
    """Return what to do about it, if that can be said."""
    return _HINTS.get(error.errno or 0)
