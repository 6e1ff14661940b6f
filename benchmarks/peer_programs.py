"""The programs that benchmarks/peers.py compares, each with the commands that do the same work.

All of them encrypt, and compress with zstd at a level near 3 (kopia's and restic's own name for it is "default"). Caches lie
beside the repository, so that every program begins with nothing. What a program does beyond that is its default.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from measured import run_measured

Commands = list[list[str]]
PASSWORD = "benchmark"


class Program:
    """A backup program with a repository in a folder. The steps return the commands that do them."""

    name = ""

    def __init__(self, program: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.program, self.folder = program, folder
        self.repository = folder / "repository"
        self.environment: dict[str, str] = {}
        self.snapshots = 0

    def version(self) -> str:
        """Return the version, as the program says it."""
        text = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        return next((word for word in text.split() if word[0].isdigit()), text.strip())

    def working_folder(self, step: str, target: Path) -> Path | None:
        """Return where the command of a step has to be started, if that matters."""
        return None

    def init(self) -> Commands:
        """Make the repository."""
        raise AssertionError

    def snapshot(self, source: Path) -> Commands:
        """Back the folder up."""
        raise AssertionError

    def restore(self, source: Path, target: Path) -> Commands:
        """Bring the newest snapshot back, into `target`."""
        raise AssertionError

    def check(self) -> Commands:
        """Read every stored byte and check it."""
        raise AssertionError

    def prune(self) -> Commands:
        """Keep the newest snapshot only and give the space back; nothing if the program cannot."""
        raise AssertionError


class Holdfast(Program):
    """This project, as its users call it."""

    name = "holdfast"

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program, folder)
        self.environment = {
            "HOLDFAST_REPOSITORY": str(self.repository),
            "HOLDFAST_KEY_FILE": str(folder / "key"),
            "HOLDFAST_CACHE_DIR": str(folder / "cache"),
            "HOLDFAST_STATE_DIR": str(folder / "state"),
        }

    def init(self) -> Commands:
        return [[self.program, "init", "--quiet", "--key-file", str(self.folder / "key")]]

    def snapshot(self, source: Path) -> Commands:
        return [[self.program, "snapshot", "files", "--quiet", str(source)]]

    def restore(self, source: Path, target: Path) -> Commands:
        return [[self.program, "restore", "latest", "--quiet", "--to", str(target)]]

    def check(self) -> Commands:
        return [[self.program, "verify", "--data", "--quiet"]]

    def prune(self) -> Commands:
        if not has_command(self.program, "prune"):
            return []
        forget = [self.program, "forget", "--quiet", "--yes", "--keep-last", "1"]
        return [forget, [self.program, "prune", "--quiet", "--at-once"]]


class Restic(Program):
    """restic; its cache holds metadata."""

    name = "restic"

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program, folder)
        self.environment = {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }

    def version(self) -> str:
        return subprocess.run(
            [self.program, "version"], capture_output=True, text=True, check=True
        ).stdout.split()[1]

    def init(self) -> Commands:
        return [[self.program, "init", "--quiet"]]

    def snapshot(self, source: Path) -> Commands:
        return [[self.program, "backup", "--quiet", "--compression", "auto", str(source)]]

    def restore(self, source: Path, target: Path) -> Commands:
        return [[self.program, "restore", "latest", "--quiet", "--target", str(target)]]

    def check(self) -> Commands:
        return [[self.program, "check", "--quiet", "--read-data"]]

    def prune(self) -> Commands:
        return [[self.program, "forget", "--quiet", "--keep-last", "1", "--prune"]]


class Borg(Program):
    """borg 1, with its files cache."""

    name = "borg"

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program, folder)
        self.environment = {
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(folder / "base"),
        }

    def working_folder(self, step: str, target: Path) -> Path | None:
        return target if step == "restore" else None

    def init(self) -> Commands:
        return [[self.program, "init", "--encryption", "repokey-blake2"]]

    def snapshot(self, source: Path) -> Commands:
        self.snapshots += 1
        return [[self.program, "create", "--compression", "zstd,3", f"::s{self.snapshots}", str(source)]]

    def restore(self, source: Path, target: Path) -> Commands:
        return [[self.program, "extract", f"::s{self.snapshots}"]]

    def check(self) -> Commands:
        return [[self.program, "check", "--verify-data"]]

    def prune(self) -> Commands:
        return [
            [self.program, "prune", "--glob-archives", "s*", "--keep-last", "1"],
            [self.program, "compact", "--threshold", "0"],
        ]


class Kopia(Program):
    """kopia; compression is a policy, and off unless asked for."""

    name = "kopia"

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program, folder)
        self.environment = {
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CONFIG_PATH": str(folder / "config"),
            "KOPIA_CACHE_DIRECTORY": str(folder / "cache"),
            "KOPIA_LOG_DIR": str(folder / "log"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def init(self) -> Commands:
        keep = [f"--keep-{period}=0" for period in ("hourly", "daily", "weekly", "monthly", "annual")]
        return [
            [self.program, "repository", "create", "filesystem", "--path", str(self.repository)],
            [self.program, "policy", "set", "--global", "--compression=zstd", "--keep-latest=1000", *keep],
        ]

    def snapshot(self, source: Path) -> Commands:
        return [[self.program, "snapshot", "create", "--no-progress", str(source)]]

    def restore(self, source: Path, target: Path) -> Commands:
        _, text = run_measured([self.program, "snapshot", "list", "--json", str(source)], self.environment)
        newest = max(json.loads(text), key=lambda each: str(each["startTime"]))
        return [[self.program, "snapshot", "restore", "--no-progress", newest["id"], str(target)]]

    def check(self) -> Commands:
        return [[self.program, "snapshot", "verify", "--verify-files-percent=100"]]

    def prune(self) -> Commands:
        return [
            [self.program, "policy", "set", "--global", "--keep-latest=1"],
            [self.program, "snapshot", "expire", "--all", "--delete"],
            [self.program, "maintenance", "run", "--full", "--safety=none"],
        ]


class Rustic(Program):
    """rustic, with restic's format."""

    name = "rustic"

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program, folder)
        self.environment = {
            "RUSTIC_REPOSITORY": str(self.repository),
            "RUSTIC_PASSWORD": PASSWORD,
            "RUSTIC_CACHE_DIR": str(folder / "cache"),
            "RUSTIC_NO_PROGRESS": "true",
            "RUSTIC_LOG_LEVEL": "warn",
        }

    def init(self) -> Commands:
        return [[self.program, "init", "--set-compression", "3"]]

    def snapshot(self, source: Path) -> Commands:
        return [[self.program, "backup", str(source)]]

    def restore(self, source: Path, target: Path) -> Commands:
        return [[self.program, "restore", "latest", str(target)]]

    def check(self) -> Commands:
        return [[self.program, "check", "--read-data"]]

    def prune(self) -> Commands:
        return [[self.program, "forget", "--keep-last", "1", "--prune", "--instant-delete"]]


PROGRAMS: dict[str, type[Program]] = {each.name: each for each in (Holdfast, Restic, Borg, Kopia, Rustic)}


def has_command(program: str, command: str) -> bool:
    """Return whether holdfast knows the command."""
    done = subprocess.run([program, command, "--help"], capture_output=True, check=False)
    return done.returncode == 0


def own_program() -> str:
    """Return the holdfast that lies beside the Python that runs this."""
    return os.path.join(os.path.dirname(sys.executable), "holdfast")


def find_programs(names: list[str]) -> dict[str, str]:
    """Return name → path of the programs that there are, holdfast first; tools/peers.sh finds or builds the others."""
    found = {"holdfast": own_program()}
    others = [name for name in names if name != "holdfast"]
    if others:
        script = Path(__file__).parents[1] / "tools" / "peers.sh"
        lines = subprocess.run([str(script), *others], stdout=subprocess.PIPE, text=True, check=True).stdout
        found |= dict(line.split(" ", 1) for line in lines.splitlines())
    return found
