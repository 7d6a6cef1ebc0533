"""The whole schema. Every row belongs to a tenant, and the tenant leads every key.

Times are epoch milliseconds, UTC. Money is millionths (storage/money.py). Rules that the code
keeps are kept again here by NOT NULL, UNIQUE and CHECK, so that no path can break them. A change
here needs a migration (storage/migrations); a test compares the two.
"""

from peewee import (
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

ORDER_STATUSES = ("NEW", "CONFIRMED", "PICKING", "PACKED", "SHIPPED", "DELIVERED", "CANCELLED")
OPERATION_STATES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED")
ITEM_TYPES = ("comum", "expresso")


class Store(Row):
    """A place that takes orders."""

    store = VarcharField()
    display_name = VarcharField(default="")
    checkout_mapping = LongText(default="{}")
    create_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "store")


class Depot(Row):
    """A place in a store where goods lie; the checkout document's storageName."""

    store = VarcharField()
    name = VarcharField()

    class Meta:
        primary_key = CompositeKey("tenant", "store", "name")


class Product(Row):
    """Something for sale."""

    product_code = FixedCharField(36)
    product_id = BigIntegerField()
    display_name = VarcharField(default="")

    class Meta:
        primary_key = CompositeKey("tenant", "product_code")
        indexes = ((("tenant", "product_id"), True),)


class ProductOption(Row):
    """What can be bought of a product; its sku, option id and price option each mean one option."""

    option_code = FixedCharField(36)
    option_id = BigIntegerField()
    product_code = FixedCharField(36)
    sku = VarcharField(null=True)
    price_option_id = BigIntegerField(null=True)

    class Meta:
        primary_key = CompositeKey("tenant", "option_code")
        indexes = (
            (("tenant", "option_id"), True),
            (("tenant", "sku"), True),
            (("tenant", "price_option_id"), True),
            (("tenant", "product_code"), False),
        )


class Inventory(Row):
    """Dated stock of one option. remain = max - ordered - held, never below zero."""

    inventory_id = BigIntegerField(primary_key=True)
    inventory_code = FixedCharField(36)
    option_code = FixedCharField(36)
    date = FixedCharField(10)
    max_quantity = IntegerField()
    ordered = IntegerField(default=0)
    held = IntegerField(default=0)

    class Meta:
        table_name = "inventory"
        indexes = ((("tenant", "option_code", "date"), True), (("tenant", "inventory_code"), True))
        constraints = (
            Check("ordered >= 0"),
            Check("held >= 0"),
            Check("ordered + held <= max_quantity"),
        )


class InventoryLedger(Row):
    """Every movement of a stock counter; the sum of its deltas is the counter."""

    entry_id = BigIntegerField(primary_key=True)
    inventory_id = BigIntegerField()
    counter = VarcharField(8, constraints=[one_of("counter", ("max", "ordered", "held"))])
    before = IntegerField()
    delta = IntegerField()
    after = IntegerField()
    source = VarcharField()
    create_ms = BigIntegerField()

    class Meta:
        table_name = "inventory_ledger"
        indexes = ((("tenant", "inventory_id", "entry_id"), False),)
        constraints = (Check("`before` + delta = `after`"),)


class Draft(Row):
    """A basket: open until an order takes it. A new item moves the revision, so that an item and
    an order meet at this row and one of them sees the other.
    """

    draft = VarcharField()
    order_id = BigIntegerField(null=True)
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "draft")


class DraftItem(Row):
    """An item of a draft: what the client sent, beside the server's own revision and times."""

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
        indexes = ((("tenant", "draft", "line_number", "item"), False),)


class Order(Row):
    """An order, whichever door it came in by; columns its door does not know are null."""

    order_id = BigIntegerField(primary_key=True)
    store = VarcharField()
    order_number = VarcharField()
    status = VarcharField(16, default="NEW", constraints=[one_of("status", ORDER_STATUSES)])
    customer = VarcharField(null=True)
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
    grand_total = BigIntegerField(constraints=[Check("grand_total >= 0")])
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        indexes = (
            (("tenant", "store", "order_number"), True),
            # Serves the latest five, and keeps a customer's times strictly increasing.
            (("tenant", "store", "customer", "customer_ms"), True),
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
    depot = VarcharField(null=True)
    type = VarcharField(8, default="comum", constraints=[one_of("type", ITEM_TYPES)])
    wave_id = BigIntegerField(null=True)

    class Meta:
        primary_key = CompositeKey("tenant", "order_id", "order_item_id")


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
    """A request to record a checkout, as it was received, and what became of it."""

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
    """Work that was promised with a 202: durable before the answer, applied exactly once."""

    operation = FixedCharField(32)
    state = VarcharField(9, constraints=[one_of("state", OPERATION_STATES)])
    draft = VarcharField()
    item = VarcharField()
    request = LongText()
    reason = VarcharField(64, null=True)
    error = VarcharField(1000, null=True)
    create_ms = BigIntegerField()
    update_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "operation")
        indexes = ((("state", "tenant", "operation"), False), (("tenant", "draft", "state"), False))


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
for _table in TABLES:  # a composite key is the table itself, not an index beside it
    _table._meta.without_rowid = isinstance(_table._meta.primary_key, CompositeKey)
