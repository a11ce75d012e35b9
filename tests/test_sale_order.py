"""A sale is one piece of work to its merchant: what was accepted after it waits until its capture is answered (I3)."""

from __future__ import annotations

from pathlib import Path

from support.bank_harness import Bank, fresh_cards
from support.gateway import a_gateway

pytest_plugins = ["support.bank_fixtures"]

MORE_THAN_IN_HAND = 6


def test_a_void_behind_a_sale_is_not_sent_while_the_sale_s_capture_is_in_doubt(
    database: str, redis_url: str, bank: Bank, tmp_path: Path
) -> None:
    card = next(fresh_cards)
    bank.fault("fail_before", operation="capture", card_number=card, times=MORE_THAN_IN_HAND)
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as gateway:
        payment = gateway.pay(card, capture=True).json()["id"]
        gateway.post(f"/v1/payments/{payment}/void", key="behind")

        gateway.start("worker")  # finds both in the stream
        gateway.settled()

        void = gateway.post(f"/v1/payments/{payment}/void", key="behind", wait=10)
        assert gateway.get(payment)["status"] == "captured"
        assert (void.status_code, void.json()["payment_status"]) == (409, "captured")
    done = "SELECT t.type FROM transactions t JOIN accounts a ON a.id = t.account_id WHERE a.account_number = %s"
    assert sorted(row[0] for row in bank.sql(done, card)) == ["AUTH_HOLD", "CAPTURE"]
