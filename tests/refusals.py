"""How each refusal is provoked, by calls of real stubs."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

from callers import CALLER, Stubs, keyed
from conftest import eventually
from databases import connect, is_file, log_of, rows
from inside import Served
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
        with no_larger_files(log_of(served.url)):
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
