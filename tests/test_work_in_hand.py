"""Work that a worker has in hand: finished before it leaves, delivered once, and holding no place while it waits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.domain.ids import partition_of
from engine.streams import keys
from support.bank_harness import Bank, fresh_cards
from support.crash_stage import effects
from support.gateway import Gateway, a_gateway, a_payment, eventually

pytest_plugins = ["support.bank_fixtures"]

BANK_MS = 1000


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    """No worker yet."""
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


def test_a_worker_that_is_told_to_stop_waits_for_what_is_at_the_bank(gateway: Gateway, bank: Bank) -> None:
    cards = [next(fresh_cards) for _ in range(5)]
    for card in cards:
        bank.fault("latency", card_number=card, latency_ms=BANK_MS)
    worker = gateway.start("worker", PENSTOCK_ATTEMPT_TIMEOUT_MS="8000")
    for card in cards:
        assert gateway.pay(card).status_code == 202
    at_the_bank = "SELECT count(*) FROM operations WHERE status = 'sent'"
    eventually(lambda: gateway.sql(at_the_bank) == [(len(cards),)], "all are at the bank")

    code = worker.end()

    assert code == 0
    assert gateway.sql("SELECT status, attempts FROM operations") == [("succeeded", 1)] * len(cards)
    assert gateway.sql("SELECT event FROM transitions WHERE event NOT IN ('created', 'authorized')") == []
    assert gateway.backlog() == 0
    assert [effects(bank, card) for card in cards] == [["AUTH_HOLD"]] * len(cards)


def test_an_entry_in_hand_is_delivered_once_however_long_the_bank_takes(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("latency", card_number=card, latency_ms=6000)
    gateway.start("worker", PENSTOCK_ATTEMPT_TIMEOUT_MS="15000")
    payment = gateway.pay(card).json()["id"]
    stream = keys.commands(partition_of(payment, 16))

    def idle_ms() -> int:
        """Since its last delivery: each starts anew."""
        if not gateway.redis.exists(stream) or not gateway.redis.xinfo_groups(stream):
            return 0  # nobody has read yet
        pending = gateway.redis.xpending_range(stream, keys.GROUP, "-", "+", 1)
        return int(pending[0]["time_since_delivered"]) if pending else 0  # type: ignore[index]

    # Two rounds of the reclaimer, which takes what has been idle for one.
    eventually(lambda: idle_ms() > 4500, "it has been in hand for two rounds", 8)
    (pending,) = gateway.redis.xpending_range(stream, keys.GROUP, "-", "+", 1)  # type: ignore[misc]
    gateway.settled()

    assert pending["times_delivered"] == 1
    assert effects(bank, card) == ["AUTH_HOLD"]


def test_who_waits_to_ask_again_holds_no_place_at_the_bank(gateway: Gateway, bank: Bank) -> None:
    failing = [next(fresh_cards) for _ in range(3)]
    for card in failing:
        bank.fault("fail_before", card_number=card)
    # Each waits for a draw below ten minutes.
    gateway.start(
        "worker",
        PENSTOCK_BANK_CONNECTIONS="3",
        PENSTOCK_ATTEMPTS_IN_HAND="100",
        PENSTOCK_RETRY_BASE_MS="600000",
        PENSTOCK_RETRY_CAP_MS="3600000",
    )
    for card in failing:
        assert gateway.pay(card).status_code == 202
    eventually(lambda: gateway.sql("SELECT count(*) FROM operations WHERE attempts > 0") == [(3,)], "all were tried")

    headers = {"X-API-Key": "sk_local_other", "Idempotency-Key": "other", "Prefer": "wait=10"}
    others = gateway.request("POST", "/v1/payments", json=a_payment(next(fresh_cards)), headers=headers)

    assert others.status_code == 201
    assert gateway.unsettled() == len(failing), "and the others wait still"


def test_an_entry_in_the_stream_of_another_partition_is_given_up_and_never_worked_on(gateway: Gateway) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card).json()["id"]
    right = partition_of(payment, 16)
    wrong = (right + 1) % 16
    ((entry, fields),) = gateway.redis.xrange(keys.commands(right))  # type: ignore[misc]
    gateway.redis.xdel(keys.commands(right), entry)
    gateway.redis.xadd(keys.commands(wrong), fields)

    gateway.start("worker")
    letters = eventually(gateway.dead, "it is a dead letter")

    assert [letter[b"payment"].decode() for letter in letters] == [payment]
    assert gateway.redis.xlen(keys.dead(wrong)) == 1
    for table in ("payments", "operations"):
        assert gateway.sql(f"SELECT 1 FROM {table}") == []


def test_what_the_ledger_alone_remembers_is_finished_by_the_next_owner(gateway: Gateway, bank: Bank) -> None:
    cards = [next(fresh_cards) for _ in range(3)]
    for card in cards:
        bank.fault("latency", card_number=card, latency_ms=1000, times=1)
    killed = gateway.start("worker")
    payments = [gateway.pay(card).json()["id"] for card in cards]
    at_the_bank = "SELECT count(*) FROM operations WHERE status = 'sent'"
    eventually(lambda: gateway.sql(at_the_bank) == [(len(cards),)], "all are at the bank")
    killed.send(signal.SIGKILL)
    gateway.redis.flushall()

    gateway.start("worker")
    with ThreadPoolExecutor(len(payments)) as pool:
        ends = list(pool.map(lambda one: eventually(lambda: _ended(gateway, one), "it has ended", 20), payments))

    assert ends == ["authorized"] * len(cards)
    assert [effects(bank, card) for card in cards] == [["AUTH_HOLD"]] * len(cards)


def _ended(gateway: Gateway, payment: str) -> str | None:
    ((state, unsettled),) = gateway.sql(
        "SELECT state, (SELECT count(*) FROM operations WHERE settled_at IS NULL) FROM payments WHERE id = %s", payment
    )
    return None if unsettled else str(state)
