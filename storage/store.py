"""Stores with their depots and checkout mapping, and products with their options."""

import json
import uuid
from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

from peewee import Database

from storage import event, ids
from storage.errors import AlreadyExists, NotFound, Race
from storage.row import DB
from storage.sql import insert, rows_with, tuples
from storage.tables import Depot, Product, ProductOption, Store
from storage.unit import after_commit

REGISTERED_MAX = 100_000
"""Stores remembered, so that an order in one of them need not look."""
_registered: WeakKeyDictionary[Database, set[tuple[int, str]]] = WeakKeyDictionary()
_FIND = rows_with(Store, "store")
_PRODUCT = {name: rows_with(Product, name) for name in ("product_code", "product_id")}
_OPTION = {
    name: rows_with(ProductOption, name)
    for name in ("option_code", "option_id", "sku", "price_option_id")
}
_OPTIONS = rows_with(ProductOption, "product_code")


def find(tenant: int, store: str) -> Store | None:
    """Returns a store, if it is registered."""
    return _FIND.one(Store, tenant=tenant, store=store)


def get(tenant: int, store: str) -> tuple[Store, list[str]]:
    """Returns a store and the names of its depots. Raises NotFound."""
    return _known(tenant, store), depots(tenant, store)


def ensure(tenant: int, store: str) -> None:
    """Registers a store that an order names, unless it is; a store stays for good."""
    known = _registered.setdefault(DB.obj, set())
    if (tenant, store) in known:
        return
    if _FIND.row(tenant=tenant, store=store) is None:
        _register(Store(tenant=tenant, store=store, create_ms=ids.now_ms()))
    if len(known) < REGISTERED_MAX:
        after_commit(partial(known.add, (tenant, store)))


def create(tenant: int, store: str, display_name: str) -> tuple[Store, list[str]]:
    """Registers a store; the same again returns it. Raises AlreadyExists when its name differs."""
    known = find(tenant, store)
    if known is None:
        _register(
            Store(tenant=tenant, store=store, display_name=display_name, create_ms=ids.now_ms())
        )
    elif known.display_name != display_name:
        raise AlreadyExists(f"store {store} exists with another display name")
    return get(tenant, store)


def list_page(tenant: int, after: str, size: int) -> list[tuple[Store, list[str]]]:
    """Returns up to `size` stores whose code follows `after`, by code."""
    page = (
        Store.select()
        .where((Store.tenant == tenant) & (Store.store > after))
        .order_by(Store.store)
        .limit(size)
    )
    return [(store, depots(tenant, store.store)) for store in page]


def depots(tenant: int, store: str) -> list[str]:
    """Returns the names of a store's depots, sorted."""
    found = Depot.select(Depot.name).where((Depot.tenant == tenant) & (Depot.store == store))
    return sorted(name for (name,) in tuples(found))


def create_depot(tenant: int, store: str, name: str) -> None:
    """Registers a depot, unless it is. Raises NotFound for an unknown store."""
    _known(tenant, store)
    if name not in depots(tenant, store):
        insert(Depot(tenant=tenant, store=store, name=name))
        event.record(tenant, "depot.created", store, storageName=name)


def set_mapping(tenant: int, store: str, mapping: dict[str, str]) -> tuple[Store, list[str]]:
    """Replaces a store's checkout mapping (target field to JSONPath). Raises NotFound."""
    known = _known(tenant, store)
    text = json.dumps(mapping, sort_keys=True)
    if known.checkout_mapping != text:
        owned = (Store.tenant == tenant) & (Store.store == store)
        seen = Store.checkout_mapping == known.checkout_mapping
        if Store.update(checkout_mapping=text).where(owned & seen).execute() != 1:
            raise Race(f"the mapping of {store} was replaced by another")
        event.record(tenant, "store.mapping_set", store)
    return get(tenant, store)


