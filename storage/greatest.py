"""The greatest id in the open database, behind which the ids of this process go on: the clock may
have been set back since it was made.

Ids that are unique within an order (storage/lifecycle.py) or that callers may choose
(storage/store.py) are not asked for.
"""

from peewee import Select, fn

from storage import ids
from storage.lease import roll_back, undisturbed
from storage.sql import across_tenants, tuples
from storage.tables import EventTip, Inventory, InventoryLedger, Order, Wave


def go_on_behind() -> None:
    """Lets the ids to come be greater than those of the open database; each is the end of an
    index.
    """
    try:
        ids.go_on_behind(max(undisturbed(lambda: [_found(query) for query in _queries()])))
    finally:
        roll_back()  # an open transaction would hold up changes of these tables


def _queries() -> list[Select]:
    # Whoever has an order has events. MariaDB would read all of a tenant's orders for their MAX.
    of_tenant = Order.select(Order.order_id).where(Order.tenant == EventTip.tenant)
    return [
        EventTip.select(fn.MAX(of_tenant.order_by(Order.order_id.desc()).limit(1))),
        Inventory.select(fn.MAX(Inventory.inventory_id)),
        InventoryLedger.select(fn.MAX(InventoryLedger.entry_id)),
        Wave.select(fn.MAX(Wave.wave_id)),
    ]


def _found(query: Select) -> int:
    ((greatest,),) = tuples(across_tenants(query))
    return greatest or 0
