"""Payments survive that workers come and go under load, counted in the bank's own tables."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from support.bank_harness import Bank, fresh_cards
from support.crash_stage import effects
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


def bank_url(bank: Bank) -> str:
    return f"http://127.0.0.1:{bank.port}"


def test_what_a_killed_worker_had_at_the_bank_is_asked_again_at_once_whatever_the_retry_budget(
    database: str, redis_url: str, bank: Bank, tmp_path: Path
) -> None:
    # Its silence is not the bank's: the budget, which here gives one repeat a second, is for banks that leave us alone.
    cards, budget = [next(fresh_cards) for _ in range(12)], {"RETRY_FLOOR_PER_S": "1", "RETRY_SHARE_PERCENT": "0"}
    for card in cards:
        bank.fault("latency", card_number=card, latency_ms=700, times=1)
    environ = {f"PENSTOCK_{name}": value for name, value in budget.items()}
    with a_gateway(database, redis_url, bank_url(bank), tmp_path, workers=0, **environ) as gateway:
        doomed = gateway.start("worker")
        payments = [gateway.pay(card).json()["id"] for card in cards]
        sent = "SELECT count(*) FROM operations WHERE status = 'sent'"
        eventually(lambda: gateway.sql(sent) == [(len(cards),)], "all are at the bank")
        doomed.kill()
        gateway.start("worker")

        eventually(lambda: gateway.unsettled() == 0, "all are answered", 6)  # of these, two until the attempts' end

        assert {gateway.get(payment)["operation"]["attempts"] for payment in payments} == {2}
        gateway.settled()
    assert [effects(bank, card) for card in cards] == [["AUTH_HOLD"]] * len(cards)


def test_five_hundred_payments_end_once_each_while_a_worker_is_killed(
    database: str, redis_url: str, bank: Bank, tmp_path: Path
) -> None:
    cards = [next(fresh_cards) for _ in range(20)]
    with a_gateway(database, redis_url, bank_url(bank), tmp_path, workers=4) as gateway:
        victim = gateway.processes[-1]
        halfway = threading.Barrier(2)

        def pay(number: int) -> tuple[str, int]:
            if number == 250:
                halfway.wait(30)
            answer = gateway.pay(cards[number % 20], key=f"load-{number}", amount=100 + number)
            return answer.json()["id"], answer.status_code

        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(pay, range(500))
            halfway.wait(30)
            victim.kill()
            gateway.start("worker")
            accepted = list(answers)

        assert {status for _, status in accepted} == {202}
        gateway.settled(60)
        ended = dict(gateway.sql("SELECT state, count(*) FROM payments GROUP BY state"))
        held = gateway.sql("SELECT authorization_id FROM payments")
    statement = """SELECT 'auth_' || t.id FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = ANY(%s)"""
    assert ended == {"authorized": 500}
    assert sorted(bank.sql(statement, cards)) == sorted(held)


def test_workers_share_evenly_and_rebalance_when_one_joins_and_leaves(
    database: str, redis_url: str, bank: Bank, tmp_path: Path
) -> None:
    def shares(gateway: Gateway) -> list[int]:
        return sorted(len(partitions) for partitions in gateway.owned().values())

    with a_gateway(database, redis_url, bank_url(bank), tmp_path, workers=1, PENSTOCK_LEASE_MS="2000") as gateway:
        eventually(lambda: shares(gateway) == [16], "one worker owns all")
        second = gateway.start("worker")
        eventually(lambda: shares(gateway) == [8, 8], "two share")
        gateway.start("worker")
        eventually(lambda: shares(gateway) == [5, 5, 6], "three share")
        code = second.end()
        eventually(lambda: shares(gateway) == [8, 8], "two share again")

        assert code == 0
        assert gateway.pay(next(fresh_cards), key=uuid4().hex, wait=10).status_code == 201
