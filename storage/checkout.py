"""Packing checkouts. One transaction records all of a request, or refuses it with every fault at
once.
"""

import json

from storage import event, ids, lifecycle, order
from storage.checkout_request import Code, Fault, Request, as_json, judge
from storage.errors import NotFound, Race
from storage.sql import insert, tuples
from storage.tables import (
    Checkout,
    CheckoutItem,
    Order,
    OrderItem,
    OrderStoring,
    Protocol,
    Wave,
)


def record(tenant: int, request: Request, faults: list[Fault]) -> tuple[str, list[Fault]]:
    """Records a checkout, unless it has faults, and returns its protocol and all of its faults.

    `faults` are those found before; the request is judged here only by what the store knows. The
    protocol row is written either way. Recording the same again changes nothing else.
    """
    faults = [*faults, *judge(tenant, request, {fault.params.get("field") for fault in faults})]
    if not faults:
        faults = _record(tenant, request)
    return note(tenant, json.dumps(as_json(request), ensure_ascii=False), faults), faults


def note(tenant: int, text: str, faults: list[Fault]) -> str:
    """Keeps a request and its outcome, and returns its protocol."""
    protocol = ids.new_token()
    insert(
        Protocol(
            tenant=tenant,
            protocol=protocol,
            accepted=not faults,
            request=text,
            faults=json.dumps(faults, ensure_ascii=False),
            create_ms=ids.now_ms(),
        )
    )
    return protocol


def get_protocol(tenant: int, protocol: str) -> tuple[Protocol, list[Fault]]:
    """Returns a kept request and the faults it was refused for. Raises NotFound."""
    row = Protocol.get_or_none((Protocol.tenant == tenant) & (Protocol.protocol == protocol))
    if row is None:
        raise NotFound(f"there is no protocol {protocol}")
    return row, [Fault(*fault) for fault in json.loads(row.faults)]


def get(
    tenant: int, external_number: str
) -> tuple[Checkout, list[tuple[CheckoutItem, Order, OrderItem]]]:
    """Returns a checkout and its items, each with its order and order item. Raises NotFound."""
    checkout = _find(tenant, external_number)
    if checkout is None:
        raise NotFound(f"there is no checkout {external_number}")
    return checkout, [(item, *_packed(item)) for item in _items(checkout)]


def list_page(tenant: int, store: str, after: str, size: int) -> list[Checkout]:
    """Returns up to `size` checkouts whose external number follows `after`, by it; of one store, or
    of all when `store` is empty.
    """
    wanted = (Checkout.tenant == tenant) & (Checkout.external_number > after)
    if store:
        wanted &= Checkout.store == store
    return list(Checkout.select().where(wanted).order_by(Checkout.external_number).limit(size))


def _packed(item: CheckoutItem) -> tuple[Order, OrderItem]:
    found, lines = order.get(item.tenant, item.order_id)
    return found, next(line for line in lines if line.order_item_id == item.order_item_id)


def _find(tenant: int, external_number: str) -> Checkout | None:
    owned = (Checkout.tenant == tenant) & (Checkout.external_number == external_number)
    return Checkout.get_or_none(owned)


def _items(checkout: Checkout) -> list[CheckoutItem]:
    owned = (CheckoutItem.tenant == checkout.tenant) & (
        CheckoutItem.external_number == checkout.external_number
    )
    return list(CheckoutItem.select().where(owned).order_by(CheckoutItem.position))


def _record(tenant: int, request: Request) -> list[Fault]:
    """Records a checkout; returns the fault of one that has no room in its order, and writes
    nothing then.
    """
    known = order.find(tenant, request.store, request.order_number)
    found = order.items(tenant, known.order_id) if known else []
    lines = {line.order_item_id: line for line in found}
    if len(lines.keys() | {item.order_item_id for item in request.items}) > order.LINES_MAX:
        return [Fault(Code.VALUE_TOO_LONG, {"field": "items"})]
    packed = known or _new_order(tenant, request)
    added = _add_missing_lines(packed, lines, request)
    asked = _describe(lines, request)
    picked = _pick(packed, asked)
    _store_away(packed, {line.wave_id for line in asked if line.wave_id})
    checked = _check(tenant, request, packed)
    if added or picked or checked:
        _follow(packed, lines)
        event.record(
            tenant, "checkout.recorded", request.external_number, order=str(packed.order_id)
        )
    return []


def _new_order(tenant: int, request: Request) -> Order:
    new = Order(
        tenant=tenant,
        order_id=ids.new_id(),
        store=request.store,
        order_number=request.order_number,
        grand_total=0,
    )
    order.add(new)
    return new


