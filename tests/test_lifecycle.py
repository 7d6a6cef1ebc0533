"""The life of orders: moves, cancelling, history, and reading many while more come."""

from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from callers import CALLER, keyed
from conftest import ORDER, Lend, Stack
from google.rpc.error_details_pb2 import ErrorInfo
from inside import TENANT, Book, at_once, refused
from invariants import dump
from market import KNOWN, Market, detail, trading
from samples import ACTOR, order_lines, packed, request, shop
from till.v1 import lifecycle_pb2 as pb
from till.v1.order_pb2 import Order

from storage import checkout, lifecycle
from storage.errors import NotFound, Overloaded
from storage.tables import ORDER_STATUSES

OTHER_TENANT = 2
MOVES = [(old, new) for old in lifecycle.MOVES for new in lifecycle.MOVES]


@pytest.fixture(scope="module")
def market(lend: Lend) -> Iterator[Market]:
    """A market that the tests of this module share."""
    with lend() as url, trading(url) as market:
        yield market


def way(status: str) -> list[str]:
    """Returns the shortest way from NEW to a status."""
    ways = {"NEW": [""][:0]}
    while status not in ways:
        for old, known in list(ways.items()):
            for new in sorted(lifecycle.MOVES[old]):
                ways.setdefault(new, [*known, new])
    return ways[status]


def move(market: Market, order_id: int, status: str, etag: str = "") -> Any:
    """Moves an order to any status."""
    if status == "CANCELLED":
        asked = pb.CancelOrderRequest(order_id=order_id, reason="why", etag=etag)
        return market.lifecycle.CancelOrder(asked, metadata=KNOWN)
    value = Order.Status.Value(status)
    to = pb.TransitionOrderRequest(order_id=order_id, status=value, etag=etag)
    return market.lifecycle.TransitionOrder(to, metadata=KNOWN)


def test_every_status_has_its_moves() -> None:
    assert tuple(lifecycle.MOVES) == ORDER_STATUSES
    assert set().union(*lifecycle.MOVES.values()) <= set(ORDER_STATUSES)


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_an_order_moves_as_the_table_allows(market: Market, old: str, new: str) -> None:
    (option,) = market.open(1)
    made = market.order((option, 1))
    for status in way(old):
        made = move(market, made.order_id, status)

    if new in lifecycle.MOVES[old]:
        moved = move(market, made.order_id, new)
        assert moved.status == Order.Status.Value(new) and moved.etag != made.etag
    elif old == new == "CANCELLED":
        assert move(market, made.order_id, new) == made
    else:
        code, status = refused(lambda: move(market, made.order_id, new))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"is {old} and cannot become {new}" in status.message
        assert detail(status, ErrorInfo).reason == "STATUS_NOT_ALLOWED"
    assert market.left(option)[1] == (new != "CANCELLED" or old in ("SHIPPED", "DELIVERED")) - (
        old == "CANCELLED" != new
    )


@pytest.mark.parametrize("status", [Order.STATUS_UNSPECIFIED, Order.CANCELLED, 99])
def test_a_transition_is_to_a_status_and_does_not_cancel(market: Market, status: Any) -> None:
    made = market.order()
    asked = pb.TransitionOrderRequest(order_id=made.order_id, status=status)

    code, _ = refused(lambda: market.lifecycle.TransitionOrder(asked, metadata=KNOWN))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_history_tells_every_status_since_when_who_and_why(market: Market) -> None:
    made = market.order()
    for status in ("PACKED", "PICKING", "CANCELLED"):
        move(market, made.order_id, status)
    asked = pb.ListOrderStatusesRequest(order_id=made.order_id)

    changes = market.lifecycle.ListOrderStatuses(asked, metadata=KNOWN).changes

    told = [(Order.Status.Name(each.status), each.reason) for each in changes]
    assert told == [("NEW", ""), ("PACKED", ""), ("PICKING", ""), ("CANCELLED", "why")]
    assert {each.actor for each in changes} == {"local-development"}
    times = [each.create_time.ToMilliseconds() for each in changes]
    assert times == sorted(times) and times[0] == made.create_time.ToMilliseconds()


@pytest.mark.parametrize("status", ["CONFIRMED", "CANCELLED"])
def test_a_stale_etag_moves_nothing_and_is_told_the_current_one(
    market: Market, status: str
) -> None:
    made = market.order()
    moved = move(market, made.order_id, "CONFIRMED", made.etag)

    code, refusal = refused(lambda: move(market, made.order_id, status, made.etag))

    assert code is grpc.StatusCode.ABORTED
    assert detail(refusal, ErrorInfo).metadata["etag"] == moved.etag
    assert move(market, made.order_id, "CANCELLED", moved.etag).status == Order.CANCELLED


def test_fifty_cancels_at_once_give_back_once(market: Market) -> None:
    (option,) = market.open(10)
    made = market.order((option, 2), (option, 3))
    market.order((option, 5))

    answers = at_once([lambda: move(market, made.order_id, "CANCELLED")] * 50)

    assert len({each.SerializeToString() for each in answers}) == 1
    assert market.left(option) == (10, 5, 0, 5)
    assert [each.delta for each in market.ledger(option)] == [10, 5, 5, -5]


