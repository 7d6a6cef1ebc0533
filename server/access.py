"""Who may call what: one table from RPC to the credentials it needs, the same for every door."""

import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from server.config import Config
from server.errors import PermissionDenied, Unauthenticated
from server.limit import keep
from server.token import Verifier
from storage import tenant
from storage.engine import Engine
from storage.tables import ApiClient


class Needs(Enum):
    """The credentials of a document."""

    NOTHING = auto()
    """Anybody may call."""
    DEFAULT = auto()
    """Nothing, for the default tenant; what is sent all the same, or what a setting asks for, must
    be good, and decides whose rows are seen.
    """
    CUSTOMER = auto()
    """A bearer token with the scope, and an x-api-key of the same client."""
    CHANNEL = auto()
    """`Authorization: Token <key>` and `Channel: Code <code>` of one client."""
    TOKEN = auto()
    """A bearer token with the scope."""


KNOWN_SECONDS = 0.5
"""How long who calls is remembered. Whoever revokes waits as long before he says that it is done:
then nobody is admitted by it any more, on any server.
"""
KNOWN_MAX = 4096
"""Callers remembered, by method and credentials."""


@dataclass(frozen=True)
class Rule:
    """What an RPC needs."""

    needs: Needs
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the tenant whose rows are seen, the client, its store, and what it may do."""

    tenant: int
    client: str
    store: str
    scopes: frozenset[str]


READ, WRITE, OPERATOR, PLATFORM = "customer:read", "customer:write", "operator", "platform"
SCOPES = (READ, WRITE, OPERATOR, PLATFORM)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_SERVICES = {
    "till.v1.OrderService": {
        "CreateOrder": Rule(Needs.CUSTOMER, WRITE),
        "GetOrder": Rule(Needs.CUSTOMER, READ),
        "SubmitStoreOrder": Rule(Needs.DEFAULT),
        "ListRecentUserOrders": Rule(Needs.DEFAULT),
    },
    "till.v1.DraftItemService": {
        "SubmitDraftItem": Rule(Needs.DEFAULT),
        "GetDraftItem": Rule(Needs.DEFAULT),
        "ListDraftItems": Rule(Needs.DEFAULT),
    },
    "till.v1.DraftService": {
        "GetDraft": Rule(Needs.DEFAULT),
        "ListDrafts": Rule(Needs.TOKEN, OPERATOR),
        "UpdateDraft": Rule(Needs.DEFAULT),
        "DeleteDraft": Rule(Needs.DEFAULT),
        "UndeleteDraft": Rule(Needs.DEFAULT),
        "UpdateDraftItem": Rule(Needs.DEFAULT),
        "DeleteDraftItem": Rule(Needs.DEFAULT),
        "UndeleteDraftItem": Rule(Needs.DEFAULT),
    },
    "till.v1.CheckoutService": {
        "RecordCheckout": Rule(Needs.DEFAULT),
        "RecordJsonCheckout": Rule(Needs.DEFAULT),
        "RecordCustomCheckout": Rule(Needs.DEFAULT),
        "GetCheckout": Rule(Needs.DEFAULT),
        "ListCheckouts": Rule(Needs.TOKEN, OPERATOR),
        "GetProtocol": Rule(Needs.DEFAULT),
    },
    "till.v1.InventoryService": {
        "ListDayTicketInventory": Rule(Needs.CHANNEL),
        "BatchSetInventory": Rule(Needs.TOKEN, OPERATOR),
    },
    "till.v1.StoreService": {
        "CreateStore": Rule(Needs.TOKEN, OPERATOR),
        "GetStore": Rule(Needs.TOKEN, OPERATOR),
        "ListStores": Rule(Needs.TOKEN, OPERATOR),
        "CreateDepot": Rule(Needs.TOKEN, OPERATOR),
        "SetCheckoutMapping": Rule(Needs.TOKEN, OPERATOR),
        "CreateProduct": Rule(Needs.TOKEN, OPERATOR),
        "GetProduct": Rule(Needs.TOKEN, OPERATOR),
    },
    "till.v1.TenantService": {
        "CreateTenant": Rule(Needs.TOKEN, PLATFORM),
        "ListTenants": Rule(Needs.TOKEN, PLATFORM),
        "SetStockPolicy": Rule(Needs.TOKEN, OPERATOR),
        "CreateApiClient": Rule(Needs.TOKEN, OPERATOR),
        "ListApiClients": Rule(Needs.TOKEN, OPERATOR),
        "RotateApiKey": Rule(Needs.TOKEN, OPERATOR),
        "RevokeApiKey": Rule(Needs.TOKEN, OPERATOR),
        "RevokeApiClient": Rule(Needs.TOKEN, OPERATOR),
    },
    "till.v1.LifecycleService": {
        "ListOrders": Rule(Needs.TOKEN, OPERATOR),
        "BatchGetOrders": Rule(Needs.TOKEN, OPERATOR),
        "TransitionOrder": Rule(Needs.TOKEN, OPERATOR),
        "CancelOrder": Rule(Needs.TOKEN, OPERATOR),
        "ListOrderStatuses": Rule(Needs.TOKEN, OPERATOR),
    },
    "till.v1.StockService": {
        "HoldStock": Rule(Needs.TOKEN, OPERATOR),
        "GetHold": Rule(Needs.TOKEN, OPERATOR),
        "ConfirmHold": Rule(Needs.TOKEN, OPERATOR),
        "ReleaseHold": Rule(Needs.TOKEN, OPERATOR),
        "ExtendHold": Rule(Needs.TOKEN, OPERATOR),
        "AdjustInventory": Rule(Needs.TOKEN, OPERATOR),
        "ListInventory": Rule(Needs.TOKEN, OPERATOR),
        "ListInventoryLedger": Rule(Needs.TOKEN, OPERATOR),
    },
    "google.longrunning.Operations": {
        "GetOperation": Rule(Needs.DEFAULT),
        "ListOperations": Rule(Needs.TOKEN, OPERATOR),
        "WaitOperation": Rule(Needs.DEFAULT),
    },
}
RULES = {
    f"/{service}/{method}": rule
    for service, methods in _SERVICES.items()
    for method, rule in methods.items()
}


_CREDENTIALS = ("authorization", "x-api-key", "channel")


class Access:
    """Finds out who calls and whether they may. What has no rule is refused."""

    def __init__(self, engine: Engine, config: Config, verifier: Verifier) -> None:
        self._engine, self._config, self._verifier = engine, config, verifier
        # At a desk grpcurl needs no token; in production the shape of the house is not public.
        reflection = Rule(Needs.NOTHING) if config.development else Rule(Needs.TOKEN, OPERATOR)
        self._rules = {**RULES, REFLECTION: reflection}
        self._known: dict[tuple[str | None, ...], tuple[Caller, float]] = {}

    async def admit(self, method: str, metadata: dict[str, str]) -> Caller:
        """Returns who calls, found out now or within the last KNOWN_SECONDS. Raises Unauthenticated
        or PermissionDenied, never telling which half failed.
        """
        shown = (method, *map(metadata.get, _CREDENTIALS))
        now = time.monotonic()
        caller, until = self._known.get(shown, (None, 0.0))
        if caller is None or now >= until:
            caller = await self._ask(method, metadata)
            keep(self._known, shown, (caller, now + KNOWN_SECONDS), KNOWN_MAX)
        return caller

    async def _ask(self, method: str, metadata: dict[str, str]) -> Caller:
        rule = self._rules.get(method)
        if rule is None:
            raise PermissionDenied
        if rule.needs is Needs.CUSTOMER:
            return await self._customer(rule, metadata)
        if rule.needs is Needs.TOKEN:
            return self._caller(*await self._by_scope(rule, metadata))
        if rule.needs is Needs.CHANNEL:
            return self._caller(await self._by_channel(metadata))
        given = await self._default(metadata) if rule.needs is Needs.DEFAULT else None
        if given is not None:
            return given
        return Caller(self._config.default_tenant, "", self._config.default_store, frozenset())

    async def _customer(self, rule: Rule, metadata: dict[str, str]) -> Caller:
        client, scopes = await self._by_scope(rule, metadata)
        await self._same_by_key(client, metadata)
        return self._caller(client, scopes)

    async def _default(self, metadata: dict[str, str]) -> Caller | None:
        """Returns who calls where nobody needs to say so, or None for one who does not."""
        keyed = "x-api-key" in metadata or self._config.require_key
        if _word_after("bearer", metadata):
            client, scopes = await self._by_token(metadata)
            if keyed:
                await self._same_by_key(client, metadata)
            return self._caller(client, scopes)
        return self._caller(await self._by_key(metadata.get("x-api-key", ""))) if keyed else None

    async def _same_by_key(self, client: ApiClient, metadata: dict[str, str]) -> None:
        owner = await self._by_key(metadata.get("x-api-key", ""))
        if owner.client_id != client.client_id:
            raise PermissionDenied

    async def _by_scope(
        self, rule: Rule, metadata: dict[str, str]
    ) -> tuple[ApiClient, frozenset[str]]:
        client, scopes = await self._by_token(metadata)
        if rule.scope not in scopes:
            raise PermissionDenied
        return client, scopes

    async def _by_token(self, metadata: dict[str, str]) -> tuple[ApiClient, frozenset[str]]:
        """Returns the client, and the scopes that both the token and the client have."""
        token = await self._verifier.verify(_word_after("bearer", metadata))
        client = await self._engine.read(lambda: tenant.client_of_id(token.client_id))
        if client is None:
            raise Unauthenticated
        held = {s.removeprefix(self._config.scope_prefix) for s in token.scopes if self._is_ours(s)}
        return client, _with_implied(held) & _with_implied(client.scopes.split())

    def _is_ours(self, scope: str) -> bool:
        return scope.startswith(self._config.scope_prefix)

    async def _by_key(self, key: str) -> ApiClient:
        client = await self._engine.read(lambda: tenant.client_of_key(key)) if key else None
        if client is None:
            raise PermissionDenied
        return client

    async def _by_channel(self, metadata: dict[str, str]) -> ApiClient:
        scheme, _, code = metadata.get("channel", "").partition(" ")
        client = await self._by_key(_word_after("token", metadata))
        same = hmac.compare_digest(code.strip().encode(), client.channel_code.encode())
        if scheme.lower() != "code" or not same:
            raise PermissionDenied
        return client

    def _caller(self, client: ApiClient, scopes: frozenset[str] = frozenset()) -> Caller:
        store = client.default_store or self._config.default_store
        return Caller(client.tenant, client.client_id, store, scopes)


def _with_implied(scopes: Collection[str]) -> frozenset[str]:
    """Returns scopes and what they imply: who may write may read."""
    return frozenset({*scopes, READ} if WRITE in scopes else scopes)


def _word_after(scheme: str, metadata: dict[str, str]) -> str:
    """Returns the credential of an Authorization header, or nothing when its scheme is another."""
    given, _, word = metadata.get("authorization", "").partition(" ")
    return word.strip() if given.lower() == scheme else ""
