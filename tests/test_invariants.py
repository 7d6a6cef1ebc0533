"""The invariants find what they are for: each is broken once by hand."""

import sqlite3
from contextlib import closing

import pymysql
import pytest
from databases import connect
from inside import opened
from invariants import BROKEN_BY, CREATED, assert_invariants
from samples import fill

HARM = {
    "a counter is the sum of its ledger": "UPDATE inventory SET ordered = ordered + 1",
    "a ledger goes from zero to its counter without a jump": """
        UPDATE inventory_ledger SET `before` = `before` + 1, `after` = `after` + 1""",
    "a ledger is about stock": "UPDATE inventory_ledger SET inventory_id = inventory_id + 1",
    "units are taken for orders and holds that exist": """
        UPDATE inventory_ledger SET source = 'orders/1'""",
    "an order has the units of its lines, and a cancelled one none": """
        UPDATE orders SET status = 'CANCELLED' WHERE status = 'NEW'""",
    "a hold has the units of its lines while it is active": """
        UPDATE holds SET state = 'RELEASED' WHERE state = 'ACTIVE'""",
    "a hold took the units of its lines once and gave them back once": """
        UPDATE inventory_ledger SET delta = 0, `after` = `before` WHERE counter = 'held'""",
    "a confirmed hold ordered all of its units, or an order took them": """
        UPDATE holds SET state = 'EXPIRED' WHERE state = 'CONFIRMED'""",
    "what is held is in active holds": "UPDATE hold_lines SET active = 1 - active",
    "what is ordered is in living orders and in holds that were confirmed for themselves": """
        UPDATE order_items SET quantity = quantity + 1""",
    "a hold's lines end with it": "UPDATE hold_lines SET expire_ms = expire_ms + 1",
    "a hold holds something": "DELETE FROM hold_lines",
    "an order's history ends in its status": """
        UPDATE orders SET status = 'PICKING' WHERE status = 'PACKED'""",
    "an order's history is of moves that are allowed": """
        UPDATE order_statuses SET status = 'DELIVERED'""",
    "a history belongs to an order": "UPDATE order_statuses SET order_id = order_id + 1",
    "a client belongs to a tenant": "DELETE FROM tenants",
    "a key belongs to a client": "DELETE FROM api_clients",
    "a key is the hash of a secret": "UPDATE api_keys SET secret_hash = x'00'",
    "an order is worth its lines": "UPDATE orders SET grand_total = grand_total + 1",
    "a line belongs to an order": "UPDATE order_items SET order_id = order_id + 1",
    "lines are counted from one, without gaps": "UPDATE order_items SET position = position + 1",
    "a picked item is in a wave of its store and type": "UPDATE waves SET type = 'expresso'",
    "a wave holds something": "UPDATE order_items SET wave_id = NULL",
    "one storing per order and wave": "DELETE FROM order_storings",
    "what is packed was picked": "UPDATE order_items SET wave_id = NULL",
    "a checkout packs orders of its own store": "UPDATE checkouts SET store = 'other'",
    "events have no gaps": "DELETE FROM events WHERE seq = 2",
    "an ordered draft and its order know each other": "UPDATE drafts SET order_id = NULL",
    "an item is in a draft": "UPDATE draft_items SET draft = 'other'",
    "nothing is seen RUNNING": "UPDATE operations SET state = 'RUNNING'",
    "what is PENDING, and nothing else, is promised": "UPDATE operations SET state = 'PENDING'",
    "what SUCCEEDED is there": "DELETE FROM draft_items",
    "what FAILED, and nothing else, says why": "UPDATE operations SET state = 'FAILED'",
    **{
        f"one {kind} for each": f"UPDATE events SET kind = 'x' WHERE kind = '{kind}'"
        for kind in CREATED
    },
}
REFUSED = (sqlite3.IntegrityError, pymysql.err.IntegrityError, pymysql.err.OperationalError)
"""What a table says to harm; MariaDB calls a broken CHECK operational."""
KEPT_BY_THE_TABLES = {
    "no unit is sold twice": "UPDATE inventory SET ordered = max_quantity + 1",
    "a client id belongs to one client": """
        INSERT INTO api_clients SELECT 2, client_id, display_name, scopes, default_store,
        channel_code, create_ms, revoke_ms FROM api_clients""",
    "one order per store and number": "UPDATE orders SET store = 's', order_number = '1'",
}


@pytest.fixture
def right(url: str) -> str:
    """The URL of an order book that is right."""
    with opened(url) as book:
        book.write(fill)
    return url


def harm(url: str, statement: str) -> None:
    """Does to the database what no code of ours does."""
    with closing(connect(url, writing=True)) as database:
        cursor = database.cursor()
        cursor.execute(statement)
        assert cursor.rowcount > 0
        database.commit()


@pytest.mark.parametrize("rule", HARM)
def test_harm_is_found(right: str, rule: str) -> None:
    harm(right, HARM[rule])

    with pytest.raises(AssertionError, match=rule):
        assert_invariants(right, keyed=False)


@pytest.mark.parametrize("rule", KEPT_BY_THE_TABLES)
def test_some_harm_is_refused_by_the_tables_themselves(right: str, rule: str) -> None:
    with pytest.raises(REFUSED):
        harm(right, KEPT_BY_THE_TABLES[rule])


def test_an_order_without_a_key_is_found(right: str) -> None:
    with pytest.raises(AssertionError, match="one order per key"):
        assert_invariants(right)


def test_every_rule_is_tried() -> None:
    untried = set(BROKEN_BY) - {*HARM, *KEPT_BY_THE_TABLES}

    assert untried == {
        "a draft is ordered at most once",  # which takes two orders
        "a client has at most two valid keys",  # which takes three
    }


def test_a_third_key_is_found(right: str) -> None:
    for number in range(2):
        harm(
            right,
            f"""INSERT INTO api_keys SELECT tenant, 'another {number}', client_id, secret_hash,
            create_ms, revoke_ms FROM api_keys LIMIT 1""",
        )

    with pytest.raises(AssertionError, match="at most two valid keys"):
        assert_invariants(right, keyed=False)
