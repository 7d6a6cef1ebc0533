"""Who calls: the credentials that callers send, and the stubs they call with."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
from google.longrunning import operations_pb2_grpc
from till.v1 import (
    checkout_pb2_grpc,
    draft_item_pb2_grpc,
    draft_pb2_grpc,
    inventory_pb2_grpc,
    lifecycle_pb2_grpc,
    order_pb2_grpc,
    stock_pb2_grpc,
    store_pb2_grpc,
    tenant_pb2_grpc,
)

from server import development
from server.access import RULES, Needs
from server.config import Config

KNOWN = development.credentials(Config(), [*development.SCOPES])
CALLER = {"authorization": f"Bearer {KNOWN['token']}", "x-api-key": KNOWN["api_key"]}
"""What a caller of the orders document sends; the token is an operator's too."""
OPERATOR = {"authorization": CALLER["authorization"]}
"""What an operator sends."""
CHANNEL = {
    "authorization": f"Token {KNOWN['channel_token']}",
    "channel": f"Code {KNOWN['channel_code']}",
}
"""What a caller of the inventory document sends."""


def keyed(key: str | None = None) -> dict[str, str]:
    """Returns the headers of a create, under this idempotency key or a new one."""
    return {**CALLER, "idempotency-key": key or str(uuid4())}


class _AsOperator(grpc.UnaryUnaryClientInterceptor):
    """Sends the operator's token with calls that need one, unless they bring their own."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Adds the token to a call."""
        given = tuple(details.metadata or ())
        rule = RULES.get(details.method)
        if rule is not None and rule.needs is Needs.TOKEN and "authorization" not in dict(given):
            given = (*given, *OPERATOR.items())
        return continuation(details._replace(metadata=given), request)


@dataclass(frozen=True)
class Stubs:
    """Every service."""

    order: Any  # the same stub is awaited on an aio channel and not on a plain one
    checkout: Any
    draft: Any
    drafts: Any
    inventory: Any
    store: Any
    operations: Any
    lifecycle: Any
    stock: Any
    tenant: Any

    @classmethod
    def as_operator(cls, channel: grpc.Channel) -> "Stubs":
        """Returns the stubs of a channel, which send the operator's token where it is needed."""
        return cls.of(grpc.intercept_channel(channel, _AsOperator()))

    @classmethod
    def of(cls, channel: grpc.Channel | grpc.aio.Channel) -> "Stubs":
        """Returns the stubs of a channel; those of an aio channel are awaited."""
        return cls(
            order_pb2_grpc.OrderServiceStub(channel),
            checkout_pb2_grpc.CheckoutServiceStub(channel),
            draft_item_pb2_grpc.DraftItemServiceStub(channel),
            draft_pb2_grpc.DraftServiceStub(channel),
            inventory_pb2_grpc.InventoryServiceStub(channel),
            store_pb2_grpc.StoreServiceStub(channel),
            operations_pb2_grpc.OperationsStub(channel),  # type: ignore[no-untyped-call]
            lifecycle_pb2_grpc.LifecycleServiceStub(channel),
            stock_pb2_grpc.StockServiceStub(channel),
            tenant_pb2_grpc.TenantServiceStub(channel),
        )
