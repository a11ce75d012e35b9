"""Whatever an actor meets, it ends: nothing is tried for ever, held for ever, or given up beside what was at fault."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.domain.ids import partition_of
from engine.streams import keys
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

CARD = "4111111111111111"


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Its bank approves all; no worker yet."""
    environ = {"PENSTOCK_CONNECTOR": "instant"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        yield running


@pytest.fixture
def banked(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    """In front of the bank whose faults can be chosen; no worker yet."""
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


def test_a_card_that_cannot_be_opened_is_a_question_for_a_person_and_what_follows_waits(gateway: Gateway) -> None:
    payment = gateway.pay(CARD).json()["id"]
    gateway.post(f"/v1/payments/{payment}/capture", key="behind")
    _alter_the_card(gateway, keys.commands(partition_of(payment, 16)))

    gateway.start("worker")
    eventually(lambda: "review" in _statuses(gateway, payment).values(), "it is in review", 20)
    eventually(lambda: _statuses(gateway, payment).get("capture"), "what follows is journaled", 10)
    eventually(lambda: gateway.backlog() == 0, "no entry is held", 10)

    assert _statuses(gateway, payment) == {"authorize": "review", "capture": "accepted"}
    assert gateway.dead() == []
    assert gateway.get(payment)["operation"]["status"] == "review"
    again = gateway.post(f"/v1/payments/{payment}/capture", key="behind")
    assert (again.status_code, again.json()["status"]) == (202, "pending")


def test_a_worker_holds_no_more_than_it_may_and_the_rest_waits_in_the_stream(banked: Gateway, bank: Bank) -> None:
    bank.fault("latency", operation="authorize", latency_ms=200)
    for card in islice(fresh_cards, 80):
        banked.pay(card)
    in_hand: list[int] = []

    def all_done() -> bool:
        streams = [stream for stream in map(keys.commands, range(16)) if banked.redis.exists(stream)]
        groups = [group for stream in streams for group in banked.redis.xinfo_groups(stream)]  # type: ignore[union-attr]
        in_hand.append(max((group["pending"] for group in groups), default=0))
        return banked.backlog() == 0

    banked.start("worker", PENSTOCK_IN_HAND_MAX="2")
    eventually(all_done, "all is done", 20)

    assert max(in_hand) == 2


def test_a_malformed_entry_is_a_dead_letter_and_its_neighbours_settle(gateway: Gateway) -> None:
    bad = gateway.pay(CARD, key="bad").json()["id"]
    partition = partition_of(bad, 16)
    merchant = _rewrite(gateway, partition, reply_to=[1])
    neighbours = [gateway.pay(CARD, key=key).json()["id"] for key in islice(gateway.keys_in(partition, merchant), 5)]

    worker = gateway.start("worker")
    for neighbour in neighbours:
        eventually(lambda neighbour=neighbour: gateway.get(neighbour)["status"] == "authorized", "it is authorized")
    gateway.settled(10)

    assert {partition_of(neighbour, 16) for neighbour in neighbours} == {partition}
    assert len(gateway.dead()) == 1
    assert worker.process.poll() is None
    assert gateway.post(f"/v1/payments/{neighbours[0]}/capture", wait=10).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [{"sealed": 5}, {"fingerprint": "f"}, {"sale": "no"}, {"terms": None}, {"merchant": {}}, {"key": None}],
    ids=str,
)
def test_an_entry_with_a_value_of_the_wrong_kind_ends_as_a_dead_letter(gateway: Gateway, wrong: dict[str, Any]) -> None:
    bad = gateway.pay(CARD, key="bad").json()["id"]
    _rewrite(gateway, partition_of(bad, 16), **wrong)
    good = gateway.pay(CARD, key="good").json()["id"]

    worker = gateway.start("worker")
    eventually(lambda: gateway.get(good)["status"] == "authorized", "it is authorized")
    gateway.settled(10)

    assert len(gateway.dead()) == 1
    assert worker.process.poll() is None


@pytest.mark.parametrize("passing", [3, 4], ids=["its own", "of the one behind it"])
def test_a_worker_killed_after_the_answer_of_a_resumed_operation_leaves_nothing_open(
    passing: int, banked: Gateway, bank: Bank
) -> None:
    # Parked, its entry is acknowledged; so no entry tells the next owner that its answer has yet to reach Redis. What
    # is settled: twice that an entry is journaled, then the answer of the void, then that of the one behind it.
    card = next(fresh_cards)
    first = banked.start("worker")
    payment = banked.pay(card, wait=10).json()["id"]
    banked.settled()
    first.end()
    bank.fault("fail_before", operation="void", card_number=card, times=6)

    doomed = banked.start("worker", PENSTOCK_FAILPOINTS=f"before-settle:kill@{passing}")
    banked.post(f"/v1/payments/{payment}/void", key="void")
    eventually(
        lambda: doomed.process.poll() is not None or _statuses(banked, payment).get("void") == "in_doubt", "doubt"
    )
    if doomed.process.poll() is None:
        banked.post(f"/v1/payments/{payment}/void", key="void-again")
    assert doomed.died() == -signal.SIGKILL
    banked.start("worker")

    def shown() -> tuple[str, str, str]:
        found = banked.get(payment)
        shippable = banked.request("GET", f"/v1/payments/{payment}/shippable").json()
        return found["status"], found["operation"]["status"], shippable["reason"]

    eventually(lambda: shown() == ("voided", "succeeded", "voided"), "all agree that it is voided", 15)
    banked.settled()
    assert banked.redis.keys("*:open:*") == [], "whoever looked has told Redis, too"
    assert all(banked.redis.ttl(record) > 0 for record in banked.redis.keys("*:idem:*"))  # type: ignore[operator, union-attr]


def test_a_repeat_of_an_answered_operation_is_let_go_by_the_actor_that_answered_it(banked: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("latency", operation="capture", card_number=card, latency_ms=1500)
    first = banked.pay(card, key="repeated")
    payment = first.json()["id"]
    banked.post(f"/v1/payments/{payment}/capture")

    worker = banked.start("worker", PENSTOCK_ATTEMPT_TIMEOUT_MS="5000")
    eventually(lambda: banked.get(payment)["status"] == "authorized", "it is authorized, its capture at the bank")
    banked.redis.flushall()
    again = banked.pay(card, key="repeated")
    still = banked.get(payment)["status"]
    eventually(lambda: banked.get(payment)["status"] == "captured", "it is captured")
    banked.settled(10)

    assert (first.status_code, again.status_code, still) == (202, 201, "authorized")
    assert worker.process.poll() is None


def _statuses(gateway: Gateway, payment: str) -> dict[str, str]:
    return dict(gateway.sql("SELECT verb, status FROM operations WHERE payment = %s", payment))


def _rewrite(gateway: Gateway, partition: int, **changes: Any) -> str:
    """The only entry of the partition, with other values in its body. Its merchant."""
    stream = keys.commands(partition)
    ((entry, fields),) = gateway.redis.xrange(stream)  # type: ignore[misc]
    body = orjson.loads(fields[b"body"])
    gateway.redis.xdel(stream, entry)
    gateway.redis.xadd(stream, {**fields, b"body": orjson.dumps(body | changes)})
    return str(body["merchant"])


def _alter_the_card(gateway: Gateway, stream: str) -> None:
    """Its envelope still names our key, and its text is another: the entries of the stream, written anew in order."""
    for entry, fields in gateway.redis.xrange(stream):  # type: ignore[union-attr]
        body = orjson.loads(fields[b"body"])
        if body["sealed"] is not None:
            middle = len(body["sealed"]) // 2
            other = "A" if body["sealed"][middle] != "A" else "B"
            body["sealed"] = body["sealed"][:middle] + other + body["sealed"][middle + 1 :]
        gateway.redis.xdel(stream, entry)
        gateway.redis.xadd(stream, {**fields, b"body": orjson.dumps(body)})
