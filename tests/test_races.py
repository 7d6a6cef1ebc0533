"""A hundred callers at once: one order a key, one order a number, never more than the stock."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any
from uuid import uuid4

import grpc
import httpx
from callers import CALLER, CHANNEL, Stubs, keyed
from conftest import ORDER, PATIENCE_SECONDS, Stack, eventually
from till.v1 import draft_item_pb2, order_pb2

Post = tuple[str, Any, dict[str, str]]
CALLERS = 100
DAY = "2031-05-01"


def at_once(stack: Stack, requests: Iterable[Post]) -> list[httpx.Response]:
    """Posts all of these (path, body, headers) at the same time."""

    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=stack.rest.base_url, timeout=PATIENCE_SECONDS
        ) as rest:
            calls = [rest.post(path, json=body, headers=head) for path, body, head in requests]
            return await asyncio.gather(*calls)

    return asyncio.run(run())


def quoted(*lines: tuple[str, int]) -> dict[str, Any]:
    """Returns an order of lines, each an option code and a quantity."""
    items = [{"optionCode": o, "date": DAY, "quantity": n, "price": 1} for o, n in lines]
    return {**ORDER, "quoteItems": items}


def product(stack: Stack, units: int) -> tuple[str, str]:
    """Registers a product with one option that has so many units; returns both codes."""
    code, option = str(uuid4()), str(uuid4())
    options = [{"optionCode": option}]
    made = stack.rest.post(
        "/v1/products", json={"productCode": code, "options": options}, headers=CALLER
    )
    rows = [{"option_code": option, "date": DAY, "max_quantity": units}]
    stocked = stack.rest.post("/v1/inventory:batchSet", json={"rows": rows}, headers=CALLER)
    assert (made.status_code, stocked.status_code) == (200, 200), made.text + stocked.text
    return code, option


def stock(stack: Stack, code: str, option: str) -> tuple[int, int]:
    """Returns (ordered, remain) of the product's only row."""
    read = stack.rest.get(f"/v1/channel/inventory/day-ticket/{code}", headers=CHANNEL).json()
    (row,) = read["option_codes"][option]
    return row["ordered_quantity"], row["remain_quantity"]


def test_a_hundred_grpc_calls_with_one_key_make_one_order(stack: Stack) -> None:
    before = stack.count("orders")
    key = tuple(keyed().items())
    request = order_pb2.CreateOrderRequest(
        requester_id=1,
        user_id=2,
        facility_id=3,
        shipping_address_id=4,
        billing_address_id=5,
        shipping_method="GROUND",
    )

    async def one(create: Any) -> tuple[bytes, bool]:
        call = create(request, metadata=key, timeout=PATIENCE_SECONDS)
        answer = await call
        marks = [*await call.initial_metadata(), *await call.trailing_metadata()]
        return answer.SerializeToString(deterministic=True), (
            "idempotent-replayed",
            "true",
        ) in marks

    async def run() -> list[tuple[bytes, bool]]:
        async with grpc.aio.insecure_channel(stack.grpc) as channel:
            create = Stubs.of(channel).order.CreateOrder
            calls: list[Awaitable[tuple[bytes, bool]]] = [one(create) for _ in range(CALLERS)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(run())

    assert len({answer for answer, _ in answers}) == 1
    assert Counter(replayed for _, replayed in answers) == {True: CALLERS - 1, False: 1}
    assert stack.count("orders") - before == 1


def test_a_hundred_rest_calls_with_one_key_make_one_order(stack: Stack) -> None:
    before = stack.count("orders")

    answers = at_once(stack, [("/orders", ORDER, keyed(str(uuid4())))] * CALLERS)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    marks = Counter(answer.headers.get("idempotent-replayed") for answer in answers)
    assert marks == {"true": CALLERS - 1, None: 1}
    assert stack.count("orders") - before == 1


def test_one_key_with_different_bodies_makes_one_order(stack: Stack) -> None:
    before, key = stack.count("orders"), keyed(str(uuid4()))

    bodies = [{**ORDER, "notes": str(number)} for number in range(CALLERS)]
    answers = at_once(stack, [("/orders", body, key) for body in bodies])

    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: CALLERS - 1}
    assert stack.count("orders") - before == 1


