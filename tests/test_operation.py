"""Operations and the worker: what a 202 promised comes to its end once, and its end is told."""

from pathlib import Path
from typing import Any

import grpc
import pytest
import samples
from alone import alone
from callers import Stubs
from conftest import Stack, eventually
from databases import lost
from google.longrunning import operations_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from inside import TENANT, Book, Served, at_once, refused
from till.v1 import draft_item_pb2, order_pb2

from server.worker import BATCH
from storage import draft_item, ids, operation
from storage.errors import NotFound, Race
from storage.operation import Refused

ITEMS = 60
State = draft_item_pb2.SubmitDraftItemMetadata.State


def submit(stubs: Stubs, name: str, key: str = "", quantity: int = 1) -> str:
    """Submits an item under a key and returns its operation's name."""
    request = draft_item_pb2.SubmitDraftItemRequest(pk=name, gsi_1_pk="draft", quantity=quantity)
    request.idempotency_key = key or name
    _, call = stubs.draft.SubmitDraftItem.with_call(request)
    return str(dict(call.initial_metadata())["x-operation"])


def wait(stubs: Stubs, name: str, seconds: float = 60) -> pb.Operation:
    """Waits for an operation and returns it."""
    timeout = Duration()
    timeout.FromNanoseconds(int(seconds * 1e9))
    found: pb.Operation = stubs.operations.WaitOperation(
        pb.WaitOperationRequest(name=name, timeout=timeout)
    )
    return found


def state(found: pb.Operation) -> str:
    """Returns how far an operation is."""
    metadata = draft_item_pb2.SubmitDraftItemMetadata()
    assert found.metadata.Unpack(metadata)
    return str(State.Name(metadata.state))


def promise(request: str = "{}") -> str:
    """Writes a request that waits and returns its operation's name; a unit."""
    name = ids.new_token()
    operation.promise(TENANT, name, "draft", "item", request)
    return name


def test_an_operation_ends_once(book: Book) -> None:
    name = book.write(promise)

    def play() -> None:
        operation.end(TENANT, name, Refused("NOT_FOUND", "first"))
        with pytest.raises(Race):
            operation.end(TENANT, name, None)
        with pytest.raises(Race):
            operation.end(TENANT, name, Refused("NOT_FOUND", "second"))
        operation.give_up(TENANT, name)

    book.write(play)
    assert book.read(lambda: operation.request_of(TENANT, name)) is None
    found = book.read(lambda: operation.get(TENANT, name))
    assert (found.state, found.error) == ("FAILED", "first")
    with pytest.raises(NotFound):
        book.read(lambda: operation.get(2, name))


def test_the_oldest_wait_first(book: Book) -> None:
    names = [book.write(promise) for _ in range(5)]

    assert sorted(book.read(lambda: operation.pending(3))) == [
        (TENANT, n) for n in sorted(names)[:3]
    ]
    assert book.read(lambda: operation.pending_of_draft(TENANT, "draft")) == sorted(names)


def test_a_waited_operation_brings_its_item(inner: Stubs) -> None:
    found = wait(inner, submit(inner, "item", quantity=3))

    item = draft_item_pb2.DraftItem()
    assert (found.done, state(found)) == (True, "SUCCEEDED")
    assert found.response.Unpack(item) and (item.pk, item.quantity) == ("item", 3)
    assert inner.operations.GetOperation(pb.GetOperationRequest(name=found.name)) == found


def test_a_key_used_again_ends_in_a_failed_operation_of_its_own(inner: Stubs) -> None:
    first = wait(inner, submit(inner, "item"))
    other = wait(inner, submit(inner, "item", quantity=2))

    assert (other.done, state(other), state(first)) == (True, "FAILED", "SUCCEEDED")
    assert other.error.code == grpc.StatusCode.ALREADY_EXISTS.value[0]
    assert "item" in other.error.message
    assert submit(inner, "item") == first.name


def test_waiting_ends_with_the_time_and_not_before_the_end(inner: Stubs, served: Served) -> None:
    served.run(served.app.worker.close())
    waiting = served.write(lambda: draft_item.promise(samples.claim(), samples.draft_item()))
    name = f"operations/{waiting}"

    assert [state(wait(inner, name, seconds)) for seconds in (0, 0.05, -1)] == ["PENDING"] * 3

    answers = inner.operations.WaitOperation.future(
        pb.WaitOperationRequest(name=name, timeout=Duration(seconds=60))
    )
    other = served.new_worker()
    assert state(answers.result()) == "SUCCEEDED", "though another worker applied it"
    served.run(other.close())


@pytest.mark.parametrize("name", ["operations/x", "x", "", "operations/", "operations/é"])
def test_an_operation_that_is_none_is_not_found(inner: Stubs, name: str) -> None:
    for ask in (
        lambda: inner.operations.GetOperation(pb.GetOperationRequest(name=name)),
        lambda: inner.operations.WaitOperation(pb.WaitOperationRequest(name=name)),
    ):
        assert refused(ask)[0] is grpc.StatusCode.NOT_FOUND


