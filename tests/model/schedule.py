"""The schedule: simulated processes take turns at the storage, in an order that a seed decides.

Each process is a thread that runs only while it holds the baton. At every request to the storage it may have to hand it
over, and then another one goes on from where it stood. So there is one order of all requests, and the seed gives the same
one again. A process that is killed gets a PowerCut from the request it stands before, and from all after it.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path

from model.inline import Surroundings
from support.simulated_storage import PowerCut

STICKINESS = (0.0, 0.5, 0.9, 0.98)
"""How likely a process goes on without handing over; one of them for a history: some interleave at every request, in
others whole runs happen between two requests of another."""


class Process:
    """One simulated process."""

    def __init__(self, schedule: "Schedule", name: str, work: Callable[["Process"], None]) -> None:
        self.schedule, self.name = schedule, name
        self.random = random.Random(schedule.random.getrandbits(64))
        self.clock_error_ns = schedule.random.choice((0, 0, -(10**15), 10**15))
        self.killed = False
        self.over = False
        self.held_up = 0
        """How many others have to end before it goes on."""
        self.dies_after = self.random.randint(1, 150) if self.random.random() < schedule.deadliness else None
        self.error: BaseException | None = None
        self.host: Path | None = None
        self.may_go = threading.Semaphore(0)
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def go_on(self) -> None:
        """Let the process run until it hands the baton back."""
        surroundings = self.schedule.surroundings
        surroundings.random, surroundings.clock_error_ns = self.random, self.clock_error_ns
        if not self._thread.ident:
            self._thread.start()
        self.may_go.release()
        self.schedule.returned.acquire()
        if self.over:
            self._thread.join()

    def pause(self, *, critical: bool = False) -> None:
        """Hand the baton over, unless the schedule lets this process go on. Raises PowerCut once it is killed.

        At a `critical` moment it may be held up: it goes on only when others have come to their end.
        """
        if self.dies_after is not None:
            self.dies_after -= 1
            self.killed |= self.dies_after < 0
        if critical and self.random.random() < self.schedule.slowness:
            self.held_up = self.random.randint(1, 4)
        if not self.killed and (self.held_up or self.schedule.random.random() >= self.schedule.stickiness):
            self.schedule.returned.release()
            self.may_go.acquire()
        if self.killed:
            raise PowerCut

    def _run(self) -> None:
        self.may_go.acquire()
        try:
            if not self.killed:
                self._work(self)
        except PowerCut:
            self.killed = True
        except BaseException as error:
            self.error = error
        self.over = True
        self.schedule.returned.release()


class Schedule:
    """All processes of one history, and what happens beside them."""

    def __init__(self, seed: int, surroundings: Surroundings) -> None:
        self.random = random.Random(seed)
        self.surroundings = surroundings
        self.stickiness = self.random.choice(STICKINESS)
        self.slowness = self.random.choice((0.0, 0.15, 0.4))
        self.deadliness = self.random.choice((0.0, 0.1, 0.3))
        self.returned = threading.Semaphore(0)
        self.running: list[Process] = []
        self.late: list[Callable[[], None]] = []
        """Requests that somebody has given up and that are still on their way."""
        self.turns = 0

    def start(self, name: str, work: Callable[[Process], None]) -> None:
        """Add a process; it runs when its turn comes."""
        self.running.append(Process(self, name, work))

    def turn(self) -> list[Process]:
        """Let one process take its turn, or a late request arrive; return the processes that are over."""
        self.turns += 1
        if self.late and self.random.random() < 0.05:
            self.late.pop(self.random.randrange(len(self.late)))()
        if self.running:
            self.random.choice(self.awake or self.running).go_on()
        over = [process for process in self.running if process.over]
        self.running = [process for process in self.running if not process.over]
        for process in self.running:
            process.held_up = max(0, process.held_up - len(over))
        return over

    @property
    def awake(self) -> list[Process]:
        """The processes that are not held up."""
        return [process for process in self.running if not process.held_up]

    def kill_all(self) -> list[Process]:
        """End every process where it stands; return them."""
        ended = self.running
        for process in ended:
            process.killed = True
            process.go_on()
        self.running = []
        self.late.clear()
        return ended
