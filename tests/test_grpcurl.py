"""The gRPC door as a stranger finds it: real grpcurl, reflection, Envoy in between."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from callers import CALLER, keyed
from conftest import ORDER, PATIENCE_SECONDS, Stack
from google.protobuf import json_format
from till.v1 import order_pb2

GRPCURL = Path(sys.executable).parent / "grpcurl"
SERVICES = {
    "google.longrunning.Operations",
    "grpc.health.v1.Health",
    "till.v1.CheckoutService",
    "till.v1.DraftItemService",
    "till.v1.DraftService",
    "till.v1.InventoryService",
    "till.v1.OrderService",
    "till.v1.StoreService",
}


def grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs grpcurl without TLS and returns what it printed."""
    command = [str(GRPCURL), "-plaintext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def call(
    stack: Stack, method: str, request: object, headers: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Calls `till.v1.<method>` through Envoy's gRPC port."""
    given = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    return grpcurl(*options, *given, "-d", json.dumps(request), stack.grpc, f"till.v1.{method}")


def read_order(printed: str) -> dict[str, Any]:
    """Returns the order that grpcurl prints, with -v between other lines, as REST spells it."""
    order = "{" + re.split("^{", printed, maxsplit=1, flags=re.MULTILINE)[1]
    message = json_format.ParseDict(json.JSONDecoder().raw_decode(order)[0], order_pb2.Order())
    return json_format.MessageToDict(message)


def test_list_names_every_service(stack: Stack) -> None:
    listed = grpcurl(stack.grpc, "list")

    assert listed.returncode == 0, listed.stderr
    assert set(listed.stdout.split()) >= SERVICES


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_describe_shows_each_service(stack: Stack, service: str) -> None:
    described = grpcurl(stack.grpc, "describe", service)

    assert described.returncode == 0, described.stderr
    assert f"{service} is a service:" in described.stdout


def test_describe_shows_a_message_with_its_fields(stack: Stack) -> None:
    described = grpcurl(stack.grpc, "describe", "till.v1.CreateOrderRequest")

    assert "requester_id = 1" in described.stdout, described.stderr


def test_health_says_serving(stack: Stack) -> None:
    asked = grpcurl(stack.grpc, "grpc.health.v1.Health/Check")

    assert json.loads(asked.stdout) == {"status": "SERVING"}, asked.stderr


def test_an_order_made_by_rest_is_read_by_grpc(stack: Stack) -> None:
    made = stack.rest.post("/orders", json=ORDER, headers=keyed()).json()

    read = call(stack, "OrderService/GetOrder", {"orderId": made["orderId"]}, CALLER)

    assert read.returncode == 0, read.stderr
    order = read_order(read.stdout)
    assert order["orderId"] == str(made["orderId"])
    assert ORDER.items() <= order.items()


def test_an_order_made_by_grpc_is_read_by_rest(stack: Stack) -> None:
    made = read_order(call(stack, "OrderService/CreateOrder", ORDER, keyed()).stdout)

    read = stack.rest.get(f"/orders/{made['orderId']}", headers=CALLER).json()

    assert str(read["orderId"]) == made["orderId"]
    assert ORDER.items() <= read.items()


def test_a_key_in_the_metadata_makes_one_order(stack: Stack) -> None:
    headers = keyed(str(uuid4()))

    first = call(stack, "OrderService/CreateOrder", ORDER, headers, "-v")
    again = call(stack, "OrderService/CreateOrder", ORDER, headers, "-v")

    assert "idempotent-replayed: true" not in first.stdout
    assert "idempotent-replayed: true" in again.stdout
    assert read_order(again.stdout) == read_order(first.stdout)


@pytest.mark.parametrize(
    ("method", "request_json", "headers", "code"),
    [
        ("OrderService/GetOrder", {"orderId": 1}, CALLER, "NotFound"),
        ("OrderService/GetOrder", {"orderId": 1}, {}, "Unauthenticated"),
        (
            "OrderService/GetOrder",
            {"orderId": 1},
            {"authorization": CALLER["authorization"]},
            "PermissionDenied",
        ),
        ("OrderService/CreateOrder", {}, keyed(), "InvalidArgument"),
        ("OrderService/CreateOrder", ORDER, CALLER, "InvalidArgument"),
        ("OrderService/SubmitStoreOrder", {}, {}, "InvalidArgument"),
        (
            "OrderService/ListRecentUserOrders",
            {"user_id": "nobody", "store_id": "store1"},
            {},
            "FailedPrecondition",
        ),
        ("CheckoutService/RecordCheckout", {}, {}, "InvalidArgument"),
        ("CheckoutService/GetCheckout", {"externalNumber": "x"}, {}, "NotFound"),
        ("DraftItemService/SubmitDraftItem", {}, {}, "InvalidArgument"),
        (
            "InventoryService/ListDayTicketInventory",
            {"product_idcode": "1"},
            {},
            "PermissionDenied",
        ),
        ("OrderService/Nowhere", {}, CALLER, None),
    ],
)
def test_an_error_shows_its_code(
    stack: Stack, method: str, request_json: object, headers: dict[str, str], code: str | None
) -> None:
    failed = call(stack, method, request_json, headers)

    assert failed.returncode != 0
    assert f"Code: {code}" in failed.stderr if code else "does not include" in failed.stderr
