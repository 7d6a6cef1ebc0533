"""Tenants and their API clients. A key is `till_<key id>_<secret>`; only the hash of its secret is
kept.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress

from storage import event, ids
from storage.errors import AlreadyExists, ClientNotUsable, NotFound, Race
from storage.sql import Prepared, across_tenants, insert, param
from storage.tables import ApiClient, ApiKey, Tenant

FIRST = 1
"""The tenant that exists from the start and, unless a setting says otherwise, owns calls without
credentials.
"""
VALID_KEYS_MAX = 2
"""Keys a client may have at once: the one in use and the one that replaces it."""

_TENANT = Prepared(lambda: Tenant.select().where(Tenant.tenant == param("tenant")))
_KEY = Prepared(lambda: across_tenants(ApiKey.select().where(ApiKey.key_id == param("key_id"))))
_CLIENT = Prepared(
    lambda: across_tenants(ApiClient.select().where(ApiClient.client_id == param("client_id")))
)
_MEET = Prepared(
    lambda: ApiClient.update(revoke_ms=None).where(
        (ApiClient.tenant == param("tenant"))
        & (ApiClient.client_id == param("client_id"))
        & ApiClient.revoke_ms.is_null()
    )
)


def create(name: str, entity_number: str) -> Tenant:
    """Adds a tenant. Raises AlreadyExists when the name is taken."""
    known = list(across_tenants(Tenant.select().order_by(Tenant.tenant)))
    if name in (tenant.name for tenant in known):
        raise AlreadyExists(f"tenant {name} exists")
    number = max((tenant.tenant for tenant in known), default=0) + 1
    tenant = Tenant(tenant=number, name=name, entity_number=entity_number, create_ms=ids.now_ms())
    insert(tenant)
    event.record(number, "tenant.created", name)
    return tenant


def ensure_first(name: str, entity_number: str) -> None:
    """Adds the first tenant to a new order book."""
    if not Tenant.select().where(Tenant.tenant == FIRST).exists():
        with suppress(AlreadyExists):  # another server that starts was faster, between two looks
            create(name, entity_number)


def stock_policy(tenant: int) -> str:
    """Returns what becomes of a tenant's lines that match no stock row."""
    row = _TENANT.one(Tenant, tenant=tenant)
    return row.stock_policy if row is not None else "TRACK_WHEN_MATCHED"


def get(tenant: int) -> Tenant:
    """Returns a tenant. Raises NotFound."""
    row = _TENANT.one(Tenant, tenant=tenant)
    if row is None:
        raise NotFound(f"there is no tenant {tenant}")
    return row


def set_stock_policy(tenant: int, policy: str) -> Tenant:
    """Tells what becomes of a tenant's lines that match no stock row. Raises NotFound."""
    row = get(tenant)
    if row.stock_policy != policy:
        seen = (Tenant.tenant == tenant) & (Tenant.stock_policy == row.stock_policy)
        if Tenant.update(stock_policy=policy).where(seen).execute() != 1:
            raise Race(f"the policy of tenant {tenant} was set by another")
        event.record(tenant, "tenant.stock_policy_set", row.name, policy=policy)
        row.stock_policy = policy
    return row


def list_all() -> list[Tenant]:
    """Returns every tenant, the oldest first."""
    return list(across_tenants(Tenant.select().order_by(Tenant.tenant)))


def create_client(client: ApiClient, key: str | None = None) -> tuple[ApiClient, str]:
    """Adds a client and a key (a new one unless it is given), and returns both.

    Raises AlreadyExists when the client id is taken, NotFound for an unknown tenant.
    """
    if not Tenant.select().where(Tenant.tenant == client.tenant).exists():
        raise NotFound(f"there is no tenant {client.tenant}")
    client.client_id = client.client_id or secrets.token_hex(13)
    if _CLIENT.one(ApiClient, client_id=client.client_id) is not None:
        raise AlreadyExists(f"client {client.client_id} exists")
    client.channel_code = client.channel_code or secrets.token_urlsafe(16)
    client.create_ms = ids.now_ms()
    insert(client)
    event.record(client.tenant, "api_client.created", client.client_id)
    return client, _add_key(client, key or new_key())


def ensure_client(client: ApiClient, key: str) -> None:
    """Adds a client with this key and code, or gives them to the one that has its id."""
    if _CLIENT.one(ApiClient, client_id=client.client_id) is None:
        create_client(client, key)
        return
    owned = (ApiClient.tenant == client.tenant) & (ApiClient.client_id == client.client_id)
    changes = {"channel_code": client.channel_code, "scopes": client.scopes, "revoke_ms": None}
    ApiClient.update(changes).where(owned).execute()
    _, key_id, secret = key.split("_", 2)
    same = (ApiKey.tenant == client.tenant) & (ApiKey.key_id == key_id)
    again = ApiKey.update(client_id=client.client_id, secret_hash=_hash(secret), revoke_ms=None)
    if not again.where(same).execute():
        _add_key(client, key)


