"""What the store refuses, one class a reason. Whoever raises one of these has changed nothing."""

from peewee import InterfaceError, InternalError, OperationalError, ProgrammingError


class Refusal(Exception):
    """The store says no. The text is for the caller and names what is wrong."""


class InvalidField(Refusal):
    """A value that no rule of a single field can judge, such as a day that does not exist."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field} {text}")
        self.field, self.text = field, text


class NotFound(Refusal):
    """There is no such thing, or it is another tenant's."""


class AlreadyExists(Refusal):
    """The thing exists with other content."""


class KeyReused(Refusal):
    """The idempotency key was used before, for another request."""


class OrderExists(Refusal):
    """The store already has an order of that number."""


class NoOrders(Refusal):
    """The user has no orders in that store."""


class DraftNotOrderable(Refusal):
    """The draft is unknown or deleted, was ordered before, has no active items, or one that costs
    too much.
    """


class DraftNotOpen(Refusal):
    """The draft is ordered or deleted."""


class BelowCommitted(Refusal):
    """More of the stock is ordered or held than the new maximum would allow."""


class OutOfStock(Refusal):
    """Some lines ask for more than is left; `lines` holds (field, asked, left) for each."""

    def __init__(self, lines: list[tuple[str, int, int]]) -> None:
        told = ", ".join(f"{field}: asked {asked}, left {left}" for field, asked, left in lines)
        super().__init__(f"not enough stock: {told}")
        self.lines = lines


class Race(Exception):
    """Another unit won between this one's look and its write; the engine runs this one again."""


class EtagMismatch(Refusal):
    """The thing changed since the caller saw it; `etag` is the current one."""

    def __init__(self, etag: str, text: str = "") -> None:
        super().__init__(text or f"it has changed; its etag is {etag} now")
        self.etag = etag


class StatusNotAllowed(Refusal):
    """The order's status does not allow this move."""


class HoldNotActive(Refusal):
    """The hold is expired, released or confirmed."""


class NoStockRow(Refusal):
    """The tenant wants every line in stock, and some match no stock row."""


class ClientNotUsable(Refusal):
    """The API client is revoked, or has as many keys as it may have."""


class Overloaded(Refusal):
    """Too much is waiting, or the database is busy or away; the write left nothing."""


class OutcomeUnknown(Refusal):
    """The database failed in the moment of the commit; only reading again can tell what it kept."""


PASSING = (Refusal, InterfaceError, InternalError, OperationalError, ProgrammingError)
"""What a later try may not meet again: the store's answers, and a database that fails. PyMySQL
calls a missing table, which SQLite counts among the failures, a programming error.
"""
