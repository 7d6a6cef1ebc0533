"""Checkouts in pages."""

from collections.abc import Iterator
from typing import Any

import pytest
from callers import CALLER
from conftest import Lend, Stack, running

STORES = ("north", "south")


def pages(stack: Stack, **asked: object) -> list[list[dict[str, Any]]]:
    """Returns every page of checkouts."""
    found, token = [], ""
    while not found or token:
        answer = stack.rest.get(
            "/v1/checkouts", params={**asked, "pageToken": token}, headers=CALLER
        )
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["checkouts"])
        token = answer.json()["nextPageToken"]
    return found


@pytest.fixture(scope="module")
def stack(lend: Lend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with no checkouts but these."""
    with lend() as url, running(tmp_path_factory.mktemp("stack"), {"TILL_DATABASE": url}) as stack:
        yield stack


@pytest.fixture(scope="module")
def packed(stack: Stack) -> list[str]:
    """Records five checkouts, in two stores by turns, and returns their numbers."""
    for code in STORES:
        stack.rest.post("/v1/stores", json={"storeId": code}, headers=CALLER)
        stack.rest.post(f"/v1/stores/{code}/depots", json={"storageName": "D"}, headers=CALLER)
    return [record(stack, STORES[number % 2], f"c{number}") for number in range(5)]


def record(stack: Stack, store: str, number: str) -> str:
    """Records a checkout of one item and returns its number."""
    item = {"orderItemId": "1", "itemNumber": "1", "storageName": "D"}
    names = {"store": store, "orderNumber": f"order-{number}", "externalNumber": number}
    answer = stack.rest.post("/checkout", json={**names, "items": [item]})
    assert answer.status_code == 200, answer.text
    return number


def test_checkouts_come_by_number_in_pages_without_items(stack: Stack, packed: list[str]) -> None:
    found = pages(stack, pageSize=2)

    assert [[row["externalNumber"] for row in page] for page in found] == [
        packed[0:2],
        packed[2:4],
        packed[4:],
    ]
    assert {(row["etag"], *row["items"]) for page in found for row in page} == {('"1"',)}


def test_a_page_of_one_store_has_only_its_own(stack: Stack, packed: list[str]) -> None:
    found = [row for page in pages(stack, store="south", pageSize=1) for row in page]

    assert [(row["externalNumber"], row["store"]) for row in found] == [
        ("c1", "south"),
        ("c3", "south"),
    ]
    assert pages(stack, store="east") == [[]]


def test_a_checkout_recorded_between_pages_moves_no_other(stack: Stack, packed: list[str]) -> None:
    ask = {"store": "north", "pageSize": 2}
    first = stack.rest.get("/v1/checkouts", params=ask, headers=CALLER).json()
    record(stack, "north", "b0")

    rest = stack.rest.get(
        "/v1/checkouts", params={**ask, "pageToken": first["nextPageToken"]}, headers=CALLER
    ).json()

    assert [row["externalNumber"] for row in first["checkouts"]] == ["c0", "c2"]
    assert [row["externalNumber"] for row in rest["checkouts"]] == ["c4"]


@pytest.mark.parametrize("asked", [{"pageToken": "x"}, {"pageSize": -1}, {"pageSize": 1001}])
def test_a_page_that_cannot_be_is_refused(stack: Stack, asked: dict[str, object]) -> None:
    refused = stack.rest.get("/v1/checkouts", params=asked, headers=CALLER)

    assert refused.status_code == 400, refused.text


def test_only_an_operator_lists_checkouts(stack: Stack) -> None:
    assert stack.rest.get("/v1/checkouts").status_code == 401
