"""Identifiers made by the application, so that no database counter is a hot spot."""

import os
import threading
import time

_EPOCH_MS = 1_577_836_800_000  # 2020-01-01: 41 bits of milliseconds last until 2089
_SEQUENCE_BITS = 12  # 4096 a millisecond; together below 2^53, exact as a JSON number
_lock = threading.Lock()
_last = 0


def now_ms() -> int:
    """Returns the time in epoch milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def new_id() -> int:
    """Returns an integer below 2^53, greater than the ones this process made before.

    The first of each millisecond is random, so that two processes rarely meet; when they do, the
    primary key refuses the second and the engine runs its unit again.
    """
    global _last
    random = int.from_bytes(os.urandom(2)) >> 5
    candidate = ((now_ms() - _EPOCH_MS) << _SEQUENCE_BITS) | random
    with _lock:
        _last = max(candidate, _last + 1)
        return _last


def new_token() -> str:
    """Returns 32 hexadecimal digits, ordered by time and not to be guessed."""
    return f"{now_ms():012x}{os.urandom(10).hex()}"
