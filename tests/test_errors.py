"""What a caller is told when something is wrong: the code, the reason, the details, no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from alone import alone
from callers import CALLER, Stubs
from conftest import Lend, Stack, eventually
from databases import held
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from inside import Served, refused, serving
from refusals import (
    KEY,
    OPTION,
    REFUSED,
    create,
    read_order,
    recent,
    record,
    send,
    set_stock,
    store_order,
    submit,
    tracked,
)
from till.v1 import inventory_pb2, order_pb2, store_pb2

from server import errors
from storage import errors as store

DETAILS_BYTES_MAX = 6 * 1024


@pytest.fixture(scope="module")
def busy(lend: Lend) -> Iterator[tuple[Served, Stubs]]:
    """A server with one store, one store order, one keyed order, and five units, one sold."""
    with lend() as url, serving(url) as served:
        stubs = Stubs.as_operator(served.channel)
        submit(stubs)
        asked = store_pb2.Product(options=[store_pb2.ProductOption(option_code=OPTION)])
        stubs.store.CreateProduct(store_pb2.CreateProductRequest(product=asked))
        set_stock(stubs, 5)
        create(stubs, tracked(1), key=KEY)
        yield served, stubs


def detail(status: Status, kind: Any) -> Any:
    """Returns the one detail of a kind, or None."""
    found = [each for each in status.details if each.Is(kind.DESCRIPTOR)]
    assert len(found) <= 1
    return kind.FromString(found[0].value) if found else None


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_every_refusal_has_its_code_and_reason(
    busy: tuple[Served, Stubs], kind: type[Exception]
) -> None:
    code, status = refused(lambda: REFUSED[kind](*busy))

    assert (code, detail(status, ErrorInfo).reason) == errors.TABLE[kind]
    assert (detail(status, ErrorInfo).domain, status.code) == ("till", code.value[0])
    assert status.message
    assert (detail(status, RetryInfo) is not None) == (code is grpc.StatusCode.UNAVAILABLE)


def test_a_full_queue_is_unavailable_and_says_when_to_come_back(url: str, tmp_path: Path) -> None:
    request = store_order("1")
    with alone(url, tmp_path, queue_max="1", database_connections="1") as server:
        with held(url):
            # One is with the database and one may wait, so that of five three are refused.
            calls = [server.stubs.order.SubmitStoreOrder.future(request) for _ in range(5)]
            done = eventually(lambda: three_of(calls))
        for call in calls:
            call.exception()

    for call in done:
        code, status = refused(call.result)
        assert (code, detail(status, ErrorInfo).reason) == errors.TABLE[store.Overloaded]
        assert status.message == "too many writes are waiting"
        assert detail(status, RetryInfo).retry_delay.seconds == 1
        assert ("retry-after", "1") in [tuple(pair) for pair in call.trailing_metadata()]


def three_of(calls: list[Any]) -> list[Any]:
    """Returns the calls that were answered, once there are three."""
    done = [call for call in calls if call.done()]
    assert len(done) >= 3
    return done


def test_one_call_too_many_is_told_the_limit_and_when_to_come_back(
    url: str, tmp_path: Path
) -> None:
    with alone(url, tmp_path, rate_per_second="0.01", rate_burst="2") as server:
        for _ in range(2):
            refused(lambda: recent(server.stubs))
        with pytest.raises(grpc.RpcError) as error:
            recent(server.stubs)
        code, status = refused(lambda: recent(server.stubs))
        assert refused(lambda: read_order(server.stubs, CALLER))[0] is grpc.StatusCode.NOT_FOUND

    assert (code, detail(status, ErrorInfo).reason) == errors.TABLE[errors.RateLimited]
    assert 90 <= detail(status, RetryInfo).retry_delay.seconds <= 100
    told = dict(tuple(pair) for pair in error.value.trailing_metadata() or ())
    assert (told["x-ratelimit-limit"], told["x-ratelimit-remaining"]) == ("2", "0")
    assert told["retry-after"] == told["x-ratelimit-reset"]


def test_every_refusal_is_provoked_here() -> None:
    assert {*REFUSED, store.Overloaded, errors.RateLimited} == set(errors.TABLE)


def test_violations_name_fields_as_json_spells_them(busy: tuple[Served, Stubs]) -> None:
    bad = order_pb2.QuoteItem(quantity=0, date="tomorrow")
    _, status = refused(lambda: create(busy[1], bad, facility_id=0, shipping_method=""))

    told = {each.field: each.description for each in detail(status, BadRequest).field_violations}
    assert set(told) == {
        "facilityId",
        "shippingMethod",
        "quoteItems[0].quantity",
        "quoteItems[0].date",
    }
    assert told["shippingMethod"] == "is required"


def test_a_shortage_names_every_line(busy: tuple[Served, Stubs]) -> None:
    _, status = refused(lambda: create(busy[1], tracked(2), tracked(7)))

    found = detail(status, PreconditionFailure).violations
    assert [(each.type, each.subject, each.description) for each in found] == [
        ("STOCK", "quoteItems[0]", "asked 2, left 4"),
        ("STOCK", "quoteItems[1]", "asked 7, left 4"),
    ]


NESTED = b"\x0a\x02" * 200


@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x0a\x05a", b"\x0a\x02\xff\xff", NESTED])
@pytest.mark.parametrize(
    "method",
    [
        "OrderService/CreateOrder",
        "OrderService/SubmitStoreOrder",
        "CheckoutService/RecordCheckout",
        "DraftItemService/SubmitDraftItem",
        "StoreService/CreateProduct",
    ],
)
def test_bytes_that_are_no_message_are_the_callers_fault(
    busy: tuple[Served, Stubs], method: str, request_bytes: bytes
) -> None:
    code, status = refused(lambda: send(busy[0], method, request_bytes))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert not {"Decode", "python", "pb2", "Error"} & set(status.message.replace(".", " ").split())


def many(stubs: Stubs, kind: str) -> None:
    """Sends a request with five hundred bad lines of long words."""
    wide = "한" * 64
    if kind == "violations":
        create(stubs, *[order_pb2.QuoteItem(quantity=0, option_code="x" * 65, date="x")] * 500)
    elif kind == "shortages":
        create(stubs, *[tracked(1)] * 500)
    elif kind == "faults":
        record(stubs, 500, wide)
    else:
        row = inventory_pb2.SetInventory(option_code=OPTION, date=wide)
        stubs.inventory.BatchSetInventory(inventory_pb2.BatchSetInventoryRequest(rows=[row] * 500))


@pytest.mark.parametrize("kind", ["violations", "shortages", "faults", "rows"])
def test_the_details_of_five_hundred_bad_lines_fit_into_a_header(
    busy: tuple[Served, Stubs], kind: str
) -> None:
    code, status = refused(lambda: many(busy[1], kind))

    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
    assert detail(status, ErrorInfo) is not None
    assert status.ByteSize() < DETAILS_BYTES_MAX


@pytest.mark.parametrize("letter", ["日", "😀"])
def test_a_documented_sentence_has_room_for_the_longest_name(
    stack: Stack, stubs: Stubs, letter: str
) -> None:
    name = letter * 255
    sentence = f"User {name} has no orders yet !"

    by_rest = stack.rest.post("/user-orders", json={"user_id": name, "store_id": "s"})
    asked = order_pb2.ListRecentUserOrdersRequest(user_id=name, store_id="s")
    _, by_grpc = refused(lambda: stubs.order.ListRecentUserOrders(asked))

    assert (by_rest.status_code, by_rest.json()["error"]) == (400, sentence)
    assert by_grpc.message == sentence
