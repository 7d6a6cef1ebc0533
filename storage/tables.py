"""The whole schema. Every row belongs to a tenant, and the tenant leads every key but those
of ids that are unique by themselves, and of what is looked for before anybody knows whose it is.

Times are epoch milliseconds, UTC. Money is millionths (storage/money.py). Rules that the code
keeps are kept again here by NOT NULL, UNIQUE and CHECK, so that no path can break them. A change
here needs a migration (storage/migrations); a test compares the two.
"""

from peewee import (
    SQL,
    BigIntegerField,
    BooleanField,
    Check,
    CompositeKey,
    FixedCharField,
    IntegerField,
    SmallIntegerField,
)
from peewee import CharField as VarcharField

from storage.row import LongBlob, LongText, Row, one_of
from storage.tenancy import ApiClient as ApiClient
from storage.tenancy import ApiKey as ApiKey
from storage.tenancy import Tenant as Tenant
from storage.wares import Depot as Depot
from storage.wares import Hold as Hold
from storage.wares import HoldLine as HoldLine
from storage.wares import Inventory as Inventory
from storage.wares import InventoryLedger as InventoryLedger
from storage.wares import Product as Product
from storage.wares import ProductOption as ProductOption
from storage.wares import Store as Store

ORDER_STATUSES = ("NEW", "CONFIRMED", "PICKING", "PACKED", "SHIPPED", "DELIVERED", "CANCELLED")
OPERATION_STATES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED")
ITEM_TYPES = ("comum", "expresso")


class Draft(Row):
    """A basket: open until an order takes it. `item_changes` is where a change of an item and an
    order meet, so that one of them sees the other.
    """

    draft = VarcharField()
    display_name = VarcharField(default="")
    order_id = BigIntegerField(null=True)
    delete_ms = BigIntegerField(null=True)
    item_changes = IntegerField(default=0)
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "draft")
        constraints = (Check("order_id IS NULL OR delete_ms IS NULL"),)


# To SQLite this is a comment: it appends such rows, wherever their keys are.
_BESIDE_EACH_OTHER = SQL(
    "/*! ALTER TABLE `draft_items` DROP PRIMARY KEY, ADD PRIMARY KEY (`tenant`, `draft`, `item`), "
    "ADD UNIQUE INDEX `draftitem_tenant_item` (`tenant`, `item`), "
    "DROP INDEX `draftitem_tenant_draft` */"
)


class DraftItem(Row):
    """An item of a draft: what the client sent, beside the server's own revision and times. On
    MySQL the items of a draft lie beside each other, so that they are read at once.
    """

    item = VarcharField()
    draft = VarcharField()
    entity_number = VarcharField()
    line_number = IntegerField(null=True)
    product_number = VarcharField()
    sku = VarcharField()
    product_name = VarcharField(1000)
    quantity = IntegerField(constraints=[Check("quantity >= 0")])
    unit_price = BigIntegerField(null=True)
    line_total = BigIntegerField(null=True)
    is_active = BooleanField()
    is_deleted = BooleanField()
    deleted_at = VarcharField()
    created_at = VarcharField()
    updated_at = VarcharField()
    idempotency_key = VarcharField()
    schema_version = BigIntegerField(null=True)
    version = BigIntegerField(null=True)
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "item")
        indexes = ((("tenant", "draft"), False), _BESIDE_EACH_OTHER)


class Order(Row):
    """An order, whichever door it came in by; columns its door does not know are null, and its
    customer is "".

    `item_changes` is where changes of its lines meet. The key keeps a customer's times strictly
    increasing and his orders side by side, so that his latest five are a page and not five.
    """

    order_id = BigIntegerField()
    store = VarcharField()
    order_number = VarcharField()
    status = VarcharField(16, default="NEW", constraints=[one_of("status", ORDER_STATUSES)])
    customer = VarcharField(default="")
    customer_ms = BigIntegerField()
    requester_id = IntegerField(null=True)
    user_id = IntegerField(null=True)
    facility_id = IntegerField(null=True)
    shipping_address_id = IntegerField(null=True)
    billing_address_id = IntegerField(null=True)
    shipping_method = VarcharField(null=True)
    use_shipping_account = BooleanField(null=True)
    notes = VarcharField(200, null=True)
    draft = VarcharField(null=True)
    client = VarcharField(128, default="")
    grand_total = BigIntegerField(constraints=[Check("grand_total >= 0")])
    item_changes = IntegerField(default=0)
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "store", "customer", "customer_ms")
        indexes = (
            (("tenant", "order_id"), True),
            (("tenant", "store", "order_number"), True),
        )


