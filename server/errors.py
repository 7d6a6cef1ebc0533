"""Every error a caller can see: one table from refusal to gRPC code and reason, and each
document's own body.

A failure travels as google.rpc.Status. Its details are BadRequest, PreconditionFailure or
RetryInfo where they apply, ErrorInfo, and last, where the RPC serves a document with its own error
body, that body; Envoy unwraps it for REST.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from till.v1.checkout_pb2 import (
    CheckoutError,
    CheckoutErrorContent,
    CheckoutFault,
    CheckoutFaultDetails,
    CheckoutFaultError,
)
from till.v1.draft_item_pb2 import DraftItemError
from till.v1.inventory_pb2 import InventoryError
from till.v1.order_pb2 import SimpleOrderError

from storage import errors as store
from storage.checkout_request import Code, Fault

DOMAIN = "till"
RETRY_SECONDS = 1
DETAILS_MAX = 30
"""Violations told at once."""
DETAILS_BYTES_MAX = 2000
"""Bytes of their texts: an error travels in headers, of which clients read 8 KiB and no more."""
TEXT_BYTES_MAX = 600
"""Bytes of one text: names of the caller's own may be as long as a request."""
ALONE_BYTES_MAX = 1100
"""Bytes of a text that comes without details: room for a name of 255 characters, in any script."""
NOT_FOUND_TEXT = "찾을 수 없습니다."
FORBIDDEN_TEXT = "이 작업을 수행할 권한(permission)이 없습니다."


class InvalidRequest(Exception):
    """Fields break the rules of the proto; each violation is (field as the caller spells it, what
    is wrong).
    """

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name} {text}" if name else text for name, text in violations))
        self.violations = violations


class MalformedRequest(Exception):
    """The bytes are not the message they should be."""


class Unauthenticated(Exception):
    """There is no token, or not one that is accepted; the text never tells which part is wrong."""

    def __init__(self) -> None:
        super().__init__("credentials are missing or not accepted")


class PermissionDenied(Exception):
    """The credentials do not allow this; the text never tells which half is wrong."""

    def __init__(self) -> None:
        super().__init__("these credentials do not allow this call")


class RateLimited(Exception):
    """The client called too often; it may come again in `seconds`."""

    def __init__(self, limit: int, seconds: float) -> None:
        super().__init__("too many requests")
        self.limit, self.seconds = limit, max(1, math.ceil(seconds))


class CheckoutRefused(Exception):
    """A checkout has faults."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("the checkout was refused")
        self.faults = faults


@dataclass
class Failure:
    """What a caller is told."""

    code: StatusCode
    reason: str
    message: str
    details: list[Message] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    headers: tuple[tuple[str, str], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def status(self, method: str) -> Status:
        """Returns the failure as google.rpc.Status, the document's body last."""
        details = [
            *self.details,
            ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata),
        ]
        if body := _BODIES.get(method):
            details.append(body(self))
        return Status(
            code=self.code.value[0], message=self.message, details=[_pack(d) for d in details]
        )


