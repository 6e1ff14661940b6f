"""Running git on repositories that belong to other people, which makes each of them hostile input.

The law of this module: git runs with an environment that holds nothing but what stands here, with no configuration of the
system or of a user, and with options on its command line that no configuration of the repository can take back: no
hook and no file system monitor is started, nothing is fetched from anywhere, and who owns the directory does not
matter. Grafts and replacement objects are not looked at: they change what history seems to be, and a backup is of
what there is.
"""

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import IO

from engine.problems import printable, reason
from engine.progress import Progress
from repo_store.errors import SourceError

_POLL_MS = 200
_MESSAGE_CHARACTERS_MAX = 300
_OPTIONS = (
    *("-c", "safe.directory=*"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.allow=never"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)
_SEARCHED = "/usr/local/bin:/usr/bin:/bin"


class GitFailed(SourceError):
    """A call of git ended with a status other than 0; the message is what git said."""


@cache
def git_program() -> str:
    """Return the path of git. Raises SourceError if there is none."""
    program = shutil.which("git")
    if program is None:
        raise SourceError("git is not installed", hint="install it, and try again")
    return program


class Git:
    """Calls of git on one repository, the directory `gitdir`; `alternates` lends it the objects of others."""

    def __init__(self, gitdir: bytes, progress: Progress, *, alternates: Sequence[bytes] = ()) -> None:
        self.gitdir = gitdir
        self._progress = progress
        self._environment: dict[bytes, bytes] = {
            b"GIT_DIR": gitdir,
            b"PATH": os.fsencode(f"{os.path.dirname(git_program())}:{_SEARCHED}"),
            b"HOME": b"/nonexistent",
            b"LC_ALL": b"C",
            b"GIT_CONFIG_NOSYSTEM": b"1",
            b"GIT_CONFIG_GLOBAL": b"/dev/null",
            b"GIT_ATTR_NOSYSTEM": b"1",
            b"GIT_TERMINAL_PROMPT": b"0",
            b"GIT_ASKPASS": b"/bin/false",
            b"GIT_ALLOW_PROTOCOL": b"",
            b"GIT_NO_LAZY_FETCH": b"1",
            b"GIT_NO_REPLACE_OBJECTS": b"1",
            b"GIT_GRAFT_FILE": b"/nonexistent/grafts",
            b"GIT_OPTIONAL_LOCKS": b"0",
        }
        if alternates:
            self._environment[b"GIT_ALTERNATE_OBJECT_DIRECTORIES"] = b":".join(map(_quoted, alternates))

    def run(self, *args: bytes | str, stdin: bytes = b"") -> bytes:
        """Return what `git args` prints. Raises GitFailed with what it said, Interrupted."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            self.run_on_files(*args, stdin=given, stdout=said)
            said.seek(0)
            return said.read()

    def run_on_files(self, *args: bytes | str, stdin: IO[bytes] | None, stdout: IO[bytes]) -> bytes:
        """Run `git args` from one file to another; return what it said on standard error."""
        with tempfile.TemporaryFile() as complaints:
            child = self.start(*args, stdin=stdin, stdout=stdout, stderr=complaints)
            self.wait(child)
            complaints.seek(0)
            said = complaints.read()
        if child.returncode != 0:
            raise failed(args, child.returncode, said)
        return said

    def start(
        self,
        *args: bytes | str,
        stdin: IO[bytes] | int | None,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
    ) -> "subprocess.Popen[bytes]":
        """Start `git args`; whoever calls this waits for it."""
        try:
            return subprocess.Popen(
                [git_program(), *_OPTIONS, *args],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=stderr,
                env=self._environment,
                cwd="/",
                process_group=0,  # Ctrl-C must reach holdfast first, which then ends git itself
            )
        except OSError as error:
            raise SourceError(f"git: cannot be started: {reason(error)}") from error

    def wait(self, child: "subprocess.Popen[bytes]") -> None:
        """Wait until `child` has ended. Raises Interrupted if the run is to stop; then it is not left running."""
        try:
            while not _ended(child):
                self._progress.check_stop()
        finally:
            end(child)


def _ended(child: "subprocess.Popen[bytes]") -> bool:
    """Wait a moment for `child`; say whether it has ended. Through a descriptor, which wakes at once: `wait` with a
    timeout sleeps up to 50 ms too long, and an unchanged repository takes 4."""
    if not hasattr(os, "pidfd_open"):
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_MS / 1000)
        return child.poll() is not None
    fd = os.pidfd_open(child.pid)
    try:
        waiter = select.poll()
        waiter.register(fd, select.POLLIN)
        waiter.poll(_POLL_MS)
    finally:
        os.close(fd)
    return child.poll() is not None


def end(child: "subprocess.Popen[bytes]") -> None:
    """Let a call of git not be left running, whatever happened."""
    if child.poll() is None:
        child.kill()
        child.wait()


def failed(args: Sequence[bytes | str], status: int, said: bytes) -> GitFailed:
    """Return the error for a call that ended with `status`: the last thing that git said, on one line."""
    command = printable(os.fsencode(args[0]))
    lines = [line for line in said.splitlines() if line.strip()]
    text = printable(lines[-1])[:_MESSAGE_CHARACTERS_MAX] if lines else f"exited with status {status}"
    return GitFailed(f"git {command}: {text}")


def _quoted(path: bytes) -> bytes:
    """Return a path as git reads it in a list that is separated by colons."""
    plain = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + b"".join(b"\\%03o" % byte if byte < 32 else bytes((byte,)) for byte in plain) + b'"'