class OrderItem(Row):
    """A line of an order; picked once its wave is known."""

    order_id = BigIntegerField()
    order_item_id = VarcharField()
    position = SmallIntegerField()
    quantity = IntegerField(constraints=[Check("quantity >= 1")])
    price = BigIntegerField(default=0)
    total = BigIntegerField(default=0)
    price_option_id = BigIntegerField(default=0)
    product_id = BigIntegerField(default=0)
    sku = VarcharField(null=True)
    option_code = FixedCharField(36, null=True)
    date = FixedCharField(10, null=True)
    inventory_id = BigIntegerField(null=True)
    depot = VarcharField(null=True)
    type = VarcharField(8, default="comum", constraints=[one_of("type", ITEM_TYPES)])
    wave_id = BigIntegerField(null=True)

    class Meta:
        primary_key = CompositeKey("tenant", "order_id", "order_item_id")


class OrderStatus(Row):
    """A status that an order moved to; the first, NEW, is the order's own creation."""

    order_id = BigIntegerField()
    change_id = BigIntegerField()
    status = VarcharField(16, constraints=[one_of("status", ORDER_STATUSES)])
    actor = VarcharField(128)
    reason = VarcharField()
    create_ms = BigIntegerField()

    class Meta:
        table_name = "order_statuses"
        primary_key = CompositeKey("tenant", "order_id", "change_id")


class Wave(Row):
    """A picking round of items of one type; the ones made by a checkout are completed at once."""

    wave_id = BigIntegerField(primary_key=True)
    store = VarcharField()
    type = VarcharField(8, constraints=[one_of("type", ITEM_TYPES)])
    completed_ms = BigIntegerField()


class OrderStoring(Row):
    """That the goods of an order, picked in a wave, were put away; completed at once."""

    order_id = BigIntegerField()
    wave_id = BigIntegerField()
    completed_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "order_id", "wave_id")


class Checkout(Row):
    """A packing and conference of picked goods."""

    external_number = VarcharField()
    store = VarcharField()
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "external_number")
        indexes = ((("tenant", "store", "external_number"), False),)


class CheckoutItem(Row):
    """An item packed in a checkout."""

    external_number = VarcharField()
    item_number = VarcharField()
    position = IntegerField()
    order_id = BigIntegerField()
    order_item_id = VarcharField()

    class Meta:
        primary_key = CompositeKey("tenant", "external_number", "item_number")
        indexes = ((("tenant", "order_id", "order_item_id"), False),)


class Protocol(Row):
    """A request to record a checkout, as it was understood, and what became of it."""

    protocol = FixedCharField(32)
    accepted = BooleanField()
    request = LongText()
    faults = LongText()
    create_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "protocol")


class IdempotencyKey(Row):
    """A key that was used, what it was used for, and the first answer."""

    client = VarcharField()
    rpc = VarcharField(64)
    key = VarcharField()
    fingerprint = LongBlob()
    answer = LongBlob()
    create_ms = BigIntegerField(index=True)

    class Meta:
        primary_key = CompositeKey("tenant", "client", "rpc", "key")


class Operation(Row):
    """What becomes of a request that was answered with a 202."""

    operation = FixedCharField(32)
    state = VarcharField(9, constraints=[one_of("state", OPERATION_STATES)])
    draft = VarcharField()
    item = VarcharField()
    reason = VarcharField(64, null=True)
    error = VarcharField(1000, null=True)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "operation")


class Promise(Row):
    """A request that waits for the worker; it goes with the end of its operation."""

    operation = FixedCharField(32)
    draft = VarcharField()
    request = LongText()

    class Meta:
        primary_key = CompositeKey("tenant", "operation")
        indexes = ((("tenant", "draft"), False),)


class Event(Row):
    """What happened, in the order of commit, without gaps, one for every committed change."""

    seq = BigIntegerField()
    kind = VarcharField(64)
    subject = VarcharField()
    data = LongText()
    create_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "seq")


class EventTip(Row):
    """The number of a tenant's last event; the last row that a transaction locks."""

    seq = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant")


TABLES: list[type[Row]] = [*Row.__subclasses__()]
_APPENDED = {DraftItem, IdempotencyKey, Protocol}
"""Tables of long rows: SQLite appends those, and keeps only their keys in order. Other rows lie in
the order of their key, which is the table itself then and not an index beside it.
"""
for _table in TABLES:
    _by_key = isinstance(_table._meta.primary_key, CompositeKey) and _table not in _APPENDED
    _table._meta.without_rowid = _by_key
