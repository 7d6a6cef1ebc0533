"""Batches: jobs are collected on the event loop and run by threads, many at a time, because what a
batch pays once (a commit, a turn of the interpreter) a job alone pays too.
"""

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from storage.row import DB
from storage.unit import Job

LOOK_SECONDS = 0.002
"""How often a batch that waits is looked at."""
QUIET_SECONDS = 0.004
"""How long nobody must come for a batch to wait for nobody."""
LATE_SECONDS = 0.001
"""A timer that comes as late as this says that the loop was at work, and heard nobody."""
STALL_SECONDS = 0.05
"""How long jobs wait for a batch at work before another thread takes them."""


class Batches:
    """Threads that run batches, and the jobs that wait for one; made on the event loop."""

    def __init__(
        self,
        run: Callable[[list[Job]], None],
        *,
        threads: int,
        size_max: int,
        linger_seconds: float,
        name: str,
        busy_share: float = 0.0,
    ) -> None:
        """`run` leaves in every job of a batch its result or its error.

        A batch waits `linger_seconds` at most for as many jobs as there are callers, and not while
        the process uses less than `busy_share` of a core: it then has time for small ones.
        """
        self._loop = asyncio.get_running_loop()
        self._run, self._size_max = run, size_max
        self._linger, self._busy_share = linger_seconds, busy_share
        self._waiting: list[Job] = []
        self._expected = 1
        self._idle = threads
        self._timer: asyncio.TimerHandle | None = None
        self._until = self._heard = self._looked = self._spent = 0.0
        self._noted = 0
        self.calls = 0
        """Counts whatever the engine is asked for: while that moves, more jobs may come."""
        self._handover: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._drain, name=name, daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs are in no batch yet."""
        return len(self._waiting)

    def put(self, job: Job) -> None:
        """Takes a job; it is settled once it has run, or never will."""
        self.calls += 1
        self._waiting.append(job)
        self._consider()

    async def close(self) -> None:
        """Runs what waits, then ends."""
        while self._waiting or self._busy():
            await asyncio.sleep(0.005)
        for _ in self._threads:
            self._handover.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _consider(self) -> None:
        """Hands batches over, or lets one grow for a moment while a crowd is coming."""
        while self._idle and len(self._waiting) >= self._enough():
            self._hand_over()
        if self._idle and self._waiting and self._timer is None:
            now = self._loop.time()
            self._until = now + (STALL_SECONDS if self._busy() else self._linger)
            self._noted, self._heard = self.calls, now
            self._wait(now)

    def _wait(self, now: float) -> None:
        self._looked, self._spent = now, time.process_time()
        self._timer = self._loop.call_at(now + LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Hands the batch over when nobody has come for a while, or it has waited long enough. A
        loop that is late was at work: whoever came meanwhile was not heard.
        """
        now = self._loop.time()
        if self.calls != self._noted or now > self._looked + LOOK_SECONDS + LATE_SECONDS:
            self._noted, self._heard = self.calls, now
        crowd = now - self._heard < QUIET_SECONDS and not self._has_time(now - self._looked)
        if (crowd or self._busy()) and now < self._until:
            self._wait(now)
        else:
            self._hand_over()

    def _has_time(self, seconds: float) -> bool:
        """Says whether the process used so little of the last seconds that waiting only delays."""
        return time.process_time() - self._spent < self._busy_share * seconds

    def _busy(self) -> bool:
        return self._idle < len(self._threads)

    def _enough(self) -> int:
        """Returns how many jobs need not wait for more: a second thread at work costs both of them,
        so it begins with a whole batch, or when the first is held up.
        """
        return self._size_max if self._busy() else max(1, min(self._expected, self._size_max))

    def _hand_over(self) -> None:
        self._stop_timer()
        batch, self._waiting = self._waiting[: self._size_max], self._waiting[self._size_max :]
        self._idle -= 1
        self._handover.put(batch)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _done(self, batch: list[Job]) -> None:
        self._idle += 1
        # Whoever is answered now will soon come again: the crowd is they and those who wait. A
        # batch as large as the last one would stay small for ever once it was small.
        self._expected = len(batch) + len(self._waiting)
        for job in batch:
            job.settle()
        self._stop_timer()
        self._consider()

    def _drain(self) -> None:
        """A thread: takes batches until it is handed None."""
        _go_first()
        while (batch := self._handover.get()) is not None:
            try:
                self._run(batch)
            except (
                BaseException
            ) as error:  # a mistake in the code: a thread that ends would hang all
                for job in batch:
                    job.error = error
                DB.close()
            with suppress(RuntimeError):  # the loop was closed under us: nobody is left to answer
                self._loop.call_soon_threadsafe(self._done, batch)
        DB.close()


def _go_first() -> None:
    """Lets this thread have the core as soon as there is work for it, whatever the others may do:
    many callers wait for it, and it is done in a moment.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
