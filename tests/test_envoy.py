"""What is Envoy's alone, before a server that answers what each test tells it."""

import json
import re
import socket
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import ANY

import grpc
import httpx
import pytest
from conftest import eventually
from doors import RPCS
from edges import Backend, Envoy, Reply, running_envoy
from google.api import annotations_pb2
from google.protobuf import message_factory
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status
from till.v1 import checkout_pb2, draft_item_pb2, inventory_pb2, lifecycle_pb2
from till.v1.order_pb2 import LineItem, Order, SimpleOrderError

DRAFTS = [f"{stage}/store-checkout-draft-items-post-one" for stage in ("", "/prod")]
SIMPLE = ["/new-order", "/user-orders"]
CHECKOUTS = ["/checkout", "/checkouts", "/checkout/custom/s1"]
INVENTORY = "/v1/channel/inventory/day-ticket/1"
POSTS = ["/orders", "/v1/stores", *DRAFTS, *SIMPLE, *CHECKOUTS]
ROUTES = [*(("POST", path) for path in POSTS), ("GET", "/orders/1"), ("GET", INVENTORY)]
DOCUMENTED = [
    *(("POST", path, draft_item_pb2.DraftItemError(message='"]}'), 400) for path in DRAFTS),
    *(("POST", path, SimpleOrderError(error="taken"), 400) for path in SIMPLE),
    *(("POST", path, checkout_pb2.CheckoutError(status_code=409), 409) for path in CHECKOUTS),
    ("GET", INVENTORY, inventory_pb2.InventoryError(message="없"), 404),
]
MISREAD = [
    ("/orders", '{"userId": "x"}', "userId", "must be a whole number of 32 bits"),
    ("/orders", '{"userId": {}}', "userId", "must not be an object"),
    ("/orders", '{"notes": 5}', "notes", "must be a string"),
    ("/orders", '{"useShippingAccount": 2}', "useShippingAccount", "must be true or false"),
    ("/orders", '{"quoteItems": [1]}', "quoteItems[0]", "cannot have this value"),
    (
        "/orders",
        '{"quoteItems": [{"priceOptionId": "x\\n: y"}]}',
        "quoteItems[0].priceOptionId",
        "must be a whole number of 64 bits",
    ),
    (DRAFTS[0], '{"line_total": "x"}', "line_total", "must be a number"),
    ("/new-order", '{"grand_total": 1, "grand_total": 2}', "grand_total", "is there twice"),
    ("/new-order", '{"store_id": 5}', "store_id", "must be a string"),
]
PATTERNS = [
    (rpc, kind, getattr(rule, kind))
    for rpc, method in RPCS.items()
    for declared in [method.GetOptions().Extensions[annotations_pb2.http]]
    for rule in (declared, *declared.additional_bindings)
    for kind in [rule.WhichOneof("pattern") or ""]
    if kind and re.search("{[^=}]+(=.*[*].*)?}", getattr(rule, kind))
]
"""Routes with a variable in their path."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with running_envoy(Backend(), tmp_path_factory.mktemp("envoy")) as envoy:
        eventually(lambda: healthy(envoy, 200, "SERVING"))
        yield envoy


def healthy(envoy: Envoy, status: int, word: str) -> None:
    answer = envoy.rest.get("/healthz")
    assert (answer.status_code, answer.json()) == (status, {"status": word})


def refusal(code: grpc.StatusCode, message: str, *details: Message) -> Reply:
    def refuse(context: grpc.ServicerContext) -> Message:
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            status.details.add().Pack(detail)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort raises")

    return refuse


def info(reason: str) -> dict[str, Any]:
    """Returns the detail that names the reason of an error."""
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": kind, "reason": reason, "domain": "till", "metadata": {}}


def refused(
    answer: httpx.Response,
    path: str,
    status: int,
    message: object = ANY,
    details: Sequence[dict[str, Any]] = (),
) -> None:
    """Asserts that an error has this message, in the shape of its route."""
    errors = [{"code": 10 if status == 409 else 11, "params": [{"message": message}]}]
    content = {"error": {"code": "CheckoutInvalido", "details": {"errors": errors}}}
    checkout = {"statusCode": status, "content": content, "hasError": True, "data": None}
    shapes: dict[str, object] = {one: checkout for one in CHECKOUTS}
    shapes |= {one: {"statusCode": status, "error": message} for one in SIMPLE}
    shapes |= {one: {"is_accepted": False, "message": message} for one in DRAFTS}
    shapes |= {INVENTORY: {"message": message}}
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json() == shapes.get(
        path, {"code": ANY, "message": message, "details": [*details]}
    )


@pytest.mark.parametrize("path", POSTS)
def test_a_body_above_the_limit_is_413_in_the_shape_of_its_route(envoy: Envoy, path: str) -> None:
    answer = envoy.rest.post(path, content=b" " * (1024 * 1024 + 1))
    refused(answer, path, 413, "the request body is too large")


@pytest.mark.parametrize("path", [path for path in POSTS if path not in CHECKOUTS])
def test_malformed_json_is_told_in_the_shape_of_its_route(envoy: Envoy, path: str) -> None:
    answer = envoy.rest.post(path, content=b'{"a')
    told = "Closing quote expected in string."
    refused(answer, path, 400, told, [info("MALFORMED_REQUEST")])


@pytest.mark.parametrize(("path", "body", "field", "wrong"), MISREAD)
def test_a_value_of_another_type_is_told_with_its_field_as_the_document_spells_it(
    envoy: Envoy, path: str, body: str, field: str, wrong: str
) -> None:
    answer = envoy.rest.post(path, content=body)
    violation = {"field": field, "description": wrong, "reason": ""}
    request = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [violation],
    }
    details = [request, info("INVALID_FIELD")]
    refused(answer, path, 400, f"{field} {wrong}", details)


@pytest.mark.parametrize("path", [*(path for _, path in ROUTES), "/", "/nowhere"])
def test_a_wrong_method_or_path_is_404_in_the_shape_of_its_route(envoy: Envoy, path: str) -> None:
    refused(envoy.rest.delete(path), path, 404)


@pytest.mark.parametrize("path", [*(path for _, path in ROUTES), "/", "/nowhere", "/healthz"])
def test_an_answer_to_head_has_no_body_and_the_connection_goes_on(envoy: Envoy, path: str) -> None:
    with socket.create_connection((envoy.rest.base_url.host, envoy.rest.base_url.port)) as peer:
        for method in ("HEAD", "GET"):
            last = "" if method == "HEAD" else "Connection: close\r\n"
            peer.sendall(f"{method} {path} HTTP/1.1\r\nHost: till\r\n{last}\r\n".encode())
        answers = b"".join(iter(lambda: peer.recv(1 << 16), b"")).decode()
    head, _, rest = answers.partition("\r\n\r\n")

    assert head.startswith(f"HTTP/1.1 {200 if path == '/healthz' else 404} ")
    assert rest.startswith("HTTP/1.1 "), answers


@pytest.mark.parametrize(("rpc", "kind", "pattern"), PATTERNS)
def test_a_query_does_not_speak_for_the_path(
    envoy: Envoy, rpc: str, kind: str, pattern: str
) -> None:
    (name,) = re.findall("{([^}=]+)", pattern)
    told = "operations/7" if "operations/**" in pattern else "7"
    path = re.sub("{[^}]+}", told, pattern)
    request = message_factory.GetMessageClass(RPCS[rpc].input_type)()
    for spelt in (name, re.sub("_(.)", lambda found: found[1].upper(), name), _escaped(name)):
        envoy.backend.request = b""
        answer = envoy.rest.request(kind, f"{path}?{spelt}=8&unknown=9")
        assert envoy.backend.request, answer.text
        request.ParseFromString(envoy.backend.request)
        assert str(reduce(getattr, name.split("."), request)) == told


def test_the_rest_of_a_query_is_read_as_it_was_sent(envoy: Envoy) -> None:
    query = "customer=a%2Bb%20c+d%26%3D%C3%BC&store_id=&status=PACKED&page_size=3&pageToken=x=="
    envoy.rest.get(f"/v1/orders?{query}")
    request = lifecycle_pb2.ListOrdersRequest.FromString(envoy.backend.request)

    assert (request.customer, request.page_size) == ("a+b c d&=ü", 3)
    assert (request.page_token, request.store_id) == ("x==", "")
    assert request.status == Order.Status.Value("PACKED")


def _escaped(text: str) -> str:
    return "".join(f"%{ord(letter):02X}" for letter in text)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_refusal_without_a_documented_body_takes_the_shape_of_its_route(
    envoy: Envoy, method: str, path: str
) -> None:
    envoy.backend.reply = refusal(grpc.StatusCode.UNAVAILABLE, 'over "100%"\n한')
    refused(envoy.rest.request(method, path), path, 503, 'over "100%"\n한')
    envoy.backend.reply = refusal(grpc.StatusCode.UNKNOWN, "a crash: KeyError: password")
    refused(envoy.rest.request(method, path), path, 500, "internal error")


@pytest.mark.parametrize(("method", "path", "error", "status"), DOCUMENTED)
def test_the_last_detail_is_the_body(
    envoy: Envoy, method: str, path: str, error: Message, status: int
) -> None:
    any_type = f'"@type":"type.googleapis.com/{error.DESCRIPTOR.full_name}"'
    decoy = status_pb2.Status(message=f"{{{any_type}}}]}}")
    envoy.backend.reply = refusal(grpc.StatusCode.INVALID_ARGUMENT, "no", decoy, error)
    answer = envoy.rest.request(method, path)
    assert answer.status_code == status
    assert ParseDict(answer.json(), type(error)()) == error


def test_ids_are_integers_and_strings_that_look_like_them_stay(envoy: Envoy) -> None:
    order = Order(order_id=2**53 - 1, etag='"orderId":"1"', line_items=[LineItem(product_id=5)])
    envoy.backend.reply = lambda context: order
    body = envoy.rest.get("/orders/1").json()
    seen = (body["orderId"], body["etag"], body["lineItems"][0]["productId"])
    assert seen == (2**53 - 1, order.etag, 5)


def test_the_servers_headers_reach_the_client_and_grpcs_own_do_not(envoy: Envoy) -> None:
    def reply(context: grpc.ServicerContext) -> Message:
        context.send_initial_metadata((("x-operation", "operations/1"), ("retry-after", "1")))
        return Order()

    envoy.backend.reply = reply
    headers = envoy.rest.get("/orders/1", headers={"x-request-id": "mine"}).headers
    assert (headers["x-operation"], headers["retry-after"]) == ("operations/1", "1")
    assert (headers["x-request-id"], headers["server"]) == ("mine", "till")
    assert not [name for name in headers if name.startswith(("grpc-", "x-envoy-"))]


def test_a_client_cannot_pretend_to_be_envoy(envoy: Envoy) -> None:
    envoy.backend.reply = lambda context: Order()
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    spoofed = {"x-till-tenant": "9", "x-envoy-original-path": "/a", "x-envoy-internal": "true"}
    envoy.rest.get("/orders/1", headers=spoofed | trace)
    expected = trace | {"x-envoy-original-path": "/orders/1"}
    assert envoy.backend.metadata.items() >= expected.items()
    assert not {"x-till-tenant", "x-envoy-internal"} & set(envoy.backend.metadata)


@pytest.mark.parametrize(("asked", "seconds"), [("", 15), ("1H", 15), ("5S", 5)])
def test_the_server_learns_the_deadline(envoy: Envoy, asked: str, seconds: int) -> None:
    envoy.backend.reply = lambda context: Order()
    envoy.rest.get("/orders/1", headers={"grpc-timeout": asked} if asked else {})
    assert seconds - 1 < envoy.backend.seconds_left <= seconds


def test_an_answer_that_comes_too_late_is_504(envoy: Envoy) -> None:
    envoy.backend.reply = lambda context: Order(order_id=int(Event().wait(1)))
    answer = envoy.rest.post("/new-order", headers={"grpc-timeout": "100m"})
    refused(answer, "/new-order", 504, "the service took too long to answer")


def test_healthz_follows_the_health_of_the_server(envoy: Envoy) -> None:
    envoy.backend.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    eventually(lambda: healthy(envoy, 503, "NOT_SERVING"))
    envoy.backend.health.set("", health_pb2.HealthCheckResponse.SERVING)
    eventually(lambda: healthy(envoy, 200, "SERVING"))


def test_the_access_log_is_json_and_holds_no_credentials(envoy: Envoy) -> None:
    secret = {"authorization": "Bearer SECRET", "x-api-key": "SECRET", "x-request-id": "logged"}
    envoy.rest.get("/orders/1?token=SECRET", headers=secret)
    eventually(lambda: logged(envoy.log.read_text("utf-8")))


def logged(log: str) -> None:
    line = next((line for line in log.splitlines() if '"logged"' in line), "{}")
    expected = {"method": "GET", "path": "/orders/1", "status": 401, "grpc_status": "16"}
    assert json.loads(line).items() >= expected.items() and "SECRET" not in log


def test_a_browser_can_call_by_grpc_web(envoy: Envoy) -> None:
    envoy.backend.reply = lambda context: Order(order_number="web")
    method, web = "till.v1.OrderService/GetOrder", {"content-type": "application/grpc-web"}
    answer = httpx.post(f"http://{envoy.grpc}/{method}", headers=web, content=bytes(5))
    assert b"web" in answer.content and b"grpc-status:0" in answer.content


def test_without_a_server_every_route_says_503_in_its_shape(tmp_path: Path) -> None:
    backend = Backend()
    backend.server.stop(None).wait()
    with running_envoy(backend, tmp_path) as envoy:
        healthy(envoy, 503, "NOT_SERVING")
        for method, path in ROUTES:
            answer = envoy.rest.request(method, path)
            refused(answer, path, 503, "the service is unavailable, please try again")
