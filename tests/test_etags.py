"""Every resource has an etag; who names an old one is told the current one, and changes nothing."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from callers import keyed
from conftest import ORDER, Stack, eventually
from till.v1 import (
    checkout_pb2,
    draft_item_pb2,
    draft_pb2,
    inventory_pb2,
    order_pb2,
    stock_pb2,
    store_pb2,
    tenant_pb2,
)

RESOURCES: list[Any] = [
    order_pb2.Order,
    draft_pb2.Draft,
    draft_item_pb2.DraftItem,
    checkout_pb2.Checkout,
    inventory_pb2.Inventory,
    stock_pb2.Hold,
    store_pb2.Store,
    store_pb2.Product,
    tenant_pb2.Tenant,
    tenant_pb2.ApiClient,
]
MAPPING = {"orderNumber": "$.id"}


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.__name__)
def test_every_resource_has_an_etag(resource: Any) -> None:
    assert "etag" in resource.DESCRIPTOR.fields_by_name


def told(answer: httpx.Response) -> str:
    """Returns the current etag that a conflict tells."""
    assert answer.status_code == 409, answer.text
    found: str = answer.json()["details"][-1]["metadata"]["etag"]
    return found


def store(stack: Stack) -> tuple[str, str]:
    """Registers a store; returns its code and etag."""
    code = f"etag-{uuid4()}"
    return code, stack.operator.post("/v1/stores", json={"storeId": code}).json()["etag"]


def test_a_mapping_is_replaced_only_by_who_has_seen_the_store(stack: Stack) -> None:
    code, seen = store(stack)
    path = f"/v1/stores/{code}/checkoutMapping"
    changed = stack.operator.put(path, json={"mapping": MAPPING, "etag": seen}).json()

    late = stack.operator.put(path, json={"mapping": {}, "etag": seen})

    assert told(late) == changed["etag"] != seen
    found = stack.operator.get(f"/v1/stores/{code}").json()
    assert (found["checkoutMapping"], found["etag"]) == (MAPPING, changed["etag"])


def test_a_stores_etag_changes_with_its_depots(stack: Stack) -> None:
    code, seen = store(stack)

    stack.operator.post(f"/v1/stores/{code}/depots", json={"storageName": "D"})

    assert stack.operator.get(f"/v1/stores/{code}").json()["etag"] != seen


def test_a_policy_is_set_only_by_who_has_seen_the_tenant(stack: Stack) -> None:
    path, policy = "/v1/tenants:setStockPolicy", {"stock_policy": "TRACK_WHEN_MATCHED"}
    current = stack.operator.post(path, json=policy).json()

    late = stack.operator.post(path, json={"stock_policy": "REQUIRE_MATCH", "etag": '"old"'})

    assert told(late) == current["etag"]
    assert stack.operator.post(path, json={**policy, "etag": current["etag"]}).json() == current


def test_a_clients_etag_changes_with_its_keys(stack: Stack) -> None:
    made = stack.operator.post("/v1/apiClients", json={"apiClient": {}}).json()["apiClient"]

    rotated = stack.operator.post(f"/v1/apiClients/{made['clientId']}:rotateKey", json={}).json()

    assert rotated["apiClient"]["etag"] != made["etag"]


def test_a_draft_is_converted_into_one_order(stack: Stack) -> None:
    name = f"convert-{uuid4()}"
    item = {"pk": name, "gsi_1_pk": name, "quantity": 2, "unit_price": 3, "idempotency_key": name}
    stack.rest.post("/store-checkout-draft-items-post-one", json=item)
    path, headers = f"/v1/drafts/{name}:convert", keyed()

    first = stack.rest.post(path, json=ORDER, headers=headers)
    again = stack.rest.post(path, json=ORDER, headers=headers)
    other = stack.rest.post(path, json=ORDER, headers=keyed())

    assert (first.status_code, first.json()["grandTotal"]) == (200, 6), first.text
    assert (again.text, again.headers["idempotent-replayed"]) == (first.text, "true")
    assert other.status_code == 400
    draft = eventually(lambda: stack.operator.get(f"/v1/drafts/{name}").json())
    assert int(draft["order_id"]) == first.json()["orderId"]
