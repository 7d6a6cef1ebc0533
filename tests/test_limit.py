"""Limits: a bucket for each client, a bound on the calls in flight, and Envoy's flood wall."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from callers import keyed
from conftest import ORDER, Stack, eventually, running
from doors import DOORS, Answer, bearer, call, token
from examples import EXAMPLES, Who, fill, invented
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server import config
from server.errors import RateLimited
from server.limit import BUCKETS_MAX, Limits

BURST = 3
LIMITED = ("429", "RESOURCE_EXHAUSTED")
SHED = ("503", "UNAVAILABLE")
RPC = "OrderService.ListRecentUserOrders"
NOBODY = {"store_id": "nowhere", "user_id": "nobody"}
INVENTORY = "/v1/channel/inventory/day-ticket/1"
TOO_MANY = "too many requests"
FULL = "the server has too many calls in flight"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack where a client has three calls, and the fourth in a minute."""
    settings = {"TILL_RATE_PER_SECOND": "0.02", "TILL_RATE_BURST": str(BURST)}
    with running(tmp_path_factory.mktemp("slow"), settings) as stack:
        yield stack


def client_of(stack: Stack) -> Who:
    """Returns a new client of the first tenant."""
    name = invented()["client"]
    made = json.loads(stack.till("client", "create", name, "--scope", "customer:write"))
    return Who(token(client_id=name), made["api_key"], made["channel_code"])


def exhaust(stack: Stack, door: str, headers: dict[str, str]) -> Answer:
    """Calls as often as a client may, and once more."""
    answers = [call(stack, door, RPC, NOBODY, headers) for _ in range(BURST + 1)]
    assert not [answer for answer in answers[:-1] if answer.code in LIMITED]
    return answers[-1]


@pytest.mark.parametrize("door", DOORS)
def test_who_calls_too_often_learns_when_to_come_again(slow: Stack, door: str) -> None:
    one, two = client_of(slow), client_of(slow)
    refused = exhaust(slow, door, {"x-api-key": one.key})
    assert refused.code in LIMITED
    headers = refused.headers
    assert 0 < int(headers["retry-after"]) <= 50
    assert headers["x-ratelimit-limit"] == str(BURST)
    assert headers["x-ratelimit-remaining"] == "0"
    assert headers["x-ratelimit-reset"] == headers["retry-after"]
    if door != "rest":
        told = json.loads(refused.body.removeprefix(TOO_MANY))
        [retry] = [d for d in told["details"] if d["@type"].endswith("RetryInfo")]
        assert retry["retryDelay"] == f"{headers['retry-after']}s"
    # Whoever he is, he starves nobody but himself, at this door and at the others.
    assert call(slow, door, RPC, NOBODY, {"x-api-key": two.key}).code not in LIMITED
    for other in DOORS:
        assert call(slow, other, RPC, NOBODY, {"x-api-key": one.key}).code in LIMITED
        assert call(slow, other, RPC, NOBODY, bearer(one.token)).code in LIMITED


def shapes(status: int, text: str) -> dict[str, Any]:
    """Returns a refusal as each document spells it."""
    errors = [{"code": 11, "params": [{"message": text}]}]
    content = {"error": {"code": "CheckoutInvalido", "details": {"errors": errors}}}
    checkout = {"statusCode": status, "content": content, "hasError": True, "data": None}
    return {
        "/new-order": {"statusCode": status, "error": text},
        "/user-orders": {"statusCode": status, "error": text},
        "/store-checkout-draft-items-post-one": {"is_accepted": False, "message": text},
        "/checkout": checkout,
        "/checkout/custom/s": checkout,
        INVENTORY: {"message": text},
    }


def test_the_limit_is_told_in_the_shape_of_its_document(slow: Stack) -> None:
    one = client_of(slow)
    exhaust(slow, "rest", {"x-api-key": one.key})
    channel = {"authorization": f"Token {one.key}", "channel": f"Code {one.code}"}
    for path, body in shapes(429, TOO_MANY).items():
        sent = channel if path == INVENTORY else {"x-api-key": one.key}
        answer = slow.rest.post(path, json={}, headers=sent)
        assert (answer.status_code, answer.json()) == (429, body)
    order = slow.rest.post("/orders", json=ORDER, headers=keyed() | bearer(one.token, one.key))
    assert (order.status_code, order.json()["code"]) == (429, 8)
    assert order.json()["message"] == TOO_MANY


