"""One call: who asks, what they may, whether the request keeps its rules, one log line, and no
naked error.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from server import access
from server.check import check
from server.errors import Failure, InvalidRequest, MalformedRequest, explain
from storage.once import Claim
from storage.unit import DEADLINE

log = structlog.get_logger("till.call")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY_MAX = 255
# Recorded with all of its faults at once, those of the rules among them.
_CHECKS_ITSELF = {"/till.v1.CheckoutService/RecordCheckout"}


@dataclass(frozen=True, slots=True)
class Call:
    """What the headers of a call say."""

    method: str
    request_id: str
    tenant: int
    client: str
    metadata: dict[str, str]

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
        return Claim(self.tenant, self.client, self.method.rpartition("/")[2], key, fingerprint)


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Returns the call that is being answered."""
    return _current.get()


class Gate:
    """Stands where generated code expects a server, so that every method of every servicer passes
    here.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Registers a service, its methods guarded."""
        self._server.add_generic_rpc_handlers(tuple(_Guarded(handler) for handler in handlers))

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Does nothing: newer generated code hands the same methods over twice."""


class _Guarded(grpc.GenericRpcHandler):
    """A service whose methods are guarded, each at its first call."""

    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the guarded method of a call, or None when the service has no such method."""
        method = handler_call_details.method
        known = self._known.get(method)
        if known is None and (handler := self._inner.service(handler_call_details)):
            known = self._known[method] = _guard(method, handler)
        return known


def _guard(method: str, handler: Any) -> Any:
    answer: Callable[[Message, Any], Awaitable[Message]] = handler.unary_unary

    async def guarded(request: Message | MalformedRequest, context: Any) -> Message:
        call = _call(method, context)
        _current.set(call)
        if (left := context.time_remaining()) is not None:
            DEADLINE.set(time.monotonic() + left)
        started, code = time.perf_counter(), "OK"
        try:
            access.admit(method, call.metadata)
            if isinstance(request, MalformedRequest):
                raise request
            if method not in _CHECKS_ITSELF:
                check(request)
            return await answer(request, context)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = context.code().name
            raise
        except Exception as error:
            failure = explain(error, call.request_id)
            code = failure.code.name
            if code == "INTERNAL":
                log.error("unexpected", request_id=call.request_id, method=method, exc_info=error)
            await _abort(context, method, failure)
            raise
        finally:
            spent = round((time.perf_counter() - started) * 1000, 2)
            log.info("call", method=method, code=code, ms=spent, request_id=call.request_id)

    return grpc.unary_unary_rpc_method_handler(
        guarded, _tolerant(handler.request_deserializer), handler.response_serializer
    )


def _call(method: str, context: Any) -> Call:
    metadata = {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
    request_id = metadata.get("x-request-id") or str(uuid.uuid4())
    tenant, client = access.identify(metadata)
    return Call(method, request_id, tenant, client, metadata)


def _tolerant(decode: Callable[[bytes], Message]) -> Callable[[bytes], Message | MalformedRequest]:
    """Decodes without raising: gRPC would answer UNKNOWN with the name of a Python class."""

    def decoded(data: bytes) -> Message | MalformedRequest:
        try:
            return decode(data)
        except (DecodeError, RecursionError, ValueError):
            return MalformedRequest("the request cannot be read, or is nested too deeply")

    return decoded


async def _abort(context: Any, method: str, failure: Failure) -> None:
    details = failure.status(method).SerializeToString()
    trailer: tuple[tuple[str, str | bytes], ...] = (("grpc-status-details-bin", details),)
    if failure.code is grpc.StatusCode.UNAVAILABLE:
        trailer = (*trailer, ("retry-after", "1"))
    await context.abort(failure.code, failure.message, trailer)