def test_an_order_is_cancelled_or_shipped_and_never_both(market: Market) -> None:
    (option,) = market.open(1)
    for _ in range(8):
        made = market.order((option, 1))
        move(market, made.order_id, "PACKED")

        def outcome(status: str, number: int = made.order_id) -> str:
            try:
                return Order.Status.Name(move(market, number, status).status)
            except grpc.RpcError as error:
                return error.code().name

        ends = [lambda s=s: outcome(s) for s in ("CANCELLED", "SHIPPED") * 10]
        told = Counter(at_once(ends))

        shipped, cancelled = told["SHIPPED"], told["CANCELLED"]
        assert (shipped, cancelled) in ((1, 0), (0, 10)), told
        assert market.left(option)[1] == shipped
        market.adjust(option, max_quantity=shipped + 1)
        if shipped:
            (option,) = market.open(1)


def test_many_orders_come_in_the_order_asked_for_or_not_at_all(market: Market) -> None:
    (option,) = market.open(10)
    ids = [market.order((option, n)).order_id for n in (1, 2, 3)]
    asked = [ids[2], ids[0], ids[2], ids[1]]

    def get(*numbers: int) -> Any:
        request = pb.BatchGetOrdersRequest(order_ids=numbers)
        return market.lifecycle.BatchGetOrders(request, metadata=KNOWN).orders

    found = [(each.order_id, each.line_items[0].quantity) for each in get(*asked)]
    assert found == list(zip(asked, [3, 1, 3, 2], strict=True))
    code, status = refused(lambda: get(ids[0], 12345))
    assert code is grpc.StatusCode.NOT_FOUND and "12345" in status.message


def test_the_life_of_an_order_is_served_as_rest(fresh_stack: Stack) -> None:
    rest = fresh_stack.operator
    ids = [rest.post("/orders", json=ORDER, headers=keyed()).json()["orderId"] for _ in range(3)]
    batch = rest.get("/v1/orders:batchGet", params={"order_ids": ids}).json()["orders"]
    assert [each["orderId"] for each in batch] == ids
    page = rest.get("/v1/orders", params={"page_size": 2, "customer": "42"}).json()
    more = rest.get(
        "/v1/orders",
        params={"page_size": 2, "customer": "42", "page_token": page["nextPageToken"]},
    ).json()
    assert [each["orderId"] for each in [*page["orders"], *more["orders"]]] == ids[::-1]

    path = f"/v1/orders/{ids[0]}"
    moved = rest.post(f"{path}:transition", json={"status": "SHIPPED"})
    assert (
        moved.status_code == 400 and "is NEW and cannot become SHIPPED" in moved.json()["message"]
    )
    stale = rest.post(f"{path}:cancel", json={"etag": '"9"'})
    assert stale.status_code == 409
    assert stale.json()["details"][0]["metadata"] == {"etag": batch[0]["etag"]}
    assert rest.post(f"{path}:cancel", json={"reason": "r"}).json()["status"] == "CANCELLED"
    changes = rest.get(f"{path}/statuses", headers=CALLER).json()["changes"]
    assert [(each["status"], each["reason"]) for each in changes] == [
        ("NEW", ""),
        ("CANCELLED", "r"),
    ]
    assert rest.post("/v1/orders/1:cancel", json={}).status_code == 404
    assert rest.get("/v1/orders", params={"page_token": str(uuid4())}).status_code == 400


def test_a_move_that_another_writer_was_first_with_is_refused(book: Book) -> None:
    stale, _ = book.write(order_lines)
    book.write(lambda: lifecycle.transition(TENANT, stale.order_id, "CONFIRMED", "", ACTOR))
    before = dump(book.url)

    with pytest.raises(Overloaded, match="moved by another"):
        book.write(lambda: lifecycle.set_status(stale, "CANCELLED", ACTOR), seconds=0.5)
    assert dump(book.url) == before


def test_another_tenant_finds_no_order(book: Book) -> None:
    made, _ = book.write(order_lines)
    number = made.order_id

    for act in (
        lambda: lifecycle.cancel(OTHER_TENANT, number, "", "", ACTOR),
        lambda: lifecycle.transition(OTHER_TENANT, number, "PACKED", "", ACTOR),
        lambda: lifecycle.history(OTHER_TENANT, number),
        lambda: lifecycle.batch_get(OTHER_TENANT, [number]),
    ):
        with pytest.raises(NotFound):
            book.write(act)
    everything = lifecycle.Filter()
    assert book.read(lambda: lifecycle.list_page(OTHER_TENANT, everything, None, 10)) == []


def test_a_packing_checkout_moves_the_order(book: Book) -> None:
    book.write(shop)
    seen = []
    for n, items in enumerate([["1"], ["1", "2"]]):
        asked = request(*(packed(each) for each in items), external=f"c{n}")
        book.write(lambda a=asked: checkout.record(TENANT, a, []))
        (row,) = book.read(lambda: lifecycle.list_page(TENANT, lifecycle.Filter(), None, 10))
        seen.append(row.status)
    book.write(lambda: lifecycle.transition(TENANT, row.order_id, "SHIPPED", "", ACTOR))
    late = request(packed("3"), external="late")
    assert book.write(lambda: checkout.record(TENANT, late, []))[1] == []

    row, changes = book.read(lambda: lifecycle.history(TENANT, row.order_id))
    assert seen == ["PACKED", "PACKED"]
    assert (row.status, [each.status for each in changes]) == ("SHIPPED", ["PACKED", "SHIPPED"])


def test_a_cancelled_order_is_not_packed(book: Book) -> None:
    book.write(shop)
    book.write(lambda: checkout.record(TENANT, request(packed("1")), []))
    (row,) = book.read(lambda: lifecycle.list_page(TENANT, lifecycle.Filter(), None, 10))
    book.write(lambda: lifecycle.cancel(TENANT, row.order_id, "", "", ACTOR))

    _, faults = book.write(lambda: checkout.record(TENANT, request(packed("2")), []))

    assert [fault.code for fault in faults] == [8]
