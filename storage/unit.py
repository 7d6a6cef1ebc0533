"""A unit of work on its way to the database, whichever that is, and what became of it."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from storage import event, once
from storage.errors import Overloaded

T = TypeVar("T")

DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)
"""The time.monotonic() at which the caller stops waiting; whoever takes a call in sets it."""

_unit = threading.local()


class Job:
    """A unit that waits, and what became of it."""

    __slots__ = (
        "claimed",
        "deadline",
        "doubt",
        "error",
        "events",
        "future",
        "learned",
        "result",
        "since",
        "unit",
    )

    def __init__(self, unit: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.unit, self.future = unit, future
        self.since, self.deadline = time.monotonic(), DEADLINE.get()
        self.result: Any = None
        self.error: BaseException | None = None
        self.events: list[event.Waiting] = []
        self.learned: list[Callable[[], None]] = []
        self.claimed = self.doubt = False
        """Whether the unit came to a claim; whether it may have been committed, or may not."""

    def wanted(self) -> bool:
        """Says whether the caller is still there and has time; any thread may ask before it begins
        the unit.
        """
        if time.monotonic() > self.deadline:
            self.error = Overloaded("the caller's time was over before the write began")
        return self.error is None and not self.future.cancelled()

    def forget(self) -> None:
        """Is as before its unit ran; that run was undone with others'."""
        self.error, self.events, self.learned = None, [], []

    def committed(self) -> None:
        """Lets the unit remember what is true from now on."""
        for action in self.learned if self.error is None else ():
            action()

    def settle(self) -> None:
        """Answers the caller, unless it has gone; runs on the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def perform(job: Job) -> None:
    """Runs a job's unit inside the transaction that is open on this thread, and keeps what becomes
    of it. Raises what the unit raises.
    """
    once.begin()
    event.begin()
    _unit.learned = job.learned = []
    try:
        job.result, job.error = job.unit(), None
        job.events = event.collected()
    finally:
        job.claimed = once.claimed()


def after_commit(action: Callable[[], None]) -> None:
    """Lets a unit remember something that is true only once it is on disk."""
    _unit.learned.append(action)
