"""`till demo`: loads samples and plays the five documents against the running stack.

It may be played again: what exists is found, keyed requests give their first answer, and the one
order that is submitted without a key is refused as its document says.
"""

import json
import sys
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.json import JSON

from server import development
from server.config import Config

OPTION = "1e0bd91f-989a-45e7-8e1c-4fe2d4231ae5"
PRODUCT = "6ecf4685-ca60-4a7d-843c-479329ca8789"


class Step(NamedTuple):
    """One request, what it shows, and the statuses that are right."""

    title: str
    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] | None = None
    channel: bool = False
    right: tuple[int, ...] = (200,)


SAMPLES = [
    Step("A store", "POST", "/v1/stores", {"storeId": "loja01", "displayName": "Loja 01"}),
    Step("its depot", "POST", "/v1/stores/loja01/depots", {"storageName": "CD-01"}),
    Step(
        "A product with one option",
        "POST",
        "/v1/products",
        {
            "productCode": PRODUCT,
            "productId": 16,
            "displayName": "Day ticket",
            "options": [{"optionCode": OPTION, "optionId": 15, "sku": "DAY-TICKET"}],
        },
    ),
    Step(
        "and its stock on two days",
        "POST",
        "/v1/inventory:batchSet",
        {
            "rows": [
                {"option_code": OPTION, "date": "2023-03-01", "max_quantity": 25},
                {"option_code": OPTION, "date": "2023-03-08", "max_quantity": 25},
            ]
        },
    ),
]

DOCUMENTS = [
    Step(
        "1. Draft items: accepted, durable, applied once",
        "POST",
        "/store-checkout-draft-items-post-one",
        {
            "checkout_draft_item_id": "checkout-draft-item-1001-0001",
            "checkout_draft_id": "checkout-draft-1001-0001",
            "entity_number": "1001",
            "line_number": "1",
            "product_number": "PRO-1001-0001",
            "sku": "PH-SPECIA-10010001",
            "product_name": "Pandan Coconut Sea Salt Latte",
            "quantity": "15",
            "unit_price": "158",
            "line_total": "1896",
            "is_active": "true",
            "is_deleted": "false",
            "deleted_at": "",
            "created_at": "2026-05-04T09:07:00+08:00",
            "updated_at": "2026-05-04T09:07:00+08:00",
            "idempotency_key": "76111726-ce63-5ea0-9901-91c4dd6e357f",
            "schema_version": "1001",
            "version": "1001",
        },
        right=(202,),
    ),
    Step(
        "2. Orders: ten day tickets, with an idempotency key",
        "POST",
        "/orders",
        {
            "requesterId": 1001,
            "userId": 42,
            "facilityId": 7,
            "shippingAddressId": 301,
            "billingAddressId": 302,
            "shippingMethod": "GROUND",
            "notes": "Leave at the door",
            "quoteItems": [
                {"optionCode": OPTION, "date": "2023-03-01", "quantity": 10, "price": 19.9}
            ],
        },
        {"idempotency-key": "6f1c2a9e-3d0b-4c8e-9a57-2b1f0e4d7c31"},
    ),
    Step("3. and read again", "GET", "/orders/{orderId}"),
    Step(
        "4. Simple orders: the store's own number, taken once",
        "POST",
        "/new-order",
        {"store_id": "store01", "order_id": "order01", "user_id": "user01", "grand_total": 110.00},
        right=(201, 400),
    ),
    Step(
        "5. and the user's last five",
        "POST",
        "/user-orders",
        {"user_id": "user01", "store_id": "store01"},
    ),
    Step(
        "6. Packing checkout: order, wave, storing and checkout in one",
        "POST",
        "/checkout",
        {
            "store": "loja01",
            "orderNumber": "1001",
            "externalNumber": "CK-1001",
            "items": [
                {"orderItemId": "1", "itemNumber": "1", "storageName": "CD-01"},
                {
                    "orderItemId": "2",
                    "itemNumber": "2",
                    "storageName": "CD-01",
                    "quantity": 2,
                    "type": "expresso",
                },
            ],
        },
    ),
    Step(
        "7. Channel inventory: ten of them are ordered",
        "GET",
        f"/v1/channel/inventory/day-ticket/{PRODUCT}",
        channel=True,
    ),
]


def main(config: Config) -> None:
    """Plays every step and exits with 1 at the first answer that is not right."""
    console = Console(highlight=False)
    known: dict[str, Any] = {"orderId": 0, **development.credentials(config, [*development.SCOPES])}
    with httpx.Client(base_url=f"http://{config.rest_address}", timeout=10) as client:
        for step in [*SAMPLES, *DOCUMENTS]:
            answer = _play(client, step, known)
            _show(console, step, answer)
            if answer.status_code not in step.right:
                sys.exit(f"{step.path} answered {answer.status_code}, not {step.right}")
            known |= answer.json()


def _play(client: httpx.Client, step: Step, known: dict[str, Any]) -> httpx.Response:
    path = step.path.replace("{orderId}", str(known["orderId"]))
    try:
        headers = {**_credentials(step, known), **(step.headers or {})}
        return client.request(step.method, path, json=step.body, headers=headers)
    except httpx.TransportError as error:
        sys.exit(f"no answer from {client.base_url}: {error}; is `make run` running?")


def _credentials(step: Step, known: dict[str, Any]) -> dict[str, str]:
    if step.channel:
        code = known["channel_code"]
        return {"authorization": f"Token {known['channel_token']}", "channel": f"Code {code}"}
    return {"authorization": f"Bearer {known['token']}", "x-api-key": known["api_key"]}


def _show(console: Console, step: Step, answer: httpx.Response) -> None:
    """Prints a request and its answer: readable at a terminal, one JSON line for a machine."""
    if not console.is_terminal:
        told = {
            "title": step.title,
            "method": step.method,
            "path": answer.request.url.path,
            "request": step.body,
            "status": answer.status_code,
            "answer": answer.json(),
        }
        print(json.dumps(told, ensure_ascii=False))
        return
    console.rule(f"[bold]{step.title}", align="left")
    console.print(f"[cyan]{step.method} {answer.request.url.path}")
    if step.body is not None:
        console.print(JSON.from_data(step.body, ensure_ascii=False))
    console.print(
        f"[green]{answer.status_code}" if answer.is_success else f"[yellow]{answer.status_code}"
    )
    console.print(JSON(answer.text, ensure_ascii=False))
