"""`till tenant` and `till client`: who may call, kept from the command line, while serving or
not.
"""

import asyncio
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from server import wire
from server.access import KNOWN_SECONDS, SCOPES
from server.config import Config
from storage import tenant
from storage.engine import Engine
from storage.errors import Refusal
from storage.tables import ApiClient, Tenant


async def run(config: Config, asked: Namespace) -> Any:
    """Does what was asked in one transaction and returns what to print. Raises ValueError."""
    _refuse_unknown_scopes(config, asked)
    engine = Engine(config.database, options=config.options())
    try:
        done = await engine.write(lambda: _VERBS[asked.command, asked.verb](asked))
        if asked.verb == "revoke":
            await asyncio.sleep(KNOWN_SECONDS)
        return done
    except Refusal as refusal:
        raise ValueError(str(refusal)) from None
    finally:
        await engine.close()


def _refuse_unknown_scopes(config: Config, asked: Namespace) -> None:
    """A misspelled scope would make a client that may nothing, and nobody would know why."""
    asked.scope = [s.removeprefix(config.scope_prefix) for s in getattr(asked, "scope", ())]
    for scope in asked.scope:
        if scope not in SCOPES:
            raise ValueError(f"{scope!r} is no scope; the scopes are {', '.join(SCOPES)}")


def _create_tenant(asked: Namespace) -> Any:
    return _tenant(tenant.create(asked.name, asked.entity_number))


def _list_tenants(asked: Namespace) -> Any:
    return [_tenant(row) for row in tenant.list_all()]


def _create_client(asked: Namespace) -> Any:
    tenant.ensure_first("demo", "1001")
    client = ApiClient(
        tenant=asked.tenant,
        client_id=asked.client_id,
        display_name=asked.name,
        scopes=" ".join(asked.scope),
        default_store=asked.default_store,
        channel_code="",
    )
    return _with_key(*tenant.create_client(client))


def _list_clients(asked: Namespace) -> Any:
    return [_client(row) for row in tenant.list_clients(asked.tenant)]


def _rotate(asked: Namespace) -> Any:
    return _with_key(*tenant.rotate_key(asked.tenant, asked.client_id))


def _revoke(asked: Namespace) -> Any:
    if asked.key:
        return _client(tenant.revoke_key(asked.tenant, asked.client_id, asked.key))
    return _client(tenant.revoke_client(asked.tenant, asked.client_id))


_VERBS: dict[tuple[str, str], Callable[[Namespace], Any]] = {
    ("tenant", "create"): _create_tenant,
    ("tenant", "list"): _list_tenants,
    ("client", "create"): _create_client,
    ("client", "list"): _list_clients,
    ("client", "rotate"): _rotate,
    ("client", "revoke"): _revoke,
}


def _tenant(row: Tenant) -> dict[str, Any]:
    return {"tenant_id": row.tenant, "name": row.name, "entity_number": row.entity_number}


def _client(row: ApiClient) -> dict[str, Any]:
    return {
        "tenant_id": row.tenant,
        "client_id": row.client_id,
        "display_name": row.display_name,
        "scopes": row.scopes,
        "default_store": row.default_store,
        "channel_code": row.channel_code,
        "key_ids": [key.key_id for key in tenant.valid_keys(row)],
        "revoked": row.revoke_ms is not None,
        "create_time": wire.moment(row.create_ms),
    }


def _with_key(row: ApiClient, key: str) -> dict[str, Any]:
    return {**_client(row), "api_key": key}
