"""The database is killed and restarted while a stack is under load; slow, so apart from the other
tests: `make faults`.
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from callers import keyed
from conftest import ORDER, PATIENCE_SECONDS, Stack, eventually, running
from mariadb import MariaDB
from ports import free_ports

CALLERS = 16
ROUNDS = 3
LONGEST_SECONDS = 2.0
"""How long a call may take while the database is away; what callers are promised, not a measure."""


class Load:
    """Callers that create orders under keys of their own until they are told to stop."""

    def __init__(self, stack: Stack) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.longest = 0.0
        self._stack, self._stop = stack, threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS)
        self._callers = [self._pool.submit(self._call) for _ in range(CALLERS)]

    def stop(self) -> None:
        """Returns once every caller has its last answer."""
        self._stop.set()
        for caller in self._callers:
            caller.result()
        self._pool.shutdown()

    def _call(self) -> None:
        url = str(self._stack.rest.base_url)
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as rest:
            while not self._stop.is_set():
                self._create(rest, str(uuid4()))

    def _create(self, rest: httpx.Client, key: str) -> None:
        began = time.monotonic()
        answer = rest.post("/orders", json=ORDER, headers=keyed(key))
        self.longest = max(self.longest, time.monotonic() - began)
        if answer.status_code == 200:
            self.acknowledged[key] = answer.json()["orderId"]
        else:
            self.refused[key] = answer.status_code
            time.sleep(0.02)


def create(stack: Stack, key: str) -> int:
    """Creates the order of a key and returns its id; fails when it is not acknowledged."""
    answer = stack.rest.post("/orders", json=ORDER, headers=keyed(key))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["orderId"])


def killed(server: MariaDB) -> None:
    """A crash of the database, and its recovery."""
    server.stop(signal.SIGKILL)
    time.sleep(random.uniform(0, 0.5))
    server.start()


def restarted(server: MariaDB) -> None:
    """A restart in order."""
    server.stop(signal.SIGTERM)
    server.start()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("harm", [killed, restarted])
def test_nothing_acknowledged_is_lost_and_every_refusal_heals(
    harm: Callable[[MariaDB], None], tmp_path: Path
) -> None:
    (tmp_path / "mariadb").mkdir()
    server = MariaDB(tmp_path / "mariadb", *free_ports(1))
    try:
        with running(tmp_path, {"TILL_DATABASE": server.database("till")}) as stack:
            load = Load(stack)
            for _ in range(ROUNDS):
                time.sleep(1)
                before = len(load.acknowledged)
                harm(server)
                eventually(lambda was=before: assert_more(load, was))
            load.stop()

            assert set(load.refused.values()) <= {503}
            healed = {key: eventually(lambda k=key: create(stack, k)) for key in load.refused}
            again = {key: create(stack, key) for key in load.acknowledged}
            assert again == load.acknowledged
            keys = len(load.acknowledged) + len(healed)
            assert stack.count("orders") == keys
            assert len({*again.values(), *healed.values()}) == keys
            assert load.longest < LONGEST_SECONDS
    finally:
        server.stop(signal.SIGKILL)


def assert_more(load: Load, before: int) -> None:
    """Asserts that orders are acknowledged again."""
    assert len(load.acknowledged) > before + CALLERS