def create_product(
    product: Product, options: list[ProductOption]
) -> tuple[Product, list[ProductOption]]:
    """Registers a product with its options, making the codes and ids that were left empty.

    The same again returns it. Raises AlreadyExists when it differs, or a code, id, sku or price
    option is taken.
    """
    known = _find_product(product.tenant, product.product_code.lower())
    _complete(product, options, known)
    if known is not None:
        if not _same(known, (product, options)):
            raise AlreadyExists(f"product {product.product_code} exists with other content")
        return known
    _refuse_taken(product, options)
    insert(product)
    for option in options:
        insert(option)
    event.record(product.tenant, "product.created", product.product_code)
    return product, options


def get_product(tenant: int, product_code: str) -> tuple[Product, list[ProductOption]]:
    """Returns a product and its options by option code. Raises NotFound."""
    known = _find_product(tenant, product_code)
    if known is None:
        raise NotFound(f"there is no product {product_code}")
    return known


def product_with(tenant: int, column: str, value: object) -> Product | None:
    """Returns the product that a `product_code` or `product_id` means, if there is one."""
    return _PRODUCT[column].one(Product, tenant=tenant, **{column: value})


def option_with(tenant: int, column: str, value: object) -> ProductOption | None:
    """Returns the option that an `option_code`, `option_id`, `sku` or `price_option_id` means, if
    there is one.
    """
    return _OPTION[column].one(ProductOption, tenant=tenant, **{column: value})


def options_of(product: Product) -> list[ProductOption]:
    """Returns the options of a product, by option code."""
    found = _OPTIONS.all(ProductOption, tenant=product.tenant, product_code=product.product_code)
    return sorted(found, key=lambda option: option.option_code)


def only_option(tenant: int, product_id: int) -> ProductOption | None:
    """Returns the option of a product that has just one."""
    product = product_with(tenant, "product_id", product_id)
    code = product and product.product_code
    return _OPTIONS.only(ProductOption, tenant=tenant, product_code=code) if code else None


def _known(tenant: int, store: str) -> Store:
    known = find(tenant, store)
    if known is None:
        raise NotFound(f"there is no store {store}")
    return known


def _register(store: Store) -> None:
    insert(store)
    event.record(store.tenant, "store.created", store.store)


def _complete(
    product: Product,
    options: list[ProductOption],
    known: tuple[Product, list[ProductOption]] | None,
) -> None:
    """Fills in what was left empty: as it is registered already, else new."""
    of_product = partial(product_with, product.tenant, "product_id")
    of_option = partial(option_with, product.tenant, "option_id")
    option_ids = {option.option_code: option.option_id for option in known[1]} if known else {}
    product.product_code = product.product_code.lower() or str(uuid.uuid4())
    if not product.product_id:
        product.product_id = known[0].product_id if known else _unused(of_product)
    for option in options:
        option.product_code = product.product_code
        option.option_code = option.option_code.lower() or str(uuid.uuid4())
        option.option_id = option.option_id or option_ids.get(option.option_code, 0)
        option.option_id = option.option_id or _unused(of_option)


def _unused(find: Callable[[int], object]) -> int:
    """Returns a new id that finds nothing: callers choose ids too, and a clock may be set back."""
    while find(new := ids.new_id()):
        pass
    return new


def _find_product(tenant: int, product_code: str) -> tuple[Product, list[ProductOption]] | None:
    product = product_with(tenant, "product_code", product_code)
    return None if product is None else (product, options_of(product))


def _same(
    known: tuple[Product, list[ProductOption]], given: tuple[Product, list[ProductOption]]
) -> bool:
    """Whether two products mean the same; options are compared by code, in any order."""

    def content(side: tuple[Product, list[ProductOption]]) -> object:
        return side[0].__data__, sorted(
            (o.__data__ for o in side[1]), key=lambda o: str(o["option_code"])
        )

    return content(known) == content(given)


def _refuse_taken(product: Product, options: list[ProductOption]) -> None:
    tenant = product.tenant
    if product_with(tenant, "product_id", product.product_id):
        raise AlreadyExists(f"product id {product.product_id} is taken")
    for name in _OPTION:
        values = [value for option in options if (value := getattr(option, name)) is not None]
        if len(set(values)) < len(values):
            raise AlreadyExists(f"{name} appears twice")
        if any(option_with(tenant, name, value) for value in values):
            raise AlreadyExists(f"{name} is taken by another option")
