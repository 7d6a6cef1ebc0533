"""TenantService: tenants and API clients over gRPC."""

import asyncio
from collections.abc import Callable
from typing import Any

from till.v1 import tenant_pb2 as pb
from till.v1.tenant_pb2_grpc import TenantServiceServicer

from server import call, wire
from server.access import KNOWN_SECONDS, PLATFORM, Caller
from server.errors import PermissionDenied
from storage import revision, tenant
from storage.engine import Engine
from storage.tables import ApiClient, ApiKey, Tenant


class TenantServicer(TenantServiceServicer):
    """Translates between messages and who may call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Any) -> pb.Tenant:
        """Adds a tenant."""
        asked = request.tenant
        return _tenant(
            await self._engine.write(lambda: tenant.create(asked.name, asked.entity_number))
        )

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: Any
    ) -> pb.ListTenantsResponse:
        """Returns every tenant."""
        found = await self._engine.scan(tenant.list_all)
        return pb.ListTenantsResponse(tenants=[_tenant(row) for row in found])

    async def SetStockPolicy(self, request: pb.SetStockPolicyRequest, context: Any) -> pb.Tenant:
        """Tells what becomes of lines that match no stock row."""
        owner = call.current().tenant
        policy = pb.Tenant.StockPolicy.Name(request.stock_policy)

        def change() -> Tenant:
            revision.check_etag(request.etag, _tenant(tenant.get(owner)).etag)
            return tenant.set_stock_policy(owner, policy)

        return _tenant(await self._engine.write(change))

    async def CreateApiClient(
        self, request: pb.CreateApiClientRequest, context: Any
    ) -> pb.ApiClientWithKey:
        """Adds a client to the caller's tenant, or to another if the caller may."""
        caller, asked = call.current().caller, request.api_client
        owner = request.tenant_id or caller.tenant
        # An operator keeps the clients of his tenant; only the platform makes its own or others'.
        if PLATFORM not in caller.scopes and (owner != caller.tenant or PLATFORM in asked.scopes):
            raise PermissionDenied

        def create() -> tuple[pb.ApiClient, str]:
            row, key = tenant.create_client(_new_client(owner, asked))
            return _client(row), key

        return _with_key(*await self._engine.write(create))

    async def ListApiClients(
        self, request: pb.ListApiClientsRequest, context: Any
    ) -> pb.ListApiClientsResponse:
        """Returns the clients of the caller's tenant."""
        owner = call.current().tenant
        found = await self._engine.scan(lambda: [_client(r) for r in tenant.list_clients(owner)])
        return pb.ListApiClientsResponse(api_clients=found)

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: Any
    ) -> pb.ApiClientWithKey:
        """Gives a client a second key."""
        caller = call.current().caller

        def rotate() -> tuple[pb.ApiClient, str]:
            _refuse_operator(caller, request.client_id)
            row, key = tenant.rotate_key(caller.tenant, request.client_id)
            return _client(row), key

        return _with_key(*await self._engine.write(rotate))

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> pb.ApiClient:
        """Ends a key."""
        caller = call.current().caller

        def revoke() -> pb.ApiClient:
            _refuse_operator(caller, request.client_id)
            return _client(tenant.revoke_key(caller.tenant, request.client_id, request.key_id))

        return await self._revoke(revoke)

    async def RevokeApiClient(
        self, request: pb.RevokeApiClientRequest, context: Any
    ) -> pb.ApiClient:
        """Ends a client."""
        caller = call.current().caller

        def revoke() -> pb.ApiClient:
            _refuse_operator(caller, request.client_id)
            return _client(tenant.revoke_client(caller.tenant, request.client_id))

        return await self._revoke(revoke)

    async def _revoke(self, unit: Callable[[], pb.ApiClient]) -> pb.ApiClient:
        """Answers once no server remembers who was admitted by it."""
        revoked = await self._engine.write(unit)
        await asyncio.sleep(KNOWN_SECONDS)
        return revoked


def _refuse_operator(caller: Caller, client_id: str) -> None:
    """Keeps the platform's own clients from an operator. Raises PermissionDenied, NotFound."""
    asked = tenant.get_client(caller.tenant, client_id)
    if PLATFORM in asked.scopes.split() and PLATFORM not in caller.scopes:
        raise PermissionDenied


def _new_client(owner: int, asked: pb.ApiClient) -> ApiClient:
    return ApiClient(
        tenant=owner,
        client_id=asked.client_id,
        display_name=asked.display_name,
        scopes=" ".join(asked.scopes),
        default_store=asked.default_store,
        channel_code="",
    )


def _tenant(row: Tenant) -> pb.Tenant:
    found = pb.Tenant(
        tenant_id=row.tenant,
        name=row.name,
        entity_number=row.entity_number,
        create_time=wire.timestamp(row.create_ms),
        stock_policy=pb.Tenant.StockPolicy.Value(row.stock_policy),
    )
    found.etag = wire.content_etag(found)
    return found


def _client(row: ApiClient) -> pb.ApiClient:
    found = pb.ApiClient(
        client_id=row.client_id,
        display_name=row.display_name,
        scopes=row.scopes.split(),
        default_store=row.default_store,
        channel_code=row.channel_code,
        keys=[_key(key) for key in tenant.valid_keys(row)],
        revoked=row.revoke_ms is not None,
        create_time=wire.timestamp(row.create_ms),
    )
    found.etag = wire.content_etag(found)
    return found


def _key(row: ApiKey) -> pb.ApiKey:
    return pb.ApiKey(key_id=row.key_id, create_time=wire.timestamp(row.create_ms))


def _with_key(client: pb.ApiClient, key: str) -> pb.ApiClientWithKey:
    return pb.ApiClientWithKey(api_client=client, api_key=key)