def test_nobodys_bucket_is_his_address_whatever_he_says_it_is(slow: Stack) -> None:
    good = client_of(slow)
    assert exhaust(slow, "rest", {}).code in LIMITED
    for spoofed in ("10.0.0.1", "10.0.0.1, 10.0.0.2", ""):
        answer = call(slow, "rest", RPC, NOBODY, {"x-forwarded-for": spoofed})
        assert answer.code in LIMITED
    # Guessing counts like calling, and good credentials are not made to wait for it.
    assert call(slow, "rest", RPC, NOBODY, {"x-api-key": "till_guess_1"}).code in LIMITED
    assert call(slow, "rest", RPC, NOBODY, {"x-api-key": good.key}).code not in LIMITED


def test_buckets_are_forgotten_before_they_fill_the_memory() -> None:
    limits = Limits(rate_per_second=0.001, burst=1, calls_max=1)
    limits.spend("first")
    with pytest.raises(RateLimited):
        limits.spend("first")
    for number in range(BUCKETS_MAX):
        limits.spend(f"@{number}")
    limits.spend("first")


@pytest.mark.parametrize("name", ["RATE_PER_SECOND", "EDGE_RATE_PER_SECOND", "CALLS_MAX"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_limit_of_nothing_is_refused_at_start(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"TILL_{name} must be above 0"):
        config.load({f"TILL_{name}": value})


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_rate_is_a_number(value: str) -> None:
    with pytest.raises(ValueError, match="TILL_RATE_PER_SECOND must be above 0"):
        config.load({"TILL_RATE_PER_SECOND": value})


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that works on one call at a time."""
    with running(tmp_path_factory.mktemp("narrow"), {"TILL_CALLS_MAX": "1"}) as stack:
        yield stack


class Busy:
    """Keeps a server at work by a question that never ends."""

    def __init__(self, stack: Stack) -> None:
        self._channel = grpc.insecure_channel(stack.server)

    def __enter__(self) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(self._channel)  # type: ignore[no-untyped-call]
        self._answers = stub.ServerReflectionInfo(self._questions())
        next(self._answers)

    def _questions(self) -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        threading.Event().wait(60)

    def __exit__(self, *_: object) -> None:
        self._answers.cancel()
        self._channel.close()


@pytest.mark.parametrize("door", DOORS)
def test_one_call_too_many_is_shed_and_leaves_nothing(narrow: Stack, door: str) -> None:
    before, rpc = narrow.count("orders"), "OrderService.SubmitStoreOrder"
    request = fill(EXAMPLES[rpc][0], invented())
    with Busy(narrow):
        shed = call(narrow, door, rpc, request)
        assert shed.code in SHED
        assert shed.headers["retry-after"] == "1"
        if door != "rest":
            details = json.loads(shed.body.removeprefix(FULL))["details"]
            assert details[0] == {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": "1s",
            }
        assert narrow.rest.get("/healthz").status_code == 200
    eventually(lambda: _accepted(narrow, door, request))
    assert narrow.count("orders") == before + 1


def _accepted(stack: Stack, door: str, request: dict[str, Any]) -> None:
    answer = call(stack, door, "OrderService.SubmitStoreOrder", request)
    assert answer.code in ("201", "OK"), answer


def test_shedding_is_told_in_the_shape_of_its_document(narrow: Stack) -> None:
    with Busy(narrow):
        for path, body in shapes(503, FULL).items():
            answer = narrow.rest.post(path, json={})
            assert (answer.status_code, answer.json()) == (503, body)
        order = narrow.rest.post("/orders", json=ORDER, headers=keyed())
        assert (order.status_code, order.json()["code"]) == (503, 14)


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose Envoy lets one call a second through."""
    with running(tmp_path_factory.mktemp("walled"), {"TILL_EDGE_RATE_PER_SECOND": "1"}) as stack:
        yield stack


@pytest.mark.parametrize("path", shapes(429, TOO_MANY))
def test_a_flood_ends_at_envoy_in_the_shape_of_its_document(walled: Stack, path: str) -> None:
    def flooded() -> Any:
        answer = walled.rest.post(path, json={})
        assert answer.status_code == 429
        return answer

    refused = eventually(flooded)
    assert refused.json() == shapes(429, TOO_MANY)[path]
    told = {
        name: refused.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")
    }
    assert told == {"limit": "1", "remaining": "0", "reset": "1"}
    assert refused.headers["retry-after"] == "1"


def test_a_flood_of_grpc_is_told_as_one(walled: Stack) -> None:
    def flooded() -> Answer:
        answer = call(walled, "grpc", RPC, NOBODY)
        assert answer.code == "RESOURCE_EXHAUSTED"
        return answer

    assert eventually(flooded).headers["retry-after"] == "1"
    assert call(walled, "server", RPC, NOBODY).code == "FAILED_PRECONDITION"