def test_two_doors_racing_for_one_number_make_one_order(stack: Stack) -> None:
    shop = stack.rest.post("/v1/stores", json={"storeId": "race"}, headers=CALLER)
    depot = stack.rest.post("/v1/stores/race/depots", json={"storageName": "D"}, headers=CALLER)
    assert (shop.status_code, depot.status_code) == (200, 200), shop.text + depot.text
    before = stack.count("orders")
    item = {"orderItemId": "1", "itemNumber": "1", "storageName": "D"}
    names = {"store": "race", "orderNumber": "one", "externalNumber": "race-1"}
    packed: Post = ("/checkout", {**names, "items": [item]}, {})
    order = {"store_id": "race", "order_id": "one", "user_id": "u", "grand_total": 1}

    answers = at_once(stack, [("/new-order", order, {}), packed] * (CALLERS // 2))

    submitted = Counter(answer.status_code for answer in answers[::2])
    assert submitted[201] <= 1 and submitted[201] + submitted[400] == CALLERS // 2, submitted
    assert {answer.status_code for answer in answers[1::2]} == {200}
    assert stack.count("orders") - before == 1
    assert len(stack.rest.get("/v1/checkouts/race-1", headers=CALLER).json()["items"]) == 1


def test_a_users_racing_orders_have_timestamps_of_their_own(stack: Stack) -> None:
    user = {"store_id": "times", "user_id": "u"}
    orders = [{**user, "order_id": str(n), "grand_total": 1} for n in range(CALLERS)]

    answers = at_once(stack, [("/new-order", order, {}) for order in orders])

    assert {answer.status_code for answer in answers} == {201}
    latest = stack.rest.post("/user-orders", json=user).json()["orders"]
    times = [int(order["timestamp"].removeprefix("u#")) for order in latest]
    assert len(set(times)) == 5
    assert times == sorted(times, reverse=True)


def test_a_hot_row_of_25_sells_exactly_25(stack: Stack) -> None:
    code, option = product(stack, units=25)

    answers = at_once(stack, [("/orders", quoted((option, 1)), keyed()) for _ in range(CALLERS)])

    assert Counter(answer.status_code for answer in answers) == {200: 25, 400: CALLERS - 25}
    assert stock(stack, code, option) == (25, 0)


def test_two_lines_on_one_row_are_counted_together_under_a_race(stack: Stack) -> None:
    code, option = product(stack, units=25)

    answers = at_once(
        stack, [("/orders", quoted((option, 1), (option, 2)), keyed()) for _ in range(CALLERS)]
    )

    assert Counter(answer.status_code for answer in answers) == {200: 8, 400: CALLERS - 8}
    assert stock(stack, code, option) == (24, 1)


def test_two_lines_that_exceed_their_row_together_are_refused(stack: Stack) -> None:
    code, option = product(stack, units=25)

    refused = stack.rest.post("/orders", json=quoted((option, 13), (option, 13)), headers=keyed())

    assert refused.status_code == 400, refused.text
    assert stock(stack, code, option) == (0, 25)


def test_orders_on_two_rows_in_opposite_order_never_sell_half(stack: Stack) -> None:
    (first, a), (second, b) = product(stack, units=25), product(stack, units=50)
    bodies = [quoted((a, 1), (b, 1)), quoted((b, 1), (a, 1))] * (CALLERS // 2)

    answers = at_once(stack, [("/orders", body, keyed()) for body in bodies])

    assert Counter(answer.status_code for answer in answers) == {200: 25, 400: CALLERS - 25}
    assert (stock(stack, first, a), stock(stack, second, b)) == ((25, 0), (25, 25))


def test_a_draft_is_ordered_once_by_a_hundred_callers(stack: Stack, stubs: Stubs) -> None:
    item = {"pk": "race-item", "gsi_1_pk": "race-draft", "quantity": 1, "idempotency_key": "race"}
    assert stack.rest.post("/store-checkout-draft-items-post-one", json=item).status_code == 202
    wanted = draft_item_pb2.GetDraftItemRequest(checkout_draft_item_id="race-item")
    eventually(lambda: stubs.draft.GetDraftItem(wanted, metadata=tuple(CALLER.items())))

    body = {**ORDER, "checkoutDraftId": "race-draft"}
    answers = at_once(stack, [("/orders", body, keyed()) for _ in range(CALLERS)])

    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: CALLERS - 1}
