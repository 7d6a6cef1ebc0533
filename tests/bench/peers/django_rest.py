"""Peer: Django REST framework in one file: a model, a serializer and two views, as they teach."""

import hashlib
import os
import time
from typing import Any

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="bench",  # signs nothing here
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["BENCH_DATABASE"],
            "CONN_MAX_AGE": 600,
            "OPTIONS": {
                "timeout": 30,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                " PRAGMA cache_size=-4096;",
            },
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402 - needs the settings above
from django.db import IntegrityError, models, transaction  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework import serializers  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402


class Order(models.Model):
    store_id = models.CharField(max_length=255)
    order_number = models.CharField(max_length=255)
    user_id = models.CharField(max_length=255)
    grand_total = models.BigIntegerField()
    created_ms = models.BigIntegerField()

    class Meta:
        app_label = "bench"
        db_table = "orders"


class IdempotencyKey(models.Model):
    key = models.CharField(max_length=255, primary_key=True)
    fingerprint = models.CharField(max_length=64)
    answer = models.CharField(max_length=1000)
    created_ms = models.BigIntegerField()

    class Meta:
        app_label = "bench"
        db_table = "idempotency_keys"


class NewOrderSerializer(serializers.Serializer):  # type: ignore[type-arg]
    store_id = serializers.CharField(max_length=255)
    order_id = serializers.CharField(max_length=255)
    user_id = serializers.CharField(max_length=255)
    grand_total = serializers.FloatField(min_value=0, max_value=1e12)


class UserOrdersSerializer(serializers.Serializer):  # type: ignore[type-arg]
    user_id = serializers.CharField(max_length=255)
    store_id = serializers.CharField(max_length=255)


class UserOrderSerializer(serializers.ModelSerializer):  # type: ignore[type-arg]
    order_id = serializers.CharField(source="order_number")
    grand_total = serializers.SerializerMethodField()
    timestamp = serializers.SerializerMethodField()

    class Meta:
        model = Order
        fields = ("user_id", "grand_total", "order_id", "store_id", "timestamp")

    def get_grand_total(self, order: Order) -> float:
        return order.grand_total / 1_000_000

    def get_timestamp(self, order: Order) -> str:
        return f"{order.user_id}#{order.created_ms}"


def submit(order: dict[str, Any], key: str) -> tuple[str, bool]:
    fingerprint = hashlib.sha256(repr(sorted(order.items())).encode()).hexdigest()
    with transaction.atomic():
        if seen := IdempotencyKey.objects.filter(key=key).first():
            if seen.fingerprint != fingerprint:
                raise serializers.ValidationError("the key was used for another request")
            return seen.answer, True
        now = time.time_ns() // 1_000_000
        answer = f"Order {order['order_id']} submitted successfully"
        Order.objects.create(
            store_id=order["store_id"],
            order_number=order["order_id"],
            user_id=order["user_id"],
            grand_total=round(order["grand_total"] * 1_000_000),
            created_ms=now,
        )
        IdempotencyKey.objects.create(
            key=key, fingerprint=fingerprint, answer=answer, created_ms=now
        )
        return answer, False


class NewOrderView(APIView):
    def post(self, request: Request) -> Response:
        serializer = NewOrderSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            answer, replayed = submit(
                serializer.validated_data, request.headers.get("Idempotency-Key", "")
            )
        except IntegrityError:
            return Response({"error": "The conditional request failed"}, status=400)
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        return Response({"statusCode": 201, "body": {"message": answer}}, 201, headers=headers)


class UserOrdersView(APIView):
    def post(self, request: Request) -> Response:
        serializer = UserOrdersSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        rows = Order.objects.filter(**serializer.validated_data).order_by("-created_ms")[:5]
        orders = UserOrderSerializer(rows, many=True).data
        message = {"message": "Orders retrieved successfully"}
        return Response({"statusCode": 200, "orders": orders, "body": message})


urlpatterns = [
    path("new-order", NewOrderView.as_view()),
    path("user-orders", UserOrdersView.as_view()),
]
application = get_wsgi_application()
