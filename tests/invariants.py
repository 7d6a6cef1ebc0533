"""What must be true of every order book at every moment, asked of the database itself."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from databases import connect, is_file

_LEDGER = """SELECT coalesce(sum(delta), 0) FROM inventory_ledger AS entry
             WHERE entry.inventory_id = stock.inventory_id AND counter ="""

BROKEN_BY = {
    "a counter is the sum of its ledger": f"""
        SELECT inventory_code FROM inventory AS stock WHERE max_quantity <> ({_LEDGER} 'max')
        OR ordered <> ({_LEDGER} 'ordered') OR held <> ({_LEDGER} 'held')""",
    "a ledger goes from zero to its counter without a jump": """
        SELECT inventory_id FROM (
            SELECT inventory_id, counter, before AS value, 1 AS n FROM inventory_ledger
            UNION ALL SELECT inventory_id, counter, after, -1 FROM inventory_ledger
            UNION ALL SELECT inventory_id, 'max', max_quantity, 1 FROM inventory
            UNION ALL SELECT inventory_id, 'max', 0, -1 FROM inventory
            UNION ALL SELECT inventory_id, 'ordered', ordered, 1 FROM inventory
            UNION ALL SELECT inventory_id, 'ordered', 0, -1 FROM inventory
            UNION ALL SELECT inventory_id, 'held', held, 1 FROM inventory
            UNION ALL SELECT inventory_id, 'held', 0, -1 FROM inventory)
        GROUP BY inventory_id, counter, value HAVING sum(n) <> 0""",
    "a ledger is about stock": """
        SELECT entry_id FROM inventory_ledger
        WHERE inventory_id NOT IN (SELECT inventory_id FROM inventory)""",
    "no unit is sold twice": """
        SELECT inventory_code FROM inventory
        WHERE ordered < 0 OR held < 0 OR ordered + held > max_quantity""",
    "units are taken for orders and holds that exist": """
        SELECT entry_id FROM inventory_ledger AS entry WHERE counter <> 'max' AND NOT EXISTS (
            SELECT 1 FROM holds WHERE holds.tenant = entry.tenant
            AND entry.source = 'holds/' || hold_id)
        AND NOT EXISTS (
            SELECT 1 FROM orders WHERE orders.tenant = entry.tenant
            AND entry.source = 'orders/' || order_id AND entry.counter = 'ordered')""",
    "an order has the units of its lines, and a cancelled one none": """
        SELECT source, inventory_id FROM (
            SELECT 'orders/' || order_id AS source, inventory_id,
                iif(orders.status = 'CANCELLED', 0, quantity) AS units
            FROM order_items JOIN orders USING (tenant, order_id) WHERE inventory_id IS NOT NULL
            UNION ALL SELECT source, inventory_id, -delta FROM inventory_ledger
            WHERE counter = 'ordered' AND source LIKE 'orders/%')
        GROUP BY source, inventory_id HAVING sum(units) <> 0""",
    "a hold has the units of its lines while it is active": """
        SELECT source, inventory_id FROM (
            SELECT 'holds/' || hold_id AS source, inventory_id,
                iif(holds.state = 'ACTIVE', quantity, 0) AS units
            FROM hold_lines JOIN holds USING (tenant, hold_id)
            UNION ALL SELECT source, inventory_id, -delta FROM inventory_ledger
            WHERE counter = 'held')
        GROUP BY source, inventory_id HAVING sum(units) <> 0""",
    "a hold took the units of its lines once and gave them back once": """
        SELECT hold_id, inventory_id FROM hold_lines AS line JOIN holds USING (tenant, hold_id)
        WHERE (SELECT group_concat(delta, ' ') FROM (
            SELECT delta FROM inventory_ledger AS entry
            WHERE entry.tenant = line.tenant AND entry.inventory_id = line.inventory_id
            AND counter = 'held' AND source = 'holds/' || line.hold_id ORDER BY entry_id))
        IS NOT iif(holds.state = 'ACTIVE', '' || quantity, quantity || ' ' || -quantity)""",
    "a confirmed hold ordered all of its units, or an order took them": """
        SELECT hold_id, line.inventory_id FROM hold_lines AS line JOIN holds USING (tenant, hold_id)
        LEFT JOIN inventory_ledger AS entry ON entry.tenant = line.tenant
            AND entry.inventory_id = line.inventory_id AND counter = 'ordered'
            AND source = 'holds/' || hold_id
        GROUP BY line.tenant, hold_id HAVING count(entry_id) NOT IN (0, count(*))
        OR (count(entry_id) > 0 AND holds.state <> 'CONFIRMED')
        OR sum(delta <> quantity) > 0""",
    "what is held is in active holds": """
        SELECT inventory_code FROM inventory AS stock WHERE held <> (
            SELECT coalesce(sum(quantity), 0) FROM hold_lines AS line
            WHERE line.tenant = stock.tenant AND line.inventory_id = stock.inventory_id AND active)
        """,
    "what is ordered is in living orders and in holds that were confirmed for themselves": """
        SELECT inventory_code FROM inventory AS stock WHERE ordered <> (
            SELECT coalesce(sum(quantity), 0) FROM order_items AS line
            JOIN orders USING (tenant, order_id) WHERE line.tenant = stock.tenant
            AND line.inventory_id = stock.inventory_id AND orders.status <> 'CANCELLED')
        + (SELECT coalesce(sum(quantity), 0) FROM hold_lines AS line
            WHERE line.tenant = stock.tenant AND line.inventory_id = stock.inventory_id
            AND EXISTS (SELECT 1 FROM inventory_ledger AS entry
                WHERE entry.inventory_id = line.inventory_id AND counter = 'ordered'
                AND source = 'holds/' || line.hold_id))""",
    "a hold's lines end with it": """
        SELECT line.hold_id FROM hold_lines AS line LEFT JOIN holds USING (tenant, hold_id)
        WHERE active IS NOT (holds.state = 'ACTIVE') OR line.expire_ms IS NOT holds.expire_ms""",
    "a hold holds something": """
        SELECT hold_id FROM holds LEFT JOIN hold_lines AS line USING (tenant, hold_id)
        WHERE line.quantity IS NULL""",
    "one order per store and number": """
        SELECT store, order_number FROM orders GROUP BY tenant, store, order_number
        HAVING count(*) > 1""",
    "an order is worth its lines": """
        SELECT order_id FROM orders WHERE user_id IS NOT NULL AND grand_total <> (
            SELECT coalesce(sum(total), 0) FROM order_items AS line
            WHERE line.order_id = orders.order_id)""",
    "an order's history ends in its status": """
        SELECT order_id FROM orders WHERE status <> coalesce((
            SELECT status FROM order_statuses AS moved WHERE moved.tenant = orders.tenant
            AND moved.order_id = orders.order_id ORDER BY change_id DESC LIMIT 1), 'NEW')
        OR revision <> 1 + (SELECT count(*) FROM order_statuses AS moved
            WHERE moved.tenant = orders.tenant AND moved.order_id = orders.order_id)""",
    "an order's history is of moves that are allowed": """
        SELECT order_id, was, status FROM (
            SELECT order_id, status, lag(status, 1, 'NEW') OVER (
                PARTITION BY tenant, order_id ORDER BY change_id) AS was FROM order_statuses)
        WHERE (was, status) NOT IN (VALUES
            ('NEW', 'CONFIRMED'), ('NEW', 'PICKING'), ('NEW', 'PACKED'), ('NEW', 'CANCELLED'),
            ('CONFIRMED', 'PICKING'), ('CONFIRMED', 'PACKED'), ('CONFIRMED', 'CANCELLED'),
            ('PICKING', 'PACKED'), ('PICKING', 'CANCELLED'), ('PACKED', 'PICKING'),
            ('PACKED', 'SHIPPED'), ('PACKED', 'CANCELLED'), ('SHIPPED', 'DELIVERED'))""",
    "a history belongs to an order": """
        SELECT moved.order_id FROM order_statuses AS moved LEFT JOIN orders USING (tenant, order_id)
        WHERE orders.store IS NULL""",
    "a client id belongs to one client": """
        SELECT client_id FROM api_clients GROUP BY client_id HAVING count(*) > 1""",
    "a client belongs to a tenant": """
        SELECT client_id FROM api_clients LEFT JOIN tenants USING (tenant)
        WHERE tenants.name IS NULL""",
    "a key belongs to a client": """
        SELECT key_id FROM api_keys LEFT JOIN api_clients AS client USING (tenant, client_id)
        WHERE client.channel_code IS NULL""",
    "a key is the hash of a secret": """
        SELECT key_id FROM api_keys WHERE length(secret_hash) <> 32""",
    "a client has at most two valid keys": """
        SELECT client_id FROM api_keys WHERE revoke_ms IS NULL AND client_id <> 'local-development'
        GROUP BY tenant, client_id HAVING count(*) > 2""",
    "a line belongs to an order": """
        SELECT order_id, order_item_id FROM order_items
        WHERE order_id NOT IN (SELECT order_id FROM orders)""",
    "lines are counted from one, without gaps": """
        SELECT order_id FROM order_items GROUP BY order_id
        HAVING min(position) <> 1 OR max(position) <> count(*)
        OR count(DISTINCT position) <> count(*)""",
    "a picked item is in a wave of its store and type": """
        SELECT line.order_id FROM order_items AS line JOIN orders USING (tenant, order_id)
        LEFT JOIN waves AS wave ON wave.wave_id = line.wave_id
        WHERE line.wave_id IS NOT NULL
        AND (wave.type IS NOT line.type OR wave.store IS NOT orders.store)""",
    "a wave holds something": """
        SELECT wave_id FROM waves WHERE wave_id NOT IN
            (SELECT wave_id FROM order_items WHERE wave_id IS NOT NULL)""",
    "one storing per order and wave": """
        SELECT order_id, wave_id FROM (
            SELECT DISTINCT tenant, order_id, wave_id, 1 AS picked, 0 AS stored FROM order_items
            WHERE wave_id IS NOT NULL
            UNION ALL SELECT tenant, order_id, wave_id, 0, 1 FROM order_storings)
        GROUP BY tenant, order_id, wave_id HAVING sum(picked) <> 1 OR sum(stored) <> 1""",
    "what is packed was picked": """
        SELECT packed.external_number, packed.item_number FROM checkout_items AS packed
        LEFT JOIN order_items AS line USING (tenant, order_id, order_item_id)
        LEFT JOIN checkouts USING (tenant, external_number)
        WHERE line.wave_id IS NULL OR checkouts.store IS NULL""",
    "a checkout packs orders of its own store": """
        SELECT external_number FROM checkout_items JOIN checkouts USING (tenant, external_number)
        JOIN orders USING (tenant, order_id) WHERE orders.store <> checkouts.store""",
    "events have no gaps": """
        SELECT tenant FROM events GROUP BY tenant HAVING min(seq) <> 1 OR max(seq) <> count(*)""",
    "a draft is ordered at most once": """
        SELECT draft FROM orders WHERE draft IS NOT NULL GROUP BY tenant, draft
        HAVING count(*) > 1""",
    "an ordered draft and its order know each other": """
        SELECT drafts.draft FROM drafts LEFT JOIN orders USING (tenant, order_id)
        WHERE drafts.order_id IS NOT NULL AND orders.draft IS NOT drafts.draft
        UNION SELECT orders.draft FROM orders LEFT JOIN drafts USING (tenant, draft)
        WHERE orders.draft IS NOT NULL AND drafts.order_id IS NOT orders.order_id""",
    "an item is in a draft": """
        SELECT item FROM draft_items LEFT JOIN drafts USING (tenant, draft)
        WHERE drafts.create_ms IS NULL""",
    "nothing is seen RUNNING": "SELECT operation FROM operations WHERE state = 'RUNNING'",
    "what is PENDING, and nothing else, is promised": """
        SELECT operation FROM operations LEFT JOIN promises USING (tenant, operation)
        WHERE (state = 'PENDING') <> (request IS NOT NULL)
        UNION SELECT promises.operation FROM promises
        LEFT JOIN operations USING (tenant, operation) WHERE state IS NULL""",
    "what SUCCEEDED is there": """
        SELECT operation FROM operations WHERE state = 'SUCCEEDED' AND NOT EXISTS (
            SELECT 1 FROM draft_items AS known
            WHERE known.tenant = operations.tenant AND known.item = operations.item)""",
    "what FAILED, and nothing else, says why": """
        SELECT operation FROM operations
        WHERE (state = 'FAILED') <> (reason IS NOT NULL AND error IS NOT NULL)""",
}
"""What must be true, and a query for whatever breaks it."""

ONE_ORDER_PER_KEY = """
    SELECT orders.n, keys.n FROM
        (SELECT count(*) AS n FROM orders WHERE user_id IS NOT NULL) AS orders,
        (SELECT count(*) AS n FROM idempotency_keys WHERE rpc = 'CreateOrder') AS keys
    WHERE orders.n <> keys.n"""
"""Breaks where orders were created without the door, which asks for a key."""

CREATED = {
    "order.created": "SELECT tenant, CAST(order_id AS TEXT) FROM orders",
    "draft_item.created": "SELECT tenant, item FROM draft_items",
    "store.created": "SELECT tenant, store FROM stores",
    "product.created": "SELECT tenant, product_code FROM products",
    "tenant.created": "SELECT tenant, name FROM tenants",
    "api_client.created": "SELECT tenant, client_id FROM api_clients",
    "hold.created": "SELECT tenant, hold_id FROM holds",
    "hold.confirmed": "SELECT tenant, hold_id FROM holds WHERE state = 'CONFIRMED'",
    "hold.released": "SELECT tenant, hold_id FROM holds WHERE state = 'RELEASED'",
    "hold.expired": "SELECT tenant, hold_id FROM holds WHERE state = 'EXPIRED'",
    "order.cancelled": """
        SELECT tenant, CAST(order_id AS TEXT) FROM orders WHERE status = 'CANCELLED'""",
}
"""Which rows have exactly one event of a kind, and which events exactly one row."""


def assert_invariants(url: str, *, keyed: bool = True) -> None:
    """Asserts that an order book is right; `keyed` when every order came by a door."""
    with read(url) as database:
        broken = {rule: database.execute(query).fetchall() for rule, query in BROKEN_BY.items()}
        if keyed:
            broken["one order per key"] = database.execute(ONE_ORDER_PER_KEY).fetchall()
        for kind, query in CREATED.items():
            told = "SELECT tenant, subject FROM events WHERE kind = ?"
            events = sorted(database.execute(told, [kind]).fetchall())
            rows = sorted(database.execute(query).fetchall())
            broken[f"one {kind} for each"] = [*set(events) ^ set(rows)] or [
                (len(events), len(rows)) for _ in range(len(events) != len(rows))
            ]
    found = {rule: rows for rule, rows in broken.items() if rows}
    assert not found, found


@contextmanager
def read(url: str) -> Iterator[sqlite3.Connection]:
    """Opens a SQLite database for the queries above, or a copy, in memory, of one snapshot of a
    database on a server: rules in one dialect, judged by one engine.
    """
    with closing(connect(url)) as source:
        if is_file(url):
            yield source
            return
        with closing(sqlite3.connect(":memory:")) as copy:
            _copy(source.cursor(), copy)
            yield copy


def _copy(source: Any, copy: sqlite3.Connection) -> None:
    source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    source.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    source.execute("SHOW TABLES")
    for (table,) in source.fetchall():
        source.execute(f"SELECT * FROM `{table}`")
        names = [column[0] for column in source.description]
        copy.execute(f"CREATE TABLE `{table}` ({', '.join(f'`{name}`' for name in names)})")
        places = ", ".join("?" * len(names))
        copy.executemany(f"INSERT INTO `{table}` VALUES ({places})", source.fetchall())


def dump(url: str, *without: str) -> dict[str, list[tuple[object, ...]]]:
    """Returns every row of every table but those named."""
    with read(url) as database:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        names = [name for (name,) in database.execute(tables) if name not in without]
        return {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in names}