TABLE: dict[type[Exception], tuple[StatusCode, str]] = {
    InvalidRequest: (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    store.InvalidField: (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    MalformedRequest: (StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
    Unauthenticated: (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDenied: (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    store.NotFound: (StatusCode.NOT_FOUND, "NOT_FOUND"),
    store.AlreadyExists: (StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    store.KeyReused: (StatusCode.ABORTED, "KEY_REUSED"),
    store.OrderExists: (StatusCode.FAILED_PRECONDITION, "ORDER_EXISTS"),
    store.NoOrders: (StatusCode.FAILED_PRECONDITION, "NO_ORDERS"),
    store.OutOfStock: (StatusCode.FAILED_PRECONDITION, "OUT_OF_STOCK"),
    store.DraftNotOrderable: (StatusCode.FAILED_PRECONDITION, "DRAFT_NOT_ORDERABLE"),
    store.DraftNotOpen: (StatusCode.FAILED_PRECONDITION, "DRAFT_NOT_OPEN"),
    store.BelowCommitted: (StatusCode.FAILED_PRECONDITION, "BELOW_COMMITTED"),
    CheckoutRefused: (StatusCode.FAILED_PRECONDITION, "CHECKOUT_INVALID"),
    RateLimited: (StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    store.EtagMismatch: (StatusCode.ABORTED, "ETAG_MISMATCH"),
    store.StatusNotAllowed: (StatusCode.FAILED_PRECONDITION, "STATUS_NOT_ALLOWED"),
    store.HoldNotActive: (StatusCode.FAILED_PRECONDITION, "HOLD_NOT_ACTIVE"),
    store.NoStockRow: (StatusCode.FAILED_PRECONDITION, "NO_STOCK_ROW"),
    store.ClientNotUsable: (StatusCode.FAILED_PRECONDITION, "CLIENT_NOT_USABLE"),
    store.Overloaded: (StatusCode.UNAVAILABLE, "OVERLOADED"),
    store.OutcomeUnknown: (StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN"),
}

_OF_THE_REQUEST = {
    Code.FIELD_MISSING,
    Code.QUANTITY_INVALID,
    Code.TYPE_UNKNOWN,
    Code.ITEM_NUMBER_REPEATED,
    Code.VALUE_TOO_LONG,
    Code.UNREADABLE,
}

_HTTP = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ABORTED: 409,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}


def explain(error: Exception, request_id: str) -> Failure:
    """Returns what to tell the caller; an error that nobody foresaw is told by its request id
    alone.
    """
    known = TABLE.get(type(error))
    if known is None:
        return Failure(StatusCode.INTERNAL, "INTERNAL", f"internal error, request id {request_id}")
    code, reason = known
    details = _details(error)
    told = _short(str(error), TEXT_BYTES_MAX if details else ALONE_BYTES_MAX)
    failure = Failure(code, reason, told, details, headers=_headers(error))
    if isinstance(error, store.EtagMismatch):
        failure.metadata = {"etag": error.etag}
    if isinstance(error, CheckoutRefused):
        failure.faults = error.faults
        if any(fault.code in _OF_THE_REQUEST for fault in error.faults):
            failure.code = StatusCode.INVALID_ARGUMENT
    return failure


def _details(error: Exception) -> list[Message]:
    if isinstance(error, InvalidRequest):
        return [_bad_request(error.violations)]
    if isinstance(error, store.InvalidField):
        return [_bad_request([(error.field, error.text)])]
    if isinstance(error, store.OutOfStock):
        return [_shortage(error)]
    if seconds := _retry_seconds(error):
        return [RetryInfo(retry_delay=Duration(seconds=seconds))]
    return []


def _retry_seconds(error: Exception) -> int:
    if isinstance(error, RateLimited):
        return error.seconds
    return RETRY_SECONDS if isinstance(error, store.Overloaded | store.OutcomeUnknown) else 0


def _headers(error: Exception) -> tuple[tuple[str, str], ...]:
    """Returns what REST callers learn from headers: how to prove who they are, when to come again,
    and the limit.
    """
    if isinstance(error, Unauthenticated):
        return (("www-authenticate", "Bearer"),)
    seconds = str(_retry_seconds(error))
    if isinstance(error, RateLimited):
        limits = (("limit", str(error.limit)), ("remaining", "0"), ("reset", seconds))
        return (("retry-after", seconds), *((f"x-ratelimit-{name}", text) for name, text in limits))
    return () if seconds == "0" else (("retry-after", seconds),)


def _bad_request(violations: list[tuple[str, str]]) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=name, description=text)
            for name, text in _fitting(violations)
        ]
    )


def _shortage(error: store.OutOfStock) -> PreconditionFailure:
    told = [(name, f"asked {asked}, left {left}") for name, asked, left in error.lines]
    return PreconditionFailure(
        violations=[
            PreconditionFailure.Violation(type="STOCK", subject=name, description=text)
            for name, text in _fitting(told)
        ]
    )


def _fitting(told: Sequence[Iterable[str]]) -> list[list[str]]:
    """Returns the first of these that a header has room for, at least one, cut short."""
    kept: list[list[str]] = []
    room = DETAILS_BYTES_MAX
    for texts in told[:DETAILS_MAX]:
        short = [_short(text) for text in texts]
        room -= sum(len(text.encode()) for text in short)
        if room < 0 and kept:
            break
        kept.append(short)
    return kept


def _short(text: str, most: int = TEXT_BYTES_MAX) -> str:
    data = text.encode()
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"


def fault_message(fault: Fault) -> CheckoutFaultError:
    """Returns a fault in the checkout document's own shape."""
    params = Struct()
    params.update(fault.params)
    return CheckoutFaultError(code=fault.code, params=[params])


def _draft_item_error(failure: Failure) -> Message:
    return DraftItemError(is_accepted=False, message=failure.message)


def _simple_order_error(failure: Failure) -> Message:
    return SimpleOrderError(status_code=_HTTP.get(failure.code, 500), error=failure.message)


def _inventory_error(failure: Failure) -> Message:
    if failure.code in (StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT):
        return InventoryError(message=NOT_FOUND_TEXT)
    if failure.code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED):
        return InventoryError(message=FORBIDDEN_TEXT)
    return InventoryError(message=failure.message)


def _checkout_error(failure: Failure) -> Message:
    status = _HTTP.get(failure.code, 500)
    faults = failure.faults or [Fault(Code.SERVICE_FAULT, {"message": failure.message})]
    texts = _fitting([fault.params.values() for fault in faults])
    errors = [
        fault_message(Fault(fault.code, dict(zip(fault.params, short, strict=True))))
        for fault, short in zip(faults, texts, strict=False)
    ]
    return CheckoutError(
        status_code=409 if status == 400 else status,
        content=CheckoutErrorContent(
            error=CheckoutFault(
                code="CheckoutInvalido", details=CheckoutFaultDetails(errors=errors)
            )
        ),
        has_error=True,
    )


_BODIES: dict[str, Callable[[Failure], Message]] = {
    "/till.v1.DraftItemService/SubmitDraftItem": _draft_item_error,
    "/till.v1.OrderService/SubmitStoreOrder": _simple_order_error,
    "/till.v1.OrderService/ListRecentUserOrders": _simple_order_error,
    "/till.v1.CheckoutService/RecordCheckout": _checkout_error,
    "/till.v1.CheckoutService/RecordJsonCheckout": _checkout_error,
    "/till.v1.CheckoutService/RecordCustomCheckout": _checkout_error,
    "/till.v1.InventoryService/ListDayTicketInventory": _inventory_error,
}


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
