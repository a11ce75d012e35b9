"""Ordered endpoints: per payment, no event before the one before it was acknowledged or given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support.gateway import Gateway, eventually
from support.webhook_stand import Ledger, Shop, a_shop, dispatchers

TYPES = ("payment.created", "payment.authorized", "payment.captured", "payment.refunded")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with a_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def running(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with dispatchers(module_database, "redis://127.0.0.1:9", tmp_path_factory.mktemp("order"), number=2) as gateway:
        yield gateway


@pytest.fixture
def ledger(running: Gateway) -> Ledger:
    ledger = Ledger(dsn=running.database)
    ledger.forget_endpoints()
    return ledger


def told(shop: Shop, payment: str, path: str) -> list[tuple[int, int]]:
    """Sequence and answer of each request for this payment, as they came."""
    return [(one.event["sequence"], one.answered) for one in shop.of(payment) if one.path == path]


def test_the_next_event_waits_until_the_one_before_is_acknowledged(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/ordered"), ordered=True, retry_schedule=[1, 1])
    answers = {1: iter([200]), 2: iter([500, 503, 200]), 3: iter([200]), 4: iter([200])}
    shop.answers["/ordered"] = lambda event: next(answers[event["sequence"]])

    payment = ledger.happen(*TYPES)
    eventually(lambda: ledger.delivery(payment, endpoint, 4)["state"] == "delivered", "all arrive", 15)

    assert told(shop, payment, "/ordered") == [(1, 200), (2, 500), (2, 503), (2, 200), (3, 200), (4, 200)]


def test_the_next_event_goes_on_when_the_one_before_is_given_up(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/given-up"), ordered=True, retry_schedule=[1])
    shop.answers["/given-up"] = lambda event: 500 if event["sequence"] == 1 else 200

    payment = ledger.happen("payment.created", "payment.authorized")
    eventually(lambda: ledger.delivery(payment, endpoint, 2)["state"] == "delivered", "the second arrives", 15)

    assert told(shop, payment, "/given-up") == [(1, 500), (1, 500), (2, 200)]
    assert ledger.delivery(payment, endpoint, 1)["dead_reason"] == "exhausted"


def test_a_payment_that_waits_holds_up_no_other(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/parallel"), ordered=True, retry_schedule=[3600])
    stuck: set[str] = set()
    shop.answers["/parallel"] = lambda event: 500 if event["data"]["id"] in stuck or not stuck else 200
    first = ledger.happen(*TYPES)
    eventually(lambda: ledger.delivery(first, endpoint, 1).get("failures"), "the first has failed")
    stuck.add(first)

    others = [ledger.happen(*TYPES) for _ in range(5)]
    eventually(lambda: all(len(told(shop, other, "/parallel")) == 4 for other in others), "the others go on")

    assert told(shop, first, "/parallel") == [(1, 500)]
    assert all([sequence for sequence, _ in told(shop, other, "/parallel")] == [1, 2, 3, 4] for other in others)


def test_an_event_is_not_sent_while_the_one_before_is_under_way(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/slow"), ordered=True)
    gate = threading.Event()
    shop.answers["/slow"] = lambda event: 200 if event["sequence"] > 1 or gate.wait(5) else 500

    payment = ledger.happen("payment.created", "payment.authorized")
    eventually(lambda: ledger.delivery(payment, endpoint, 1)["state"] == "sending", "the first is under way")
    looked = ledger.delivery(payment, endpoint, 2)
    gate.set()
    eventually(lambda: ledger.delivery(payment, endpoint, 2)["state"] == "delivered", "both arrive")

    assert looked["state"] == "pending"
    assert looked["attempts"] == 0
    assert [sequence for sequence, _ in told(shop, payment, "/slow")][-1] == 2


def test_an_endpoint_without_order_is_told_what_it_can_be_told(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/unordered"), retry_schedule=[3600])
    shop.answers["/unordered"] = lambda event: 500 if event["sequence"] == 1 else 200

    payment = ledger.happen("payment.created", "payment.authorized")
    eventually(lambda: ledger.delivery(payment, endpoint, 2)["state"] == "delivered", "the second arrives")

    assert ledger.delivery(payment, endpoint, 1)["state"] == "pending"


def test_many_payments_arrive_in_order_from_two_dispatchers(ledger: Ledger, shop: Shop) -> None:
    ledger.register(shop.url("/busy"), ordered=True)

    payments = [ledger.happen(*TYPES[:2]) for _ in range(60)]
    for payment in payments:
        ledger.happen(*TYPES[2:], payment=payment, first=3)
    eventually(lambda: sum(one.path == "/busy" for one in shop.received) >= 240, "all arrive", 20)

    for payment in payments:
        assert [sequence for sequence, _ in told(shop, payment, "/busy")] == [1, 2, 3, 4]
