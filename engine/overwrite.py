"""Overwrite: how a restore over what is there may be asked for, and what it came to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.restore import RestoreResult
from engine.target import TargetOptions
from repo_store.entry import Path


class Overwrite(StrEnum):
    """What becomes of a file that is there already."""

    NEVER = "never"
    CHANGED = "changed"
    ALWAYS = "always"


class Change(StrEnum):
    """What a restore does, or would do, to one path."""

    CREATE = "create"
    REWRITE = "rewrite"
    METADATA = "metadata"
    DELETE = "delete"


OnChange = Callable[[Change, Path], None]


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions:
    """How to restore over what is there. `protected`: directories that are never deleted, wherever they are."""

    overwrite: Overwrite = Overwrite.CHANGED
    delete: bool = False
    dry_run: bool = False
    target: TargetOptions = field(default_factory=TargetOptions)
    protected: Sequence[str] = ()


@dataclass
class OverwriteResult(RestoreResult):
    """What it came to; `files` were restored, of `bytes`. Directories are counted as deleted only."""

    unchanged: int = 0
    deleted: int = 0
    skipped: int = 0
    changes: dict[Change, int] = field(default_factory=dict)
