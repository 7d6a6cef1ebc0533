"""Who may call what: one table from RPC to the credentials it needs."""

import hashlib

from server.errors import PermissionDenied, Unauthenticated

DEFAULT_TENANT = 1

_ORDERS = {"/till.v1.OrderService/CreateOrder", "/till.v1.OrderService/GetOrder"}
_CHANNEL = {"/till.v1.InventoryService/ListDayTicketInventory"}


def admit(method: str, metadata: dict[str, str]) -> None:
    """Raises Unauthenticated or PermissionDenied when a call lacks the credentials of its
    document.
    """
    if method in _ORDERS:
        _word_after("Bearer", metadata, Unauthenticated("a bearer token is required"))
        if not metadata.get("x-api-key"):
            raise PermissionDenied("an x-api-key is required")
    elif method in _CHANNEL:
        _word_after("Token", metadata, PermissionDenied("a token is required"))
        scheme, _, code = metadata.get("channel", "").partition(" ")
        if scheme != "Code" or not code.strip():
            raise PermissionDenied("a channel code is required")


def identify(metadata: dict[str, str]) -> tuple[int, str]:
    """Returns the tenant and the client of a call; a client is known by the hash of its key."""
    key = metadata.get("x-api-key", "")
    return DEFAULT_TENANT, hashlib.sha256(key.encode()).hexdigest()[:32] if key else ""


def _word_after(scheme: str, metadata: dict[str, str], refusal: Exception) -> None:
    given, _, word = metadata.get("authorization", "").partition(" ")
    if given.lower() != scheme.lower() or not word.strip():
        raise refusal
