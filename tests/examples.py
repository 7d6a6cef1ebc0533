"""A good request for every RPC, its identifiers left open, and two tenants to ask them."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from string import Template
from typing import Any, NamedTuple

from callers import CALLER, CHANNEL, KNOWN
from conftest import ORDER, Stack, eventually
from doors import RPCS, Answer, bearer, call, path_of, token

from server.access import RULES, Needs

DAY = "2027-05-01"
SOON = (datetime.now(UTC) + timedelta(minutes=30)).isoformat(timespec="seconds")
MARK = "for the eyes of the first tenant alone"
"""What the first tenant writes wherever it may write a text."""
_LINE = {"quantity": 1, "price": 1, "date": DAY}
_PACKED = {"orderItemId": "1", "itemNumber": "$external-1", "storageName": "$depot"}
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "OrderService.CreateOrder": [
        ORDER | {"checkoutDraftId": "$draft"},
        ORDER | {"quoteItems": [_LINE | {"optionCode": "$option"}, _LINE | {"sku": "$sku"}]},
        ORDER | {"quoteItems": [_LINE | {"productId": "$product_id"}]},
    ],
    "OrderService.GetOrder": [{"orderId": "$order_id"}],
    "OrderService.SubmitStoreOrder": [
        {"store_id": "$store", "order_id": "$number", "user_id": "$user", "grand_total": 1}
    ],
    "OrderService.ListRecentUserOrders": [{"store_id": "$store", "user_id": "$user"}],
    "DraftItemService.SubmitDraftItem": [
        {
            "checkout_draft_item_id": "$item",
            "checkout_draft_id": "$draft",
            "idempotency_key": "$key",
            "product_name": "$text",
            "quantity": 1,
            "unit_price": 1,
        }
    ],
    "DraftItemService.GetDraftItem": [{"checkout_draft_item_id": "$item"}],
    "DraftItemService.ListDraftItems": [{"checkout_draft_id": "$draft"}],
    "DraftService.GetDraft": [{"checkout_draft_id": "$draft"}],
    "DraftService.ListDrafts": [{}, {"show_deleted": True}],
    "DraftService.UpdateDraft": [{"draft": {"checkout_draft_id": "$draft", "display_name": "x"}}],
    "DraftService.DeleteDraft": [{"checkout_draft_id": "$draft"}],
    "DraftService.UndeleteDraft": [{"checkout_draft_id": "$draft"}],
    "DraftService.UpdateDraftItem": [{"item": {"checkout_draft_item_id": "$item", "quantity": 2}}],
    "DraftService.DeleteDraftItem": [{"checkout_draft_item_id": "$item"}],
    "DraftService.UndeleteDraftItem": [{"checkout_draft_item_id": "$item"}],
    "LifecycleService.ListOrders": [{}, {"storeId": "$store"}, {"customer": "$user"}],
    "LifecycleService.BatchGetOrders": [{"orderIds": ["$order_id"]}],
    "LifecycleService.TransitionOrder": [{"orderId": "$order_id", "status": "CONFIRMED"}],
    "LifecycleService.CancelOrder": [{"orderId": "$order_id"}],
    "LifecycleService.ListOrderStatuses": [{"orderId": "$order_id"}],
    "StockService.HoldStock": [
        {"lines": [{"option_code": "$option", "date": DAY, "quantity": 1}], "expire_time": SOON}
    ],
    "StockService.GetHold": [{"hold_id": "$hold"}],
    "StockService.ConfirmHold": [{"hold_id": "$hold"}],
    "StockService.ReleaseHold": [{"hold_id": "$hold"}],
    "StockService.ExtendHold": [{"hold_id": "$hold", "expire_time": SOON}],
    "StockService.AdjustInventory": [{"option_code": "$option", "date": DAY, "delta": 1}],
    "StockService.ListInventory": [{}, {"option_code": "$option"}],
    "StockService.ListInventoryLedger": [{"inventory_code": "$inventory"}],
    "CheckoutService.ListCheckouts": [{}, {"store": "$store"}],
    "CheckoutService.RecordCheckout": [
        {
            "store": "$store",
            "orderNumber": "$number",
            "externalNumber": "$external",
            "items": [_PACKED],
        }
    ],
    "CheckoutService.RecordJsonCheckout": [{"payload": {"data": "e30="}}],
    "CheckoutService.RecordCustomCheckout": [{"store": "$store", "payload": {"data": "e30="}}],
    "CheckoutService.GetCheckout": [{"externalNumber": "$external"}],
    "CheckoutService.GetProtocol": [{"protocol": "$protocol"}],
    "InventoryService.ListDayTicketInventory": [
        {"productIdcode": "$product"},
        {"productIdcode": "$product_id"},
    ],
    "InventoryService.BatchSetInventory": [
        {"rows": [{"option_code": "$option", "date": DAY, "max_quantity": 9}]}
    ],
    "StoreService.CreateStore": [{"store": {"storeId": "$store", "displayName": "$text"}}],
    "StoreService.GetStore": [{"storeId": "$store"}],
    "StoreService.ListStores": [{}, {"pageSize": 1}],
    "StoreService.CreateDepot": [{"storeId": "$store", "depot": {"storageName": "$depot"}}],
    "StoreService.SetCheckoutMapping": [
        {"storeId": "$store", "mapping": {"orderNumber": "$$.order"}}
    ],
    "StoreService.CreateProduct": [
        {
            "product": {
                "productCode": "$product",
                "productId": "$product_id",
                "displayName": "$text",
                "options": [{"optionCode": "$option", "sku": "$sku"}],
            }
        }
    ],
    "StoreService.GetProduct": [{"productCode": "$product"}],
    "TenantService.CreateTenant": [{"tenant": {"name": "$store"}}],
    "TenantService.ListTenants": [{}],
    "TenantService.SetStockPolicy": [{"stockPolicy": "TRACK_WHEN_MATCHED"}],
    "TenantService.CreateApiClient": [
        {"apiClient": {"displayName": "shop"}},
        {"apiClient": {"displayName": "shop"}, "tenantId": "$tenant"},
    ],
    "TenantService.ListApiClients": [{}],
    "TenantService.RotateApiKey": [{"clientId": "$client"}],
    "TenantService.RevokeApiKey": [{"clientId": "$client", "keyId": "$key_id"}],
    "TenantService.RevokeApiClient": [{"clientId": "$client"}],
    "Operations.GetOperation": [{"name": "operations/$operation"}],
    "Operations.ListOperations": [{}],
    "Operations.WaitOperation": [{"name": "operations/$operation", "timeout": "0s"}],
}


_FIRST = (
    "StoreService.CreateStore",
    "StoreService.CreateDepot",
    "StoreService.CreateProduct",
    "OrderService.SubmitStoreOrder",
)


class Who(NamedTuple):
    """The credentials of a client."""

    token: str
    key: str
    code: str

    def headers(self, rpc: str, idempotency_key: str = "") -> dict[str, str]:
        """Returns what an RPC needs."""
        if RULES[path_of(RPCS[rpc])].needs is Needs.CHANNEL:
            return {"authorization": f"Token {self.key}", "channel": f"Code {self.code}"}
        unique = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        return bearer(self.token, self.key) | unique


FIRST = Who(KNOWN["token"], KNOWN["api_key"], KNOWN["channel_code"])
assert bearer(FIRST.token, FIRST.key) == CALLER
assert CHANNEL["channel"] == f"Code {FIRST.code}"


def fill(request: Any, values: dict[str, str]) -> Any:
    """Returns a request with its identifiers put in."""
    return json.loads(Template(json.dumps(request)).substitute(values))


def invented() -> dict[str, str]:
    """Returns identifiers that nothing has, each as long as those that something has."""
    names = ("store", "number", "user", "item", "draft", "external", "depot", "sku", "client")
    ids = {name: f"{name}-{uuid.uuid4().hex[:12]}" for name in names}
    codes = {name: str(uuid.uuid4()) for name in ("product", "option", "key", "inventory")}
    digits = {name: str(uuid.uuid4().int)[:15] for name in ("product_id", "order_id")}
    hexes = {name: uuid.uuid4().hex for name in ("protocol", "operation", "hold")}
    rest = {"key_id": uuid.uuid4().hex[:16], "tenant": "987654", "text": MARK}
    return ids | codes | digits | hexes | rest


def newcomer(stack: Stack, *scopes: str, tenant: int = 0) -> Who:
    """Returns a client of a new tenant, or of one that exists."""
    if not tenant:
        made = _play(stack, FIRST, "TenantService.CreateTenant", {"store": uuid.uuid4().hex})
        tenant = json.loads(made.body)["tenantId"]
    request = {"apiClient": {"scopes": scopes}, "tenantId": tenant}
    headers = FIRST.headers("TenantService.CreateApiClient")
    answer = call(stack, "grpc", "TenantService.CreateApiClient", request, headers)
    made_client = json.loads(answer.body)
    client = made_client["apiClient"]
    held = " ".join(f"till/{scope}" for scope in scopes)
    text = token(client_id=client["clientId"], scope=held)
    return Who(text, made_client["apiKey"], client["channelCode"])


def settle(stack: Stack, who: Who, values: dict[str, str]) -> dict[str, str]:
    """Lets a tenant have one of everything under these identifiers; returns them all."""
    for rpc in _FIRST:
        _play(stack, who, rpc, values)
    rows = _said(stack, who, "InventoryService.BatchSetInventory", values)["rows"]
    accepted = _play(stack, who, "DraftItemService.SubmitDraftItem", values)
    values = values | {
        "inventory": rows[0]["inventory_code"],
        "operation": accepted.headers["x-operation"].removeprefix("operations/"),
        "order_id": _created(stack, who, values),
        "hold": _said(stack, who, "StockService.HoldStock", values)["hold_id"],
    }
    receipt = _said(stack, who, "CheckoutService.RecordCheckout", values)
    eventually(lambda: _play(stack, who, "DraftItemService.GetDraftItem", values))
    return values | {"protocol": receipt["content"]["protocol"]}


def _said(stack: Stack, who: Who, rpc: str, values: dict[str, str]) -> Any:
    return json.loads(_play(stack, who, rpc, values).body)


def _created(stack: Stack, who: Who, values: dict[str, str]) -> str:
    request = ORDER | {"notes": values["text"], "quoteItems": [_LINE | {"sku": values["sku"]}]}
    rpc = "OrderService.CreateOrder"
    answer = call(stack, "grpc", rpc, request, who.headers(rpc, values["key"]))
    assert answer.code == "OK" and "idempotent-replayed" not in answer.headers, answer
    return str(json.loads(answer.body)["orderId"])


def _play(stack: Stack, who: Who, rpc: str, values: dict[str, str]) -> Answer:
    answer = call(stack, "grpc", rpc, fill(EXAMPLES[rpc][0], values), who.headers(rpc))
    assert answer.code == "OK", answer
    return answer
