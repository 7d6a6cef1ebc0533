"""Adjustments and the ledger: a maximum never goes below what is taken, and every move is told."""

from collections.abc import Iterator
from uuid import uuid4

import grpc
import pytest
from callers import CALLER, keyed
from conftest import Lend, Stack
from google.protobuf.wrappers_pb2 import Int32Value
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure
from inside import at_once, refused
from market import KNOWN, Market, detail, stamp, trading
from samples import DAY
from till.v1 import stock_pb2 as pb

from storage import ids

OTHER_TENANT = 2
MONTH_MS = 30 * 24 * 3600 * 1000


@pytest.fixture(scope="module")
def market(lend: Lend) -> Iterator[Market]:
    """A market that the tests of this module share."""
    with lend() as url, trading(url) as market:
        yield market


def test_a_shortage_tells_asked_and_left_of_every_short_line(market: Market) -> None:
    one, two, many = market.open(3, 2, 100)
    lines = [(one, 2), (many, 5), (two, 3), (one, 2)]
    told = {("[0]", "asked 2, left 3"), ("[3]", "asked 2, left 3"), ("[2]", "asked 3, left 2")}

    for name, call in (("lines", market.hold), ("quoteItems", market.order)):
        code, status = refused(lambda c=call: c(*lines))
        violations = detail(status, PreconditionFailure).violations
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert {(each.subject.removeprefix(name), each.description) for each in violations} == told
        assert detail(status, ErrorInfo).reason == "OUT_OF_STOCK"
    assert [market.left(each)[3] for each in (one, two, many)] == [3, 2, 100]


def test_a_delta_is_applied_once_per_key(market: Market) -> None:
    (option,) = market.open(10)
    key = str(uuid4())

    made = [market.adjust(option, key, delta=5) for _ in range(3)]

    assert [each.max_quantity for each in made] == [15] * 3
    assert market.left(option) == (15, 0, 0, 15)


def test_the_ledger_tells_who_moved_what_and_why(market: Market) -> None:
    (option,) = market.open(10)
    made = market.hold((option, 3))
    bought = market.order((option, 2), hold_id=made.hold_id)
    market.adjust(option, delta=-1, reason="broken")

    told = [
        (each.counter, each.before, each.delta, each.after, each.source, each.reason)
        for each in market.ledger(option)
    ]

    assert told == [
        ("max", 0, 10, 10, "set", ""),
        ("held", 0, 3, 3, f"holds/{made.hold_id}", ""),
        ("held", 3, -3, 0, f"holds/{made.hold_id}", "confirmed"),
        ("ordered", 0, 2, 2, f"orders/{bought.order_id}", ""),
        ("max", 10, -1, 9, "adjust", "broken"),
    ]
    assert {each.actor for each in market.ledger(option)} == {"local-development"}


def test_a_maximum_goes_no_lower_than_what_is_taken(market: Market) -> None:
    (option,) = market.open(10)
    market.hold((option, 3))
    market.order((option, 2))

    for change in ({"max_quantity": 4}, {"delta": -6}):
        code, status = refused(lambda c=change: market.adjust(option, **c))
        assert (code, detail(status, ErrorInfo).reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "BELOW_COMMITTED",
        )
    assert market.adjust(option, delta=-5).remain_quantity == 0
    code, _ = refused(lambda: market.adjust(option, delta=1_000_000_000))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_maximum_that_is_not_the_expected_one_stays_and_tells_its_etag(market: Market) -> None:
    (option,) = market.open(10)
    adjusted = market.adjust(option, max_quantity=12, expected_max_quantity=Int32Value(value=10))

    code, status = refused(
        lambda: market.adjust(option, delta=1, expected_max_quantity=Int32Value(value=10))
    )

    assert code is grpc.StatusCode.ABORTED
    assert detail(status, ErrorInfo).metadata["etag"] == adjusted.etag == market.row(option).etag


def test_fifty_deltas_at_once_all_count(market: Market) -> None:
    (option,) = market.open(10)

    at_once([lambda: market.adjust(option, delta=1)] * 50)

    assert market.left(option) == (60, 0, 0, 60)


@pytest.mark.parametrize("day", ["2031-02-29", "20310501", "2031-W18-4", "tomorrow"])
def test_a_day_that_is_none_is_refused_by_name(market: Market, day: str) -> None:
    (option,) = market.open(1)
    asked = pb.AdjustInventoryRequest(option_code=option, date=day, delta=1)
    calls = [
        lambda: market.stock.AdjustInventory(asked, metadata=KNOWN),
        lambda: market.stock.ListInventory(pb.ListInventoryRequest(date_to=day), metadata=KNOWN),
    ]

    assert {refused(call)[0] for call in calls} == {grpc.StatusCode.INVALID_ARGUMENT}


def test_holds_and_their_ledger_are_served_as_rest(stack: Stack) -> None:
    option = str(uuid4())
    rest = stack.operator
    rest.post("/v1/products", json={"options": [{"optionCode": option}]})
    row = {"option_code": option, "date": DAY, "max_quantity": 5}
    rest.post("/v1/inventory:batchSet", json={"rows": [row]})
    asked = {
        "lines": [{"option_code": option, "date": DAY, "quantity": 2}],
        "expire_time": "2026-01-01T00:00:00Z",
    }

    assert rest.post("/v1/holds", json=asked).status_code == 400
    asked["expire_time"] = soon(60_000)
    made = rest.post("/v1/holds", json=asked, headers=keyed()).json()
    assert rest.get(f"/v1/holds/{made['hold_id']}", headers=CALLER).json() == made
    longer = rest.post(
        f"/v1/holds/{made['hold_id']}:extend", json={"expire_time": soon(90_000)}
    ).json()
    assert longer["etag"] != made["etag"]
    assert rest.post(f"/v1/holds/{made['hold_id']}:release", json={}).json()["state"] == "RELEASED"
    refusal = rest.post(f"/v1/holds/{made['hold_id']}:confirm", json={})
    assert (refusal.status_code, refusal.json()["code"]) == (400, 9)
    moved = rest.post(
        "/v1/inventory:adjust", json={"option_code": option, "date": DAY, "delta": -1}
    )
    found = rest.get("/v1/inventory", params={"option_code": option}).json()["rows"]
    assert found == [moved.json()] and moved.json()["remain_quantity"] == 4
    ledger = rest.get(f"/v1/inventory/{found[0]['inventory_code']}/ledger").json()["movements"]
    assert [(each["counter"], each["delta"]) for each in ledger] == [
        ("max", -1),
        ("held", -2),
        ("held", 2),
        ("max", 5),
    ]


def soon(ms: int) -> str:
    """Returns the time in so many milliseconds as JSON carries it."""
    return stamp(ids.now_ms() + ms).ToJsonString()
