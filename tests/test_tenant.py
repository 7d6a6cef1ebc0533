"""Tenants, API clients and their keys: by RPC, by the console script, and on disk."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ROOT, Stack
from doors import DOORS, bearer, call, files_of, token
from examples import FIRST, invented
from inside import on_this_thread

from storage import event, migrate, tenant
from storage.sql import Prepared, Unbound, across_tenants, param
from storage.tables import ApiClient, ApiKey, Order, OrderItem, Store

NOBODY = {"store_id": "nowhere", "user_id": "nobody"}
KEY = re.compile(r"till_[0-9a-f]{16}_[\w-]{43}")


def created(stack: Stack, *options: str) -> dict[str, Any]:
    """Returns a new client, made by the console script."""
    name = invented()["client"]
    return dict(json.loads(stack.till("client", "create", name, *options)))


def accepted(stack: Stack, key: str) -> bool:
    """Returns whether a key is accepted, at every door alike."""
    rpc = "OrderService.ListRecentUserOrders"
    codes = {call(stack, door, rpc, NOBODY, {"x-api-key": key}).code for door in DOORS}
    assert codes in ({"400", "FAILED_PRECONDITION"}, {"403", "PERMISSION_DENIED"})
    return "403" not in codes


def operate(stack: Stack, verb: str, request: dict[str, Any]) -> Any:
    """Returns what an RPC of tenants answers the platform."""
    answer = call(stack, "grpc", f"TenantService.{verb}", request, bearer(FIRST.token))
    return json.loads(answer.body) if answer.code == "OK" else answer.code


def test_the_script_creates_lists_rotates_and_revokes(stack: Stack) -> None:
    made = created(stack, "--scope", "customer:read", "--scope", "operator", "--name", "Shop")
    name, first = made["client_id"], made["api_key"]
    assert KEY.fullmatch(first) and accepted(stack, first)
    second = json.loads(stack.till("client", "rotate", name))["api_key"]
    assert first != second and accepted(stack, first) and accepted(stack, second)
    with pytest.raises(RuntimeError, match="has 2 valid keys; revoke one first"):
        stack.till("client", "rotate", name)
    stack.till("client", "revoke", name, "--key", first.split("_")[1])
    assert not accepted(stack, first) and accepted(stack, second)
    [row] = [row for row in json.loads(stack.till("client", "list")) if row["client_id"] == name]
    expected = {"scopes": "customer:read operator", "display_name": "Shop", "revoked": False}
    assert row.items() >= expected.items() and row["key_ids"] == [second.split("_")[1]]
    revoked = json.loads(stack.till("client", "revoke", name))
    assert revoked["revoked"] and revoked["key_ids"] == []
    assert not accepted(stack, second)
    with pytest.raises(RuntimeError, match="is revoked"):
        stack.till("client", "rotate", name)


def test_the_same_by_rpc(stack: Stack) -> None:
    request = {"apiClient": {"displayName": "Shop", "scopes": ["customer:read"]}}
    made = operate(stack, "CreateApiClient", request)
    name, first = made["apiClient"]["clientId"], made["apiKey"]
    assert KEY.fullmatch(first) and len(made["apiClient"]["channelCode"]) >= 16
    second = operate(stack, "RotateApiKey", {"clientId": name})["apiKey"]
    assert accepted(stack, first) and accepted(stack, second)
    assert operate(stack, "RotateApiKey", {"clientId": name}) == "FAILED_PRECONDITION"
    ended = {"clientId": name, "keyId": first.split("_")[1]}
    left = operate(stack, "RevokeApiKey", ended)
    assert [key["keyId"] for key in left["keys"]] == [second.split("_")[1]]
    assert operate(stack, "RevokeApiKey", ended) == left
    assert not accepted(stack, first) and accepted(stack, second)
    assert operate(stack, "RevokeApiClient", {"clientId": name})["revoked"]
    assert not accepted(stack, second)


def test_a_key_is_shown_once_and_kept_as_a_hash(stack: Stack) -> None:
    made = created(stack)
    rotated = json.loads(stack.till("client", "rotate", made["client_id"]))
    keys = [made["api_key"], rotated["api_key"], FIRST.key]
    shown = stack.till("client", "list") + json.dumps(operate(stack, "ListApiClients", {}))
    stored = files_of(stack)
    for key in keys:
        secret = key.split("_", 2)[2]
        assert secret not in shown
        assert key.split("_")[1].encode() in stored, "else the files are not those of the book"
        assert secret.encode() not in stored and secret.encode("utf-16-le") not in stored


def test_a_secret_is_not_told_to_who_pastes_it_in_the_wrong_place(stack: Stack) -> None:
    made = created(stack)
    for door in DOORS:
        request = {"clientId": made["client_id"], "keyId": made["api_key"]}
        answer = call(stack, door, "TenantService.RevokeApiKey", request, bearer(FIRST.token))
        assert answer.code in ("404", "NOT_FOUND")
        assert made["api_key"] not in answer.body


def test_names_are_taken_once(stack: Stack) -> None:
    name = invented()["store"]
    made = json.loads(stack.till("tenant", "create", name, "--entity-number", "2002"))
    assert made | {"tenant_id": 0} == {"tenant_id": 0, "name": name, "entity_number": "2002"}
    assert made in json.loads(stack.till("tenant", "list"))
    with pytest.raises(RuntimeError, match="exists"):
        stack.till("tenant", "create", name)
    assert operate(stack, "CreateTenant", {"tenant": {"name": name}}) == "ALREADY_EXISTS"
    found = operate(stack, "ListTenants", {})["tenants"]
    assert [t["entityNumber"] for t in found if t["name"] == name] == ["2002"]
    client = created(stack)["client_id"]
    # A token names its client alone, so a client id is one tenant's only.
    with pytest.raises(RuntimeError, match="exists"):
        stack.till("client", "create", client, "--tenant", str(made["tenant_id"]))
    with pytest.raises(RuntimeError, match="there is no tenant 987654"):
        stack.till("client", "create", "--tenant", "987654")
    with pytest.raises(RuntimeError, match="there is no client"):
        stack.till("client", "rotate", client, "--tenant", str(made["tenant_id"]))


@pytest.mark.parametrize("scope", ["admin", "customer:*", "x/operator", "", "OPERATOR"])
def test_scopes_that_do_not_exist_are_refused(stack: Stack, scope: str) -> None:
    request = {"apiClient": {"scopes": [scope]}}
    assert operate(stack, "CreateApiClient", request) == "INVALID_ARGUMENT"
    with pytest.raises(RuntimeError, match="is no scope"):
        stack.till("client", "create", "--scope", scope)


def test_a_client_narrower_than_its_token_is_what_counts(stack: Stack) -> None:
    made = created(stack, "--scope", "customer:read")
    headers = bearer(token(client_id=made["client_id"]), made["api_key"])
    assert stack.rest.get("/orders/1", headers=headers).status_code == 404
    assert stack.rest.get("/v1/stores", headers=headers).status_code == 403


@pytest.fixture
def book(url: str) -> Iterator[None]:
    """An order book that is open in this process."""
    with on_this_thread(url):
        migrate.up()
        event.begin()  # what is done here stands for one unit
        yield


UNBOUND: dict[str, Callable[[], Any]] = {
    "no condition": lambda: Order.select(),
    "another condition": lambda: Order.select().where(Order.store == "x"),
    "an update": lambda: Order.update(store="y").where(Order.store == "x"),
    "an update of the tenant": lambda: Order.update(tenant=2).where(Order.store == "x"),
    "a delete": lambda: Order.delete().where(Order.order_id == 1),
    "an unequal tenant": lambda: Order.select().where(Order.tenant != 1),
    "a tenant compared with a column": lambda: Order.select().where(Order.tenant == Order.order_id),
    "a join by the tenant": lambda: Order.select().join(
        OrderItem, on=(Order.tenant == OrderItem.tenant)
    ),
    "a join of one bound table": lambda: (
        Order.select()
        .join(OrderItem, on=(Order.order_id == OrderItem.order_id))
        .where(Order.tenant == 1)
    ),
    "a free table within": lambda: Order.select().where(
        (Order.tenant == 1) & Order.order_id.in_(OrderItem.select(OrderItem.order_id))
    ),
    "a count": lambda: Store.select().where(Store.store > ""),
}


@pytest.mark.parametrize("name", UNBOUND)
def test_a_query_that_says_no_tenant_is_refused_when_it_runs(book: None, name: str) -> None:
    with pytest.raises(Unbound):
        UNBOUND[name]().execute()
    with pytest.raises(Unbound):
        Prepared(UNBOUND[name]).rows()


def test_a_query_that_says_its_tenant_runs(book: None) -> None:
    inner = OrderItem.select(OrderItem.order_id).where(OrderItem.tenant == 1)
    both = Order.select().where((Order.tenant == 1) & Order.order_id.in_(inner))
    assert list(both) == []
    assert Prepared(lambda: Order.select().where(Order.tenant == param("t"))).rows(t=1) == []
    assert list(across_tenants(ApiKey.select())) == []


def test_a_development_key_that_was_revoked_comes_back(book: None) -> None:
    tenant.ensure_first("demo", "1001")
    key = tenant.new_key()
    for _ in range(2):  # as two starts of a server do
        tenant.ensure_client(ApiClient(tenant=1, client_id="desk", channel_code="x"), key)
        found = tenant.client_of_key(key)
        assert found is not None and found.client_id == "desk"
        tenant.revoke_key(1, "desk", key.split("_")[1])
        assert tenant.client_of_key(key) is None


def test_sql_is_run_in_the_one_place_that_looks() -> None:
    running = re.compile(r"execute_sql|\braw\(|\.cursor\(")
    names = {
        path.name for path in (ROOT / "storage").glob("*.py") if running.search(path.read_text())
    }
    # Besides: the schema, and the whole book at once; neither is anybody's query.
    whole = {"ddl.py", "lease.py", "migrate.py", "pool.py", "portable.py"}
    assert names <= {"sql.py"} | whole | {p.name for p in (ROOT / "storage").glob("*sql*.py")}
