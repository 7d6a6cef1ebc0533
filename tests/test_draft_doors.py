"""Drafts that change until an order takes them, as callers do it: over gRPC, as REST, at once."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from callers import Stubs, keyed
from conftest import ORDER, Stack, eventually
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status
from till.v1 import draft_pb2
from till.v1.draft_item_pb2 import DraftItem

DOOR = "/store-checkout-draft-items-post-one"
STALE = '"99"'
ROUNDS = 12


def filled(stack: Stack, quantity: int = 2) -> str:
    """Fills a new draft with one item of the same id, and returns the id once it is applied."""
    name = str(uuid4())
    item = {"pk": name, "gsi_1_pk": name, "quantity": quantity, "unit_price": 1.5, "sku": "A"}
    sent = stack.rest.post(DOOR, json={**item, "idempotency_key": name, "line_number": 4})
    assert sent.status_code == 202, sent.text
    eventually(lambda: good(stack.rest.get(f"/v1/draftItems/{name}")))
    return name


def good(answer: httpx.Response) -> Any:
    """Returns the body of an answer that is 200, or fails."""
    assert answer.status_code == 200, answer.text
    return answer.json()


def reason(answer: httpx.Response) -> str:
    """Returns the reason of a refusal."""
    return str(answer.json()["details"][-1]["reason"])


@pytest.mark.parametrize(
    ("mask", "changed"),
    [
        ([], {"quantity": 0, "is_active": False}),
        (["quantity"], {"quantity": 0}),
        (["quantity", "line_number"], {"quantity": 0, "line_number": None}),
        (["*"], {"quantity": 0, "is_active": False, "line_number": None, "sku": ""}),
    ],
)
def test_a_mask_says_what_changes(
    stack: Stack, stubs: Stubs, mask: list[str], changed: dict[str, Any]
) -> None:
    name = filled(stack)
    item = DraftItem(checkout_draft_item_id=name, quantity=0, is_active=False)

    stubs.drafts.UpdateDraftItem(
        draft_pb2.UpdateDraftItemRequest(item=item, update_mask=FieldMask(paths=mask))
    )

    before = {"quantity": 2, "is_active": True, "line_number": 4, "sku": "A"}
    read = good(stack.rest.get(f"/v1/draftItems/{name}"))
    assert {key: read.get(key) for key in before} == before | changed


@pytest.mark.parametrize("path", ["etag", "order_id", "nonsense", "display_name.x"])
def test_a_path_that_cannot_change_is_refused_by_name(
    stack: Stack, stubs: Stubs, path: str
) -> None:
    asked = draft_pb2.UpdateDraftRequest(
        draft=draft_pb2.Draft(checkout_draft_id=filled(stack)),
        update_mask=FieldMask(paths=["display_name", path]),
    )
    with pytest.raises(grpc.RpcError) as refused:
        stubs.drafts.UpdateDraft(asked)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = BadRequest()
    assert rpc_status.from_call(refused.value).details[0].Unpack(told)
    assert [(v.field, path in v.description) for v in told.field_violations] == [
        ("update_mask", True)
    ]


def test_a_conflict_brings_the_current_etag(stack: Stack, stubs: Stubs) -> None:
    asked = draft_pb2.DeleteDraftItemRequest(checkout_draft_item_id=filled(stack), etag=STALE)
    with pytest.raises(grpc.RpcError) as refused:
        stubs.drafts.DeleteDraftItem(asked)

    told = ErrorInfo()
    assert refused.value.code() is grpc.StatusCode.ABORTED
    assert rpc_status.from_call(refused.value).details[-1].Unpack(told)
    assert (told.reason, dict(told.metadata)) == ("ETAG_MISMATCH", {"etag": '"1"'})


def test_a_patch_without_a_mask_changes_what_its_body_has(stack: Stack) -> None:
    name = filled(stack)
    path = f"/v1/drafts/{name}"

    assert good(stack.rest.patch(path, json={"display_name": "N"}))["display_name"] == "N"
    again = good(stack.rest.patch(path, json={"etag": '"2"'}))
    assert (again["display_name"], again["etag"]) == ("N", '"2"')
    assert good(stack.rest.patch(path, json={"display_name": ""}))["display_name"] == ""
    item = good(stack.rest.patch(f"/v1/draftItems/{name}", json={"is_active": False, "sku": ""}))
    assert (item["is_active"], item["sku"], item["quantity"]) == (False, "", 2)


def test_a_patch_with_a_mask_clears_what_its_body_lacks(stack: Stack) -> None:
    path = f"/v1/draftItems/{filled(stack)}"

    item = good(stack.rest.patch(f"{path}?update_mask=sku,unit_price", json={"quantity": 9}))

    assert (item["sku"], item.get("unit_price"), item["quantity"]) == ("", None, 2)


@pytest.mark.parametrize(
    "body",
    [{"quantity": -1}, {"unit_price": 0.1234567}, {"line_total": 1e13}, {"sku": "x" * 256}],
    ids=lambda body: next(iter(body)),
)
def test_a_patch_keeps_the_rules_of_the_item(stack: Stack, body: dict[str, Any]) -> None:
    refused = stack.rest.patch(f"/v1/draftItems/{filled(stack)}", json=body)

    violations = refused.json()["details"][0]["fieldViolations"]
    assert (refused.status_code, violations[0]["field"]) == (400, f"item.{next(iter(body))}")


def test_drafts_are_listed_in_pages_and_deleted_ones_when_asked_for(stack: Stack) -> None:
    names = sorted(filled(stack) for _ in range(5))
    gone = stack.rest.delete(f"/v1/drafts/{names[2]}", params={"etag": '"1"'})
    assert good(gone)["is_deleted"] is True

    def listed(**asked: object) -> list[str]:
        token, found = "", []
        while page := good(stack.operator.get("/v1/drafts", params={**asked, "page_token": token})):
            assert len(page["drafts"]) <= 2
            found += [row["checkout_draft_id"] for row in page["drafts"]]
            if not (token := page["next_page_token"]):
                break
        return [name for name in found if name in names]

    assert listed(page_size=2) == [name for name in names if name != names[2]]
    assert listed(page_size=2, show_deleted=True) == names
    assert good(stack.rest.post(f"/v1/drafts/{names[2]}:undelete"))["is_deleted"] is False
    assert listed(page_size=2) == names


def together(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Makes these calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def order(stack: Stack, name: str) -> Callable[[], httpx.Response]:
    """Returns the call that orders a draft."""
    body, headers = {**ORDER, "checkoutDraftId": name}, keyed()
    return lambda: stack.rest.post("/orders", json=body, headers=headers)


def patch(stack: Stack, name: str, **body: object) -> Callable[[], httpx.Response]:
    """Returns the call that updates an item."""
    return lambda: stack.rest.patch(f"/v1/draftItems/{name}", json=body)


def test_of_updates_with_one_etag_one_wins(stack: Stack) -> None:
    name = filled(stack)

    answers = together(*(patch(stack, name, quantity=10 + n, etag='"1"') for n in range(20)))

    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 19}
    (winner,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert good(stack.rest.get(f"/v1/draftItems/{name}")) == winner


def test_a_draft_is_deleted_or_ordered_and_never_both(stack: Stack) -> None:
    for name in [filled(stack) for _ in range(ROUNDS)]:
        gone, taken = together(
            lambda name=name: stack.rest.delete(f"/v1/drafts/{name}"), order(stack, name)
        )

        left = good(stack.rest.get(f"/v1/drafts/{name}"))
        assert sorted((gone.status_code, taken.status_code)) == [200, 400]
        assert left["is_deleted"] is (gone.status_code == 200)
        assert (left["order_id"] != "0") is (taken.status_code == 200)
        lost = taken if taken.status_code == 400 else gone
        assert reason(lost) == ("DRAFT_NOT_ORDERABLE" if lost is taken else "DRAFT_NOT_OPEN")


def test_an_order_has_what_an_update_before_it_said_and_nothing_after(stack: Stack) -> None:
    for name in [filled(stack) for _ in range(ROUNDS)]:
        changed, taken = together(patch(stack, name, quantity=9), order(stack, name))

        (line,) = good(taken)["lineItems"]
        kept = good(stack.rest.get(f"/v1/draftItems/{name}"))["quantity"]
        assert line["quantity"] == kept == (9 if changed.status_code == 200 else 2)
        assert changed.status_code == 200 or reason(changed) == "DRAFT_NOT_OPEN"
