"""One call: who asks, what they may, whether the request keeps its rules, one log line, and no
naked error.
"""

import hashlib
import itertools
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from server.access import Access, Caller
from server.check import check
from server.errors import (
    Failure,
    InvalidRequest,
    MalformedRequest,
    PermissionDenied,
    Unauthenticated,
    explain,
)
from server.limit import Limits
from server.log import tell_call
from storage.once import Claim
from storage.unit import DEADLINE

log = structlog.get_logger("till.call")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_KEY_MAX = 255
_PROCESS = f"{uuid.uuid4()}"[:-12]
_calls = itertools.count(1)
# A checkout is recorded with all of its faults, those of the rules among them; a draft's item keeps
# the rules in its one spelling (as CEL over the whole message they took an eighth of its 202).
_CHECKS_ITSELF = {
    "/till.v1.CheckoutService/RecordCheckout",
    "/till.v1.DraftItemService/SubmitDraftItem",
}


class Call(NamedTuple):
    """What the headers of a call say."""

    method: str
    request_id: str
    caller: Caller
    metadata: dict[str, str]

    @property
    def tenant(self) -> int:
        """The tenant whose rows the call sees."""
        return self.caller.tenant

    def claim(self, request: Message, *, uuid_needed: bool = False) -> Claim | None:
        """Returns the claim of the call's idempotency-key, if it has one.

        Raises InvalidRequest for a key that is too long or, where a UUID is needed, missing or
        none.
        """
        key = self.metadata.get("idempotency-key", "")
        if uuid_needed:
            key = key.lower()
            if not _UUID.fullmatch(key):
                raise InvalidRequest([("Idempotency-Key", "is required and must be a UUID")])
        if len(key) > _KEY_MAX:
            raise InvalidRequest([("Idempotency-Key", f"must be at most {_KEY_MAX} characters")])
        return self.claim_of(key, request) if key else None

    def claim_of(self, key: str, request: Message) -> Claim:
        """Returns the claim of a key; the request's deterministic bytes stand for its meaning."""
        fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        return Claim(
            self.tenant, self.caller.client, self.method.rpartition("/")[2], key, fingerprint
        )


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Returns the call that is being answered."""
    return _current.get()


async def mark(context: Any, replayed: bool) -> None:
    """Tells the caller, if so, that the answer is the first one, given again."""
    if replayed:
        await context.send_initial_metadata((("idempotent-replayed", "true"),))


class Gate:
    """Stands where generated code expects a server, so that every method of every servicer passes
    here.
    """

    def __init__(self, server: grpc.aio.Server, access: Access, limits: Limits) -> None:
        self._server, self._access, self._limits = server, access, limits
        self.methods: dict[str, Any] = {}
        """The handlers of the methods that are registered, by their full names."""

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Registers a service whose generated code is of the older kind, its methods guarded."""
        self._server.add_generic_rpc_handlers(
            tuple(_Guarded(handler, self) for handler in handlers)
        )

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Registers the methods of a service, guarded."""
        guarded = {name: self.guard(f"/{service}/{name}", each) for name, each in handlers.items()}
        self._server.add_registered_method_handlers(service, guarded)
        self.methods |= {f"/{service}/{name}": each for name, each in guarded.items()}

    def guard(self, method: str, handler: Any) -> Any:
        """Returns the handler of a method with the gate before it."""
        if handler.stream_stream:
            return self._guard_stream(method, handler)
        answer: Callable[[Message, Any], Awaitable[Message]] = handler.unary_unary
        checked = method not in _CHECKS_ITSELF

        async def guarded(request: Message | MalformedRequest, context: Any) -> Message:
            async with _Watch(method, context, self._limits) as watch:
                await watch.admit(self._access)
                if isinstance(request, MalformedRequest):
                    raise request
                if checked:
                    check(request)
                return await answer(request, context)

        decode, encode = _tolerant(handler.request_deserializer), handler.response_serializer
        return grpc.unary_unary_rpc_method_handler(guarded, decode, encode)

    def _guard_stream(self, method: str, handler: Any) -> Any:
        async def guarded(requests: Any, context: Any) -> AsyncIterator[Message]:
            async with _Watch(method, context, self._limits) as watch:
                await watch.admit(self._access)
                async for answer in handler.stream_stream(requests, context):
                    yield answer

        decode, encode = handler.request_deserializer, handler.response_serializer
        return grpc.stream_stream_rpc_method_handler(guarded, decode, encode)


class _Watch:
    """Watches over one call: makes of whatever it raises a status, and of all of it one log line.

    A class because contextlib's generators cost five times as much, at every call.
    """

    __slots__ = (
        "_client",
        "_context",
        "_counted",
        "_limits",
        "_metadata",
        "_method",
        "_request_id",
        "_started",
    )

    def __init__(self, method: str, context: Any, limits: Limits) -> None:
        self._method, self._context, self._limits = method, context, limits
        self._metadata = _metadata(context)
        self._request_id = _request_id(self._metadata)
        self._started, self._client, self._counted = time.perf_counter(), "", False

    async def __aenter__(self) -> Self:
        return self

    async def admit(self, access: Access) -> None:
        """Lets the call in, or raises why not; from then on it is the current one."""
        self._limits.enter()
        self._counted = True
        caller = await self._who(access)
        self._client = caller.client
        _current.set(Call(self._method, self._request_id, caller, self._metadata))
        if (left := self._context.time_remaining()) is not None:
            DEADLINE.set(time.monotonic() + left)

    async def _who(self, access: Access) -> Caller:
        """Returns who calls, and counts it: by client, or by address where there is none or no
        good one.
        """
        try:
            caller = await access.admit(self._method, self._metadata)
        except (Unauthenticated, PermissionDenied):
            self._limits.spend(_address(self._metadata))
            raise
        self._limits.spend(caller.client or _address(self._metadata))
        return caller

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._counted:
            self._limits.leave()
        if isinstance(error, Exception):
            await self._refuse(error)
        else:
            self._tell("OK" if error is None else "CANCELLED")

    async def _refuse(self, error: Exception) -> None:
        failure = explain(error, self._request_id)
        code = failure.code.name
        if code == "INTERNAL":
            log.error(
                "unexpected", request_id=self._request_id, method=self._method, exc_info=error
            )
        self._tell(code)
        await _abort(self._context, self._method, failure)

    def _tell(self, code: str) -> None:
        spent = (time.perf_counter() - self._started) * 1000
        tell_call(self._method, code, spent, self._client, self._request_id)


class _Guarded(grpc.GenericRpcHandler):
    """A service whose methods are guarded, each at its first call."""

    def __init__(self, inner: grpc.GenericRpcHandler, gate: Gate) -> None:
        self._inner, self._gate = inner, gate
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the guarded method of a call, or None when the service has no such method."""
        method = handler_call_details.method
        known = self._known.get(method)
        if known is None and (handler := self._inner.service(handler_call_details)):
            known = self._known[method] = self._gate.guard(method, handler)
        return known


