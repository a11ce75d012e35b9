"""What kills every worker that has it is run alone, then given up: no crash loop, and its neighbours come through."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from engine.domain.ids import partition_of, payment_id
from engine.streams import keys
from engine.worker.partition_consumer import _DELIVERIES_MAX, _ISOLATED_MAX
from support.gateway import Gateway, a_gateway, eventually

CARD = "4111111111111111"
PARTITION = 3


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Its bank approves all; no worker yet."""
    environ = {"PENSTOCK_CONNECTOR": "instant"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        yield running


def accepted(gateway: Gateway, number: int) -> list[str]:
    """So many payments in one partition, one after the other."""
    ((installation,),) = gateway.sql("SELECT id FROM installation")
    made = ((key, payment_id(installation, "mer_local", key)) for key in map(str, count()))
    ours = (key for key, payment in made if partition_of(payment, 16) == PARTITION)
    return [gateway.pay(CARD, key=key).json()["id"] for key in islice(ours, number)]


def delivered(gateway: Gateway, *times: int) -> None:
    """As if workers that are no more had had the partition's entries so often."""
    stream, redis = keys.commands(PARTITION), gateway.redis
    with suppress(ResponseError):  # a worker has made it
        redis.xgroup_create(stream, keys.GROUP, id="0")
    redis.xreadgroup(keys.GROUP, "gone", {stream: ">"})
    for (entry, _), deliveries in zip(redis.xrange(stream), times, strict=True):  # type: ignore[arg-type]
        redis.execute_command("XCLAIM", stream, keys.GROUP, "gone", 0, entry, "RETRYCOUNT", deliveries)


def ran_alone(gateway: Gateway) -> int:
    return gateway.logs().count('"event":"poison_isolated"')


def test_who_was_only_there_when_its_workers_died_is_run_alone_and_comes_through(gateway: Gateway) -> None:
    payments = accepted(gateway, 3)
    delivered(gateway, 1, _DELIVERIES_MAX + _ISOLATED_MAX, 1)

    gateway.start("worker")
    gateway.settled()

    assert ran_alone(gateway) == 2, "and what was accepted before it, before it"
    assert [gateway.get(payment)["status"] for payment in payments] == ["authorized"] * 3
    assert gateway.dead() == []


@pytest.mark.slow
def test_a_killer_is_given_up_after_three_deaths_alone_and_its_neighbour_is_not(gateway: Gateway) -> None:
    payments = accepted(gateway, 2)
    delivered(gateway, _DELIVERIES_MAX, _DELIVERIES_MAX)

    for _ in range(1 + _ISOLATED_MAX):  # the first with its neighbour
        assert gateway.launch("worker", PENSTOCK_FAILPOINTS="before-intent:kill").died() == -signal.SIGKILL
    assert ran_alone(gateway) == _ISOLATED_MAX
    gateway.start("worker")
    gateway.settled()

    killer, neighbour = (gateway.get(payment) for payment in payments)
    (letter,) = gateway.dead()
    assert (killer["status"], neighbour["status"]) == ("pending", "authorized")
    assert (letter[b"payment"].decode(), letter[b"cause"]) == (killer["id"], b"exception")
    assert b"its workers died with it again and again" in letter[b"reason"]


def test_a_killer_that_the_bank_may_have_seen_is_for_a_person_to_look_at(gateway: Gateway) -> None:
    (payment,) = accepted(gateway, 1)
    assert gateway.launch("worker", PENSTOCK_FAILPOINTS="after-intent:kill").died() == -signal.SIGKILL
    delivered(gateway, _DELIVERIES_MAX + _ISOLATED_MAX + 1)

    gateway.start("worker")
    eventually(lambda: gateway.backlog() == 0, "its entry is let go", 20)

    assert gateway.get(payment)["operation"]["status"] == "review"
    assert gateway.dead() == []


def test_those_that_are_run_alone_wait_together_for_what_their_owner_had_at_the_bank(gateway: Gateway) -> None:
    payments = accepted(gateway, 4)
    failpoints = f"after-intent:kill@{len(payments)}"
    assert gateway.launch("worker", PENSTOCK_FAILPOINTS=failpoints).died() == -signal.SIGKILL
    ((under_way,),) = gateway.sql("SELECT count(*) FROM operations WHERE status = 'sent'")
    delivered(gateway, *[_DELIVERIES_MAX + 1] * len(payments))

    gateway.start("worker", PENSTOCK_ATTEMPT_TIMEOUT_MS="4000")
    gateway.settled()

    ((between_s, fewest),) = gateway.sql(
        "SELECT extract(epoch FROM max(settled_at) - min(settled_at)), min(attempts) FROM operations"
    )
    assert (under_way, ran_alone(gateway), fewest) == (len(payments), len(payments), 2)
    assert between_s < 4, "one after the other, each would have waited an attempt's length"
