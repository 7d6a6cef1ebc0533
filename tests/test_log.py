"""The log: JSON for machines, readable at a terminal, and no local variables in either."""

import json
import os
import subprocess
import sys

from conftest import ROOT, environment

FAIL = """
import logging
import structlog
from server import log

def fail(metadata):
    try:
        {}[metadata]
    except KeyError as error:
        error = KeyError("told").with_traceback(error.__traceback__)
        structlog.get_logger("till").error("unexpected", exc_info=error)
        logging.getLogger("library").warning("from a library")

log.configure()
fail("a-very-" + "secret-word")
"""


def printed(out: int) -> None:
    """Logs an error in a process that prints to this file."""
    command = [sys.executable, "-c", FAIL]
    subprocess.run(command, cwd=ROOT, env=environment(), stdout=out, check=True)


def at_a_terminal() -> str:
    """Returns what a terminal shows."""
    ours, theirs = os.openpty()
    printed(theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        return terminal.read1(1 << 16).decode()


def to_a_pipe() -> str:
    """Returns what a pipe carries."""
    ours, theirs = os.pipe()
    printed(theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        return pipe.read().decode()


def test_a_machine_reads_json_lines() -> None:
    error, library = map(json.loads, to_a_pipe().splitlines())

    assert (error["event"], error["level"]) == ("unexpected", "error")
    assert error["exception"].startswith("Traceback")
    assert error["timestamp"].endswith("Z")
    assert (library["event"], library["level"]) == ("from a library", "warning")


def test_people_read_lines_without_local_variables() -> None:
    shown = at_a_terminal()

    assert "unexpected" in shown and "from a library" in shown
    assert "told" in shown
    assert "secret-word" not in shown and '{"' not in shown
