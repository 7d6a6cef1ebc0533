"""`till serve` as a process of its own, without Envoy: its log, its signals, its end."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from callers import Stubs
from conftest import PATIENCE_SECONDS, ROOT, environment, eventually
from invariants import assert_invariants
from ports import free_ports


class Alone:
    """A server process over a database, and stubs for it."""

    def __init__(self, url: str, log: Path, **settings: str) -> None:
        self.url, self._log = url, log
        (port,) = free_ports(1)
        given = {"database": url, "grpc_address": f"127.0.0.1:{port}"}
        told = {f"TILL_{name.upper()}": value for name, value in (given | settings).items()}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "serve"],
                cwd=ROOT,
                env=environment() | told,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stubs = Stubs.as_operator(self.channel)

    def wait(self) -> None:
        """Returns once the server serves."""
        eventually(self._assert_serving)

    def _assert_serving(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{self.text()}")
        assert self.lines("serving")
        grpc.channel_ready_future(self.channel).result(PATIENCE_SECONDS)

    def text(self) -> str:
        """Returns what the server has printed."""
        return self._log.read_text("utf-8")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Returns the log's lines of an event; every line must be JSON."""
        whole = self.text().rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    def calls(self, **wanted: str) -> list[dict[str, Any]]:
        """Returns the lines of calls that look like this, once there is one."""

        def found() -> list[dict[str, Any]]:
            lines = [line for line in self.lines("call") if wanted.items() <= line.items()]
            assert lines, self.text()
            return lines

        return eventually(found)

    def terminate(self) -> int:
        """Ends the server as SIGTERM does and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def alone(url: str, folder: Path, name: str = "till", **settings: str) -> Iterator[Alone]:
    """Runs a server over the order book at a URL, with its log in a folder; what the book holds at
    the end must be right.
    """
    server = Alone(url, folder / f"{name}.log", **settings)
    try:
        server.wait()
        yield server
    finally:
        server.channel.close()
        server.process.kill()
        server.process.wait()
    assert_invariants(url)
