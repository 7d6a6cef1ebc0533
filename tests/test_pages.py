"""Many orders, rows and movements are read in pages that stay put while more of them come."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from conftest import Lend
from inside import refused
from market import KNOWN, Market, trading
from samples import DAY
from till.v1 import lifecycle_pb2 as pb
from till.v1 import stock_pb2
from till.v1.order_pb2 import Order


@pytest.fixture(scope="module")
def market(lend: Lend) -> Iterator[Market]:
    """A market that the tests of this module share."""
    with lend() as url, trading(url) as market:
        yield market


def listed(market: Market, between: Callable[[], object] = lambda: None, **asked: Any) -> list[int]:
    """Returns the ids of orders, read in pages; something happens between the pages."""
    found: list[int] = []
    token = ""
    while not found or token:
        page = market.lifecycle.ListOrders(
            pb.ListOrdersRequest(page_token=token, **asked), metadata=KNOWN
        )
        found += [each.order_id for each in page.orders]
        token = page.next_page_token
        between()
    return found


def test_pages_of_orders_stay_put_while_orders_come(market: Market) -> None:
    user = 77_001
    made = [market.order(user_id=user).order_id for _ in range(7)]

    def come() -> None:
        market.order(user_id=user)
        cancel(market, made[3])
        listed_once.append(True)

    listed_once: list[bool] = []
    found = listed(market, lambda: len(listed_once) < 2 and come(), customer=str(user), page_size=2)

    assert found == made[::-1]


def test_orders_are_found_by_store_customer_status_and_time(market: Market) -> None:
    made = [market.order(user_id=77_002) for _ in range(3)]
    cancel(market, made[1].order_id)
    ids = [each.order_id for each in made]
    mine = {"customer": "77002"}

    assert listed(market, status=Order.CANCELLED, **mine) == [ids[1]]
    assert listed(market, store_id=made[0].store_id, **mine) == ids[::-1]
    assert listed_none(market, store_id="elsewhere", **mine)
    assert listed_none(market, customer="7700")
    assert listed(market, created_since=made[0].create_time, **mine) == ids[::-1]
    assert listed_none(market, created_before=made[0].create_time, **mine)


def listed_none(market: Market, **asked: Any) -> bool:
    """Whether no order is like this."""
    found = market.lifecycle.ListOrders(pb.ListOrdersRequest(**asked), metadata=KNOWN)
    return not found.orders and not found.next_page_token


@pytest.mark.parametrize("seconds", [2**62, -(2**62)])
def test_a_time_beyond_all_times_is_refused(market: Market, seconds: int) -> None:
    asked = pb.ListOrdersRequest()
    asked.created_since.seconds = seconds

    code, _ = refused(lambda: market.lifecycle.ListOrders(asked, metadata=KNOWN))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("position", [10**30, -(10**30), 1.5, True, None, "5"])
def test_a_token_that_no_page_gave_is_refused(market: Market, position: object) -> None:
    asked = pb.ListOrdersRequest(page_token=b64encode(json.dumps(position).encode()).decode())

    code, _ = refused(lambda: market.lifecycle.ListOrders(asked, metadata=KNOWN))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


def cancel(market: Market, order_id: int) -> None:
    """Cancels an order; again, it changes nothing."""
    market.lifecycle.CancelOrder(pb.CancelOrderRequest(order_id=order_id), metadata=KNOWN)


def rows(market: Market, between: Callable[[], object] = lambda: None, **asked: Any) -> list[str]:
    """Returns the days of stock rows, read in pages; something happens between the pages."""
    found: list[str] = []
    token = ""
    while not found or token:
        page = market.stock.ListInventory(
            stock_pb2.ListInventoryRequest(page_token=token, **asked), metadata=KNOWN
        )
        found += [each.date for each in page.rows]
        token = page.next_page_token
        between()
    return found


def test_pages_of_stock_stay_put_while_rows_come(market: Market) -> None:
    (option,) = market.open(1)
    days = [f"2031-06-{day:02}" for day in range(1, 8)]
    for day in days:
        market.put_up(option, 1, day)
    earlier = iter(f"2031-05-{day:02}" for day in range(2, 30))

    found = rows(
        market,
        lambda: market.put_up(option, 1, next(earlier)),
        option_code=option.upper(),
        page_size=2,
    )

    assert found == [DAY, *days], "what comes before the page is not seen, and moves nothing"


def test_stock_is_found_by_option_and_day(market: Market) -> None:
    one, other = market.open(1, 1)
    for day in ("2031-06-01", "2031-06-02"):
        market.put_up(one, 1, day)

    assert rows(market, option_code=other) == [DAY]
    assert rows(market, option_code=one, date_from="2031-05-02") == ["2031-06-01", "2031-06-02"]
    assert rows(market, option_code=one, date_to="2031-06-01") == [DAY, "2031-06-01"]


def test_pages_of_a_ledger_stay_put_while_stock_moves(market: Market) -> None:
    (option,) = market.open(1)
    for top in range(2, 8):
        market.put_up(option, top)
    code, found, token = market.row(option).inventory_code, [], ""
    while not found or token:
        asked = stock_pb2.ListInventoryLedgerRequest(
            inventory_code=code, page_size=2, page_token=token
        )
        page = market.stock.ListInventoryLedger(asked, metadata=KNOWN)
        found += [each.after for each in page.movements]
        token = page.next_page_token
        market.adjust(option, delta=100)

    assert found == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("token", ["nonsense", "WyJhIl0=", "NQ==", "WyJhIiwgMV0=", "bnVsbA=="])
def test_a_token_of_another_list_is_refused(market: Market, token: str) -> None:
    (option,) = market.open(1)
    stock_token = stock_pb2.ListInventoryRequest(page_token=token)
    ledger_token = stock_pb2.ListInventoryLedgerRequest(
        inventory_code=market.row(option).inventory_code, page_token="WyJhIiwgImIiXQ=="
    )

    for call in (
        lambda: market.stock.ListInventory(stock_token, metadata=KNOWN),
        lambda: market.stock.ListInventoryLedger(ledger_token, metadata=KNOWN),
    ):
        assert refused(call)[0] is grpc.StatusCode.INVALID_ARGUMENT
