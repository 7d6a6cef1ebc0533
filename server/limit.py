"""Limits that keep one caller from starving the others, and all of them from drowning the
server.
"""

import math
import time
from typing import TypeVar

from server.errors import RateLimited
from storage.errors import Overloaded

K = TypeVar("K")
V = TypeVar("V")
BUCKETS_MAX = 10_000
"""Buckets remembered; the one that was used longest ago is forgotten, which fills it."""


def keep(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Remembers a value as the newest of `most`; one more, and the oldest is forgotten."""
    known.pop(key, None)
    known[key] = value
    if len(known) > most:
        del known[next(iter(known))]


class Limits:
    """A token bucket for every client, and a bound on the calls in flight."""

    def __init__(self, rate_per_second: float, burst: int, calls_max: int) -> None:
        self._rate, self._calls_max = rate_per_second, calls_max
        self._burst = max(1, burst or math.ceil(2 * rate_per_second))
        self._buckets: dict[str, tuple[float, float]] = {}
        self._calls = 0

    def enter(self) -> None:
        """Counts a call in. Raises Overloaded when there are too many."""
        if self._calls >= self._calls_max:
            raise Overloaded("the server has too many calls in flight")
        self._calls += 1

    def leave(self) -> None:
        """Counts a call out that was counted in."""
        self._calls -= 1

    def spend(self, client: str) -> None:
        """Takes one token of a client. Raises RateLimited, saying when there will be one again."""
        now = time.monotonic()
        tokens, filled = self._buckets.get(client, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - filled) * self._rate)
        keep(self._buckets, client, (tokens - 1 if tokens >= 1 else tokens, now), BUCKETS_MAX)
        if tokens < 1:
            raise RateLimited(self._burst, (1 - tokens) / self._rate)
