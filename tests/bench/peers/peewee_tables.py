"""The peers' tables as Peewee models; also what the peers' store is filled through."""

import os

from peewee import BigIntegerField, CharField, Model, SqliteDatabase

PRAGMAS = {"journal_mode": "wal", "synchronous": "full", "cache_size": -4096}
database = SqliteDatabase(os.environ.get("BENCH_DATABASE"), pragmas=PRAGMAS, timeout=30)


class Base(Model):
    class Meta:
        database = database


class Order(Base):
    store_id = CharField()
    order_number = CharField()
    user_id = CharField()
    grand_total = BigIntegerField()
    created_ms = BigIntegerField()

    class Meta:
        table_name = "orders"
        indexes = (
            (("store_id", "order_number"), True),
            (("store_id", "user_id", "created_ms"), False),
        )


class IdempotencyKey(Base):
    key = CharField(primary_key=True)
    fingerprint = CharField(64)
    answer = CharField(1000)
    created_ms = BigIntegerField()

    class Meta:
        table_name = "idempotency_keys"
