"""Identifiers made by the application, so that no database counter is a hot spot."""

import os
import secrets
import threading
import time
from datetime import UTC, datetime

_EPOCH_MS = 1_767_225_600_000  # 2026-01-01
_SEQUENCE_BITS = 10  # 1024 a millisecond; below 10^15, where doubles get exponents, until 2056
_LEAP_MAX = 13  # doublings of a millisecond: eight seconds
_lock = threading.Lock()
_last = 0


def now_ms() -> int:
    """Returns the time in epoch milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def now_text() -> str:
    """Returns the time as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_id() -> int:
    """Returns an integer below 2^53, greater than the ones this process made before.

    The first of each millisecond is random, so that two processes rarely meet; when they do, the
    primary key refuses the second and the engine runs its unit again.
    """
    global _last
    random = int.from_bytes(os.urandom(1))
    candidate = ((now_ms() - _EPOCH_MS) << _SEQUENCE_BITS) | random
    with _lock:
        _last = max(candidate, _last + 1)
        return _last


def after(previous: int) -> int:
    """Returns a new id that is greater than a former one, though that may be another process's
    whose clock is ahead.
    """
    go_on_behind(previous)
    return new_id()


def go_on_behind(greatest: int) -> None:
    """Lets the ids to come be greater than this one, though the clock may have been set back."""
    global _last
    with _lock:
        _last = max(_last, greatest)


def leap(tries: int) -> None:
    """Leaves ids out, the more the more often a unit has run: while the clock is behind, ids go
    through those that other processes made, and one after the other they would take too long.
    """
    global _last
    with _lock:
        _last += secrets.randbelow(1 << (_SEQUENCE_BITS + min(tries, _LEAP_MAX)))


def new_token() -> str:
    """Returns 32 hexadecimal digits, ordered by time and not to be guessed."""
    return f"{now_ms():012x}{os.urandom(10).hex()}"
