"""Rows that many tests need, as storage takes them."""

import hashlib
from unittest import mock
from uuid import UUID

from inside import TENANT

from storage import checkout, hold, ids, inventory, lifecycle, movement, order, store, tenant
from storage import draft_item as drafts
from storage.checkout_request import Item, Request
from storage.movement import Wanted
from storage.once import Claim
from storage.tables import (
    ApiClient,
    DraftItem,
    Hold,
    Inventory,
    Order,
    OrderItem,
    Product,
    ProductOption,
)

DAY = "2031-05-01"
ACTOR = "tester"
OPTION = str(UUID(int=1))


def claim(key: str = "key", meaning: str = "meaning", **other: object) -> Claim:
    """Returns a claim of a key for a request of this meaning."""
    known = {"tenant": TENANT, "client": "client", "rpc": "Rpc"} | other
    return Claim(key=key, fingerprint=hashlib.sha256(meaning.encode()).digest(), **known)


def new_order(**fields: object) -> Order:
    """Returns an order to create, as `POST /orders` makes it."""
    return Order(tenant=TENANT, **{"store": "default", "user_id": 42} | fields)


def line(quantity: int = 1, price: int = 0, **fields: object) -> OrderItem:
    """Returns a line to create."""
    return OrderItem(quantity=quantity, price=price, total=quantity * price, **fields)


def order_lines(*lines: OrderItem, **fields: object) -> tuple[Order, list[OrderItem]]:
    """Creates an order; a unit."""
    return order.create(new_order(**fields), list(lines))


def stock(option: str, units: int, day: str = DAY, code: str = "") -> Inventory:
    """Puts units of an option up for sale; a unit."""
    setting = inventory.Setting("rows[0]", option, day, units, code)
    return inventory.batch_set(TENANT, [setting], ACTOR)[0]


def holding(*lines: tuple[str, int], seconds: float = 60, tenant: int = TENANT) -> Hold:
    """Holds units of options on DAY for some seconds; a unit."""
    wanted = [
        Wanted(f"lines[{n}]", inventory.get(tenant, "", option, DAY).inventory_id, units)
        for n, (option, units) in enumerate(lines)
    ]
    return hold.create(tenant, wanted, ids.now_ms() + int(seconds * 1000), ACTOR)


def held(option: str, units: int, seconds: int = 3600, day: str = DAY) -> Hold:
    """Holds units of an option; a unit."""
    row = inventory.get(TENANT, "date", option, day)
    wanted = [movement.Wanted("lines[0]", row.inventory_id, units)]
    return hold.create(TENANT, wanted, ids.now_ms() + 1000 * seconds, ACTOR)


def product(*options: str, product_id: int = 0, **fields: object) -> Product:
    """Registers a product with these option codes; a unit."""
    known = {"option_id": 0, "sku": None, "price_option_id": None} | fields
    rows = [ProductOption(tenant=TENANT, option_code=code, **known) for code in options]
    asked = Product(tenant=TENANT, product_code="", product_id=product_id, display_name="")
    return store.create_product(asked, rows)[0]


def draft_item(name: str = "item", draft: str = "draft", **fields: object) -> DraftItem:
    """Returns a draft item to submit."""
    texts = ("entity_number", "product_number", "sku", "product_name")
    stamps = ("deleted_at", "created_at", "updated_at", "idempotency_key")
    unset = ("line_number", "unit_price", "line_total", "schema_version", "version")
    known = {name: "" for name in (*texts, *stamps)} | {name: None for name in unset}
    known |= {
        "quantity": 1,
        "is_active": True,
        "is_deleted": False,
    }
    return DraftItem(tenant=TENANT, item=name, draft=draft, **known | fields)


def packed(number: str, *, item: str = "", depot: str = "d", kind: str = "comum") -> Item:
    """Returns an item of a checkout request."""
    return Item(item or number, number, depot, 1, kind)


def request(*items: Item, order: str = "o", external: str = "c", store: str = "s") -> Request:
    """Returns a checkout request."""
    return Request(store, order, external, list(items))


def shop(code: str = "s", *depots: str) -> None:
    """Registers a store and its depots; a unit."""
    store.create(TENANT, code, "")
    for name in depots or ("d",):
        store.create_depot(TENANT, code, name)


def fill() -> None:
    """Writes a little of everything; a unit."""
    shop()
    product(OPTION)
    stock(OPTION, 5)
    drafts.submit(claim(), draft_item())
    order_lines(line(2, option_code=OPTION, date=DAY), draft="draft")
    made, _ = order_lines(line(1, option_code=OPTION, date=DAY))
    lifecycle.cancel(TENANT, made.order_id, "", "", ACTOR)
    for end in (hold.confirm, hold.release, hold.use):
        end(TENANT, held(OPTION, 1).hold_id, ACTOR)
    late = held(OPTION, 1)
    with mock.patch.object(ids, "now_ms", lambda: late.expire_ms):
        hold.expire(TENANT, late.hold_id)
    held(OPTION, 1)
    tenant.create("tenant", "1001")
    tenant.create_client(ApiClient(tenant=TENANT, client_id="client"))
    checkout.record(TENANT, request(packed("1")), [])
