"""A key is used once: the change, the key and the first answer are one transaction."""

from uuid import uuid4

import grpc
import jwt
import pytest
from callers import CALLER, KNOWN, Stubs
from conftest import ROOT, eventually
from inside import TENANT, Book, Served, at_once, owned, refused
from invariants import dump
from samples import ACTOR, claim, order_lines
from till.v1 import order_pb2 as pb

from server import development
from server.config import Config
from server.worker import CHORES_BATCH
from storage import ids, lifecycle, once, tenant
from storage.errors import KeyReused, NotFound
from storage.tables import ApiClient, IdempotencyKey, Order

MARK = ("idempotent-replayed", "true")


def answered(book: Book, asked: once.Claim | None, answer: bytes = b"answer") -> tuple[bytes, bool]:
    """Does a work that writes an order, under a claim."""
    return book.write(lambda: once.once(asked, lambda: (order_lines(), answer)[1]))


def test_the_first_answer_is_given_again(book: Book) -> None:
    assert answered(book, claim()) == (b"answer", False)
    before = dump(book.url)

    assert answered(book, claim(), b"other") == (b"answer", True)
    assert dump(book.url) == before


def test_a_key_with_another_meaning_is_refused(book: Book) -> None:
    answered(book, claim())
    before = dump(book.url)

    with pytest.raises(KeyReused):
        answered(book, claim(meaning="other"))
    assert dump(book.url) == before


@pytest.mark.parametrize("other", [{"tenant": 2}, {"client": "c2"}, {"rpc": "R2"}], ids=str)
def test_a_key_belongs_to_its_tenant_client_and_rpc(book: Book, other: dict[str, object]) -> None:
    answered(book, claim())

    assert answered(book, claim(meaning="other", **other)) == (b"answer", False)


def test_without_a_key_the_work_is_done_each_time(book: Book) -> None:
    assert [answered(book, None) for _ in range(2)] == [(b"answer", False)] * 2
    assert book.read(owned(Order).count) == 2


def test_a_refusal_is_not_remembered(book: Book) -> None:
    def refuse() -> bytes:
        order_lines()
        raise NotFound("no")

    with pytest.raises(NotFound):
        book.write(lambda: once.once(claim(), refuse))

    assert answered(book, claim()) == (b"answer", False)
    assert book.read(owned(Order).count) == 1


def test_keys_are_forgotten_when_they_are_old_and_not_before(book: Book) -> None:
    for key in "abc":
        answered(book, claim(key))
    assert book.write(lambda: once.forget_old(9)) == 0

    def age() -> None:
        old = ids.now_ms() - once.KEPT_MS - 1
        mine = (IdempotencyKey.tenant == TENANT) & (IdempotencyKey.key != "c")
        IdempotencyKey.update(create_ms=old).where(mine).execute()

    book.write(age)
    assert book.write(lambda: once.forget_old(9)) == 2
    assert book.read(lambda: [row.key for row in owned(IdempotencyKey)]) == ["c"]


def test_the_worker_forgets_as_many_keys_as_have_grown_old(served: Served) -> None:
    def used_long_ago() -> None:
        for number in range(8 * CHORES_BATCH):
            once.once(claim(f"{number}"), lambda: b"")
            mine = (IdempotencyKey.tenant == TENANT) & (IdempotencyKey.key == f"{number}")
            IdempotencyKey.update(create_ms=number).where(mine).execute()

    served.write(used_long_ago)
    worker = served.new_worker()
    eventually(lambda: empty(served))
    served.run(worker.close())


def empty(served: Served) -> None:
    """Asserts that no key is remembered."""
    assert served.write(owned(IdempotencyKey).count) == 0


def create(inner: Stubs, key: str, notes: str = "") -> tuple[pb.Order, bool]:
    """Creates an order and tells whether it is the first answer, given again."""
    request = pb.CreateOrderRequest(
        requester_id=1, user_id=2, facility_id=3, shipping_address_id=4, billing_address_id=5
    )
    request.shipping_method = "GROUND"
    if notes:
        request.notes = notes
    metadata = tuple({**CALLER, "idempotency-key": key}.items())
    answer, call = inner.order.CreateOrder.with_call(request, metadata=metadata)
    return answer, MARK in [tuple(pair) for pair in call.initial_metadata()]


def test_the_answer_is_the_first_one_though_the_order_moved_on(
    inner: Stubs, served: Served
) -> None:
    key = str(uuid4())
    first, _ = create(inner, key)
    served.write(lambda: lifecycle.cancel(TENANT, first.order_id, "", "", ACTOR))

    again, replayed = create(inner, key.upper())

    assert replayed
    assert again.SerializeToString() == first.SerializeToString()


def test_a_key_for_another_request_is_aborted(inner: Stubs) -> None:
    key = str(uuid4())
    create(inner, key)

    code, status = refused(lambda: create(inner, key, notes="other"))

    assert code is grpc.StatusCode.ABORTED
    assert key in status.message


def test_two_clients_may_use_one_key(inner: Stubs, served: Served) -> None:
    key = str(uuid4())
    first, _ = create(inner, key)

    stranger = {**served.write(another_client), "idempotency-key": key}
    request = pb.CreateOrderRequest(
        requester_id=9, user_id=2, facility_id=3, shipping_address_id=4, billing_address_id=5
    )
    request.shipping_method = "GROUND"
    other = inner.order.CreateOrder(request, metadata=tuple(stranger.items()))

    assert other.order_id != first.order_id


def another_client() -> dict[str, str]:
    """Adds a client and returns what it sends; a unit."""
    client = ApiClient(tenant=TENANT, client_id="another", scopes="customer:write")
    _, api_key = tenant.create_client(client)
    claims = jwt.decode(KNOWN["token"], options={"verify_signature": False})
    token = jwt.encode(
        claims | {"client_id": "another", "sub": "another"},
        (ROOT / Config().development_folder / "issuer.pem").read_bytes(),
        algorithm="RS256",
        headers={"kid": development.KEY_ID},
    )
    return {"authorization": f"Bearer {token}", "x-api-key": api_key}


def test_twins_in_flight_get_one_answer(inner: Stubs) -> None:
    key = str(uuid4())

    answers = at_once([lambda: create(inner, key) for _ in range(16)])

    assert len({answer.SerializeToString() for answer, _ in answers}) == 1
    assert sum(replayed for _, replayed in answers) == 15


SOME = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize("key", ["", "x", "k" * 300, f"{{{SOME}}}", SOME.replace("-", "")])
def test_a_key_that_is_no_uuid_is_refused_by_name(inner: Stubs, key: str) -> None:
    code, status = refused(lambda: create(inner, key))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "Idempotency-Key" in status.message


def test_a_store_order_may_have_any_short_key(inner: Stubs) -> None:
    request = pb.SubmitStoreOrderRequest(store_id="s", order_id="1", user_id="u", grand_total=1)

    def submit(key: str) -> None:
        inner.order.SubmitStoreOrder(request, metadata=(("idempotency-key", key),))

    for _ in range(2):
        submit("any words")
    assert refused(lambda: submit("other"))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert refused(lambda: submit("k" * 256))[0] is grpc.StatusCode.INVALID_ARGUMENT
