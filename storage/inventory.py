"""Dated stock: the rows, what is put up for sale, and what is left."""

import datetime
import uuid
from typing import NamedTuple

from storage import event, hold, ids, revision, store
from storage.errors import BelowCommitted, EtagMismatch, InvalidField, NotFound, Race
from storage.movement import Cause, enter, last_entry
from storage.sql import insert, rows_with, tuples
from storage.tables import Inventory, InventoryLedger, Product, ProductOption

MAX_UNITS = 10**9
"""The largest maximum of a row."""


class Setting(NamedTuple):
    """A row to put up for sale."""

    field: str
    option_code: str
    date: str
    max_quantity: int
    inventory_code: str


_FIND = rows_with(Inventory, "option_code", "date")
_BY_ID = rows_with(Inventory, "inventory_id")
_BY_CODE = rows_with(Inventory, "inventory_code")
_DAYS = rows_with(Inventory, "option_code")


def remain(row: Inventory) -> int:
    """Returns how many units of a row are left."""
    left: int = row.max_quantity - row.ordered - row.held
    return left


def find(tenant: int, option_code: str, date: str) -> Inventory | None:
    """Returns the stock row of an option on a day, if there is one, as it is stored."""
    return _FIND.one(Inventory, tenant=tenant, option_code=option_code.lower(), date=date)


def get(tenant: int, field: str, option_code: str, date: str) -> Inventory:
    """Returns a stock row. Raises NotFound, and InvalidField for a day that does not exist."""
    row = find(tenant, option_code, real_day(field, date))
    if row is None:
        raise NotFound(f"there is no stock of option {option_code} on {date}")
    return row


def only_row(tenant: int, option_code: str) -> Inventory | None:
    """Returns the stock row of an option that has just one, on whatever day."""
    return _DAYS.only(Inventory, tenant=tenant, option_code=option_code)


def by_ids(tenant: int, ids_: list[int]) -> dict[int, Inventory]:
    """Returns stock rows by id."""
    # One by one: with IN, SQLite takes a tenant for a few rows and reads all of them.
    found = (_BY_ID.one(Inventory, tenant=tenant, inventory_id=id_) for id_ in ids_)
    return {row.inventory_id: row for row in found if row is not None}


def as_of_now(tenant: int, rows: list[Inventory]) -> list[Inventory]:
    """Returns rows as they are once the holds whose time is over have ended."""
    late = hold.overdue_units(tenant, [row.inventory_id for row in rows]) if rows else {}
    for row in rows:
        units, holds = late.get(row.inventory_id, (0, 0))
        row.held, row.revision = row.held - units, row.revision + holds
    return rows


def option_of(tenant: int, sku: str | None, price_option_id: int, product_id: int) -> str | None:
    """Returns the code of the option that a sku, a price option or a product of one option
    means.
    """
    found = None
    if sku:
        found = store.option_with(tenant, "sku", sku)
    if not found and price_option_id:
        found = store.option_with(tenant, "price_option_id", price_option_id)
    if not found and product_id:
        found = store.only_option(tenant, product_id)
    return str(found.option_code) if found else None


def options(tenant: int) -> dict[str, str]:
    """Returns the code of every option, by its code and by its sku."""
    owned = ProductOption.tenant == tenant
    found = ProductOption.select(ProductOption.option_code, ProductOption.sku).where(owned)
    return {name: code for code, sku in tuples(found) for name in (sku, code) if name}


def batch_set(tenant: int, settings: list[Setting], actor: str) -> list[Inventory]:
    """Puts rows up for sale or moves their maximum: all of them, or none.

    Raises NotFound (unknown option), InvalidField (a day that does not exist, a row or a code
    twice), BelowCommitted (less than is ordered and held).
    """
    _refuse_repeats(settings)
    _refuse_unknown_options(tenant, settings)
    return [_set(tenant, setting, Cause(actor, "set")) for setting in settings]


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
    return as_of_now(tenant, list(rows))


def list_page(
    tenant: int, option: str, dates: tuple[str, str], after: tuple[str, str] | None, size: int
) -> list[Inventory]:
    """Returns up to `size` rows after an (option, date), in that order; empty filters match all.

    Raises InvalidField for a day that does not exist.
    """
    owned = Inventory.tenant == tenant
    if option:
        owned &= Inventory.option_code == option.lower()
    if dates[0]:
        owned &= Inventory.date >= real_day("date_from", dates[0])
    if dates[1]:
        owned &= Inventory.date <= real_day("date_to", dates[1])
    if after:
        later = (Inventory.option_code == after[0]) & (Inventory.date > after[1])
        owned &= (Inventory.option_code > after[0]) | later
    rows = Inventory.select().where(owned).order_by(Inventory.option_code, Inventory.date)
    return as_of_now(tenant, list(rows.limit(size)))


def overdue(tenant: int, code: str) -> list[int]:
    """Returns the id of a row that has holds to end, so that its ledger tells of it. Raises
    NotFound.
    """
    return list(hold.overdue_units(tenant, [_by_code(tenant, code).inventory_id]))