def _tolerant(decode: Callable[[bytes], Message]) -> Callable[[bytes], Message | MalformedRequest]:
    """Decodes without raising: gRPC would answer UNKNOWN with the name of a Python class."""

    def decoded(data: bytes) -> Message | MalformedRequest:
        try:
            return decode(data)
        except (DecodeError, RecursionError, ValueError):
            return MalformedRequest("the request cannot be read, or is nested too deeply")

    return decoded


def _metadata(context: Any) -> dict[str, str]:
    """Returns the headers; one that came twice is joined as HTTP says, so that nobody who reads the
    first, or the last, is told another story.
    """
    sent = context.invocation_metadata() or ()
    found: dict[str, str] = dict(sent)
    return found if len(found) == len(sent) else _joined(sent)


def _joined(sent: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in sent:
        if isinstance(value, str):
            found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _request_id(metadata: dict[str, str]) -> str:
    """Returns the caller's id, if it may stand in a log line and a header, or a new one."""
    given = metadata.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_calls):012x}"


def _address(metadata: dict[str, str]) -> str:
    """Returns the bucket of an address: Envoy writes its caller's last; others are local."""
    return f"@{metadata.get('x-forwarded-for', '').rpartition(',')[2].strip()}"


async def _abort(context: Any, method: str, failure: Failure) -> None:
    details = failure.status(method).SerializeToString()
    trailer = (("grpc-status-details-bin", details), *failure.headers)
    await context.abort(failure.code, failure.message, trailer)
