"""Peer: FastAPI with SQLAlchemy, as their tutorials teach: a session per request, `def` routes."""

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, Index, String, UniqueConstraint, create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

URL = os.environ["BENCH_URL"]
SQLITE = URL.startswith("sqlite")
# A connection for each of FastAPI's 40 threads: with the default 15, threads that wait for one keep
# the threads away that those who hold one need to answer, and all of them time out.
engine = create_engine(URL, pool_size=40, connect_args={"timeout": 30} if SQLITE else {})
SessionLocal = sessionmaker(engine)

if SQLITE:

    @event.listens_for(engine, "connect")
    def set_sqlite_pragma(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-4096"):
            connection.execute(f"PRAGMA {pragma}")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("store_id", "order_number"),
        Index("recent", "store_id", "user_id", "created_ms"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    store_id: Mapped[str] = mapped_column(String(255))
    order_number: Mapped[str] = mapped_column(String(255))
    user_id: Mapped[str] = mapped_column(String(255))
    grand_total: Mapped[int] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    answer: Mapped[str] = mapped_column(String(1000))
    created_ms: Mapped[int] = mapped_column(BigInteger)


Base.metadata.create_all(engine)


def get_db() -> Iterator[Session]:
    with SessionLocal() as session:
        yield session


class NewOrder(BaseModel):
    store_id: str = Field(min_length=1, max_length=255)
    order_id: str = Field(min_length=1, max_length=255)
    user_id: str = Field(min_length=1, max_length=255)
    grand_total: float = Field(ge=0, le=1e12)


class UserOrders(BaseModel):
    user_id: str = Field(min_length=1, max_length=255)
    store_id: str = Field(min_length=1, max_length=255)


app = FastAPI()


@app.post("/new-order", status_code=201)
def new_order(
    order: NewOrder,
    response: Response,
    db: Annotated[Session, Depends(get_db)],
    idempotency_key: Annotated[str, Header()],
) -> dict[str, Any]:
    fingerprint = hashlib.sha256(order.model_dump_json().encode()).hexdigest()
    if seen := db.get(IdempotencyKey, idempotency_key):
        if seen.fingerprint != fingerprint:
            raise HTTPException(409, "the key was used for another request")
        response.headers["Idempotent-Replayed"] = "true"
        return {"statusCode": 201, "body": {"message": seen.answer}}
    now = time.time_ns() // 1_000_000
    answer = f"Order {order.order_id} submitted successfully"
    db.add(
        Order(
            store_id=order.store_id,
            order_number=order.order_id,
            user_id=order.user_id,
            grand_total=round(order.grand_total * 1_000_000),
            created_ms=now,
        )
    )
    db.add(
        IdempotencyKey(key=idempotency_key, fingerprint=fingerprint, answer=answer, created_ms=now)
    )
    try:
        db.commit()
    except IntegrityError as error:
        raise HTTPException(400, "The conditional request failed") from error
    return {"statusCode": 201, "body": {"message": answer}}


@app.post("/user-orders")
def user_orders(asked: UserOrders, db: Annotated[Session, Depends(get_db)]) -> dict[str, Any]:
    rows = db.scalars(
        select(Order)
        .where(Order.store_id == asked.store_id, Order.user_id == asked.user_id)
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
