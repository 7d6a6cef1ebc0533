"""A request to record a checkout, and the numbered catalogue of what can be wrong with one."""

from enum import IntEnum
from typing import NamedTuple

from storage import order, store
from storage.tables import Checkout


class Code(IntEnum):
    """The numbered error catalogue; published, so a number never changes its meaning."""

    FIELD_MISSING = 1
    STORE_UNKNOWN = 2
    STORAGE_UNKNOWN = 3
    QUANTITY_INVALID = 4
    TYPE_UNKNOWN = 5
    ITEM_NUMBER_REPEATED = 6
    CHECKOUT_OF_OTHER_STORE = 7
    ORDER_CANCELLED = 8
    VALUE_TOO_LONG = 9
    UNREADABLE = 10
    SERVICE_FAULT = 11
    MAPPING_MISSING = 12


class Fault(NamedTuple):
    """One fault of a request: its number, and the names and values it is about."""

    code: int
    params: dict[str, str]


class Item(NamedTuple):
    """One packed item of a request."""

    order_item_id: str
    item_number: str
    storage_name: str
    quantity: int
    type: str


class Request(NamedTuple):
    """A request to record a checkout."""

    store: str
    order_number: str
    external_number: str
    items: list[Item]


def as_json(request: Request) -> dict[str, object]:
    """Returns a request in the document's own spelling."""
    return {
        "store": request.store,
        "orderNumber": request.order_number,
        "externalNumber": request.external_number,
        "items": [
            {
                "orderItemId": item.order_item_id,
                "itemNumber": item.item_number,
                "storageName": item.storage_name,
                "quantity": item.quantity,
                "type": item.type,
            }
            for item in request.items
        ],
    }


def judge(tenant: int, request: Request, broken: set[str | None]) -> list[Fault]:
    """Returns what the store knows against a request; fields that are `broken` are not judged
    twice.
    """
    return [
        *_store_faults(tenant, request, broken),
        *_repeated_numbers(request, broken),
        *_checkout_faults(tenant, request),
        *_order_faults(tenant, request),
    ]


def _store_faults(tenant: int, request: Request, broken: set[str | None]) -> list[Fault]:
    """A store that is unknown makes its depots unknown too; one fault says both."""
    if "store" in broken:
        return []
    if store.find(tenant, request.store) is None:
        return [Fault(Code.STORE_UNKNOWN, {"store": request.store})]
    known = set(store.depots(tenant, request.store))
    names = [item.storage_name for item in _whole(request, "storageName", broken)]
    return [
        Fault(Code.STORAGE_UNKNOWN, {"store": request.store, "storageName": name})
        for name in dict.fromkeys(names)
        if name not in known
    ]


def _repeated_numbers(request: Request, broken: set[str | None]) -> list[Fault]:
    numbers = [item.item_number for item in _whole(request, "itemNumber", broken)]
    repeated = [number for number in dict.fromkeys(numbers) if numbers.count(number) > 1]
    return [Fault(Code.ITEM_NUMBER_REPEATED, {"itemNumber": number}) for number in repeated]


def _whole(request: Request, name: str, broken: set[str | None]) -> list[Item]:
    """Returns the items whose field of that name is not broken."""
    return [item for i, item in enumerate(request.items) if f"items[{i}].{name}" not in broken]


def _checkout_faults(tenant: int, request: Request) -> list[Fault]:
    owned = (Checkout.tenant == tenant) & (Checkout.external_number == request.external_number)
    known = Checkout.get_or_none(owned)
    if known is None or known.store == request.store:
        return []
    return [Fault(Code.CHECKOUT_OF_OTHER_STORE, {"externalNumber": request.external_number})]


def _order_faults(tenant: int, request: Request) -> list[Fault]:
    known = order.find(tenant, request.store, request.order_number)
    if known is None or known.status != "CANCELLED":
        return []
    return [
        Fault(Code.ORDER_CANCELLED, {"store": request.store, "orderNumber": request.order_number})
    ]
