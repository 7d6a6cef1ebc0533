"""Identifiers made by the application, so that no database counter is a hot spot."""

import os
import threading
import time
from datetime import UTC, datetime

_EPOCH_MS = 1_767_225_600_000  # 2026-01-01
_SEQUENCE_BITS = 10  # 1024 a millisecond; below 10^15, where doubles get exponents, until 2056
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


def new_token() -> str:
    """Returns 32 hexadecimal digits, ordered by time and not to be guessed."""
    return f"{now_ms():012x}{os.urandom(10).hex()}"
