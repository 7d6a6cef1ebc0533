"""One line per call: JSON for machines, readable at a terminal."""

import logging
import sys
from typing import Any

import orjson
import structlog


def configure() -> None:
    """Sends structlog, and what libraries log as warnings, to standard output."""
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
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING)


class _Forward(logging.Handler):
    """Hands a library's record to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), exc_info=record.exc_info
        )
