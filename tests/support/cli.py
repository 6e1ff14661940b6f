"""Calls of holdfast as a person makes them, and what they answer.

Most tests call main() in this process, which is quick; `start` and `call` use the installed console script.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))


@dataclass(frozen=True)
class Answer:
    """What a call came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def __iter__(self) -> Iterator[Any]:
        """Yield (code, out, err), with all that differs from run to run masked."""
        yield from (self.code, masked(self.out), masked(self.err))


_MASKS = (
    (r"holdfast-key-1( [0-9a-f]+){4}", "<key>"),
    (r"\b[0-9a-f]{64}\b", "<hash>"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"\b[0-9a-f]{16}\b", "<slot>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "<time>"),
    (r"\b[\d.]+ [KM]iB stored", "<size> stored"),
    (r"\bin [\d.]+ s\b", "in <s>"),
    (r"\btook [\d.]+ s\b", "took <s>"),
)


def masked(text: str) -> str:
    """Return `text` with ids, keys, times and stored sizes replaced by their kind."""
    for pattern, kind in _MASKS:
        text = re.sub(pattern, kind, text)
    return text


@dataclass
class Cli:
    """holdfast in a directory, with the repository `repository` and the key file `key` unless told otherwise."""

    directory: Path
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def __call__(self, *args: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Answer:
        """Run a command in this process."""
        self.capture.readouterr()
        with self.patch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            with self._stdin(stdin, patch):
                code = main(args)
        out, err = self.capture.readouterr()
        return Answer(code, out, err)

    @contextmanager
    def _stdin(self, data: bytes | None, patch: pytest.MonkeyPatch) -> Iterator[None]:
        if data is None:
            yield
            return
        path = self.directory / ".stdin"
        path.write_bytes(data)
        with open(path) as file:
            patch.setattr(sys, "stdin", file)
            yield
        path.unlink()

    def init(self) -> None:
        """Make the repository."""
        assert self("init", "--quiet").code == 0

    def snapshot(self, *args: str, stdin: bytes | None = None) -> str:
        """Make a snapshot (`files` …, `stdin` …) that is complete; return its id."""
        answer = self("snapshot", *args, "--json", stdin=stdin)
        assert answer.code == 0, answer
        manifest: str = answer.document["manifest"]
        return manifest

    def call(self, *args: str, **options: Any) -> Answer:
        """Run a command in a process of its own."""
        done = subprocess.run(
            [HOLDFAST, *args], capture_output=True, cwd=self.directory, check=False, **options
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def shell(self, program: str, **options: Any) -> Answer:
        """Run a shell program in which `"$0"` is holdfast."""
        done = subprocess.run(
            ["sh", "-c", program, HOLDFAST], capture_output=True, cwd=self.directory, check=False, **options
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a command in a process of its own."""
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen[bytes]([HOLDFAST, *args], cwd=self.directory, **streams)

    def write(self, name: str, data: bytes | str = b"") -> Path:
        """Write a file below the directory, making the directories above it."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def objects(self, folder: str = "") -> list[Path]:
        """Return the files of the repository below `folder`, in order."""
        return sorted(path for path in (self.directory / "repository" / folder).rglob("*") if path.is_file())


def damage(path: Path) -> None:
    """Flip a bit in the middle of a stored object."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(path, 0o600)
    path.write_bytes(data)


def lines(*texts: str) -> str:
    """Return lines with their ends."""
    return "".join(f"{text}\n" for text in texts)


AS_NOBODY = """
import os, sys
from cli.main import main
if os.geteuid() == 0:
    # Every module is imported by a run with root's rights: nobody may be unable to read them.
    own, warm = os.dup(1), sys.argv[1]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    key = ["-r", warm + "/repository", "--key-file", warm + "/key", "--cache-dir", warm, "--state-dir", warm]
    for command in (["init"], ["snapshot", "files", warm + "/key"], ["snapshot", "files", warm + "/none", "--json"]):
        main([*command, *key])
    sys.stdout.flush()
    os.dup2(own, 1)
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.stderr.write("ready\\n")
sys.exit(main(sys.argv[2:]))
"""


def as_nobody(args: Sequence[str], directory: Path, env: dict[str, str]) -> Answer:
    """Run a command without root's rights, even if the tests have them."""
    with tempfile.TemporaryDirectory() as warm:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, warm, *args],
            capture_output=True,
            cwd=directory,
            env={**os.environ, **env},
            check=False,
        )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode().partition("ready\n")[2])
