"""Writes go first: where calls stand in line, a read waits while writes pass through the loop.

A write waits for its commit besides, so that with every call in its turn it takes twice as long as
a read. Reads have the loop while the writes are with the database.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

READS = 8
"""Reads that begin at a time once writes have passed."""
WRITES = 1
"""Writes in the loop that hold up no read: a server with little to do takes calls as they come."""
LOOK_SECONDS = 0.002
"""How often it is looked whether the writes have passed."""
HELD_SECONDS = 0.1
"""How long a read is held at most, however many writes there are."""


def writes(methods: Iterable[str]) -> set[str]:
    """Returns those of these methods that change the book, by what Till's protos declare."""
    return {name for name in methods if name.startswith("/till.") and _has_side_effects(name)}


def _has_side_effects(method: str) -> bool:
    declared = descriptor_pool.Default().FindMethodByName(method[1:].replace("/", "."))
    level: int = declared.GetOptions().idempotency_level
    return level != MethodOptions.NO_SIDE_EFFECTS


class Turns:
    """The reads that are held, and how many writes have begun; made on the event loop."""

    def __init__(self, away: Callable[[], int]) -> None:
        """`away` counts the writes that are with the database; one too many, such as a unit that
        no call asked for, only lets a read go sooner.
        """
        self._loop = asyncio.get_running_loop()
        self._away = away
        self._held: deque[tuple[float, Callable[[], None]]] = deque()
        self.writes = 0
        """Writes that have begun and not ended; whoever begins and ends them keeps it."""

    def read(self, begin: Callable[[], None]) -> None:
        """Begins a read, now or when its turn has come."""
        if not self._held and self._passed():
            begin()
            return
        if not self._held:
            self._look_later()
        self._held.append((self._loop.time(), begin))

    def _passed(self) -> bool:
        return self.writes - self._away() <= WRITES

    def _look_later(self) -> None:
        self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Begins a few reads if the writes have passed, and those that were held long enough."""
        some = READS if self._passed() else 0
        late = self._loop.time() - HELD_SECONDS
        while self._held and (some > 0 or self._held[0][0] < late):
            self._held.popleft()[1]()
            some -= 1
        if self._held:
            self._look_later()
