"""64 writers at once on three hot rows: what is left is what ledger, lines and holds say."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest
from callers import keyed
from conftest import Stack
from market import KNOWN, Market, new_order, stamp, trading_at
from samples import DAY
from till.v1 import lifecycle_pb2, stock_pb2

from storage import ids

WRITERS = 64
TOP = 40
REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    # A unit that 63 others keep overtaking on a server's rows is given back, not half done.
    grpc.StatusCode.UNAVAILABLE,
)
"""Not enough, or too late: the time until which to hold is over when the call comes."""
Act = Callable[[], Awaitable[None]]


class Writer:
    """Orders, cancels, holds, lets expire, confirms, releases and adjusts at random."""

    def __init__(self, market: Market, options: list[str], seed: int) -> None:
        self._market, self._options = market, options
        self._random = random.Random(seed)
        self._orders: list[int] = []
        self._holds: list[str] = []
        self.told: Counter[str] = Counter()

    async def write_until(self, deadline: float) -> None:
        """Does one thing after another; a refusal is an answer, anything else is not."""
        acts: list[Act] = [self._order, self._order, self._cancel, self._hold, self._end]
        while time.monotonic() < deadline:
            act = self._random.choice([*acts, self._adjust])
            try:
                await act()
                self.told[act.__name__] += 1
            except grpc.RpcError as error:
                assert error.code() in REFUSALS, error
                self.told["refused"] += 1

    def _lines(self) -> list[tuple[str, int]]:
        """Returns lines that name a row more than once, in any order."""
        names = self._random.choices(self._options, k=self._random.randint(1, 4))
        return [(name, self._random.randint(1, 3)) for name in names]

    async def _order(self) -> None:
        hold_id = self._holds.pop() if self._holds and self._random.random() < 0.5 else ""
        asked = new_order(*self._lines(), hold_id=hold_id)
        made = await self._market.orders.CreateOrder(asked, metadata=tuple(keyed().items()))
        self._orders.append(made.order_id)

    async def _cancel(self) -> None:
        if self._orders:
            number = self._orders.pop(self._random.randrange(len(self._orders)))
            asked = lifecycle_pb2.CancelOrderRequest(order_id=number)
            twice = [self._market.lifecycle.CancelOrder(asked, metadata=KNOWN) for _ in range(2)]
            await asyncio.gather(*twice)

    async def _hold(self) -> None:
        until = ids.now_ms() + self._random.choice((20, 100, 500))
        asked = stock_pb2.HoldStockRequest(expire_time=stamp(until))
        for option, units in self._lines():
            asked.lines.add(option_code=option, date=DAY, quantity=units)
        made = await self._market.stock.HoldStock(asked, metadata=KNOWN)
        self._holds.append(made.hold_id)

    async def _end(self) -> None:
        if self._holds:
            asked = stock_pb2.ReleaseHoldRequest(hold_id=self._holds.pop())
            later = stock_pb2.ExtendHoldRequest(
                hold_id=asked.hold_id, expire_time=stamp(ids.now_ms() + 20)
            )
            with suppress(grpc.RpcError):
                await self._market.stock.ExtendHold(later, metadata=KNOWN)
            await self._market.stock.ReleaseHold(asked, metadata=KNOWN)

    async def _adjust(self) -> None:
        asked = stock_pb2.AdjustInventoryRequest(
            option_code=self._random.choice(self._options),
            date=DAY,
            delta=self._random.choice((-3, -1, 1, 3)),
        )
        await self._market.stock.AdjustInventory(asked, metadata=KNOWN)


async def write(address: str, options: list[str], seconds: float) -> Counter[str]:
    """Lets every writer write for so many seconds; returns what they were told."""
    async with grpc.aio.insecure_channel(address) as channel:
        writers = [Writer(Market(channel), options, seed) for seed in range(WRITERS)]
        deadline = time.monotonic() + seconds
        await asyncio.gather(*(writer.write_until(deadline) for writer in writers))
    return sum((writer.told for writer in writers), Counter())


def ordered_lines(market: Market) -> Counter[str]:
    """Returns the units that the lines of orders that are not cancelled take, by option."""
    units: Counter[str] = Counter()
    token = ""
    while True:
        asked = lifecycle_pb2.ListOrdersRequest(page_size=1000, page_token=token)
        page = market.lifecycle.ListOrders(asked, metadata=KNOWN)
        for order in page.orders:
            for line in order.line_items if order.status != order.CANCELLED else ():
                units[line.option_code.value] += line.quantity
        if not (token := page.next_page_token):
            return units


def ledger_sums(market: Market, option: str) -> Counter[str]:
    """Returns the counters of an option as the sums of its ledger, which is told without a jump."""
    code, token = market.row(option).inventory_code, ""
    sums: Counter[str] = Counter()
    first: dict[str, Any] = {}
    while True:
        asked = stock_pb2.ListInventoryLedgerRequest(
            inventory_code=code, page_size=1000, page_token=token
        )
        page = market.stock.ListInventoryLedger(asked, metadata=KNOWN)
        for entry in page.movements:
            later = first.get(entry.counter)
            assert later is None or later.before == entry.after, (later, entry)
            assert min(entry.before, entry.after) >= 0
            first[entry.counter] = entry
            sums[entry.counter] += entry.delta
        if not (token := page.next_page_token):
            return sums


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_no_crowd_can_oversell(fresh_stack: Stack, seconds: int) -> None:
    with trading_at(fresh_stack.grpc) as market:
        options = [market.open(TOP)[0] for _ in range(3)]

        told = asyncio.run(write(fresh_stack.grpc, options, seconds))

        assert {"_order", "_cancel", "_hold", "_end", "_adjust", "refused"} <= set(told), told
        time.sleep(0.6)  # every hold that is left has ended then
        lines = ordered_lines(market)
        for option in options:
            top, ordered, held, remain = market.left(option)
            assert (held, ordered) == (0, lines[option])
            assert remain == top - ordered >= 0
            assert ledger_sums(market, option) == Counter(max=top, ordered=ordered, held=0)