def ledger_page(tenant: int, code: str, before: int | None, size: int) -> list[InventoryLedger]:
    """Returns up to `size` movements of a row before an entry, the newest first. Raises
    NotFound.
    """
    row = _by_code(tenant, code)
    ledger = InventoryLedger
    of_row = (ledger.tenant == tenant) & (ledger.inventory_id == row.inventory_id)
    if before is not None:
        of_row &= ledger.entry_id < before
    return list(ledger.select().where(of_row).order_by(ledger.entry_id.desc()).limit(size))


def adjust(tenant: int, row: Inventory, to: int, expected: int | None, cause: Cause) -> Inventory:
    """Moves a row's maximum. Raises BelowCommitted, InvalidField, and EtagMismatch when the maximum
    is not the expected one.
    """
    if expected is not None and row.max_quantity != expected:
        text = f"max_quantity is {row.max_quantity}, not {expected}"
        raise EtagMismatch(revision.etag(as_of_now(tenant, [row])[0].revision), text)
    if not 0 <= to <= MAX_UNITS:
        raise InvalidField("delta", "would leave the bounds of max_quantity")
    return _move_max(row, to, cause)


def product(tenant: int, idcode: str) -> tuple[Product, dict[str, int]]:
    """Returns the product of a code (UUID) or a decimal id, and its option ids by code. Raises
    NotFound.
    """
    if idcode.isascii() and idcode.isdigit():
        found = store.product_with(tenant, "product_id", int(idcode))
    else:
        found = store.product_with(tenant, "product_code", idcode.lower())
    if found is None:
        raise NotFound("there is no such product")
    return found, {option.option_code: option.option_id for option in store.options_of(found)}


def real_day(field: str, date: str) -> str:
    """Returns a day as it was given. Raises InvalidField when the calendar has no such day."""
    try:
        known = datetime.date.fromisoformat(date).isoformat()
    except ValueError:
        known = ""
    if date != known:  # Python reads 20310501 and 2031-W18-4 too
        raise InvalidField(field, "is not a day of the calendar, YYYY-MM-DD")
    return date


def _by_code(tenant: int, code: str) -> Inventory:
    row = _BY_CODE.one(Inventory, tenant=tenant, inventory_code=code.lower())
    if row is None:
        raise NotFound(f"there is no stock row {code}")
    return row


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
    for code in sorted({setting.option_code.lower() for setting in settings}):
        if store.option_with(tenant, "option_code", code) is None:
            raise NotFound(f"there is no option {code}")


def _set(tenant: int, setting: Setting, cause: Cause) -> Inventory:
    row = find(tenant, setting.option_code, setting.date)
    if row is None:
        return _open(tenant, setting, cause)
    _refuse_other_code(setting, row)
    return _move_max(row, setting.max_quantity, cause)


def _open(tenant: int, setting: Setting, cause: Cause) -> Inventory:
    code = setting.inventory_code.lower() or str(uuid.uuid4())
    if setting.inventory_code and _BY_CODE.row(tenant=tenant, inventory_code=code):
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
    enter(tenant, row.inventory_id, "max", 0, setting.max_quantity, cause)
    _tell(row)
    return row


def _refuse_other_code(setting: Setting, row: Inventory) -> None:
    if setting.inventory_code and setting.inventory_code.lower() != row.inventory_code:
        raise InvalidField(f"{setting.field}.inventory_code", "differs from the row's own code")


def _move_max(row: Inventory, to: int, cause: Cause) -> Inventory:
    """Returns the row with this maximum, as it is now. Raises BelowCommitted."""
    if row.max_quantity == to:
        return as_of_now(row.tenant, [row])[0]
    hold.free_overdue(row.tenant, [row.inventory_id])
    owned = (Inventory.tenant == row.tenant) & (Inventory.inventory_id == row.inventory_id)
    seen = Inventory.max_quantity == row.max_quantity
    enough = Inventory.ordered + Inventory.held <= to
    change = Inventory.update(max_quantity=to, revision=Inventory.revision + 1)
    if change.where(owned & seen & enough).execute() != 1:
        now = by_ids(row.tenant, [row.inventory_id])[row.inventory_id]
        if now.ordered + now.held <= to:
            raise Race(f"the maximum of {row.inventory_code} was moved by another")
        raise BelowCommitted(
            f"option {row.option_code} on {row.date} has {now.ordered + now.held}"
            f" ordered and held, more than {to}"
        )
    last = last_entry(row.tenant, row.inventory_id)
    delta = to - row.max_quantity
    enter(row.tenant, row.inventory_id, "max", row.max_quantity, delta, cause, last)
    fresh = by_ids(row.tenant, [row.inventory_id])[row.inventory_id]
    _tell(fresh)
    return fresh


def _tell(row: Inventory) -> None:
    event.record(row.tenant, "inventory.set", row.inventory_code, max_quantity=row.max_quantity)
