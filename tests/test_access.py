"""One table says who may call what; every RPC of the descriptors is in it, and every door keeps to
it.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from callers import keyed
from conftest import ORDER, Lend, Stack, running
from doors import ALL, DOORS, RPC_DOORS, RPCS, UNSERVED, Answer, bearer, call, path_of, token
from examples import EXAMPLES, FIRST, Who, fill, invented, newcomer

from server.access import PLATFORM, RULES, Needs, Rule
from server.development import CLIENT_ID

Headers = dict[str, str]
REFUSED = {"401": "UNAUTHENTICATED", "403": "PERMISSION_DENIED"}
KOREAN = "이 작업을 수행할 권한(permission)이 없습니다."
SPOOFED = {
    "x-till-tenant": "1",
    "x-till-client": CLIENT_ID,
    "x-tenant-id": "1",
    "x-client-id": CLIENT_ID,
    "x-envoy-internal": "true",
    "x-envoy-original-path": "/new-order",
    "x-jwt-payload": "eyJjbGllbnRfaWQiOiJsb2NhbC1kZXZlbG9wbWVudCJ9",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-client-cert": "By=till;Subject=CN=operator",
    "x-real-ip": "127.0.0.1",
    "cookie": "session=1",
}


def rule_of(rpc: str) -> Rule:
    return RULES[path_of(RPCS[rpc])]


@pytest.fixture(scope="module")
def other(stack: Stack) -> Who:
    """Another client of the same tenant, as powerful as an operator is."""
    return newcomer(stack, "customer:write", "operator", tenant=1)


@pytest.fixture(scope="module")
def former(stack: Stack) -> Who:
    """A client whose only key is revoked."""
    known = json.loads(stack.till("client", "create", "former", "--scope", "customer:write"))
    stack.till("client", "revoke", "former", "--key", known["key_ids"][0])
    text = token(client_id="former", scope="till/customer:write")
    return Who(text, known["api_key"], known["channel_code"])


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    assert {path_of(method) for method in RPCS.values()} == RULES.keys()


@pytest.mark.parametrize("rpc", sorted(UNSERVED))
@pytest.mark.parametrize("door", ["grpc", "server"])
def test_an_rpc_without_a_rule_is_refused_whoever_calls(stack: Stack, rpc: str, door: str) -> None:
    assert path_of(ALL[rpc]) not in RULES
    headers = bearer(FIRST.token, FIRST.key)
    assert call(stack, door, rpc, {}, headers).code == "PERMISSION_DENIED"


def wrong_keys(former: Who) -> dict[str, str]:
    """Returns keys that are not the first client's."""
    prefix, key_id, secret = FIRST.key.split("_", 2)
    return {
        "unknown": "till_0123456789abcdef_nothing",
        "wrong secret": f"{prefix}_{key_id}_{secret[::-1]}",
        "no secret": f"{prefix}_{key_id}_",
        "key id alone": key_id,
        "more behind": f"{FIRST.key}x",
        "capitals": FIRST.key.upper(),
        "no prefix": f"{key_id}_{secret}",
        "SQL": "till_' OR '1'='1_x",
        "a token": FIRST.token,
        "revoked": former.key,
        "two of them": f"{FIRST.key},{FIRST.key}",
    }


def forbidden(rule: Rule, other: Who, former: Who) -> Iterator[Headers]:
    """Yields what is answered with 403, by what an RPC needs."""
    keys, good = wrong_keys(former), bearer(FIRST.token)
    if rule.needs is Needs.CUSTOMER:
        yield from [good, bearer(FIRST.token, other.key), bearer(other.token, FIRST.key)]
        yield bearer(token(scope="till/operator"), FIRST.key)
        yield from (good | {"x-api-key": key} for key in keys.values())
    elif rule.needs is Needs.TOKEN:
        yield from [bearer(token(scope="till/customer:write")), bearer(token(scope=None))]
        yield bearer(token(scope=f"till/{rule.scope}2"))
        yield bearer(former.token)  # the token is good, the client may less than this
    elif rule.needs is Needs.DEFAULT:
        yield from ({"x-api-key": key} for key in keys.values())
        yield from [bearer(FIRST.token, other.key), good | {"x-api-key": keys["unknown"]}]
    else:
        yield from _wrong_channels(keys, other)


