"""Dated stock. Every movement is one guarded update and one ledger row, in the transaction of its
cause.
"""

import datetime
import uuid
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from storage import event, ids
from storage.errors import BelowCommitted, InvalidField, NotFound, OutOfStock, Race
from storage.sql import Prepared, insert, param, tuples
from storage.tables import Inventory, InventoryLedger, Product, ProductOption


class Wanted(NamedTuple):
    """Units that a line wants from a stock row; `field` names the line to the caller."""

    field: str
    row: Inventory
    quantity: int


class Setting(NamedTuple):
    """A row to put up for sale."""

    field: str
    option_code: str
    date: str
    max_quantity: int
    inventory_code: str


_FIND = Prepared(
    lambda: Inventory.select().where(
        (Inventory.tenant == param("tenant"))
        & (Inventory.option_code == param("option_code"))
        & (Inventory.date == param("date"))
    )
)
_BY_ID = Prepared(lambda: Inventory.select().where(Inventory.inventory_id == param("inventory_id")))
_TAKE = Prepared(
    lambda: Inventory.update(ordered=Inventory.ordered + param("quantity")).where(
        (Inventory.inventory_id == param("inventory_id"))
        & (Inventory.max_quantity - Inventory.ordered - Inventory.held >= param("quantity"))
    )
)


def remain(row: Inventory) -> int:
    """Returns how many units of a row are left."""
    left: int = row.max_quantity - row.ordered - row.held
    return left


def find(tenant: int, option_code: str, date: str) -> Inventory | None:
    """Returns the stock row of an option on a day, if there is one."""
    return _FIND.one(Inventory, tenant=tenant, option_code=option_code.lower(), date=date)


def option_of(tenant: int, sku: str | None, price_option_id: int, product_id: int) -> str | None:
    """Returns the code of the option that a sku, a price option or a product of one option
    means.
    """
    option = ProductOption
    owned = option.tenant == tenant
    if sku and (found := option.get_or_none(owned & (option.sku == sku))):
        return str(found.option_code)
    if price_option_id and (
        found := option.get_or_none(owned & (option.price_option_id == price_option_id))
    ):
        return str(found.option_code)
    if product_id and (
        product := Product.get_or_none(
            (Product.tenant == tenant) & (Product.product_id == product_id)
        )
    ):
        options = list(
            option.select().where(owned & (option.product_code == product.product_code)).limit(2)
        )
        return str(options[0].option_code) if len(options) == 1 else None
    return None


def take(tenant: int, wanted: Iterable[Wanted], source: str) -> None:
    """Moves units of the rows from remaining to ordered: all of them, or OutOfStock and none.

    Lines on one row are summed first, and rows are touched in one order, so that two orders cannot
    deadlock.
    """
    by_row: dict[int, list[Wanted]] = defaultdict(list)
    for line in wanted:
        by_row[line.row.inventory_id].append(line)
    short = [
        (line.field, line.quantity, remain(line.row))
        for lines in by_row.values()
        if sum(line.quantity for line in lines) > remain(lines[0].row)
        for line in lines
    ]
    if short:
        raise OutOfStock(short)
    for inventory_id in sorted(by_row):
        lines = by_row[inventory_id]
        quantity = sum(line.quantity for line in lines)
        taken = _TAKE.run(inventory_id=inventory_id, quantity=quantity) == 1
        row = _now(lines[0].row)
        if not taken:
            raise OutOfStock([(line.field, line.quantity, remain(row)) for line in lines])
        _enter(row, "ordered", row.ordered - quantity, quantity, source)


def batch_set(tenant: int, settings: list[Setting]) -> list[Inventory]:
    """Puts rows up for sale or moves their maximum: all of them, or none.

    Raises NotFound (unknown option), InvalidField (a day that does not exist, a row or a code
    twice), BelowCommitted (less than is ordered and held).
    """
    _refuse_repeats(settings)
    _refuse_unknown_options(tenant, settings)
    return [_set(tenant, setting) for setting in settings]


def page(tenant: int, product: Product, number: int, size: int) -> list[Inventory]:
    """Returns page `number`, from 1, of a product's rows, ordered by option, date and inventory
    code.
    """
    options = ProductOption.select(ProductOption.option_code).where(
        (ProductOption.tenant == tenant) & (ProductOption.product_code == product.product_code)
    )
    rows = (
        Inventory.select()
        .where((Inventory.tenant == tenant) & Inventory.option_code.in_(options))
        .order_by(Inventory.option_code, Inventory.date, Inventory.inventory_code)
        .paginate(number, size)
    )
    return list(rows)