def test_operations_are_listed_in_pages_the_oldest_first(inner: Stubs) -> None:
    names = sorted(submit(inner, f"i{number}") for number in range(5))

    pages, token = [], ""
    while not pages or token:
        page = inner.operations.ListOperations(
            pb.ListOperationsRequest(page_size=2, page_token=token)
        )
        pages.append([each.name for each in page.operations])
        token = page.next_page_token

    assert pages == [names[:2], names[2:4], names[4:]]


@pytest.mark.parametrize(
    "fields",
    [{"filter": "done"}, {"page_size": -1}, {"page_token": "x"}, {"page_token": "Ilx1ZDgwMCI="}],
)
def test_a_list_that_cannot_be_made_is_refused(inner: Stubs, fields: dict[str, object]) -> None:
    submit(inner, "item")
    asked = pb.ListOperationsRequest(**fields)

    code, status = refused(lambda: inner.operations.ListOperations(asked))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.message.startswith(next(iter(fields)))


def test_those_that_cannot_be_read_fail_and_hold_up_nobody(
    inner: Stubs, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["no JSON", "[]", "{", '{"nowhere": 1}', "[" * 100_000]

    def accept() -> list[str]:
        requests = [texts[number % len(texts)] for number in range(2 * BATCH)]
        return [promise(text) for text in requests]

    broken = served.write(accept)
    names = [submit(inner, f"i{number}") for number in range(3)]

    assert [state(wait(inner, name)) for name in names] == ["SUCCEEDED"] * 3
    for name in broken:
        found = wait(inner, f"operations/{name}")
        assert (found.done, state(found)) == (True, "FAILED")
        assert found.error.code == grpc.StatusCode.INTERNAL.value[0]
        assert found.error.message == "the operation could not be applied"
    told = "".join(record.getMessage() for record in caplog.records)
    assert told.count("operation given up") == len(broken)


def test_what_the_database_refuses_is_tried_again(inner: Stubs, served: Served) -> None:
    with lost(served.url, "draft_items"):
        name = submit(inner, "item")
        assert state(wait(inner, name, 0.5)) == "PENDING"

    assert state(wait(inner, name)) == "SUCCEEDED"


def test_a_database_that_fails_is_a_line_of_the_log_without_a_traceback(
    url: str, tmp_path: Path
) -> None:
    def told() -> dict[str, Any]:
        lines = server.lines("worker rests")
        assert lines
        return lines[0]

    with alone(url, tmp_path) as server, lost(url, "draft_items"):
        submit(server.stubs, "item")
        line = eventually(told)

    assert (line["level"], "exception" in line) == ("warning", False)
    assert "draft_items" in line["reason"]


def test_what_was_promised_before_a_start_is_kept_after_it(url: str, tmp_path: Path) -> None:
    with alone(url, tmp_path, "first") as first, lost(url, "draft_items"):
        names = [submit(first.stubs, f"i{number}") for number in range(ITEMS)]
        first.process.kill()
    with alone(url, tmp_path, "second") as second:
        found = [wait(second.stubs, name) for name in names]

    assert {state(each) for each in found} == {"SUCCEEDED"}


def test_two_servers_on_one_database_apply_each_item_once(url: str, tmp_path: Path) -> None:
    """The invariants, asserted at the end of each, want one item and one event an operation."""
    with alone(url, tmp_path, "a") as first, alone(url, tmp_path, "b") as second:
        both = (first.stubs, second.stubs)
        names = at_once(
            [lambda n=n, s=s: submit(s, f"i{n}") for n in range(ITEMS) for s in both][:ITEMS]
        )
        found = [wait(second.stubs, name) for name in names]
        again = [submit(second.stubs, f"i{n}") for n in range(ITEMS // 2)]

    assert {state(each) for each in found} == {"SUCCEEDED"}
    assert (len(set(names)), set(again)) == (ITEMS // 2, set(names))


def test_two_servers_on_one_database_take_a_number_once(url: str, tmp_path: Path) -> None:
    def take(stubs: Stubs, number: int) -> bool:
        request = order_pb2.SubmitStoreOrderRequest(store_id="s", order_id=str(number), user_id="u")
        request.grand_total = 1
        try:
            return bool(stubs.order.SubmitStoreOrder(request))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            return False

    with alone(url, tmp_path, "a") as first, alone(url, tmp_path, "b") as second:
        both = (first.stubs, second.stubs)
        taken = at_once([lambda s=s, n=n: take(s, n) for n in range(20) for s in both])

    assert sum(taken) == 20


def test_operations_are_read_as_rest(fresh_stack: Stack) -> None:
    body = {"pk": "i", "gsi_1_pk": "d", "quantity": 1, "idempotency_key": "k"}
    answer = fresh_stack.rest.post("/store-checkout-draft-items-post-one", json=body)
    name = answer.headers["x-operation"]

    def done() -> None:
        found = fresh_stack.rest.get(f"/v1/{name}").json()
        assert found["done"] and found["response"]["pk"] == "i"

    eventually(done)
    listed = fresh_stack.operator.get("/v1/operations").json()["operations"]
    assert [each["name"] for each in listed] == [name]
