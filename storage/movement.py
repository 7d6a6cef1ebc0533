"""Movements of stock: one guarded update and its ledger rows, in the transaction of their cause."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from peewee import fn

from storage import ids
from storage.errors import OutOfStock
from storage.sql import Prepared, insert, param
from storage.tables import Inventory, InventoryLedger


class Cause(NamedTuple):
    """Who moves stock, for what, and why if somebody said."""

    actor: str
    source: str
    reason: str = ""


class Wanted(NamedTuple):
    """Units that a line wants from a stock row; `field` names the line to the caller."""

    field: str
    inventory_id: int
    quantity: int


_MOVE = Prepared(
    lambda: Inventory.update(
        ordered=Inventory.ordered + param("ordered"),
        held=Inventory.held + param("held"),
        revision=Inventory.revision + 1,
    ).where(
        (Inventory.tenant == param("tenant"))
        & (Inventory.inventory_id == param("inventory_id"))
        & (Inventory.ordered + param("ordered") >= 0)
        & (Inventory.held + param("held") >= 0)
        & (Inventory.max_quantity - Inventory.ordered - Inventory.held >= param("units"))
    )
)
_COUNTERS = Prepared(
    lambda: Inventory.select(Inventory.max_quantity, Inventory.ordered, Inventory.held).where(
        (Inventory.tenant == param("tenant")) & (Inventory.inventory_id == param("inventory_id"))
    )
)
_MOVED = Prepared(
    lambda: Inventory.select(Inventory.ordered, Inventory.held, _last()).where(
        (Inventory.tenant == param("tenant")) & (Inventory.inventory_id == param("inventory_id"))
    )
)
_LAST = Prepared(lambda: _last())


def take(tenant: int, wanted: Iterable[Wanted], cause: Cause, *, counter: str = "ordered") -> None:
    """Moves units from remaining to ordered or held: all of them, or OutOfStock and none.

    Lines on one row are summed first, and rows are touched in one order, so that two orders
    cannot wait for each other.
    """
    by_row: dict[int, list[Wanted]] = defaultdict(list)
    for line in wanted:
        by_row[line.inventory_id].append(line)
    short = [line for id_ in by_row for line in _short(tenant, by_row[id_])]
    if short:
        raise OutOfStock(short)
    for inventory_id in sorted(by_row):
        units = sum(line.quantity for line in by_row[inventory_id])
        if not move(tenant, inventory_id, cause, **{counter: units}):
            raise OutOfStock(_short(tenant, by_row[inventory_id]))


def move(tenant: int, inventory_id: int, cause: Cause, *, ordered: int = 0, held: int = 0) -> bool:
    """Moves a row's counters by so much, unless one would leave its bounds; tells whether it
    did.
    """
    moved = _MOVE.run(
        tenant=tenant,
        inventory_id=inventory_id,
        ordered=ordered,
        held=held,
        units=ordered + held,
    )
    if moved != 1:
        return False
    # Read after the update, when the row is ours: what was read before may have moved since.
    ((ordered_after, held_after, last),) = _MOVED.rows(tenant=tenant, inventory_id=inventory_id)
    for counter, delta, after in (("ordered", ordered, ordered_after), ("held", held, held_after)):
        if delta:
            enter(tenant, inventory_id, counter, after - delta, delta, cause, last or 0)
    return True


def last_entry(tenant: int, inventory_id: int) -> int:
    """Returns the last entry of a row's ledger, or 0; nobody adds to it once the row is ours."""
    ((last,),) = _LAST.rows(tenant=tenant, inventory_id=inventory_id)
    return last or 0


def enter(
    tenant: int,
    inventory_id: int,
    counter: str,
    before: int,
    delta: int,
    cause: Cause,
    last: int = 0,
) -> None:
    """Writes the ledger row of a movement, after the row's last entry."""
    insert(
        InventoryLedger(
            tenant=tenant,
            entry_id=ids.after(last),
            inventory_id=inventory_id,
            counter=counter,
            before=before,
            delta=delta,
            after=before + delta,
            actor=cause.actor,
            source=cause.source,
            reason=cause.reason,
            create_ms=ids.now_ms(),
        )
    )


def _last() -> Any:
    """Returns the query for the last entry of a row's ledger: whoever wrote it, its id may be ahead
    of our clock.
    """
    ledger = InventoryLedger
    owned = (ledger.tenant == param("tenant")) & (ledger.inventory_id == param("inventory_id"))
    return ledger.select(fn.MAX(ledger.entry_id)).where(owned)


def _short(tenant: int, lines: list[Wanted]) -> list[tuple[str, int, int]]:
    """Returns (field, asked, left) of the lines on one row when it has not enough for them all."""
    top, ordered, held = _counters(tenant, lines[0].inventory_id)
    left = top - ordered - held
    if sum(line.quantity for line in lines) <= left:
        return []
    return [(line.field, line.quantity, left) for line in lines]


def _counters(tenant: int, inventory_id: int) -> tuple[int, int, int]:
    row = _COUNTERS.row(tenant=tenant, inventory_id=inventory_id)
    assert row is not None, "stock rows are never deleted"
    return row[0], row[1], row[2]
