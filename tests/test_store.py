"""Stores, depots, mappings and products: what may be registered, again, and what may not."""

from uuid import uuid4

import grpc
import pytest
from callers import Stubs
from conftest import Stack
from inside import TENANT, Book, owned, refused
from till.v1 import store_pb2 as pb

from storage import store
from storage.errors import AlreadyExists, NotFound
from storage.tables import Event, Product, ProductOption

OTHER_TENANT = 2


def product(
    code: str = "", options: int = 1, **known: object
) -> tuple[Product, list[ProductOption]]:
    """Returns a product to register; its options take what is known of them."""
    empty = {"option_code": "", "option_id": 0, "sku": None, "price_option_id": None}
    made = [ProductOption(tenant=TENANT, **empty | known) for _ in range(options)]
    return Product(tenant=TENANT, product_code=code, product_id=0, display_name="A"), made


def test_the_same_store_again_writes_nothing(book: Book) -> None:
    first, _ = book.write(lambda: store.create(TENANT, "s", "Name"))
    again, _ = book.write(lambda: store.create(TENANT, "s", "Name"))

    assert again.create_ms == first.create_ms
    assert book.read(lambda: owned(Event).count()) == 1


def test_a_store_of_another_name_is_refused(book: Book) -> None:
    book.write(lambda: store.create(TENANT, "s", "Name"))

    with pytest.raises(AlreadyExists):
        book.write(lambda: store.create(TENANT, "s", "Other"))


def test_tenants_do_not_see_each_others_stores(book: Book) -> None:
    book.write(lambda: store.create(TENANT, "s", "Mine"))
    book.write(lambda: store.create(OTHER_TENANT, "s", "Theirs"))
    book.write(lambda: store.create_depot(OTHER_TENANT, "s", "depot"))

    mine, depots = book.read(lambda: store.get(TENANT, "s"))
    assert (mine.display_name, depots) == ("Mine", [])
    assert len(book.read(lambda: store.list_page(TENANT, "", 10))) == 1
    with pytest.raises(NotFound):
        book.read(lambda: store.get(3, "s"))


def test_a_store_that_an_order_names_is_registered_once(book: Book) -> None:
    for _ in range(2):
        book.write(lambda: store.ensure(TENANT, "s"))

    assert [row.kind for row in book.read(lambda: list(owned(Event)))] == ["store.created"]


def test_the_same_depot_and_mapping_again_write_nothing(book: Book) -> None:
    book.write(lambda: store.create(TENANT, "s", ""))
    for _ in range(2):
        book.write(lambda: store.create_depot(TENANT, "s", "d"))
        book.write(lambda: store.set_mapping(TENANT, "s", {"items": "$.x", "orderNumber": "$.y"}))

    kinds = [row.kind for row in book.read(lambda: list(owned(Event)))]
    assert kinds == ["store.created", "depot.created", "store.mapping_set"]


def test_what_a_product_leaves_empty_is_made(book: Book) -> None:
    made, options = book.write(lambda: store.create_product(*product(options=2)))

    assert len({made.product_code, *(option.option_code for option in options)}) == 3
    assert len({made.product_id, *(option.option_id for option in options)}) == 3


def test_the_same_product_again_keeps_what_was_made(book: Book) -> None:
    code, option = str(uuid4()), str(uuid4())

    def register(spelling: str) -> tuple[Product, list[ProductOption]]:
        asked, options = product(spelling, sku="S")
        options[0].option_code = option.upper()
        return store.create_product(asked, options)

    first, again = (book.write(lambda c=c: register(c)) for c in (code, code.upper()))
    assert again[0].product_id == first[0].product_id
    assert again[1][0].option_id == first[1][0].option_id
    assert book.read(lambda: owned(Event).count()) == 1


def test_a_product_with_other_content_is_refused(book: Book) -> None:
    code = str(uuid4())
    book.write(lambda: store.create_product(*product(code)))

    with pytest.raises(AlreadyExists, match="other content"):
        book.write(lambda: store.create_product(*product(code, options=2)))


@pytest.mark.parametrize("known", [{"sku": "S"}, {"price_option_id": 5}], ids=str)
def test_what_means_one_option_cannot_mean_another(book: Book, known: dict[str, object]) -> None:
    with pytest.raises(AlreadyExists, match="appears twice"):
        book.write(lambda: store.create_product(*product(options=2, **known)))
    book.write(lambda: store.create_product(*product(**known)))

    with pytest.raises(AlreadyExists, match="is taken"):
        book.write(lambda: store.create_product(*product(**known)))


def test_a_product_id_is_taken_once(inner: Stubs) -> None:
    def create(option_id: int) -> pb.Product:
        asked = pb.Product(product_id=7, options=[pb.ProductOption(option_id=option_id)])
        made: pb.Product = inner.store.CreateProduct(pb.CreateProductRequest(product=asked))
        return made

    made = create(1)
    code, status = refused(lambda: create(2))

    assert (code, status.message) == (grpc.StatusCode.ALREADY_EXISTS, "product id 7 is taken")
    read = inner.store.GetProduct(pb.GetProductRequest(product_code=made.product_code.upper()))
    assert read == made


def test_stores_are_listed_in_pages_without_gaps(inner: Stubs) -> None:
    codes = [f"s{number}" for number in range(5)]
    for code in reversed(codes):
        inner.store.CreateStore(pb.CreateStoreRequest(store=pb.Store(store_id=code)))

    pages, token = [], ""
    while not pages or token:
        page = inner.store.ListStores(pb.ListStoresRequest(page_size=2, page_token=token))
        pages.append([row.store_id for row in page.stores])
        token = page.next_page_token

    assert pages == [codes[:2], codes[2:4], codes[4:]]


@pytest.mark.parametrize("token", ["nonsense", "é", "bnVsbA==", "NQ=="])
def test_a_foreign_page_token_is_refused(inner: Stubs, token: str) -> None:
    code, _ = refused(lambda: inner.store.ListStores(pb.ListStoresRequest(page_token=token)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_stores_and_products_are_served_as_rest(fresh_stack: Stack) -> None:
    option, rest = str(uuid4()), fresh_stack.operator
    made = rest.post("/v1/products", json={"options": [{"optionCode": option}]}).json()

    assert rest.get(f"/v1/products/{made['productCode']}").json() == made
    rest.post("/v1/stores", json={"storeId": "rest/한", "displayName": "R"})
    assert [each["storeId"] for each in rest.get("/v1/stores").json()["stores"]] == ["rest/한"]
    assert rest.get("/v1/stores/nowhere").status_code == 404
    assert rest.get("/v1/stores?page_token=x").status_code == 400
