"""An expiry survives clocks that disagree and workers that die: one release at the bank, and the bank's word wins."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually
from test_expiry import DAY_S, HOLD_S, authorized, effects, events, with_status

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    """With the usual five minutes of grace; no worker yet."""
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


def test_the_bank_s_word_wins_over_our_clock(gateway: Gateway, bank: Bank) -> None:
    gateway.start("worker")
    early, late = next(fresh_cards), next(fresh_cards)
    expired_here = authorized(gateway, bank, early, expires_in_s=-60)
    expired_there = authorized(gateway, bank, late, expires_in_s=60)
    bank.fault("clock_offset", operation="capture", card_number=early, clock_offset_s=-DAY_S)
    bank.fault("clock_offset", operation="capture", card_number=late, clock_offset_s=DAY_S)

    captured = gateway.post(f"/v1/payments/{expired_here}/capture", wait=10)
    refused = gateway.post(f"/v1/payments/{expired_there}/capture", wait=10)
    gateway.settled()

    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert (refused.status_code, refused.json()["code"]) == (409, "authorization_expired")
    assert gateway.get(expired_there)["status"] == "expired"
    assert effects(bank, late) == ["AUTH_HOLD", "VOID"], "its hold is given back at once"
    assert events(gateway, expired_there) == ["created", "authorized", "expired", "released"]


@pytest.mark.parametrize("point", ["before-intent", "after-intent", "after-bank", "after-outcome"])
def test_a_worker_that_dies_while_it_expires_leaves_one_release(gateway: Gateway, bank: Bank, point: str) -> None:
    card = next(fresh_cards)
    bank.fault("clock_offset", operation="authorize", card_number=card, clock_offset_s=-HOLD_S - 1)
    doomed = gateway.start("worker", PENSTOCK_EXPIRY_GRACE_S="0", PENSTOCK_FAILPOINTS=f"{point}:kill@2")

    payment = gateway.pay(card).json()["id"]
    assert doomed.died() == -signal.SIGKILL
    gateway.start("worker", PENSTOCK_EXPIRY_GRACE_S="0")
    eventually(lambda: with_status(gateway, payment, "expired"), "it is expired", 15)
    gateway.settled()

    assert effects(bank, card) == ["AUTH_HOLD", "VOID"]
    assert events(gateway, payment) == ["created", "authorized", "expired"]
