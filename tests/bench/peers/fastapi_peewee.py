"""Peer: FastAPI with Peewee, as Peewee's chapter on FastAPI teaches: a connection per request."""

import hashlib
import time
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Response
from peewee import IntegrityError
from peewee_tables import IdempotencyKey, Order, database
from pydantic import BaseModel, Field


class NewOrder(BaseModel):
    store_id: str = Field(min_length=1, max_length=255)
    order_id: str = Field(min_length=1, max_length=255)
    user_id: str = Field(min_length=1, max_length=255)
    grand_total: float = Field(ge=0, le=1e12)


class UserOrders(BaseModel):
    user_id: str = Field(min_length=1, max_length=255)
    store_id: str = Field(min_length=1, max_length=255)


app = FastAPI()


def submit(order: NewOrder, key: str) -> tuple[str, bool]:
    fingerprint = hashlib.sha256(order.model_dump_json().encode()).hexdigest()
    with database.atomic("IMMEDIATE"):
        if seen := IdempotencyKey.get_or_none(IdempotencyKey.key == key):
            if seen.fingerprint != fingerprint:
                raise HTTPException(409, "the key was used for another request")
            return seen.answer, True
        now = time.time_ns() // 1_000_000
        answer = f"Order {order.order_id} submitted successfully"
        Order.create(
            store_id=order.store_id,
            order_number=order.order_id,
            user_id=order.user_id,
            grand_total=round(order.grand_total * 1_000_000),
            created_ms=now,
        )
        IdempotencyKey.create(key=key, fingerprint=fingerprint, answer=answer, created_ms=now)
        return answer, False


@app.post("/new-order", status_code=201)
def new_order(
    order: NewOrder, response: Response, idempotency_key: Annotated[str, Header()]
) -> dict[str, Any]:
    # Opened in the route's own thread: connections are per thread, and a dependency may run in
    # another one.
    with database.connection_context():
        try:
            answer, replayed = submit(order, idempotency_key)
        except IntegrityError as error:
            raise HTTPException(400, "The conditional request failed") from error
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return {"statusCode": 201, "body": {"message": answer}}


@app.post("/user-orders")
def user_orders(asked: UserOrders) -> dict[str, Any]:
    with database.connection_context():
        rows = list(
            Order.select()
            .where((Order.store_id == asked.store_id) & (Order.user_id == asked.user_id))
            .order_by(Order.created_ms.desc())
            .limit(5)
        )
    orders = [
        {
            "user_id": row.user_id,
            "grand_total": row.grand_total / 1_000_000,
            "order_id": row.order_number,
            "store_id": row.store_id,
            "timestamp": f"{row.user_id}#{row.created_ms}",
        }
        for row in rows
    ]
    return {
        "statusCode": 200,
        "orders": orders,
        "body": {"message": "Orders retrieved successfully"},
    }