def _wrong_channels(keys: dict[str, str], other: Who) -> Iterator[Headers]:
    tokens, codes = f"Token {FIRST.key}", f"Code {FIRST.code}"
    yield from [{}, {"authorization": tokens}, {"channel": codes}, {"x-api-key": FIRST.key}]
    yield {"authorization": tokens, "channel": f"Code {other.code}"}
    yield {"authorization": f"Token {other.key}", "channel": codes}
    yield {"authorization": f"Bearer {FIRST.key}", "channel": codes}
    yield {"authorization": tokens, "channel": FIRST.code}
    yield {"authorization": tokens, "channel": f"{codes}x"}
    yield {"authorization": tokens, "channel": "Code"}
    yield {"authorization": codes, "channel": tokens}
    yield {"authorization": FIRST.key, "channel": codes}
    yield bearer(FIRST.token, FIRST.key) | {"channel": codes}
    yield from ({"authorization": f"Token {key}", "channel": codes} for key in keys.values())


def unauthenticated(rule: Rule) -> Iterator[Headers]:
    """Yields what is answered with 401, by what an RPC needs."""
    if rule.needs is Needs.CHANNEL:
        return
    yield bearer("a.b.c", FIRST.key)
    yield bearer(token(client_id="nobody"), FIRST.key)
    yield bearer(f"{FIRST.token}x", FIRST.key)
    if rule.needs is not Needs.DEFAULT:
        yield from [{}, {"x-api-key": FIRST.key}, SPOOFED, {"authorization": FIRST.token}]


@pytest.mark.parametrize(("rpc", "door"), RPC_DOORS)
def test_no_answer_tells_which_half_was_wrong(
    stack: Stack, other: Who, former: Who, rpc: str, door: str
) -> None:
    request = fill(EXAMPLES[rpc][0], invented())

    def ask(headers: Headers) -> Answer:
        unique = {"idempotency-key": invented()["key"]}
        return call(stack, door, rpc, request, headers | unique)

    for status, ways in (
        ("401", unauthenticated(rule_of(rpc))),
        ("403", forbidden(rule_of(rpc), other, former)),
    ):
        answers = [ask(headers) for headers in ways]
        assert {answer.code for answer in answers} <= {status, REFUSED[status]}
        assert len({answer.body for answer in answers}) <= 1
        names = [sorted(answer.headers) for answer in answers]
        assert all(each == names[0] for each in names)


REFUSALS = {
    "/new-order": lambda status, text: {"statusCode": status, "error": text},
    "/user-orders": lambda status, text: {"statusCode": status, "error": text},
    "/store-checkout-draft-items-post-one": lambda _, text: {"is_accepted": False, "message": text},
    "/checkout": lambda status, text: _checkout(status, text),
    "/checkout/custom/s": lambda status, text: _checkout(status, text),
}


def _checkout(status: int, text: str) -> dict[str, Any]:
    errors = [{"code": 11, "params": [{"message": text}]}]
    content = {"error": {"code": "CheckoutInvalido", "details": {"errors": errors}}}
    return {"statusCode": status, "content": content, "hasError": True, "data": None}


@pytest.mark.parametrize("path", REFUSALS)
def test_a_refusal_keeps_the_shape_of_its_document(stack: Stack, path: str) -> None:
    forbidden = stack.rest.post(path, json={}, headers={"x-api-key": "wrong"})
    text = "these credentials do not allow this call"
    assert (forbidden.status_code, forbidden.json()) == (403, REFUSALS[path](403, text))
    unknown = stack.rest.post(path, json={}, headers=bearer("a.b.c"))
    text = "credentials are missing or not accepted"
    assert (unknown.status_code, unknown.json()) == (401, REFUSALS[path](401, text))


def test_a_refused_order_is_a_status_and_a_refused_channel_a_sentence(stack: Stack) -> None:
    order = stack.rest.post("/orders", json=ORDER)
    assert (order.status_code, order.json()["code"]) == (401, 16)
    keyless = stack.rest.post("/orders", json=ORDER, headers=bearer(FIRST.token))
    assert (keyless.status_code, keyless.json()["code"]) == (403, 7)
    assert {*order.json()} == {*keyless.json()} == {"code", "message", "details"}
    channel = stack.rest.get("/v1/channel/inventory/day-ticket/1")
    assert (channel.status_code, channel.json()) == (403, {"message": KOREAN})


