"""A market to test stock in: options with stock on DAY, and the calls that move it, as an operator
and a customer make them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import grpc
import pytest
from callers import CALLER, keyed
from google.protobuf.timestamp_pb2 import Timestamp
from inside import serving
from samples import DAY
from till.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    lifecycle_pb2_grpc,
    order_pb2,
    order_pb2_grpc,
    stock_pb2,
    stock_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from storage import ids

KNOWN = tuple(CALLER.items())
Left = tuple[int, int, int, int]
"""(max, ordered, held, remain) of a row."""


class Clock:
    """The one clock there is, stopped; it moves when it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ms = time.time_ns() // 1_000_000
        patch.setattr(time, "time_ns", lambda: self.ms * 1_000_000)


def stamp(ms: int) -> Timestamp:
    """Returns a time as messages carry it."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


class Market:
    """Stock and its calls, over one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.stock: Any = stock_pb2_grpc.StockServiceStub(channel)
        self.lifecycle: Any = lifecycle_pb2_grpc.LifecycleServiceStub(channel)
        self.orders: Any = order_pb2_grpc.OrderServiceStub(channel)
        self.inventory: Any = inventory_pb2_grpc.InventoryServiceStub(channel)
        self.stores: Any = store_pb2_grpc.StoreServiceStub(channel)

    def open(self, *units: int, product_code: str = "") -> list[str]:
        """Puts so many units of new options of one new product up for sale; returns the options."""
        options = [store_pb2.ProductOption(option_code=str(uuid4())) for _ in units]
        made = store_pb2.Product(product_code=product_code, options=options)
        self.stores.CreateProduct(store_pb2.CreateProductRequest(product=made), metadata=KNOWN)
        codes = [option.option_code for option in options]
        for code, top in zip(codes, units, strict=True):
            self.put_up(code, top)
        return codes

    def put_up(self, option: str, units: int, date: str = DAY) -> Any:
        """Sets the maximum of a row; returns the row."""
        row = inventory_pb2.SetInventory(option_code=option, date=date)
        row.max_quantity.value = units
        asked = inventory_pb2.BatchSetInventoryRequest(rows=[row])
        return self.inventory.BatchSetInventory(asked, metadata=KNOWN).rows[0]

    def row(self, option: str) -> Any:
        """Returns the first row of an option, which must have one."""
        asked = stock_pb2.ListInventoryRequest(option_code=option, page_size=1)
        rows = self.stock.ListInventory(asked, metadata=KNOWN).rows
        assert rows, f"no row of {option}"
        return rows[0]

    def left(self, option: str) -> Left:
        """Returns the counters of an option's first row."""
        return counters(self.row(option))

    def hold(self, *lines: tuple[str, int], until: int = 0, key: str = "") -> Any:
        """Holds units until a time, or for a minute."""
        asked = stock_pb2.HoldStockRequest(expire_time=stamp(until or ids.now_ms() + 60_000))
        for option, units in lines:
            asked.lines.add(option_code=option, date=DAY, quantity=units)
        known = keyed(key) if key else CALLER
        return self.stock.HoldStock(asked, metadata=tuple(known.items()))

    def get(self, hold_id: str) -> Any:
        """Returns a hold."""
        return self.stock.GetHold(stock_pb2.GetHoldRequest(hold_id=hold_id), metadata=KNOWN)

    def confirm(self, hold_id: str) -> Any:
        """Confirms a hold."""
        return self.stock.ConfirmHold(stock_pb2.ConfirmHoldRequest(hold_id=hold_id), metadata=KNOWN)

    def release(self, hold_id: str) -> Any:
        """Releases a hold."""
        return self.stock.ReleaseHold(stock_pb2.ReleaseHoldRequest(hold_id=hold_id), metadata=KNOWN)

    def extend(self, hold_id: str, until: int) -> Any:
        """Extends a hold."""
        asked = stock_pb2.ExtendHoldRequest(hold_id=hold_id, expire_time=stamp(until))
        return self.stock.ExtendHold(asked, metadata=KNOWN)

    def adjust(self, option: str, key: str = "", **change: Any) -> Any:
        """Adjusts the maximum of a row."""
        asked = stock_pb2.AdjustInventoryRequest(option_code=option, date=DAY, **change)
        known = keyed(key) if key else CALLER
        return self.stock.AdjustInventory(asked, metadata=tuple(known.items()))

    def order(self, *lines: tuple[str, int], hold_id: str = "", **more: Any) -> Any:
        """Orders units of options on DAY."""
        asked = new_order(*lines, hold_id=hold_id, **more)
        return self.orders.CreateOrder(asked, metadata=tuple(keyed().items()))

    def ledger(self, option: str) -> list[Any]:
        """Returns every movement of an option's first row, the oldest first."""
        asked = stock_pb2.ListInventoryLedgerRequest(
            inventory_code=self.row(option).inventory_code, page_size=1000
        )
        return self.stock.ListInventoryLedger(asked, metadata=KNOWN).movements[::-1]


def new_order(*lines: tuple[str, int], **more: Any) -> order_pb2.CreateOrderRequest:
    """Returns an order of units of options on DAY."""
    people = ("requester_id", "user_id", "facility_id", "shipping_address_id", "billing_address_id")
    known = dict.fromkeys(people, 1) | more
    asked = order_pb2.CreateOrderRequest(shipping_method="GROUND", **known)
    for option, units in lines:
        asked.quote_items.add(option_code=option, date=DAY, quantity=units)
    return asked


def counters(row: Any) -> Left:
    """Returns the counters of a row."""
    return row.max_quantity, row.ordered_quantity, row.held_quantity, row.remain_quantity


def detail(status: Any, kind: Any) -> Any:
    """Returns the detail of this kind."""
    found = kind()
    assert any(packed.Unpack(found) for packed in status.details), status
    return found


@contextmanager
def trading(url: str) -> Iterator[Market]:
    """Serves a market, in this process and without Envoy, over an empty database."""
    with serving(url) as served:
        yield Market(served.channel)


@contextmanager
def trading_at(address: str) -> Iterator[Market]:
    """Opens a market at an address."""
    with grpc.insecure_channel(address) as channel:
        yield Market(channel)
