"""One line per call: JSON for machines, readable at a terminal."""

import asyncio
import atexit
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

GATHER_SECONDS = 0.02
"""How long the lines of calls wait for each other."""
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
_calls = structlog.get_logger("till.call")


def configure() -> None:
    """Sends structlog, and what libraries log as warnings, to standard output."""
    global _tell
    people = sys.stdout.isatty()
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Any] = [structlog.processors.add_log_level, stamp]
    if people:
        # The default shows the local variables of every frame, a caller's credentials among them.
        console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        structlog.configure([*shared, console], cache_logger_on_first_use=True)
    else:
        structlog.configure(
            [
                *shared,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(orjson.dumps),
            ],
            logger_factory=structlog.BytesLoggerFactory(),
            cache_logger_on_first_use=True,
        )
        _tell = _Gathered().add
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING)


def tell_call(method: str, code: str, ms: float, client: str, request_id: str) -> None:
    """Writes the one line of a call; on the event loop."""
    _tell(method, code, ms, client, request_id)


def _tell_people(method: str, code: str, ms: float, client: str, request_id: str) -> None:
    _calls.info(
        "call", method=method, code=code, ms=round(ms, 2), client=client, request_id=request_id
    )


class _Gathered:
    """The lines of calls, as structlog would write them, many at a time: one at a time each would
    find the processor's caches cold, and cost ten times as much.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str, float, str, str, float]] = []
        atexit.register(self.write)

    def add(self, method: str, code: str, ms: float, client: str, request_id: str) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.write)
        self._waiting.append((method, code, ms, client, request_id, time.time()))

    def write(self) -> None:
        waiting, self._waiting = self._waiting, []
        sys.stdout.buffer.write(b"".join(_line(*call) for call in waiting))
        sys.stdout.buffer.flush()


def _line(
    method: str, code: str, ms: float, client: str, request_id: str, at_seconds: float
) -> bytes:
    facts = {
        "method": method,
        "code": code,
        "ms": round(ms, 2),
        "client": client,
        "request_id": request_id,
        "event": "call",
        "level": "info",
        "timestamp": datetime.fromtimestamp(at_seconds, UTC),
    }
    return orjson.dumps(facts, option=_OPTIONS)


_tell: Callable[[str, str, float, str, str], None] = _tell_people


class _Forward(logging.Handler):
    """Hands a library's record to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), exc_info=record.exc_info
        )
