"""kill -9 at the worst moment: what was acknowledged is there, and there once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
from callers import CALLER, keyed
from conftest import ORDER, Stack, eventually

ITEMS = 20
ORDERS = 240
ACKNOWLEDGED_BEFORE_THE_KILL = 60
DOOR = "/store-checkout-draft-items-post-one"


def draft_item(number: int) -> dict[str, object]:
    """Returns one item of the draft, under a key of its own."""
    return {
        "checkout_draft_item_id": f"crash-{number}",
        "checkout_draft_id": "crash-draft",
        "line_number": number,
        "quantity": number,
        "idempotency_key": f"crash-key-{number}",
    }


def submit(stack: Stack, number: int) -> str:
    """Submits an item and returns the name of its operation."""
    accepted = stack.rest.post(DOOR, json=draft_item(number))
    assert accepted.status_code == 202, accepted.text
    return str(accepted.headers["x-operation"])


def read(stack: Stack, path: str) -> Any:
    """Returns what is at a path, or fails."""
    answer = stack.rest.get(path, headers=CALLER)
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_succeeded(stack: Stack, operation: str) -> None:
    """Asserts that the operation has come to its good end."""
    found = read(stack, f"/v1/{operation}")
    assert found["metadata"]["state"] == "SUCCEEDED", found


def items(stack: Stack) -> list[tuple[int, int, str]]:
    """Returns (line, quantity, revision) of each item in the draft, once the stack answers."""
    listed = eventually(partial(read, stack, "/v1/drafts/crash-draft/items"))["items"]
    return [(item["line_number"], item["quantity"], str(item["revision"])) for item in listed]


def test_an_item_accepted_right_before_a_kill_is_applied_once(fresh_stack: Stack) -> None:
    operation = submit(fresh_stack, 1)
    fresh_stack.kill_server()

    eventually(partial(assert_succeeded, fresh_stack, operation))

    assert items(fresh_stack) == [(1, 1, "1")]
    assert eventually(partial(submit, fresh_stack, 1)) == operation
    assert items(fresh_stack) == [(1, 1, "1")]


def test_many_items_accepted_before_a_kill_are_each_applied_once(fresh_stack: Stack) -> None:
    with ThreadPoolExecutor(ITEMS) as pool:
        operations = list(pool.map(lambda number: submit(fresh_stack, number), range(1, ITEMS + 1)))
    fresh_stack.kill_server()

    for operation in operations:
        eventually(partial(assert_succeeded, fresh_stack, operation))

    assert items(fresh_stack) == [(number, number, "1") for number in range(1, ITEMS + 1)]


def create(stack: Stack, key: str) -> int:
    """Creates the order of a key and returns its id; fails when it is not acknowledged."""
    answer = stack.rest.post("/orders", json=ORDER, headers=keyed(key))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["orderId"])


def create_until_killed(stack: Stack, keys: list[str], kill: Callable[[], None]) -> dict[str, int]:
    """Tries each key once, eight at a time, and kills midway; returns the acknowledged orders."""
    acknowledged: dict[str, int] = {}
    enough = threading.Event()

    def attempt(key: str) -> None:
        try:
            acknowledged[key] = create(stack, key)
        except (AssertionError, httpx.TransportError):
            return
        if len(acknowledged) >= ACKNOWLEDGED_BEFORE_THE_KILL:
            enough.set()

    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(attempt, key) for key in keys]
        assert enough.wait(60), stack.log_text()
        kill()
        for done in attempts:
            done.result()
    return acknowledged


def test_a_kill_amid_keyed_creates_loses_and_doubles_nothing(fresh_stack: Stack) -> None:
    keys = [str(uuid4()) for _ in range(ORDERS)]
    acknowledged = create_until_killed(fresh_stack, keys, fresh_stack.kill_server)

    for order_id in acknowledged.values():
        order = eventually(partial(read, fresh_stack, f"/orders/{order_id}"))
        assert ORDER.items() <= order.items()
    retried = {key: eventually(partial(create, fresh_stack, key)) for key in keys}

    assert {key: retried[key] for key in acknowledged} == acknowledged
    assert len(set(retried.values())) == ORDERS
    assert fresh_stack.count("orders") == ORDERS


def test_the_supervisor_restarts_the_server_each_time(fresh_stack: Stack) -> None:
    for _ in range(3):
        eventually(fresh_stack.kill_server)
        order_id = eventually(partial(create, fresh_stack, str(uuid4())))

        order = eventually(partial(read, fresh_stack, f"/orders/{order_id}"))
        assert order["orderId"] == order_id
