"""Goods leave only for money that is surely held: never on a doubt, never on a hold that is past its time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """What is unanswered once is parked for long; what has expired is not looked for."""
    folder, url = tmp_path_factory.mktemp("gateway"), f"http://127.0.0.1:{calm_bank.port}"
    environ = {
        "PENSTOCK_ATTEMPTS_IN_HAND": "1",
        "PENSTOCK_PARK_BASE_MS": "3600000",
        "PENSTOCK_PARK_CAP_MS": "3600000",
        "PENSTOCK_EXPIRY_GRACE_S": "86400",
    }
    with a_gateway(module_database, module_redis_url, url, folder, **environ) as running:
        yield running


def shippable(gateway: Gateway, payment: str) -> tuple[bool, str]:
    said = gateway.request("GET", f"/v1/payments/{payment}/shippable").json()
    return said["shippable"], said["reason"]


def shown(gateway: Gateway, payment: str) -> tuple[str, str]:
    receipt = gateway.get(payment)
    return receipt["status"], receipt["operation"]["status"]


def authorized(gateway: Gateway, card: str) -> str:
    payment = str(gateway.pay(card, wait=10).json()["id"])
    assert shippable(gateway, payment) == (True, "authorized"), "or nothing is tested here"
    return payment


@pytest.mark.parametrize("fault", ["drop_response", "fail_before"])
def test_nothing_ships_while_a_capture_is_in_doubt(gateway: Gateway, bank: Bank, fault: str) -> None:
    card = next(fresh_cards)
    payment = authorized(gateway, card)
    bank.fault(fault, card_number=card, operation="capture")

    gateway.post(f"/v1/payments/{payment}/capture")
    eventually(lambda: shown(gateway, payment) == ("authorized", "in_doubt"), "its capture is in doubt")

    assert shippable(gateway, payment) == (False, "in_doubt")


def test_nothing_ships_while_a_capture_needs_a_person(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = authorized(gateway, card)
    of_this_card = "account_id = (SELECT id FROM accounts WHERE account_number = %s)"
    bank.sql(f"UPDATE transactions SET type = 'VOID' WHERE {of_this_card}", card)  # a hold the bank denies to have

    gateway.post(f"/v1/payments/{payment}/capture")
    eventually(lambda: shown(gateway, payment) == ("authorized", "review"), "its capture is in review")

    assert shippable(gateway, payment) == (False, "in_doubt")


def test_nothing_ships_on_a_hold_that_is_past_its_time(gateway: Gateway) -> None:
    payment = authorized(gateway, next(fresh_cards))

    gateway.sql("UPDATE payments SET expires_at = now() - interval '1 second' WHERE id = %s", payment)

    assert gateway.get(payment)["status"] == "authorized", "or nothing is tested here"
    assert shippable(gateway, payment) == (False, "authorization_expired")


def test_what_is_captured_ships_though_its_hold_would_be_past_its_time(gateway: Gateway) -> None:
    payment = authorized(gateway, next(fresh_cards))
    gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    gateway.sql("UPDATE payments SET expires_at = now() - interval '1 second' WHERE id = %s", payment)

    assert shippable(gateway, payment) == (True, "captured")
