"""A key stands for one payload, every field of it, whoever remembers it: Redis alone, its answer, or the ledger (I6).

The CVV is no field of it: nothing that was made of it is kept anywhere (I9).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from engine.domain.ids import partition_of
from engine.streams import keys
from support.gateway import Gateway, a_gateway, a_payment

CARD, OTHER_CARD = "4111111111111111", "4242424242424242"
FIRST: dict[str, Any] = {
    "amount": 5000,
    "order_id": "order-1",
    "customer_id": "customer-1",
    "description": "a book",
    "metadata": {"shelf": "3"},
    "webhook_url": "http://127.0.0.1:9/first",
}
METHOD: dict[str, Any] = {"type": "card", "number": CARD, "cvv": "123", "expiry_month": 12, "expiry_year": 2030}
# Field by field, as the client is told where: another value, and the field left out where it may be.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("/amount", {"amount": 5001}),
    ("/order_id", {"order_id": "order-2"}),
    ("/customer_id", {"customer_id": "customer-2"}),
    ("/description", {"description": "two books"}),
    ("/description", {"description": None}),
    ("/metadata", {"metadata": {"shelf": "4"}}),
    ("/metadata", {"metadata": {}}),
    ("/webhook_url", {"webhook_url": "http://127.0.0.1:9/second"}),
    ("/webhook_url", {"webhook_url": None}),
    ("/capture", {"capture": True}),
    ("/payment_method/number", {"payment_method": {**METHOD, "number": OTHER_CARD}}),
    ("/payment_method/expiry_month", {"payment_method": {**METHOD, "expiry_month": 11}}),
    ("/payment_method/expiry_year", {"payment_method": {**METHOD, "expiry_year": 2031}}),
]
OTHER_CVV = {"payment_method": {**METHOD, "cvv": "124"}}
COVERED = {
    "amount", "currency", "order_id", "customer_id", "description", "metadata", "webhook_url",
    "payment_method/number", "payment_method/expiry_month", "payment_method/expiry_year",
}  # fmt: skip
ENVIRON = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8"}


EVERY_REFUSAL = [(pointer, 422, "idempotency_key_reused", [pointer]) for pointer, _ in CHANGES]


@pytest.fixture(scope="module")
def gateway(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """No worker: each test says when there is one."""
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, "http://127.0.0.1:1", folder, workers=0, **ENVIRON) as running:
        yield running


def test_a_key_that_redis_alone_knows_refuses_each_other_field(gateway: Gateway) -> None:
    accepted = pay(gateway, "accepted")

    refused = [refusal(pointer, pay(gateway, "accepted", **changes)) for pointer, changes in CHANGES]
    again = [pay(gateway, "accepted"), pay(gateway, "accepted", **OTHER_CVV)]

    assert gateway.sql("SELECT 1 FROM operations WHERE key = 'accepted'") == [], "or nothing is tested here"
    assert refused == EVERY_REFUSAL
    assert [(answer.status_code, answer.content) for answer in again] == [(202, accepted.content)] * 2
    assert gateway.backlog() == 1


def test_a_key_whose_answer_is_in_redis_refuses_each_other_field(gateway: Gateway) -> None:
    first = answered(gateway, "answered")

    refused = [refusal(pointer, pay(gateway, "answered", **changes)) for pointer, changes in CHANGES]
    again = [pay(gateway, "answered"), pay(gateway, "answered", **OTHER_CVV)]

    assert refused == EVERY_REFUSAL
    assert [(answer.status_code, answer.content) for answer in again] == [(201, first.content)] * 2


def test_a_key_that_the_ledger_alone_knows_refuses_each_other_field(gateway: Gateway) -> None:
    first = answered(gateway, "lasting")

    refused = [refusal(pointer, pay_after_a_flush(gateway, "lasting", **changes)) for pointer, changes in CHANGES]
    again = [pay_after_a_flush(gateway, "lasting"), pay_after_a_flush(gateway, "lasting", **OTHER_CVV)]

    assert refused == EVERY_REFUSAL
    assert [(answer.status_code, answer.content) for answer in again] == [(201, first.content)] * 2


def test_a_sale_is_not_taken_for_the_authorization_under_its_key(gateway: Gateway) -> None:
    answered(gateway, "sale", capture=True)

    assert refusal("/capture", pay(gateway, "sale")) == ("/capture", 422, "idempotency_key_reused", ["/capture"])


def test_fingerprints_cover_these_fields_and_no_cvv(gateway: Gateway) -> None:
    payment = answered(gateway, "covered").json()["id"]
    operation = pay(gateway, "covered", wait=1).json()["operation"]["id"]

    record = orjson.loads(gateway.redis.get(keys.record(partition_of(payment, 16), operation)) or b"")
    ((stored,),) = gateway.sql("SELECT fingerprint FROM operations WHERE id = %s", operation)

    assert set(stored) == set(record["fingerprint"]) == COVERED
    assert stored == record["fingerprint"]


def test_a_key_of_long_ago_is_answered_while_the_backlog_is_full(database: str, redis_url: str, tmp_path: Path) -> None:
    environ = {**ENVIRON, "PENSTOCK_BACKLOG_MAX": "1"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as gateway:
        first = answered(gateway, "old")
        gateway.redis.flushall()
        same_partition = gateway.keys_in(partition_of(first.json()["id"], 16))
        filling, refused = pay(gateway, next(same_partition)), pay(gateway, next(same_partition))

        again, other = pay(gateway, "old"), pay(gateway, "old", amount=1)

    assert filling.status_code == 202
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded"), "or nothing is tested here"
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def pay(gateway: Gateway, key: str, wait: int = 0, **changes: Any) -> httpx.Response:
    body = {name: value for name, value in a_payment(CARD, **{**FIRST, **changes}).items() if value is not None}
    return gateway.post("/v1/payments", body, key=key, wait=wait)


def pay_after_a_flush(gateway: Gateway, key: str, **changes: Any) -> httpx.Response:
    """The same, of a Redis that has just lost everything."""
    gateway.redis.flushall()
    return pay(gateway, key, **changes)


def answered(gateway: Gateway, key: str, **changes: Any) -> httpx.Response:
    """The first answer to a key, by a worker that is gone again."""
    worker = gateway.start("worker")
    first = pay(gateway, key, wait=10, **changes)
    assert first.status_code == 201, first.text
    assert worker.end() == 0
    return first


def refusal(pointer: str, answer: httpx.Response) -> tuple[str, int, str, list[str]]:
    """Beside the field that was changed, what was said about it."""
    said = answer.json()
    return pointer, answer.status_code, said.get("code"), [error["pointer"] for error in said.get("errors", [])]
