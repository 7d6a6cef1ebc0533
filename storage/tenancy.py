"""The tables that say who may call; part of the schema in storage/tables.py."""

from peewee import BigIntegerField, CompositeKey, FixedCharField, IntegerField
from peewee import CharField as VarcharField

from storage.row import LongBlob, Row, one_of

STOCK_POLICIES = ("TRACK_WHEN_MATCHED", "REQUIRE_MATCH")


class Tenant(Row):
    """A legal entity whose rows no other tenant sees."""

    tenant = IntegerField(primary_key=True)
    name = VarcharField(unique=True)
    entity_number = VarcharField(default="")
    stock_policy = VarcharField(
        32, default="TRACK_WHEN_MATCHED", constraints=[one_of("stock_policy", STOCK_POLICIES)]
    )
    create_ms = BigIntegerField()


class ApiClient(Row):
    """A program that calls for a tenant, by the client id of its tokens, its keys and its channel
    code.
    """

    client_id = VarcharField(128)
    display_name = VarcharField(default="")
    scopes = VarcharField(default="")
    default_store = VarcharField(default="")
    channel_code = VarcharField(64)
    create_ms = BigIntegerField()
    revoke_ms = BigIntegerField(null=True)

    class Meta:
        primary_key = CompositeKey("tenant", "client_id")
        # Tokens name the client alone, so it must not be another tenant's too.
        indexes = ((("client_id",), True),)


class ApiKey(Row):
    """A key of a client, as the SHA-256 of its secret."""

    key_id = FixedCharField(16)
    client_id = VarcharField(128)
    secret_hash = LongBlob()
    create_ms = BigIntegerField()
    revoke_ms = BigIntegerField(null=True)

    class Meta:
        primary_key = CompositeKey("tenant", "client_id", "key_id")
        indexes = ((("key_id",), True),)
