"""Checkouts as JSON: all that is wrong with one is told at once, by number, and kept."""

import json

import pytest
from conftest import Stack

from server.checkout_json import load, read
from storage.checkout_request import Code, Fault

ITEM = {"orderItemId": "1", "itemNumber": "1", "storageName": "d"}
WHOLE = {"store": "s", "orderNumber": "o", "externalNumber": "e", "items": [ITEM]}


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"{'store': 's'}",
        b'{"store": "s",}',
        b'{"quantity": NaN}',
        b'{"quantity": Infinity}',
        b'{"quantity": 1e999}',
        rb'{"store": "\ud800"}',
        b'{"store": "\xff"}',
        b"[" * 100_000,
    ],
    ids=lambda text: text[:20].decode(errors="replace"),
)
def test_what_is_no_json_is_not_read(text: bytes) -> None:
    with pytest.raises(ValueError, match="the body is not JSON"):
        load(text)


@pytest.mark.parametrize("payload", [[], "x", 5, None, True])
def test_what_is_no_object_is_no_checkout(payload: object) -> None:
    with pytest.raises(ValueError, match="the body must be an object"):
        read(payload)


def test_null_and_strange_fields_say_nothing() -> None:
    request, faults = read(WHOLE | {"more": 1, "items": [ITEM | {"quantity": None, "type": None}]})

    assert faults == []
    assert not (request.items[0].HasField("quantity") or request.items[0].HasField("type"))


@pytest.mark.parametrize(
    ("quantity", "found"), [(3, 3), (3.0, 3), ("3", 3), (1.5, 0), ("x", 0), (True, 0), ([], 0)]
)
def test_a_quantity_is_a_whole_number_or_its_text(quantity: object, found: int) -> None:
    request, faults = read(WHOLE | {"items": [ITEM | {"quantity": quantity}]})

    assert (request.items[0].quantity.value, faults) == (found, [])


@pytest.mark.parametrize("quantity", [-1, 2**31, 10**30, "9" * 5000, "²", -0.5])
def test_a_quantity_out_of_bounds_is_none_that_a_rule_allows(quantity: object) -> None:
    request, _ = read(WHOLE | {"items": [ITEM | {"quantity": quantity}]})

    assert request.items[0].quantity.value == 0


def test_every_fault_is_told_beside_what_cannot_be_read_and_kept(stack: Stack) -> None:
    broken = {"orderItemId": 7, "itemNumber": "1", "quantity": "x", "type": []}
    body = {"store": [], "orderNumber": " ", "items": [broken, 5]}

    answer = stack.rest.post("/checkout", content=json.dumps(body))
    kept = stack.rest.get(f"/v1/protocols/{answer.headers['x-protocol']}").json()

    errors = answer.json()["content"]["error"]["details"]["errors"]
    assert answer.status_code == 409
    assert kept["errors"] == errors
    assert [Fault(each["code"], each["params"][0]) for each in errors] == [
        Fault(Code.UNREADABLE, {"field": "store", "message": "must be a string"}),
        Fault(Code.UNREADABLE, {"field": "items[0].orderItemId", "message": "must be a string"}),
        Fault(Code.TYPE_UNKNOWN, {"field": "items[0].type"}),
        Fault(Code.UNREADABLE, {"field": "items[1]", "message": "must be an object"}),
        Fault(Code.FIELD_MISSING, {"field": "orderNumber"}),
        Fault(Code.FIELD_MISSING, {"field": "externalNumber"}),
        Fault(Code.FIELD_MISSING, {"field": "items[0].storageName"}),
        Fault(Code.QUANTITY_INVALID, {"field": "items[0].quantity"}),
    ]


def test_a_body_that_cannot_be_read_is_kept_as_it_came(stack: Stack) -> None:
    answer = stack.rest.post("/checkouts", content='{"store": ')
    kept = stack.rest.get(f"/v1/protocols/{answer.headers['x-protocol']}").json()

    assert (answer.status_code, kept["accepted"], kept["request"]) == (409, False, '{"store": ')


def test_a_mapped_body_that_is_nested_too_deeply_is_refused_and_kept(stack: Stack) -> None:
    stack.operator.post("/v1/stores", json={"storeId": "deep"})
    mapping = {"mapping": {"orderNumber": "$..n"}}
    stack.operator.put("/v1/stores/deep/checkoutMapping", json=mapping).raise_for_status()

    answer = stack.rest.post("/checkout/custom/deep", content='{"a":' * 300 + "1" + "}" * 300)

    message = "$..n cannot be looked for in this body"
    errors = [{"code": 10, "params": [{"message": message}]}]
    assert (answer.status_code, answer.headers["x-protocol"] != "") == (409, True)
    assert answer.json()["content"]["error"]["details"]["errors"] == errors


@pytest.mark.parametrize("value", ["x", [], {}, True, 1.5])
def test_a_mapped_value_that_cannot_be_read_is_told_in_words_of_ours(
    stack: Stack, value: object
) -> None:
    stack.operator.post("/v1/stores", json={"storeId": "mapped"})
    mapping = {"mapping": {"orderNumber": "$.n"}}
    stack.operator.put("/v1/stores/mapped/checkoutMapping", json=mapping).raise_for_status()
    body = WHOLE | {"n": "o", "items": [ITEM | {"quantity": value}]}

    answer = stack.rest.post("/checkout/custom/mapped", content=json.dumps(body))

    errors = answer.json()["content"]["error"]["details"]["errors"]
    assert {"code": 4, "params": [{"field": "items[0].quantity"}]} in errors
    assert not any("parse" in str(error) for error in errors)
