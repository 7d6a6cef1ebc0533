"""No tenant sees or changes another's rows, by any RPC, through any door."""

import json
import re
from contextlib import closing
from typing import Any

import pytest
from conftest import Stack
from databases import connect
from doors import DOORS, RPC_DOORS, RPCS, Answer, call, path_of
from examples import EXAMPLES, FIRST, MARK, Who, fill, invented, newcomer, settle

from server.access import RULES, Needs
from storage.tables import TABLES

OPERATOR = ("customer:write", "operator")
# What every answer makes anew: times, ids, keys.
MADE = [
    (r"\d{4}-\d\d-\d\dT[^\"]+", "<time>"),
    (r"till_[0-9a-f]{16}_[\w-]+", "<key>"),
    (r"(?<=hannelCode\":)( ?)\"[^\"]+\"", "<code>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"\b[0-9a-f]{16,32}\b", "<id>"),
    (r"\b\d{13,16}\b", "<id>"),
]


@pytest.fixture(scope="module")
def world(stack: Stack) -> dict[str, str]:
    """One of everything, the first tenant's."""
    values = invented()
    client = newcomer(stack, *OPERATOR, tenant=1)
    rows = json.loads(stack.till("client", "list"))
    [mine] = [row for row in rows if row["key_ids"] == [client.key.split("_")[1]]]
    values |= {"client": mine["client_id"], "key_id": mine["key_ids"][0], "tenant": "1"}
    return settle(stack, FIRST, values)


def rows_of(stack: Stack, tenant: int) -> dict[str, list[Any]]:
    """Returns everything a tenant has, from the database itself."""
    with closing(connect(stack.url)) as connection:
        cursor, found = connection.cursor(), {}
        for name in (table._meta.table_name for table in TABLES):
            cursor.execute(f"SELECT * FROM `{name}` WHERE tenant = {tenant}")
            found[name] = sorted(cursor.fetchall(), key=repr)
        return found


def plain(answer: Answer, values: dict[str, str]) -> tuple[str, str, list[str]]:
    """Returns an answer without the identifiers that were asked for, and those it made."""
    body = answer.body
    for name in sorted(values, key=lambda name: -len(values[name])):
        if len(values[name]) > 6:
            body = body.replace(values[name], f"<{name}>")
    for pattern, word in MADE:
        body = re.sub(pattern, word, body)
    return answer.code, body, sorted(answer.headers)


def test_every_rpc_has_an_example() -> None:
    assert EXAMPLES.keys() == RPCS.keys()


@pytest.mark.parametrize(("rpc", "door"), RPC_DOORS)
def test_what_is_anothers_is_as_if_it_were_not(
    stack: Stack, world: dict[str, str], rpc: str, door: str
) -> None:
    before, absent = rows_of(stack, 1), invented()
    for example in EXAMPLES[rpc]:
        other = newcomer(stack, *OPERATOR)
        headers = other.headers(rpc, world["key"]), other.headers(rpc)
        foreign = call(stack, door, rpc, fill(example, world | {"text": "mine"}), headers[0])
        missing = call(stack, door, rpc, fill(example, absent | {"text": "mine"}), headers[1])
        assert plain(foreign, world) == plain(missing, absent)
        assert MARK not in foreign.body
    assert rows_of(stack, 1) == before


@pytest.mark.parametrize(("rpc", "door"), RPC_DOORS)
def test_the_owner_is_not_kept_out(
    stack: Stack, world: dict[str, str], rpc: str, door: str
) -> None:
    reads = RPCS[rpc].GetOptions().idempotency_level == 1 or rpc.startswith("Operations.")
    if reads:  # else the test above would pass by refusing everybody
        answer = call(stack, door, rpc, fill(EXAMPLES[rpc][0], world), FIRST.headers(rpc))
        assert answer.code in ("OK", "200"), answer


def test_two_tenants_may_use_the_same_names_for_everything(
    stack: Stack, world: dict[str, str]
) -> None:
    before, other = rows_of(stack, 1), newcomer(stack, *OPERATOR)
    theirs = settle(stack, other, world | {"text": "mine"})
    assert rows_of(stack, 1) == before
    for rpc in ("StoreService.GetStore", "DraftItemService.GetDraftItem", "OrderService.GetOrder"):
        mine = call(stack, "rest", rpc, fill(EXAMPLES[rpc][0], theirs), other.headers(rpc))
        assert mine.code == "200" and MARK not in mine.body
        first = call(stack, "rest", rpc, fill(EXAMPLES[rpc][0], world), FIRST.headers(rpc))
        assert MARK in first.body


@pytest.mark.parametrize("door", DOORS)
def test_a_stranger_to_the_default_tenant_sees_it_without_credentials_alone(
    stack: Stack, world: dict[str, str], door: str
) -> None:
    other = newcomer(stack, *OPERATOR)
    for rpc in (rpc for rpc in RPCS if RULES[path_of(RPCS[rpc])].needs is Needs.DEFAULT):
        if door == "rest" and rpc == "Operations.WaitOperation":
            continue
        if RPCS[rpc].GetOptions().idempotency_level != 1:
            continue
        request = fill(EXAMPLES[rpc][0], world)
        assert call(stack, door, rpc, request).code in ("OK", "200")
        for headers in _ways(other):
            answer = call(stack, door, rpc, request, headers)
            assert answer.code not in ("OK", "200") or not _named(answer, world)


def _named(answer: Answer, world: dict[str, str]) -> list[str]:
    return [value for value in world.values() if len(value) > 6 and value in answer.body]


def _ways(who: Who) -> list[dict[str, str]]:
    token, key = {"authorization": f"Bearer {who.token}"}, {"x-api-key": who.key}
    return [token, key, token | key]


@pytest.mark.parametrize("listing", ["StoreService.ListStores", "Operations.ListOperations"])
def test_a_page_token_opens_no_other_tenants_list(
    stack: Stack, world: dict[str, str], listing: str
) -> None:
    assert world
    call(stack, "grpc", "StoreService.CreateStore", _another(), FIRST.headers(listing))
    page = call(stack, "grpc", listing, {"pageSize": 1}, FIRST.headers(listing))
    position = json.loads(page.body).get("nextPageToken")
    other = newcomer(stack, *OPERATOR)
    answer = call(stack, "grpc", listing, {"pageToken": position}, other.headers(listing))
    assert (answer.code, answer.body) == ("OK", "{}")


def _another() -> dict[str, Any]:
    return {"store": {"storeId": invented()["store"]}}
