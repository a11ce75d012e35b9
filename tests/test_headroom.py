"""A backlog that is full of new payments still takes what belongs to old ones, up to a bound of its own (I10)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
import pytest

from engine.domain.ids import partition_of
from support.gateway import Gateway, a_gateway

CARD = "4111111111111111"
BACKLOG = 20  # so that the tenth more is two entries


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    environ = {
        "PENSTOCK_CONNECTOR": "instant",
        "PENSTOCK_BACKLOG_MAX": str(BACKLOG),
        "PENSTOCK_MERCHANT_BACKLOG_MAX": "1000",
        "PENSTOCK_MAILBOX_MAX": "3",
    }
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        yield running


def said(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


@pytest.mark.parametrize(
    ("limit", "refusal"),
    [
        ("PENSTOCK_BACKLOG_MAX", (503, "overloaded")),
        ("PENSTOCK_MERCHANT_BACKLOG_MAX", (429, "rate_limited")),
    ],
)
def test_a_full_backlog_keeps_new_payments_out_and_lets_captures_and_refunds_in(
    database: str, redis_url: str, tmp_path: Path, limit: str, refusal: tuple[int, str]
) -> None:
    environ = {"PENSTOCK_CONNECTOR": "instant", limit: str(BACKLOG)}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as gateway:
        worker = gateway.start("worker")
        held = gateway.pay(CARD, wait=10).json()["id"]
        same_partition = gateway.keys_in(partition_of(held, 16))
        sold = gateway.pay(CARD, key=next(same_partition), capture=True, wait=10).json()["id"]
        assert worker.end() == 0

        filling = [gateway.pay(CARD, key=key) for key in islice(same_partition, BACKLOG)]
        kept_out = gateway.pay(CARD, key=next(same_partition))
        let_in = [
            gateway.post(f"/v1/payments/{held}/capture"),
            gateway.post(f"/v1/payments/{sold}/refund"),
        ]
        beyond = gateway.post(f"/v1/payments/{held}/void")
        gateway.start("worker")
        gateway.settled()
        states = [gateway.get(held)["status"], gateway.get(sold)["status"]]

    assert {answer.status_code for answer in filling} == {202}
    assert said(kept_out) == said(beyond) == refusal
    assert [answer.status_code for answer in let_in] == [202, 202]
    assert states == ["captured", "refunded"]


def test_a_payment_takes_only_so_many_unanswered_operations(gateway: Gateway) -> None:
    payment = gateway.pay(CARD).json()["id"]
    path = f"/v1/payments/{payment}/capture"

    taken = [gateway.post(path, key=f"c-{number}") for number in range(2)]
    refused = gateway.post(path, key="c-2")
    repeated = gateway.post(path, key="c-1")
    backlog = gateway.backlog()
    gateway.start("worker")
    gateway.settled()
    afterwards = gateway.post(path, key="c-2", wait=10)

    assert [answer.status_code for answer in (*taken, repeated)] == [202, 202, 202]
    assert said(refused) == (429, "too_many_open_operations")
    assert "retry-after" in refused.headers
    assert backlog == 3, "and nothing of it was accepted"
    assert said(afterwards) == (409, "transition_not_allowed")
