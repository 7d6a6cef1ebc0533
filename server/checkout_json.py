"""A checkout's JSON, of a REST body or made by a store's mapping, read to its end: every fault is
told, where a parser would tell the first one, in words of its own.
"""

from typing import Any

from till.v1 import checkout_pb2 as pb

from server import wire
from storage.checkout_request import Code, Fault

_TOP = {"store": "store", "orderNumber": "order_number", "externalNumber": "external_number"}
_ITEM = {"orderItemId": "order_item_id", "itemNumber": "item_number", "storageName": "storage_name"}
_INT32_MAX = 2**31 - 1


def load(text: bytes) -> Any:
    """Returns what a body says; an empty one says nothing. Raises ValueError when it is no JSON."""
    try:
        return wire.parsed(text or b"{}")
    except ValueError:
        raise ValueError("the body is not JSON") from None


def read(payload: Any) -> tuple[pb.RecordCheckoutRequest, list[Fault]]:
    """Returns the request as far as it can be read, and what cannot. Raises ValueError when it is
    no object.
    """
    if not isinstance(payload, dict):
        raise ValueError("the body must be an object")
    faults: list[Fault] = []
    request = pb.RecordCheckoutRequest(**_texts(payload, _TOP, "", faults))
    items = payload.get("items")
    if not isinstance(items, list | None):
        faults.append(_unreadable("items", "must be a list"))
        return request, faults
    request.items.extend(_item(item, f"items[{at}]", faults) for at, item in enumerate(items or []))
    return request, faults


def _item(item: Any, place: str, faults: list[Fault]) -> pb.CheckoutRequestItem:
    if not isinstance(item, dict):
        faults.append(_unreadable(place, "must be an object"))
        return pb.CheckoutRequestItem()
    made = pb.CheckoutRequestItem(**_texts(item, _ITEM, f"{place}.", faults))
    quantity, kind = item.get("quantity"), item.get("type")
    if quantity is not None:
        made.quantity.value = _whole(quantity)
    if isinstance(kind, str):
        made.type.value = kind
    elif kind is not None:
        faults.append(Fault(Code.TYPE_UNKNOWN, {"field": f"{place}.type"}))
    return made


def _texts(source: dict[str, Any], names: dict[str, str], prefix: str, faults: list[Fault]) -> Any:
    """Returns the texts of an object by the message's names; null is as good as nothing."""
    values = {}
    for spelt, name in names.items():
        value = source.get(spelt, source.get(name))
        if isinstance(value, str):
            values[name] = value
        elif value is not None:
            faults.append(_unreadable(prefix + spelt, "must be a string"))
    return values


def _whole(value: Any) -> int:
    """Returns a number or its text as a whole number; what is none is 0, which no rule allows."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        return 0
    return int(value) if 0 < value <= _INT32_MAX else 0


def _unreadable(field: str, wrong: str) -> Fault:
    return Fault(Code.UNREADABLE, {"field": field, "message": wrong})
