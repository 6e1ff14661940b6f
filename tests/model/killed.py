"""The protocol in real processes on a real storage, killed by SIGKILL: no schedule, no seed for the order, no mercy.

    python -P tests/model/killed.py LOCATION FOLDER KILLS SEED

Makes a repository at LOCATION (a directory, or s3://bucket/prefix with what boto needs in the environment), lets processes
write, prune and forget in it three at a time, kills most of them at moments drawn from the seed, and now and then
reads back every live manifest as a host that has never seen the repository. One line of JSON says what it came to.
Processes are forks of one that has imported everything, so a kill costs milliseconds and not the start of Python.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from model.history import Files, back_up
from support.sessions import content_of

from engine.forget import plan_forget_ids, run_forget
from engine.prune import plan_prune, run_prune
from engine.session import Places, Session, init_repository, open_session
from repo_store.errors import HoldfastError, ObjectDamaged
from repo_store.key_file import KeyFile, NewKeyFile

AT_ONCE = 3
KILLS_TO_A_JUDGEMENT = 20
KEPT = 6
FAILED = 9


class Nursery:
    """A repository, and the processes that work in it."""

    def __init__(self, location: str, folder: Path, seed: int) -> None:
        self.location, self.folder = location, folder
        self.choice = random.Random(seed)
        pool = [self.choice.randbytes(self.choice.randint(500, 60_000)) for _ in range(12)]
        self.versions: list[Files] = [
            {f"f{n}": tuple(self.choice.choices(pool, k=self.choice.randint(1, 3))) for n in range(4)}
            for _ in range(8)
        ]
        saved: list[KeyFile] = []
        init_repository(location, NewKeyFile(saved.append), self._places(0), label="test")
        self.key_file = saved[0]
        self.kills = self.ends = self.refusals = 0

    def _places(self, host: int) -> Places:
        return Places(self.folder / str(host) / "cache", self.folder / str(host) / "state")

    def session(self, host: int, operation: str) -> Session:
        """Open the repository."""
        return open_session(self.location, lambda _: self.key_file, self._places(host), operation=operation)

    def fork(self, work: Callable[[random.Random, int], None], host: int) -> int:
        """Let a process do some work; return its number."""
        choice = random.Random(self.choice.getrandbits(64))
        child = os.fork()
        if child:
            return child
        code = FAILED
        try:
            work(choice, host)
            code = 0
        except ObjectDamaged:
            traceback.print_exc()
        except HoldfastError:
            code = 1  # refused, overtaken, given up: all of that may be
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def write(self, choice: random.Random, host: int) -> None:
        version = choice.randrange(len(self.versions))
        back_up(self.session(host, "write"), choice.choice("ab"), self.versions[version], version, choice)

    def prune(self, choice: random.Random, host: int) -> None:
        session = self.session(host, "prune")
        run_prune(session, plan_prune(session))

    def forget(self, choice: random.Random, host: int) -> None:
        session = self.session(host, "prune")
        live = session.read_manifests().live
        chosen = choice.sample(live, max(0, len(live) - choice.randint(1, KEPT)))
        plan = plan_forget_ids(session, [manifest.id.hex() for manifest in chosen], now_ns=time.time_ns())
        run_forget(session, plan, now_ns=time.time_ns(), yes=True)

    def judge(self, choice: random.Random, host: int) -> None:
        session = self.session(host, "read")
        manifests = session.read_manifests()
        assert not manifests.damaged, manifests.damaged
        for manifest in manifests.live:
            made_of = self.versions[int(manifest.tags[0])]
            expected = {name: b"".join(chunks) for name, chunks in made_of.items()}
            found = content_of(session, manifest)
            if manifest.status == "partial":
                expected = {name: expected[name] for name in found}
            assert found == expected, f"manifest {manifest.id.hex()[:12]} restores something else"

    def run(self, kills: int) -> None:
        """Kill so many processes. Raises AssertionError if one found or left something wrong."""
        started = time.monotonic()
        self.wait(self.fork(self.write, 1))
        window = max(time.monotonic() - started, 0.02)
        running: list[tuple[float, int, int]] = []
        hosts = set(range(1, AT_ONCE + 1))
        while self.kills < kills:
            while len(running) < AT_ONCE:
                work = self.choice.choice(
                    (self.write, self.write, self.prune, self.prune, self.prune, self.forget)
                )
                host = hosts.pop()
                moment = time.monotonic() + self.choice.uniform(0, window)
                running.append((moment, self.fork(work, host), host))
            moment, child, host = running.pop(running.index(min(running)))
            time.sleep(max(0.0, moment - time.monotonic()))
            os.kill(child, signal.SIGKILL)  # it may be over: it is ours until we wait for it
            # Whatever else the machine has to do: about two of three die, at all moments of their lives.
            window *= 1.06 if self.wait(child) == -signal.SIGKILL else 0.88
            hosts.add(host)
            if self.kills % KILLS_TO_A_JUDGEMENT == 0:
                self.wait(self.fork(self.judge, 1000 + self.kills), may_fail=False)
        for _, child, _ in running:
            self.wait(child)
        for work, host in ((self.write, 1), (self.prune, 2), (self.prune, 2), (self.judge, 0)):
            self.wait(self.fork(work, host), may_fail=work == self.prune)

    def wait(self, child: int, *, may_fail: bool = True) -> int:
        """Wait for the end of a process, judge it and return its exit status."""
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.kills += status == -signal.SIGKILL
        self.ends += status == 0
        self.refusals += status == 1
        allowed = (0, 1, -signal.SIGKILL) if may_fail else (0,)
        assert status in allowed, f"a process ended with {status}"
        return status


def main(args: list[str]) -> int:
    """Do what the command line asks for."""
    location, folder, kills, seed = args
    nursery = Nursery(location, Path(folder), int(seed))
    nursery.run(int(kills))
    print(json.dumps({"kills": nursery.kills, "ends": nursery.ends, "refusals": nursery.refusals}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
