"""Holds: units kept back until a time. From that very instant they count as free, in every answer
and for every order, whether or not the sweeper has tidied up."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from peewee import fn

from storage import event, ids
from storage.errors import HoldNotActive, InvalidField, NotFound, Race
from storage.movement import Cause, Wanted, move, take
from storage.sql import Prepared, across_tenants, insert, param, rows_with, tuples
from storage.tables import Hold, HoldLine

LONGEST_MS = 30 * 24 * 3600 * 1000
"""How far ahead a hold may expire."""

_FIND = rows_with(Hold, "hold_id")
_OVERDUE = Prepared(
    lambda: HoldLine.select(HoldLine.hold_id).where(
        (HoldLine.tenant == param("tenant"))
        & (HoldLine.inventory_id == param("inventory_id"))
        & (HoldLine.active == True)  # noqa: E712 - an expression of SQL
        & (HoldLine.expire_ms <= param("now"))
    )
)


def create(tenant: int, wanted: list[Wanted], expire_ms: int, client: str) -> Hold:
    """Holds units of several rows: all of them, or OutOfStock and none.

    Raises InvalidField for a time that is past or too far ahead.
    """
    _refuse_time(expire_ms)
    hold = Hold(
        tenant=tenant,
        hold_id=ids.new_token(),
        state="ACTIVE",
        expire_ms=expire_ms,
        client=client,
        create_ms=ids.now_ms(),
    )
    free_overdue(tenant, {line.inventory_id for line in wanted})
    take(tenant, wanted, Cause(client, f"holds/{hold.hold_id}"), counter="held")
    insert(hold)
    for inventory_id in sorted({line.inventory_id for line in wanted}):
        units = sum(line.quantity for line in wanted if line.inventory_id == inventory_id)
        _add_line(hold, inventory_id, units)
    event.record(tenant, "hold.created", hold.hold_id)
    return hold


def get(tenant: int, hold_id: str) -> Hold:
    """Returns a hold; one whose time is over is EXPIRED. Raises NotFound."""
    hold = _FIND.one(Hold, tenant=tenant, hold_id=hold_id)
    if hold is None:
        raise NotFound(f"there is no hold {hold_id}")
    if hold.state == "ACTIVE" and hold.expire_ms <= ids.now_ms():
        hold.state, hold.revision = "EXPIRED", hold.revision + 1  # as the sweeper will write it
    return hold


def lines(hold: Hold) -> list[HoldLine]:
    """Returns what a hold holds, by row."""
    owned = (HoldLine.tenant == hold.tenant) & (HoldLine.hold_id == hold.hold_id)
    return list(HoldLine.select().where(owned).order_by(HoldLine.inventory_id))


def confirm(tenant: int, hold_id: str, actor: str) -> Hold:
    """Turns held units into ordered ones, once. Raises NotFound, HoldNotActive."""
    hold = get(tenant, hold_id)
    if hold.state != "CONFIRMED":
        _end(_active(hold), "CONFIRMED", actor, ordered=True)
    return hold


def use(tenant: int, hold_id: str, actor: str) -> Hold:
    """Gives the held units to the order that is being created. Raises NotFound, HoldNotActive."""
    hold = _active(get(tenant, hold_id))
    _end(hold, "CONFIRMED", actor, ordered=False)
    return hold


def release(tenant: int, hold_id: str, actor: str) -> Hold:
    """Gives held units back, once. Raises NotFound, HoldNotActive (confirmed)."""
    hold = get(tenant, hold_id)
    if hold.state == "CONFIRMED":
        raise HoldNotActive(f"hold {hold_id} is CONFIRMED")
    if hold.state == "ACTIVE":
        _end(hold, "RELEASED", actor)
    return hold


def extend(tenant: int, hold_id: str, expire_ms: int) -> Hold:
    """Moves the time at which a hold expires. Raises NotFound, HoldNotActive, InvalidField."""
    _refuse_time(expire_ms)
    hold = _active(get(tenant, hold_id))
    if hold.expire_ms == expire_ms:
        return hold
    _change(hold, expire_ms=expire_ms)
    of_hold = (HoldLine.tenant == tenant) & (HoldLine.hold_id == hold_id)
    HoldLine.update(expire_ms=expire_ms).where(of_hold).execute()
    event.record(tenant, "hold.extended", hold_id)
    return hold


def free_overdue(tenant: int, rows: Iterable[int]) -> None:
    """Ends the holds on these rows whose time is over, so that their units can be taken."""
    now = ids.now_ms()
    overdue = {
        hold_id
        for inventory_id in sorted(rows)
        for (hold_id,) in _OVERDUE.rows(tenant=tenant, inventory_id=inventory_id, now=now)
    }
    for hold_id in sorted(overdue):
        expire(tenant, hold_id)


def expire(tenant: int, hold_id: str) -> None:
    """Ends a hold whose time is over; a unit of the sweeper, and harmless at any time."""
    hold = _FIND.one(Hold, tenant=tenant, hold_id=hold_id)
    if hold is not None and hold.state == "ACTIVE" and hold.expire_ms <= ids.now_ms():
        with suppress(HoldNotActive):  # another ended it, with the same end
            _end(hold, "EXPIRED", "")


def overdue(limit: int) -> list[tuple[int, str]]:
    """Returns (tenant, hold) of some holds whose time is over; for the sweeper."""
    late = (HoldLine.active == True) & (HoldLine.expire_ms <= ids.now_ms())  # noqa: E712
    found = HoldLine.select(HoldLine.tenant, HoldLine.hold_id).where(late).distinct().limit(limit)
    return [(tenant, hold_id) for tenant, hold_id in tuples(across_tenants(found))]


def overdue_units(tenant: int, rows: list[int]) -> dict[int, tuple[int, int]]:
    """Returns, by row, the units that are still counted as held although their time is over, and
    how many holds they are of.
    """
    late = (HoldLine.active == True) & (HoldLine.expire_ms <= ids.now_ms())  # noqa: E712
    units, holds = fn.SUM(HoldLine.quantity), fn.COUNT(HoldLine.hold_id)
    found = (
        HoldLine.select(HoldLine.inventory_id, units, holds)
        .where((HoldLine.tenant == tenant) & HoldLine.inventory_id.in_(rows) & late)
        .group_by(HoldLine.inventory_id)
    )
    return {row: (int(units), holds) for row, units, holds in tuples(found)}


def _end(hold: Hold, state: str, actor: str, *, ordered: bool = False) -> None:
    # First of all, so that of two who end it at once one moves its units and the other nothing.
    _change(hold, state=state)
    cause = Cause(actor, f"holds/{hold.hold_id}", state.lower())
    for line in lines(hold):
        units = line.quantity if ordered else 0
        if not move(hold.tenant, line.inventory_id, cause, held=-line.quantity, ordered=units):
            raise AssertionError(f"hold {hold.hold_id} holds more than its row")
    of_hold = (HoldLine.tenant == hold.tenant) & (HoldLine.hold_id == hold.hold_id)
    HoldLine.update(active=False).where(of_hold).execute()
    event.record(hold.tenant, f"hold.{state.lower()}", hold.hold_id)


def _change(hold: Hold, **change: Any) -> None:
    """Changes an active hold. Raises Race when somebody else did since it was read."""
    owned = (Hold.tenant == hold.tenant) & (Hold.hold_id == hold.hold_id)
    seen = (Hold.state == "ACTIVE") & (Hold.revision == hold.revision)
    update = Hold.update(revision=hold.revision + 1, **change)
    if update.where(owned & seen).execute() != 1:
        raise Race(f"hold {hold.hold_id} was changed by another")
    hold.revision += 1
    for name, value in change.items():
        setattr(hold, name, value)


def _active(hold: Hold) -> Hold:
    if hold.state != "ACTIVE":
        raise HoldNotActive(f"hold {hold.hold_id} is {hold.state}")
    return hold


def _refuse_time(expire_ms: int) -> None:
    now = ids.now_ms()
    if not now < expire_ms <= now + LONGEST_MS:
        raise InvalidField("expire_time", "must be in the future, at most 30 days ahead")


def _add_line(hold: Hold, inventory_id: int, units: int) -> None:
    insert(
        HoldLine(
            tenant=hold.tenant,
            hold_id=hold.hold_id,
            inventory_id=inventory_id,
            quantity=units,
            active=True,
            expire_ms=hold.expire_ms,
        )
    )
