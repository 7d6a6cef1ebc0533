"""What a caller is told when something is wrong: the code, the reason, the details, no more."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from alone import alone
from callers import CALLER, Stubs, keyed
from conftest import Lend, eventually
from databases import connect, held, is_file, rows
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from inside import Served, refused, serving
from samples import DAY
from test_engine_failures import no_larger_files
from till.v1 import (
    checkout_pb2,
    draft_item_pb2,
    draft_pb2,
    inventory_pb2,
    lifecycle_pb2,
    order_pb2,
    stock_pb2,
    store_pb2,
    tenant_pb2,
)

from server import errors
from storage import errors as store

DETAILS_BYTES_MAX = 6 * 1024
OPTION = str(uuid4())
KEY = str(uuid4())


def metadata(headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Returns headers as gRPC takes them."""
    return tuple(headers.items())


def create(
    stubs: Stubs, *items: order_pb2.QuoteItem, key: str | None = None, **fields: Any
) -> order_pb2.Order:
    """Creates the smallest order, with these lines and fields."""
    known = {"requester_id": 1, "user_id": 2, "facility_id": 3, "shipping_address_id": 4}
    known |= {"billing_address_id": 5, "shipping_method": "GROUND"} | fields
    request = order_pb2.CreateOrderRequest(quote_items=items, **known)
    made: order_pb2.Order = stubs.order.CreateOrder(request, metadata=metadata(keyed(key)))
    return made


def tracked(quantity: int) -> order_pb2.QuoteItem:
    """Returns a line that takes stock."""
    return order_pb2.QuoteItem(option_code=OPTION, date=DAY, quantity=quantity)


def store_order(number: str) -> order_pb2.SubmitStoreOrderRequest:
    """Returns a store's order."""
    return order_pb2.SubmitStoreOrderRequest(
        store_id="s", order_id=number, user_id="u", grand_total=1
    )


def submit(stubs: Stubs) -> None:
    """Submits a store's order, always the same."""
    stubs.order.SubmitStoreOrder(store_order("1"))


def read_order(stubs: Stubs, headers: dict[str, str]) -> None:
    """Reads an order that does not exist."""
    stubs.order.GetOrder(order_pb2.GetOrderRequest(order_id=1), metadata=metadata(headers))


def recent(stubs: Stubs) -> None:
    """Reads the orders of a user who has none."""
    request = order_pb2.ListRecentUserOrdersRequest(user_id="u2", store_id="s")
    stubs.order.ListRecentUserOrders(request)


def create_store(stubs: Stubs, name: str) -> None:
    """Registers the store `s` under a name."""
    made = store_pb2.Store(store_id="s", display_name=name)
    stubs.store.CreateStore(store_pb2.CreateStoreRequest(store=made))


def set_stock(stubs: Stubs, units: int) -> None:
    """Puts units of the option up for sale."""
    row = inventory_pb2.SetInventory(option_code=OPTION, date=DAY)
    row.max_quantity.value = units
    stubs.inventory.BatchSetInventory(inventory_pb2.BatchSetInventoryRequest(rows=[row]))


def record(stubs: Stubs, items: int = 1, text: str = "1") -> None:
    """Records a checkout in a store that is unknown."""
    packed = [
        checkout_pb2.CheckoutRequestItem(
            order_item_id=text, item_number=f"{text}{number // 2}", storage_name=f"{text}{number}"
        )
        for number in range(items)
    ]
    stubs.checkout.RecordCheckout(
        checkout_pb2.RecordCheckoutRequest(
            store="s" if items > 1 else "?", order_number="o", external_number="c", items=packed
        )
    )


def send(served: Served, method: str, request: bytes) -> bytes:
    """Calls a method with bytes that are no message."""
    call = served.channel.unary_unary(f"/till.v1.{method}", None, None)
    answer: bytes = call(request, metadata=metadata(keyed()))
    return answer


def break_the_commit(served: Served, stubs: Stubs) -> None:
    """Creates an order that cannot be committed: the disk is full, or the connection is killed."""
    if is_file(served.url):
        with no_larger_files(served.url):
            create(stubs)
    with closing(connect(served.url)) as other:
        other.cursor().execute("UPDATE event_tips SET seq = seq")  # the last row a unit locks
        call = stubs.order.SubmitStoreOrder.future(store_order("2"))
        (writer,) = eventually(lambda: committing(served.url))
        other.cursor().execute(f"KILL {writer}")
        call.result()


def committing(url: str) -> list[int]:
    """Returns the one connection that waits with its last statements, once there is one."""
    asked = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE "
    found = [number for (number,) in rows(url, f"{asked} 'INSERT INTO `event_tips`%'")]
    assert len(found) == 1
    return found