def product(tenant: int, idcode: str) -> tuple[Product, dict[str, int]]:
    """Returns the product of a code (UUID) or a decimal id, and its option ids by code. Raises
    NotFound.
    """
    owned = Product.tenant == tenant
    if idcode.isascii() and idcode.isdigit():
        found = Product.get_or_none(owned & (Product.product_id == int(idcode)))
    else:
        found = Product.get_or_none(owned & (Product.product_code == idcode.lower()))
    if found is None:
        raise NotFound("there is no such product")
    options = ProductOption.select(ProductOption.option_code, ProductOption.option_id).where(
        (ProductOption.tenant == tenant) & (ProductOption.product_code == found.product_code)
    )
    return found, {code: option_id for code, option_id in tuples(options)}


def real_day(field: str, date: str) -> str:
    """Returns a day as it was given. Raises InvalidField when the calendar has no such day."""
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        raise InvalidField(field, "is not a day of the calendar") from None
    return date


def _now(row: Inventory) -> Inventory:
    """Returns a row as it stands; after an update of our own nobody else can move it."""
    return _BY_ID.one(Inventory, inventory_id=row.inventory_id) or row


def _refuse_repeats(settings: list[Setting]) -> None:
    seen: set[object] = set()
    for setting in settings:
        real_day(f"{setting.field}.date", setting.date)
        for field, mark in (
            ("date", (setting.option_code.lower(), setting.date)),
            ("inventory_code", setting.inventory_code.lower()),
        ):
            if mark in seen:
                raise InvalidField(f"{setting.field}.{field}", "appears twice")
            if mark:
                seen.add(mark)


def _refuse_unknown_options(tenant: int, settings: list[Setting]) -> None:
    asked = {setting.option_code.lower() for setting in settings}
    known = ProductOption.select(ProductOption.option_code).where(
        (ProductOption.tenant == tenant) & ProductOption.option_code.in_(asked)
    )
    missing = asked - {code for (code,) in tuples(known)}
    if missing:
        raise NotFound(f"there is no option {min(missing)}")


def _set(tenant: int, setting: Setting) -> Inventory:
    row = find(tenant, setting.option_code, setting.date)
    if row is None:
        return _open(tenant, setting)
    _refuse_other_code(setting, row)
    if row.max_quantity != setting.max_quantity:
        _move_max(row, setting.max_quantity)
    return row


def _open(tenant: int, setting: Setting) -> Inventory:
    code = setting.inventory_code.lower() or str(uuid.uuid4())
    if Inventory.get_or_none((Inventory.tenant == tenant) & (Inventory.inventory_code == code)):
        raise InvalidField(f"{setting.field}.inventory_code", "belongs to another row")
    row = Inventory(
        tenant=tenant,
        inventory_id=ids.new_id(),
        inventory_code=code,
        option_code=setting.option_code.lower(),
        date=setting.date,
        max_quantity=setting.max_quantity,
    )
    insert(row)
    _enter(row, "max", 0, setting.max_quantity, "set")
    _tell(row)
    return row


def _refuse_other_code(setting: Setting, row: Inventory) -> None:
    if setting.inventory_code and setting.inventory_code.lower() != row.inventory_code:
        raise InvalidField(f"{setting.field}.inventory_code", "differs from the row's own code")


def _move_max(row: Inventory, to: int) -> None:
    guard = (
        (Inventory.inventory_id == row.inventory_id)
        & (Inventory.max_quantity == row.max_quantity)
        & (Inventory.ordered + Inventory.held <= to)
    )
    if Inventory.update(max_quantity=to).where(guard).execute() != 1:
        row = _now(row)
        if row.ordered + row.held <= to:
            raise Race(f"the maximum of {row.inventory_code} was moved by another")
        raise BelowCommitted(
            f"option {row.option_code} on {row.date} has {row.ordered + row.held} ordered and held"
        )
    _enter(row, "max", row.max_quantity, to - row.max_quantity, "set")
    row.max_quantity = to
    _tell(row)


def _tell(row: Inventory) -> None:
    event.record(row.tenant, "inventory.set", row.inventory_code, max_quantity=row.max_quantity)


def _enter(row: Inventory, counter: str, before: int, delta: int, source: str) -> None:
    insert(
        InventoryLedger(
            tenant=row.tenant,
            entry_id=ids.new_id(),
            inventory_id=row.inventory_id,
            counter=counter,
            before=before,
            delta=delta,
            after=before + delta,
            source=source,
            create_ms=ids.now_ms(),
        )
    )
