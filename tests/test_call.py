"""One call: its deadline is kept, its line is logged, and its credentials are nobody's business."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import grpc
import pytest
from alone import Alone, alone
from callers import CALLER, KNOWN, Stubs, keyed
from conftest import Lend
from databases import lost
from inside import Served, refused, serving
from invariants import dump
from till.v1 import order_pb2, store_pb2

SECRET = "a-very-secret-word"


@pytest.fixture(scope="module")
def server(lend: Lend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A server process whose log can be read."""
    with lend() as url, alone(url, tmp_path_factory.mktemp("call")) as server:
        yield server


@pytest.fixture
def served(url: str) -> Iterator[Served]:
    """A server in this process that can write one thing at a time, on each backend."""
    with serving(url, database_connections=1) as served:
        yield served


@contextmanager
def busy(served: Served) -> Iterator[None]:
    """Keeps whoever writes at work, so that all others wait."""
    begun, go = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(served.write, lambda: (begun.set(), go.wait(60)))
        begun.wait(60)
        try:
            yield
        finally:
            go.set()
            working.result()


def order_request(number: str) -> order_pb2.SubmitStoreOrderRequest:
    """Returns a store's order."""
    return order_pb2.SubmitStoreOrderRequest(
        store_id="s", order_id=number, user_id="u", grand_total=1
    )


def test_a_call_that_expires_leaves_nothing(inner: Stubs, served: Served) -> None:
    before = dump(served.url)
    with busy(served):
        expired = refused(lambda: inner.order.SubmitStoreOrder(order_request("1"), timeout=0.2))
        queued = refused(lambda: inner.order.SubmitStoreOrder(order_request("2"), timeout=0.2))
        assert dump(served.url) == before

    inner.order.SubmitStoreOrder(order_request("3"))

    assert {expired[0], queued[0]} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert [row[3] for row in dump(served.url)["orders"]] == ["3"]


def test_a_call_that_its_caller_cancels_leaves_nothing(inner: Stubs, served: Served) -> None:
    with busy(served):
        calls = [inner.order.SubmitStoreOrder.future(order_request(str(n))) for n in range(2)]
        refused(lambda: inner.order.SubmitStoreOrder(order_request("9"), timeout=0.2))
        for call in calls:
            call.cancel()
        refused(lambda: inner.order.SubmitStoreOrder(order_request("9"), timeout=0.2))

    inner.order.SubmitStoreOrder(order_request("3"))

    assert [row[3] for row in dump(served.url)["orders"]] == ["3"]


def test_each_call_is_one_line_under_its_request_id(server: Alone) -> None:
    name = str(uuid4())

    server.stubs.order.SubmitStoreOrder(order_request(name), metadata=(("x-request-id", name),))
    refused(
        lambda: server.stubs.order.SubmitStoreOrder(
            order_request(name), metadata=(("x-request-id", f"{name}-again"),)
        )
    )

    (line,) = server.calls(request_id=name)
    assert line["method"] == "/till.v1.OrderService/SubmitStoreOrder"
    assert (line["code"], line["level"], line["ms"] > 0) == ("OK", "info", True)
    assert [each["code"] for each in server.calls(request_id=f"{name}-again")] == [
        "FAILED_PRECONDITION"
    ]


def test_a_call_without_a_request_id_gets_one(server: Alone) -> None:
    server.stubs.store.ListStores(store_pb2.ListStoresRequest())

    (line,) = server.calls(method="/till.v1.StoreService/ListStores")
    assert len(line["request_id"]) == 36


def test_an_unexpected_error_is_told_by_its_request_id_alone(server: Alone) -> None:
    name = str(uuid4())
    headers = {**CALLER, "x-request-id": name}

    with lost(server.url, "orders"):
        code, status = refused(
            lambda: server.stubs.order.GetOrder(
                order_pb2.GetOrderRequest(order_id=1), metadata=tuple(headers.items())
            )
        )

    assert code is grpc.StatusCode.INTERNAL
    assert status.message == f"internal error, request id {name}"
    assert b"orders" not in status.SerializeToString()
    server.calls(request_id=name, code="INTERNAL")
    (line,) = server.lines("unexpected")
    assert (line["request_id"], line["level"]) == (name, "error")
    assert "orders" in line["exception"]
    assert not any(value.split()[-1] in server.text() for value in CALLER.values())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, "INVALID_ARGUMENT"),
        ({"x-api-key": SECRET}, "PERMISSION_DENIED"),
        ({"authorization": f"Bearer {SECRET}"}, "UNAUTHENTICATED"),
    ],
    ids=lambda value: str(value),
)
def test_the_log_holds_no_credential(server: Alone, sent: dict[str, str], code: str) -> None:
    name = str(uuid4())
    headers = keyed() | {"x-request-id": name, "channel": f"Code {SECRET}"} | sent
    asked = order_pb2.CreateOrderRequest(user_id=1)

    refused(lambda: server.stubs.order.CreateOrder(asked, metadata=tuple(headers.items())))

    server.calls(request_id=name, code=code)
    assert not any(word in server.text() for word in (SECRET, *(KNOWN.values())))
