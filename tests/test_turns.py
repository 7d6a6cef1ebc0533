"""Writes go first, and reads have their turn all the same."""

import asyncio
from collections import Counter

import pytest

from server import turns
from server.turns import HELD_SECONDS, LOOK_SECONDS, READS, WRITES, Turns, writes

LOOKS = 5 * LOOK_SECONDS


class Calls:
    """Reads that come one after the other, and which of them have begun, in which turn of the
    loop.
    """

    def __init__(self, away: int = 0) -> None:
        self.turns = Turns(lambda: away)
        self.begun: list[int] = []
        self.turn_of: list[int] = []
        self._come = self._turn = 0
        self._count()

    def read(self) -> None:
        """One more read comes."""
        number, self._come = self._come, self._come + 1

        def begin() -> None:
            self.begun.append(number)
            self.turn_of.append(self._turn)

        self.turns.read(begin)

    async def all_begun(self) -> None:
        """Waits until every read that came has begun."""
        while len(self.begun) < self._come:
            await asyncio.sleep(0)

    def _count(self) -> None:
        self._turn += 1
        asyncio.get_running_loop().call_soon(self._count)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are held for as long as writes pass."""
    monkeypatch.setattr(turns, "HELD_SECONDS", 60.0)


def test_a_read_begins_at_once_beside_a_single_write() -> None:
    async def act() -> None:
        calls = Calls()
        calls.turns.writes = WRITES
        calls.read()
        assert calls.begun == [0]

    asyncio.run(act())


@pytest.mark.usefixtures("patient")
def test_a_read_waits_until_the_writes_have_passed() -> None:
    async def act() -> None:
        calls = Calls()
        calls.turns.writes = WRITES + 1
        calls.read()
        await asyncio.sleep(LOOKS)
        assert calls.begun == []
        calls.turns.writes = WRITES
        await asyncio.sleep(LOOKS)
        assert calls.begun == [0]

    asyncio.run(act())


def test_writes_that_are_with_the_database_hold_up_no_read() -> None:
    async def act() -> None:
        few, many = Calls(away=4), Calls(away=5)
        for calls in (few, many):
            calls.turns.writes = WRITES + 5
            calls.read()
        assert (few.begun, many.begun) == ([], [0])

    asyncio.run(act())


@pytest.mark.usefixtures("patient")
def test_held_reads_begin_a_few_at_a_time_in_their_order() -> None:
    async def act() -> None:
        calls = Calls()
        calls.turns.writes = WRITES + 1
        for _ in range(2 * READS + 1):
            calls.read()
        calls.turns.writes = 0
        calls.read()  # nothing is in its way but those that are held
        await calls.all_begun()
        assert calls.begun == list(range(2 * READS + 2))
        assert list(Counter(calls.turn_of).values()) == [READS, READS, 2]

    asyncio.run(act())


def test_a_read_is_held_a_tenth_of_a_second_at_most() -> None:
    async def act() -> None:
        loop, calls = asyncio.get_running_loop(), Calls()
        calls.turns.writes = WRITES + 1
        started = loop.time()
        calls.read()
        await asyncio.wait_for(calls.all_begun(), 10)
        assert loop.time() - started >= HELD_SECONDS

    asyncio.run(act())


def test_what_has_side_effects_by_its_proto_is_a_write() -> None:
    orders, operations = "/till.v1.OrderService/", "/google.longrunning.Operations/"
    reads = {orders + "GetOrder", operations + "WaitOperation"}

    assert writes({orders + "CreateOrder"} | reads) == {orders + "CreateOrder"}