def _add_missing_lines(packed: Order, lines: dict[str, OrderItem], request: Request) -> int:
    """Creates the order items that the order lacks, adds them to `lines`, and returns how many."""
    before = len(lines)
    for item in request.items:
        if item.order_item_id not in lines:
            line = OrderItem(
                order_item_id=item.order_item_id,
                quantity=item.quantity,
                depot=item.storage_name,
                type=item.type,
            )
            order.add_item(packed, line, len(lines) + 1)
            lines[item.order_item_id] = line
    return len(lines) - before


def _describe(lines: dict[str, OrderItem], request: Request) -> list[OrderItem]:
    """Returns the lines asked for, once each; one that nobody described takes its depot and type
    from here.
    """
    asked = {item.order_item_id: item for item in reversed(request.items)}
    for name, item in asked.items():
        if lines[name].depot is None:
            lines[name].depot, lines[name].type = item.storage_name, item.type
    return [line for name, line in lines.items() if name in asked]


def _pick(packed: Order, asked: list[OrderItem]) -> int:
    """Puts the items that are in no wave into one completed wave per type, and returns how many
    there were.
    """
    loose = [line for line in asked if line.wave_id is None]
    for kind in sorted({line.type for line in loose}):
        wave_id = ids.new_id()
        insert(
            Wave(
                tenant=packed.tenant,
                wave_id=wave_id,
                store=packed.store,
                type=kind,
                completed_ms=ids.now_ms(),
            )
        )
        for line in loose:
            if line.type == kind:
                _join(line, wave_id)
    return len(loose)


def _join(line: OrderItem, wave_id: int) -> None:
    line.wave_id = wave_id
    joined = OrderItem.update(wave_id=wave_id, depot=line.depot, type=line.type).where(
        (OrderItem.tenant == line.tenant)
        & (OrderItem.order_id == line.order_id)
        & (OrderItem.order_item_id == line.order_item_id)
        & OrderItem.wave_id.is_null()
    )
    if joined.execute() != 1:
        raise Race(f"item {line.order_item_id} was picked by another")


def _store_away(packed: Order, waves: set[int]) -> None:
    owned = (OrderStoring.tenant == packed.tenant) & (OrderStoring.order_id == packed.order_id)
    stored = {wave for (wave,) in tuples(OrderStoring.select(OrderStoring.wave_id).where(owned))}
    for wave_id in sorted(waves - stored):
        insert(
            OrderStoring(
                tenant=packed.tenant,
                order_id=packed.order_id,
                wave_id=wave_id,
                completed_ms=ids.now_ms(),
            )
        )


def _check(tenant: int, request: Request, packed: Order) -> int:
    """Opens the checkout if it is new, adds the checkout items it lacks, and returns how many."""
    checkout = _find(tenant, request.external_number) or _open(tenant, request)
    if checkout.store != request.store:
        raise Race(f"checkout {checkout.external_number} was opened by another store")
    known = _items(checkout)
    numbers = {item.item_number for item in known}
    new = [item for item in request.items if item.item_number not in numbers]
    for position, item in enumerate(new, len(known) + 1):
        insert(
            CheckoutItem(
                tenant=tenant,
                external_number=request.external_number,
                item_number=item.item_number,
                position=position,
                order_id=packed.order_id,
                order_item_id=item.order_item_id,
            )
        )
    if known and new:
        _touch(checkout)
    return len(new)


def _open(tenant: int, request: Request) -> Checkout:
    now = ids.now_ms()
    checkout = Checkout(
        tenant=tenant,
        external_number=request.external_number,
        store=request.store,
        create_ms=now,
        update_ms=now,
    )
    insert(checkout)
    return checkout


def _touch(checkout: Checkout) -> None:
    touched = Checkout.update(revision=Checkout.revision + 1, update_ms=ids.now_ms()).where(
        (Checkout.tenant == checkout.tenant)
        & (Checkout.external_number == checkout.external_number)
        & (Checkout.revision == checkout.revision)
    )
    if touched.execute() != 1:
        raise Race(f"checkout {checkout.external_number} was moved by another")


def _follow(packed: Order, lines: dict[str, OrderItem]) -> None:
    """Lets the order's status follow the packing: PACKED once every item is in a checkout.

    Two checkouts of one order meet there first, so that one of them sees what the other packed.
    """
    order.meet(packed)
    if packed.status == "CANCELLED":
        raise Race(f"order {packed.order_id} was cancelled by another")
    if packed.status in ("SHIPPED", "DELIVERED"):  # what is packed late changes nothing of that
        return
    owned = (CheckoutItem.tenant == packed.tenant) & (CheckoutItem.order_id == packed.order_id)
    done = {
        name for (name,) in tuples(CheckoutItem.select(CheckoutItem.order_item_id).where(owned))
    }
    status = "PACKED" if done >= set(lines) else "PICKING"
    if packed.status != status:
        lifecycle.set_status(packed, status, "", "checkout")
