"""A part of the amount is refused before anything is accepted: nobody is captured or refunded more than was meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.bank_harness import Bank, fresh_cards
from support.crash_stage import effects
from support.gateway import Gateway, a_gateway

pytest_plugins = ["support.bank_fixtures"]

FULL = 5000


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{calm_bank.port}", folder) as running:
        yield running


@pytest.mark.parametrize("amount", [1, 1000, FULL - 1, FULL + 1])
@pytest.mark.parametrize("verb", ["capture", "refund"])
def test_another_amount_than_the_whole_is_refused_and_nothing_is_asked(
    gateway: Gateway, bank: Bank, verb: str, amount: int
) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, amount=FULL, capture=verb == "refund", wait=10).json()["id"]
    before = effects(bank, card)

    refused = gateway.post(f"/v1/payments/{payment}/{verb}", {"amount": amount}, key=f"part-{payment}", wait=5)
    gateway.settled()

    _assert_refused(refused)
    assert effects(bank, card) == before == ["AUTH_HOLD", *(["CAPTURE"] if verb == "refund" else [])]
    assert gateway.sql("SELECT 1 FROM operations WHERE key = %s", f"part-{payment}") == []


def test_a_part_is_refused_also_while_redis_alone_knows_the_payment(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0) as gateway:
        payment = gateway.pay(next(fresh_cards), amount=FULL).json()["id"]

        refused = gateway.post(f"/v1/payments/{payment}/capture", {"amount": FULL - 1})
        whole = gateway.post(f"/v1/payments/{payment}/capture", {"amount": FULL})
        backlog = gateway.backlog()

    _assert_refused(refused)
    assert (whole.status_code, backlog) == (202, 2)


def test_the_whole_amount_is_captured_and_refunded_when_it_is_named(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, amount=FULL, wait=10).json()["id"]

    captured = gateway.post(f"/v1/payments/{payment}/capture", {"amount": FULL}, wait=10)
    refunded = gateway.post(f"/v1/payments/{payment}/refund", {"amount": FULL}, wait=10)

    assert (captured.json()["amount_captured"], refunded.json()["amount_refunded"]) == (FULL, FULL)
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE", "REFUND"]


def _assert_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (422, "amount_not_supported"), answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/amount"]
