"""Peer: Flask with sqlite3, as Flask's tutorial teaches: one connection per request in `g`."""

import hashlib
import os
import sqlite3
import time
from typing import Any

from flask import Flask, g, request

app = Flask(__name__)


def get_db() -> sqlite3.Connection:
    if "db" not in g:
        g.db = sqlite3.connect(os.environ["BENCH_DATABASE"], timeout=30)
        g.db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-4096"):
            g.db.execute(f"PRAGMA {pragma}")
    return g.db  # type: ignore[no-any-return]


@app.teardown_appcontext
def close_db(_: BaseException | None = None) -> None:
    db = g.pop("db", None)
    if db is not None:
        db.close()


@app.post("/new-order")
def new_order() -> Any:
    body, key = request.get_json(), request.headers.get("Idempotency-Key", "")
    store, number, user = (str(body.get(name, "")) for name in ("store_id", "order_id", "user_id"))
    total = body.get("grand_total")
    if not (store and number and user) or not isinstance(total, int | float) or total < 0:
        return {"statusCode": 400, "error": "a field is missing"}, 400
    fingerprint = hashlib.sha256(f"{store!r}{number!r}{user!r}{total}".encode()).hexdigest()
    db = get_db()
    seen = db.execute(
        "SELECT fingerprint, answer FROM idempotency_keys WHERE key = ?", (key,)
    ).fetchone()
    if seen and seen["fingerprint"] != fingerprint:
        return {"statusCode": 409, "error": "the key was used for another request"}, 409
    if seen:
        return (
            {"statusCode": 201, "body": {"message": seen["answer"]}},
            201,
            {"Idempotent-Replayed": "true"},
        )
    now, answer = time.time_ns() // 1_000_000, f"Order {number} submitted successfully"
    try:
        db.execute(
            "INSERT INTO orders (store_id, order_number, user_id, grand_total, created_ms)"
            " VALUES (?, ?, ?, ?, ?)",
            (store, number, user, round(total * 1_000_000), now),
        )
        db.execute(
            "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?)", (key, fingerprint, answer, now)
        )
        db.commit()
    except sqlite3.IntegrityError:
        return {"statusCode": 400, "error": "The conditional request failed"}, 400
    return {"statusCode": 201, "body": {"message": answer}}, 201


@app.post("/user-orders")
def user_orders() -> Any:
    body = request.get_json()
    rows = (
        get_db()
        .execute(
            "SELECT * FROM orders WHERE store_id = ? AND user_id = ?"
            " ORDER BY created_ms DESC LIMIT 5",
            (body["store_id"], body["user_id"]),
        )
        .fetchall()
    )
    orders = [
        {
            "user_id": row["user_id"],
            "grand_total": row["grand_total"] / 1_000_000,
            "order_id": row["order_number"],
            "store_id": row["store_id"],
            "timestamp": f"{row['user_id']}#{row['created_ms']}",
        }
        for row in rows
    ]
    return {
        "statusCode": 200,
        "orders": orders,
        "body": {"message": "Orders retrieved successfully"},
    }