def rotate_key(tenant: int, client_id: str) -> tuple[ApiClient, str]:
    """Gives a client one more key and returns it. Raises NotFound, ClientNotUsable."""
    client = get_client(tenant, client_id)
    if client.revoke_ms is not None:
        raise ClientNotUsable(f"client {client_id} is revoked")
    _meet(client)
    if len(valid_keys(client)) >= VALID_KEYS_MAX:
        raise ClientNotUsable(
            f"client {client_id} has {VALID_KEYS_MAX} valid keys; revoke one first"
        )
    event.record(tenant, "api_client.key_added", client_id)
    return client, _add_key(client, new_key())


def revoke_key(tenant: int, client_id: str, key_id: str) -> ApiClient:
    """Ends a key at once. Raises NotFound."""
    client = get_client(tenant, client_id)
    owned = (ApiKey.tenant == tenant) & (ApiKey.client_id == client_id) & (ApiKey.key_id == key_id)
    if not ApiKey.select().where(owned).exists():
        raise NotFound(f"client {client_id} has no such key")  # it may be a whole key
    if ApiKey.update(revoke_ms=ids.now_ms()).where(owned & ApiKey.revoke_ms.is_null()).execute():
        event.record(tenant, "api_client.key_revoked", client_id, key_id=key_id)
    return client


def revoke_client(tenant: int, client_id: str) -> ApiClient:
    """Ends a client, its keys and its tokens at once. Raises NotFound."""
    owned = (ApiClient.tenant == tenant) & (ApiClient.client_id == client_id)
    if (
        ApiClient.update(revoke_ms=ids.now_ms())
        .where(owned & ApiClient.revoke_ms.is_null())
        .execute()
    ):
        event.record(tenant, "api_client.revoked", client_id)
    return get_client(tenant, client_id)


def get_client(tenant: int, client_id: str) -> ApiClient:
    """Returns a tenant's client. Raises NotFound."""
    client = _CLIENT.one(ApiClient, client_id=client_id)
    if client is None or client.tenant != tenant:
        raise NotFound(f"there is no client {client_id}")
    return client


def list_clients(tenant: int) -> list[ApiClient]:
    """Returns a tenant's clients, by client id."""
    return list(ApiClient.select().where(ApiClient.tenant == tenant).order_by(ApiClient.client_id))


def valid_keys(client: ApiClient) -> list[ApiKey]:
    """Returns the keys of a client that are not revoked, the oldest first."""
    owned = (ApiKey.tenant == client.tenant) & (ApiKey.client_id == client.client_id)
    keys = ApiKey.select().where(owned & ApiKey.revoke_ms.is_null()).order_by(ApiKey.create_ms)
    return [] if client.revoke_ms is not None else list(keys)


def client_of_id(client_id: str) -> ApiClient | None:
    """Returns the client, of any tenant, that a token names, unless it is revoked."""
    client = _CLIENT.one(ApiClient, client_id=client_id)
    return client if client is not None and client.revoke_ms is None else None


def client_of_key(key: str) -> ApiClient | None:
    """Returns the client, of any tenant, that a key belongs to, unless either is revoked."""
    prefix, _, rest = key.partition("_")
    key_id, _, secret = rest.partition("_")
    row = _KEY.one(ApiKey, key_id=key_id) if prefix == "till" else None
    # Unknown keys are compared too, so that time does not tell them from wrong ones.
    expected = bytes(row.secret_hash) if row is not None else bytes(32)
    if not hmac.compare_digest(_hash(secret), expected) or row is None or row.revoke_ms is not None:
        return None
    return client_of_id(row.client_id)


def new_key() -> str:
    """Returns a key that was never used."""
    return f"till_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def _meet(client: ApiClient) -> None:
    """Makes those who give a client a key wait for each other, so that each counts what the last
    one left.

    The row does not change: it is locked until the commit. Two nodes of a cluster that lock it at
    once meet at the tenant's tip, which every unit with an event moves. Raises Race when the client
    was revoked meanwhile.
    """
    if _MEET.run(tenant=client.tenant, client_id=client.client_id) != 1:
        raise Race(f"client {client.client_id} was revoked by another")


def _add_key(client: ApiClient, key: str) -> str:
    _, key_id, secret = key.split("_", 2)
    row = ApiKey(tenant=client.tenant, key_id=key_id, client_id=client.client_id)
    row.secret_hash, row.create_ms = _hash(secret), ids.now_ms()
    insert(row)
    return key


def _hash(secret: str) -> bytes:
    """One round of SHA-256 is enough for 256 random bits; there is no word to guess."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
