"""The tables of what is sold: where, as what, and how much of it is left; part of the schema in
storage/tables.py.
"""

from peewee import BigIntegerField, BooleanField, Check, CompositeKey, FixedCharField, IntegerField
from peewee import CharField as VarcharField

from storage.row import LongText, Row, one_of

HOLD_STATES = ("ACTIVE", "CONFIRMED", "RELEASED", "EXPIRED")


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
        primary_key = CompositeKey("tenant", "product_code", "option_code")
        indexes = (
            (("tenant", "option_code"), True),
            (("tenant", "option_id"), True),
            (("tenant", "sku"), True),
            (("tenant", "price_option_id"), True),
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
    revision = IntegerField(default=1)

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
    actor = VarcharField(128)
    source = VarcharField()
    reason = VarcharField()
    create_ms = BigIntegerField()

    class Meta:
        table_name = "inventory_ledger"
        indexes = ((("tenant", "inventory_id", "entry_id"), False),)
        constraints = (Check("`before` + delta = `after`"),)


class Hold(Row):
    """Units of some rows, kept back until a time."""

    hold_id = FixedCharField(32)
    state = VarcharField(9, constraints=[one_of("state", HOLD_STATES)])
    expire_ms = BigIntegerField()
    client = VarcharField(128)
    revision = IntegerField(default=1)
    create_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "hold_id")


class HoldLine(Row):
    """Units of one row in a hold; `active` and `expire_ms` are the hold's, here to be found by
    row.
    """

    hold_id = FixedCharField(32)
    inventory_id = BigIntegerField()
    quantity = IntegerField(constraints=[Check("quantity >= 1")])
    active = BooleanField()
    expire_ms = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("tenant", "hold_id", "inventory_id")
        indexes = (
            (("tenant", "inventory_id", "active", "expire_ms"), False),
            (("active", "expire_ms"), False),
        )