@pytest.mark.parametrize("door", DOORS)
def test_who_may_read_may_not_write(stack: Stack, door: str) -> None:
    request = fill(EXAMPLES["OrderService.GetOrder"][0], invented())
    reader = newcomer(stack, "customer:read")
    for headers in (
        bearer(token(scope="till/customer:read"), FIRST.key),  # the token says less
        bearer(reader.token, reader.key),
        bearer(_of(reader, "customer:write operator platform"), reader.key),  # the client may less
    ):
        sent = keyed() | headers
        assert call(stack, door, "OrderService.CreateOrder", ORDER, sent).code in _no()
        assert call(stack, door, "OrderService.GetOrder", request, sent).code in _none()


def _of(who: Who, scopes: str) -> str:
    """Returns a token of a client with scopes that nobody gave it."""
    said = json.loads(_decoded(who.token))
    scope = " ".join(f"till/{scope}" for scope in scopes.split())
    return token(client_id=said["client_id"], scope=scope)


def _decoded(text: str) -> bytes:
    body = text.split(".")[1]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def _no() -> tuple[str, str]:
    return "403", "PERMISSION_DENIED"


def _none() -> tuple[str, str]:
    return "404", "NOT_FOUND"


@pytest.mark.parametrize(("rpc", "door"), [r for r in RPC_DOORS if rule_of(r[0]).scope == PLATFORM])
def test_an_operator_is_not_the_platform(stack: Stack, rpc: str, door: str) -> None:
    operator = newcomer(stack, "operator")
    request = fill(EXAMPLES[rpc][0], invented())
    for text in (operator.token, _of(operator, "platform"), token(scope="till/operator")):
        assert call(stack, door, rpc, request, bearer(text)).code in _no()


@pytest.mark.parametrize("door", DOORS)
def test_an_operator_makes_no_client_beyond_his_tenant_and_no_platform(
    stack: Stack, door: str
) -> None:
    operator = newcomer(stack, "operator")
    for request in (
        {"apiClient": {"scopes": ["platform"]}},
        {"apiClient": {"scopes": ["operator"]}, "tenantId": 1},
        {"apiClient": {"scopes": ["operator"]}, "tenantId": 987654},
    ):
        answer = call(stack, door, "TenantService.CreateApiClient", request, bearer(operator.token))
        assert answer.code in _no()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("verb", ["RotateApiKey", "RevokeApiKey", "RevokeApiClient"])
def test_an_operator_does_not_touch_the_platforms_client(
    stack: Stack, verb: str, door: str
) -> None:
    request = {"clientId": CLIENT_ID} | ({"keyId": "x"} if verb == "RevokeApiKey" else {})
    headers = bearer(token(scope="till/operator"))
    assert call(stack, door, f"TenantService.{verb}", request, headers).code in _no()


def test_spoofed_headers_change_nothing(stack: Stack) -> None:
    theirs = newcomer(stack, "customer:write")
    order = fill(EXAMPLES["OrderService.SubmitStoreOrder"][0], invented())
    assert stack.rest.post("/new-order", json=order, headers=SPOOFED).status_code == 201
    recent = {"store_id": order["store_id"], "user_id": order["user_id"]}
    sent = SPOOFED | {"x-api-key": theirs.key}
    assert stack.rest.post("/user-orders", json=recent, headers=sent).status_code == 400
    assert stack.rest.post("/user-orders", json=recent).status_code == 200


@pytest.fixture(scope="module")
def strict(lend: Lend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack where everybody needs a key."""
    folder, settings = tmp_path_factory.mktemp("strict"), {"TILL_REQUIRE_KEY": "true"}
    with lend() as url, running(folder, settings | {"TILL_DATABASE": url}) as stack:
        yield stack


@pytest.mark.parametrize(
    ("rpc", "door"), [each for each in RPC_DOORS if rule_of(each[0]).needs is Needs.DEFAULT]
)
def test_a_setting_can_ask_everybody_for_a_key(strict: Stack, rpc: str, door: str) -> None:
    request = fill(EXAMPLES[rpc][0], invented())
    for headers in ({}, {"x-api-key": "wrong"}, bearer(FIRST.token), SPOOFED):
        assert call(strict, door, rpc, request, headers).code in _no()
    for headers in ({"x-api-key": FIRST.key}, bearer(FIRST.token, FIRST.key)):
        assert call(strict, door, rpc, request, headers).code not in _no()