def move(stubs: Stubs, status: int, etag: str = "") -> None:
    """Moves an order that is NEW."""
    asked = lifecycle_pb2.TransitionOrderRequest(order_id=create(stubs).order_id, etag=etag)
    asked.status = status  # type: ignore[assignment]
    stubs.lifecycle.TransitionOrder(asked)


def confirm_released(stubs: Stubs) -> None:
    """Confirms a hold that was given up."""
    asked = stock_pb2.HoldStockRequest(
        lines=[stock_pb2.HoldLine(option_code=OPTION, date=DAY, quantity=1)]
    )
    asked.expire_time.FromSeconds(int(time.time()) + 60)
    held = stubs.stock.HoldStock(asked).hold_id
    stubs.stock.ReleaseHold(stock_pb2.ReleaseHoldRequest(hold_id=held))
    stubs.stock.ConfirmHold(stock_pb2.ConfirmHoldRequest(hold_id=held))


def order_unmatched(stubs: Stubs) -> None:
    """Orders what is in no stock row, while every line must match one."""
    policy = tenant_pb2.Tenant.StockPolicy
    asked = tenant_pb2.SetStockPolicyRequest
    stubs.tenant.SetStockPolicy(asked(stock_policy=policy.REQUIRE_MATCH))
    try:
        create(stubs, order_pb2.QuoteItem(quantity=1))
    finally:
        stubs.tenant.SetStockPolicy(asked(stock_policy=policy.TRACK_WHEN_MATCHED))


def rotate_revoked(stubs: Stubs) -> None:
    """Asks for a key of a client that was revoked."""
    asked = tenant_pb2.CreateApiClientRequest(api_client=tenant_pb2.ApiClient(display_name="x"))
    made = stubs.tenant.CreateApiClient(asked).api_client.client_id
    stubs.tenant.RevokeApiClient(tenant_pb2.RevokeApiClientRequest(client_id=made))
    stubs.tenant.RotateApiKey(tenant_pb2.RotateApiKeyRequest(client_id=made))


def delete_ordered(stubs: Stubs) -> None:
    """Deletes a draft that an order took."""
    asked = draft_item_pb2.SubmitDraftItemRequest(pk="i", gsi_1_pk="d", idempotency_key="k")
    asked.quantity = 1
    stubs.draft.SubmitDraftItem(asked)
    create(stubs, checkout_draft_id="d")
    stubs.drafts.DeleteDraft(draft_pb2.DeleteDraftRequest(checkout_draft_id="d"))


NO_KEY = {"authorization": CALLER["authorization"]}
REFUSED: dict[type[Exception], Callable[[Served, Stubs], object]] = {
    errors.InvalidRequest: lambda _, stubs: create(stubs, user_id=0),
    store.InvalidField: lambda _, stubs: create(
        stubs, order_pb2.QuoteItem(quantity=1, price=0.1234567)
    ),
    errors.MalformedRequest: lambda served, _: send(served, "OrderService/CreateOrder", b"\xff"),
    errors.Unauthenticated: lambda _, stubs: read_order(stubs, {}),
    errors.PermissionDenied: lambda _, stubs: read_order(stubs, NO_KEY),
    store.NotFound: lambda _, stubs: read_order(stubs, CALLER),
    store.AlreadyExists: lambda _, stubs: create_store(stubs, "other"),
    store.KeyReused: lambda _, stubs: create(stubs, user_id=9, key=KEY),
    store.OrderExists: lambda _, stubs: submit(stubs),
    store.NoOrders: lambda _, stubs: recent(stubs),
    store.OutOfStock: lambda _, stubs: create(stubs, tracked(2), tracked(7)),
    store.DraftNotOrderable: lambda _, stubs: create(stubs, checkout_draft_id="?"),
    store.DraftNotOpen: lambda _, stubs: delete_ordered(stubs),
    store.BelowCommitted: lambda _, stubs: set_stock(stubs, 0),
    errors.CheckoutRefused: lambda _, stubs: record(stubs),
    store.EtagMismatch: lambda _, stubs: move(stubs, order_pb2.Order.CONFIRMED, '"9"'),
    store.StatusNotAllowed: lambda _, stubs: move(stubs, order_pb2.Order.DELIVERED),
    store.HoldNotActive: lambda _, stubs: confirm_released(stubs),
    store.NoStockRow: lambda _, stubs: order_unmatched(stubs),
    store.ClientNotUsable: lambda _, stubs: rotate_revoked(stubs),
    store.OutcomeUnknown: break_the_commit,
}


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
