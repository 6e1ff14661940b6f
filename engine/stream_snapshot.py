"""Snapshot of one stream: standard input, or what a command prints.

The stream becomes a manifest with one entry, or a tar stream one with an entry for each member. A command belongs to
the run: it is started here, its exit status decides, and a status other than 0 or a signal means no manifest: half a
dump must never look like a backup. What was stored until then is garbage that the next run reuses.
"""

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from engine.cutting import ReadInto, cut_stream
from engine.problems import printable, reason
from engine.progress import Interrupted, Progress
from engine.session import Session
from engine.snapshot_run import SnapshotOptions, SnapshotResult, SnapshotRun
from repo_store.content import ContentBuilder
from repo_store.entry import Entry, EntryKind
from repo_store.errors import SourceError, UsageError
from repo_store.tree_builder import TreeBuilder
from repo_store.tree_node import TreeRoot

_POLL_MS = 200
_STOP_SECONDS = 10.0
_PIPE_BYTES = 1024 * 1024


def snapshot_stdin(
    session: Session,
    name: bytes,
    fd: int,
    *,
    tar: bool = False,
    options: SnapshotOptions | None = None,
    progress: Progress | None = None,
) -> SnapshotResult:
    """Back up everything that can be read from `fd` as the stream `name`; `tar` splits it into its members."""
    progress = progress or Progress()
    with _begin(session, "stdin", name, options, progress) as run:
        _store(run, name, fd, tar=tar)
        return run.finish()


def snapshot_command(
    session: Session,
    name: bytes,
    argv: Sequence[str],
    *,
    tar: bool = False,
    options: SnapshotOptions | None = None,
    progress: Progress | None = None,
) -> SnapshotResult:
    """Run `argv` and back up its standard output as the stream `name`; its standard error is passed through.

    `tar` splits it into its members. Raises SourceError if it cannot be started, exits with a status other than 0, or
    dies of a signal.
    """
    if not argv:
        raise UsageError("no command is given", hint="write it behind `--`")
    progress = progress or Progress()
    with _begin(session, "command", name, options, progress) as run:
        with _started(argv) as child:
            assert child.stdout is not None
            _store(run, name, child.stdout.fileno(), tar=tar)
            status = _wait(child, progress)
        if status != 0:
            raise SourceError(
                f"{printable(os.fsencode(shlex.join(argv)))}: {_ended(status)}; no snapshot was made"
            )
        # For a person to read: an argument that is no text is shown with escapes.
        run.details["command"] = [os.fsencode(word).decode("utf-8", "backslashreplace") for word in argv]
        run.details["exit_status"] = status
        return run.finish()


def _begin(
    session: Session, source: str, name: bytes, options: SnapshotOptions | None, progress: Progress
) -> SnapshotRun:
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise UsageError(f"{printable(name)}: cannot be the name of a stream", hint="use a plain file name")
    return SnapshotRun(
        session,
        source=source,
        name=printable(name),
        options=options or SnapshotOptions(),
        progress=progress,
    )


def _store(run: SnapshotRun, name: bytes, fd: int, *, tar: bool) -> None:
    """Read `fd` to its end into the run's tree. Raises SourceError if that fails, Interrupted with its checkpoint."""
    run.progress.current = printable(name)

    def read(view: memoryview) -> int:
        _wait_readable(fd, run.progress)
        return os.readv(fd, [view])

    try:
        if tar:
            from engine.tar_snapshot import store_members  # brings a database along: not for every start

            store_members(run, name, read)
        else:
            _store_stream(run, name, read)
    except OSError as error:
        raise SourceError(f"{printable(name)}: cannot be read: {reason(error)}") from error


def _store_stream(run: SnapshotRun, name: bytes, read_into: ReadInto) -> None:
    """Store all that `read_into` gives as one entry; keep a checkpoint if the run is interrupted."""
    progress = run.progress
    content = ContentBuilder(run.session.ring.tree_cut_key, run.writer.put_node)
    started = time.time_ns()

    def read(view: memoryview) -> int:
        count = read_into(view)
        progress.bytes += count
        return count

    def entry(content: ContentBuilder) -> Entry:
        built, size = content.finish()
        return Entry(
            name, EntryKind.STREAM, 0o600, os.getuid(), os.getgid(), started, 0, 0, size, built, None
        )

    def so_far() -> TreeRoot | None:
        tree = TreeBuilder(run.session.ring.tree_cut_key, run.writer.put_node)
        tree.add((), entry(content))
        return tree.finish()

    try:
        cut_stream(
            run.writer.data,
            run.chunker,
            content,
            read,
            tick=run.tick,
            checkpoint=lambda: _discard(run.checkpoint(so_far)),
        )
    except Interrupted as interrupted:
        kept = run.checkpoint(so_far)
        interrupted.manifest = None if kept is None else kept.id.hex()
        raise
    progress.files += 1
    run.tree.add((), entry(content))


def _discard(_: object) -> None:
    """Take a result that nobody needs."""


def _wait_readable(fd: int, progress: Progress) -> None:
    """Wait until a read will not block; look up now and then whether the run is to stop."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not poll.poll(_POLL_MS):
        progress.check_stop()


@contextmanager
def _started(argv: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the command; whatever happens, it is not left running."""
    try:
        # A process group of its own: Ctrl-C must reach holdfast first, which then ends the command itself.
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pipesize=_PIPE_BYTES, process_group=0
        )
    except OSError as error:
        raise SourceError(f"{printable(os.fsencode(argv[0]))}: cannot be started: {reason(error)}") from error
    with child:
        try:
            yield child
        finally:
            if child.poll() is None:
                _end(child)


def _wait(child: "subprocess.Popen[bytes]", progress: Progress) -> int:
    """Return the exit status; the command may go on for a while after its output has ended."""
    while True:
        try:
            return child.wait(_POLL_MS / 1000)
        except subprocess.TimeoutExpired:
            progress.check_stop()


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the command and all it has started: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_SECONDS)
            return


def _ended(status: int) -> str:
    if status < 0:
        return f"died of signal {-status}"
    return f"exited with status {status}"
