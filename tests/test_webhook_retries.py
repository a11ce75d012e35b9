"""What a retry is: signed anew, made by whoever holds the claim, and nobody's business but its own URL's."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from support.gateway import Gateway, eventually
from support.webhook_stand import Ledger, Shop, a_shop, dispatchers

SEND_S = 0.5  # a claim may be sent so long: lease less time-out, of webhook_stand.HASTE


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with a_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def running(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with dispatchers(module_database, "redis://127.0.0.1:9", tmp_path_factory.mktemp("hooks")) as gateway:
        yield gateway


@pytest.fixture
def ledger(running: Gateway) -> Ledger:
    ledger = Ledger(dsn=running.database)
    ledger.forget_endpoints()
    return ledger


def test_a_retry_is_signed_with_its_own_time_however_old_the_event(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/old"), retry_schedule=[2])
    answers = iter([500, 200])
    shop.answers["/old"] = lambda event: next(answers)

    with psycopg.connect(ledger.dsn) as writer:
        payment = ledger.happen("payment.created", connection=writer)
        writer.execute("UPDATE outbox SET created_at = now() - interval '1 hour' WHERE payment = %s", [payment])
    eventually(lambda: ledger.delivery(payment, endpoint)["state"] == "delivered", "it is delivered", 15)

    first, second = (one for one in shop.of(payment) if one.path == "/old")
    for one in (first, second):
        assert endpoint.verify(one)["sequence"] == 1  # the library refuses what is five minutes old
    stamps = [int(one.headers["webhook-timestamp"]) for one in (first, second)]
    assert stamps[1] - stamps[0] >= 1, "each has its own time"


def test_a_url_that_wants_no_more_ends_its_own_delivery_and_no_other_urls(ledger: Ledger, shop: Shop) -> None:
    shop.answers["/orders/gone"] = lambda event: 410
    gone, other = (ledger.pay(webhook_url=shop.url(path)) for path in ("/orders/gone", "/orders/other"))

    ledger.happen("payment.created", payment=gone)
    refused = "SELECT dead_reason FROM deliveries WHERE payment = %s AND state = 'dead'"
    dead = eventually(lambda: ledger.sql(refused, gone), "it is given up")
    ledger.happen("payment.created", payment=other)
    eventually(lambda: "/orders/other" in [one.path for one in shop.of(other)], "the other URL gets its event")

    assert dead == [("endpoint_gone",)]
    assert ledger.sql("SELECT DISTINCT status FROM webhook_endpoints WHERE kind = 'payment_url'") == [("enabled",)]


def test_a_claim_that_came_too_late_to_be_sent_is_not_sent(running: Gateway, ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/slept"), retry_schedule=[1, 1])
    answers = iter([500, 200])
    shop.answers["/slept"] = lambda event: next(answers)
    payment = ledger.happen("payment.created")
    eventually(lambda: ledger.delivery(payment, endpoint).get("failures"), "it has failed once")

    hold_up_a_claim(ledger)
    eventually(lambda: ledger.delivery(payment, endpoint)["state"] == "delivered", "it is delivered", 15)

    assert ledger.delivery(payment, endpoint)["attempts"] == 3, "the second claim lapsed"
    assert [each["attempt"] for each in ledger.attempts(payment, endpoint)] == [1, 3]
    assert len(shop.ids("/slept")) == 2
    assert '"webhook_claim_lapsed"' in running.processes[0].log.read_text()


def hold_up_a_claim(ledger: Ledger) -> None:
    """The answer to the next claim comes when it may not be sent any more, as if its dispatcher had slept."""
    waiting = """SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                 AND query LIKE '%%claim_deliveries%%'"""
    with psycopg.connect(ledger.dsn) as holder:
        holder.execute("LOCK TABLE deliveries IN EXCLUSIVE MODE")
        eventually(lambda: ledger.sql(waiting), "a claim is under way")
        time.sleep(SEND_S)  # longer than this it may not be sent


def test_a_failure_told_by_who_lost_the_claim_changes_nothing(database: str, tmp_path: Any) -> None:
    ledger, come, go = Ledger(dsn=database), threading.Semaphore(0), threading.Event()

    def held(event: dict[str, Any]) -> int:
        come.release()
        go.wait(20)
        return 200

    with a_shop() as shop, dispatchers(database, "redis://127.0.0.1:9", tmp_path) as gateway:
        shop.answers["/held"] = held
        endpoint = ledger.register(shop.url("/held"), retry_schedule=[1, 1])
        payment = ledger.happen("payment.created")
        assert come.acquire(timeout=10), "the first attempt is at the shop"
        first = gateway.processes[0]
        first.send(signal.SIGSTOP)
        patient = {"PENSTOCK_WEBHOOK_TIMEOUT_MS": "20000", "PENSTOCK_WEBHOOK_LEASE_MS": "25000"}
        gateway.start("dispatcher", **patient)
        assert come.acquire(timeout=10), "the second attempt is at the shop"
        before = ledger.delivery(payment, endpoint)

        first.send(signal.SIGCONT)
        eventually(lambda: ledger.attempts(payment, endpoint), "the first says that it had no answer")
        after = ledger.delivery(payment, endpoint)
        go.set()
        eventually(lambda: ledger.delivery(payment, endpoint)["state"] == "delivered", "it is delivered")

    assert [each["outcome"] for each in ledger.attempts(payment, endpoint)] == ["timeout", "delivered"]
    assert (before["state"], before["attempts"], before["failures"]) == ("sending", 2, 0)
    assert after == before
    assert len(shop.ids("/held")) == 2
