"""One payment, end to end: HTTP, streams, actors, ledger and the bank's own tables, all real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{calm_bank.port}", folder) as running:
        yield running


def effects(bank: Bank, card: str) -> list[str]:
    """What the bank did on a card, in order."""
    statement = """SELECT t.type FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.created_at"""
    return [row[0] for row in bank.sql(statement, card)]


def at_once(count: int, call: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_a_payment_is_accepted_then_authorized_captured_and_refunded(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)

    accepted = gateway.pay(card)
    payment = accepted.json()["id"]
    authorized = eventually(lambda: _in_state(gateway, payment, "authorized"), "it is authorized")
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)
    refunded = gateway.post(f"/v1/payments/{payment}/refund", wait=10)

    assert (accepted.status_code, accepted.json()["status"]) == (202, "pending")
    assert authorized["bank"]["authorization_id"].startswith("auth_")
    assert (captured.status_code, captured.json()["status"], captured.json()["amount_captured"]) == (
        200,
        "captured",
        5000,
    )
    assert (refunded.status_code, refunded.json()["status"], refunded.json()["sequence"]) == (200, "refunded", 4)
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE", "REFUND"]
    gateway.settled()


def test_a_void_releases_the_hold_and_closes_the_payment(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    before = bank.balances(card)

    payment = gateway.pay(card, wait=10).json()["id"]
    voided = gateway.post(f"/v1/payments/{payment}/void", wait=10)
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    assert (voided.status_code, voided.json()["status"]) == (200, "voided")
    assert (captured.status_code, captured.json()["code"]) == (409, "transition_not_allowed")
    assert captured.json()["winning_operation"] == voided.json()["operation"]["id"]
    assert effects(bank, card) == ["AUTH_HOLD", "VOID"]
    assert bank.balances(card) == before


def test_a_sale_is_two_operations_and_one_answer(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)

    sale = gateway.pay(card, capture=True, key="sale-1", wait=10)
    replay = gateway.pay(card, capture=True, key="sale-1")

    assert (sale.status_code, sale.json()["status"]) == (201, "captured")
    assert replay.content == sale.content
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE"]


def test_a_sale_whose_capture_is_refused_is_released_and_answered_as_failed(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    before = bank.balances(card)
    bank.fault("clock_offset", card_number=card, operation="capture", clock_offset_s=8 * 86_400)

    sale = gateway.pay(card, capture=True, wait=10)

    assert (sale.status_code, sale.json()["code"]) == (402, "payment_failed")
    assert gateway.get(sale.json()["payment_id"])["status"] == "failed"
    assert effects(bank, card) == ["AUTH_HOLD", "VOID"]
    assert bank.balances(card) == before


@pytest.mark.parametrize(
    ("card", "cvv", "amount", "decline_code"),
    [
        ("4111111111111111", "999", 5000, "invalid_cvv"),
        ("4012888888881881", "123", 5000, "invalid_card"),
        ("5105105105105100", "321", 5000, "card_expired"),
        ("5555555555554444", "789", 5000, "insufficient_funds"),
        ("4242424242424242", "456", 50_001, "insufficient_funds"),
    ],
)
def test_a_decline_is_402_with_its_reason_and_stays_so(
    gateway: Gateway, card: str, cvv: str, amount: int, decline_code: str
) -> None:
    method = {"type": "card", "number": card, "cvv": cvv, "expiry_month": 12, "expiry_year": 2030}

    declined = gateway.pay(card, amount=amount, payment_method=method, key=f"declined-{decline_code}-{amount}", wait=10)
    replay = gateway.pay(card, amount=amount, payment_method=method, key=f"declined-{decline_code}-{amount}", wait=10)

    assert (declined.status_code, declined.json()["decline_code"]) == (402, decline_code)
    assert (replay.status_code, replay.content) == (402, declined.content)
    assert replay.headers["idempotent-replayed"] == "true"
    assert gateway.get(declined.json()["payment_id"])["failure"]["decline_code"] == decline_code


def test_a_key_replays_the_same_bytes_also_after_redis_was_flushed(gateway: Gateway) -> None:
    card = next(fresh_cards)
    first = gateway.pay(card, key="replayed-1", wait=10)
    payment = first.json()["id"]
    gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    replay = gateway.pay(card, key="replayed-1")
    reused = gateway.pay(card, key="replayed-1", amount=6000)
    gateway.redis.flushall()
    replay_after = gateway.pay(card, key="replayed-1")
    gateway.redis.flushall()
    reused_after = gateway.pay(card, key="replayed-1", amount=6000)

    assert (first.status_code, first.json()["status"]) == (201, "authorized")
    assert "idempotent-replayed" not in first.headers
    for again in (replay, replay_after):
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    for refused in (reused, reused_after):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
        assert [error["pointer"] for error in refused.json()["errors"]] == ["/amount"]
    gateway.settled()


def test_fifty_identical_requests_make_one_payment_and_one_hold(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)

    answers = at_once(50, lambda _: gateway.pay(card, key="double-click", wait=10))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert effects(bank, card) == ["AUTH_HOLD"]


def test_of_ten_captures_and_ten_voids_exactly_one_wins(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, wait=10).json()["id"]

    def race(number: int) -> httpx.Response:
        verb = "capture" if number % 2 else "void"
        return gateway.post(f"/v1/payments/{payment}/{verb}", key=f"race-{number}", wait=20)

    answers = at_once(20, race)
    replays = at_once(20, race)

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert [answer.content for answer in replays] == [answer.content for answer in answers]
    assert len(effects(bank, card)) == 2


def test_a_capture_sent_right_after_the_202_works(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("latency", card_number=card, operation="authorize", latency_ms=300)

    payment = gateway.pay(card).json()["id"]
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE"]


def test_another_merchants_payment_is_not_found(gateway: Gateway) -> None:
    payment = gateway.pay(next(fresh_cards), wait=10).json()["id"]
    stranger = {"X-API-Key": "sk_local_other", "Idempotency-Key": "x"}

    answers = [
        gateway.request("GET", f"/v1/payments/{payment}", headers=stranger),
        gateway.request("GET", f"/v1/payments/{payment}/shippable", headers=stranger),
        gateway.request("POST", f"/v1/payments/{payment}/capture", headers=stranger),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


def test_lists_are_newest_first_and_paged(gateway: Gateway) -> None:
    card = next(fresh_cards)
    ids = [gateway.pay(card, order_id="order-7", customer_id="anna", wait=10).json()["id"] for _ in range(5)]

    first = gateway.request("GET", "/v1/payments?customer_id=anna&limit=2").json()
    second = gateway.request("GET", f"/v1/payments?customer_id=anna&limit=2&cursor={first['next_cursor']}").json()
    last = gateway.request("GET", f"/v1/payments?customer_id=anna&limit=2&cursor={second['next_cursor']}").json()
    by_order = gateway.request("GET", "/v1/payments?order_id=order-7").json()

    pages = [payment["id"] for page in (first, second, last) for payment in page["data"]]
    assert pages == ids[::-1]
    assert [first["has_more"], second["has_more"], last["has_more"]] == [True, True, False]
    assert [payment["id"] for payment in by_order["data"]] == ids[::-1]


def test_shippable_follows_what_is_accepted(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, wait=10).json()["id"]

    def shippable() -> tuple[bool, str]:
        answer = gateway.request("GET", f"/v1/payments/{payment}/shippable").json()
        return answer["shippable"], answer["reason"]

    authorized = shippable()
    bank.fault("latency", card_number=card, operation="void", latency_ms=500)
    gateway.post(f"/v1/payments/{payment}/void")
    leaving = shippable()
    eventually(lambda: _in_state(gateway, payment, "voided"), "it is voided")

    assert authorized == (True, "authorized")
    assert leaving == (False, "void_accepted")
    assert shippable() == (False, "voided")


def test_after_a_drain_redis_holds_nothing_but_its_streams(
    database: str, redis_url: str, bank: Bank, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{bank.port}"
    with a_gateway(database, redis_url, url, tmp_path, PENSTOCK_RECORD_TTL_S="1") as gateway:
        for answer in at_once(20, lambda _: gateway.pay(next(fresh_cards), wait=10)):
            assert answer.status_code == 201
        gateway.settled()

        eventually(lambda: not gateway.redis.keys("*idem*") and not gateway.redis.keys("*open*"), "records expired", 5)
        pending = [gateway.redis.xpending(key, "engine")["pending"] for key in gateway.redis.keys("*commands")]  # type: ignore[index, union-attr]

    assert sum(pending) == 0


def _in_state(gateway: Gateway, payment: str, state: str) -> dict[str, Any] | None:
    found = gateway.get(payment)
    return found if found.get("status") == state else None
