"""A hand in a command stream: what was accepted is carried out, by its owner or when its key is repeated (I10)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from engine.domain.ids import partition_of
from engine.streams import keys
from support.gateway import Gateway, Running, a_gateway, eventually

CARD = "4111111111111111"
STREAMS = [keys.commands(partition) for partition in range(16)]


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    environ = {"PENSTOCK_CONNECTOR": "instant"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        yield running


@contextmanager
def stopped(worker: Running) -> Iterator[None]:
    worker.send(signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it was killed meanwhile
            worker.send(signal.SIGCONT)


def on_each(redis: Redis, hand: Callable[[Any, str], Any]) -> None:
    """Only where there is something: an operator looks before he acts, too."""
    for stream in STREAMS:
        if redis.xlen(stream):
            hand(redis, stream)


def delete_consumers(redis: Any, stream: str) -> None:
    for consumer in redis.xinfo_consumers(stream, keys.GROUP):
        redis.xgroup_delconsumer(stream, keys.GROUP, consumer["name"])


def make_at_the_end(redis: Any, stream: str) -> None:
    redis.xgroup_destroy(stream, keys.GROUP)
    redis.xgroup_create(stream, keys.GROUP, "$")


MOVED: dict[str, Callable[[Any, str], Any]] = {
    "SETID $": lambda redis, stream: redis.xgroup_setid(stream, keys.GROUP, "$"),
    "SETID beyond": lambda redis, stream: redis.xgroup_setid(stream, keys.GROUP, "9999999999999-0"),
    "SETID 0": lambda redis, stream: redis.xgroup_setid(stream, keys.GROUP, "0"),
    "DELCONSUMER": delete_consumers,
    "DESTROY": lambda redis, stream: redis.xgroup_destroy(stream, keys.GROUP),
    "made at the end": make_at_the_end,
}
LOST: dict[str, Callable[[Any, str], Any]] = {
    "XTRIM": lambda redis, stream: redis.xtrim(stream, maxlen=0, approximate=False),
    "XDEL": lambda redis, stream: redis.xdel(stream, *(entry for entry, _ in redis.xrange(stream))),
    "DEL": lambda redis, stream: redis.delete(stream),
}


@pytest.mark.parametrize("owner", ["goes on", "is another"])
@pytest.mark.parametrize("how", MOVED)
def test_entries_that_a_hand_at_the_group_left_to_nobody_are_carried_out_once_and_in_order(
    gateway: Gateway, how: str, owner: str
) -> None:
    lease = {"PENSTOCK_LEASE_MS": "5000" if owner == "goes on" else "1000"}
    worker = gateway.start("worker", **lease)
    paid = gateway.pay(CARD, wait=10).json()["id"]

    with stopped(worker):
        captured = gateway.post(f"/v1/payments/{paid}/capture")
        others = [gateway.pay(CARD).json()["id"] for _ in range(6)]
        on_each(gateway.redis, MOVED[how])
        refunded = gateway.post(f"/v1/payments/{paid}/refund")  # must not overtake the capture
        if owner == "is another":
            worker.kill()
            gateway.start("worker", **lease)
    gateway.settled()

    assert (captured.status_code, refunded.status_code) == (202, 202)
    assert gateway.get(paid)["status"] == "refunded"
    assert {gateway.get(payment)["status"] for payment in others} == {"authorized"}
    events = "SELECT count(*), count(DISTINCT (payment, event)) FROM transitions"
    ((rows, different),) = gateway.sql(events)
    assert rows == different == 4 + 2 * len(others)
    assert gateway.dead() == []


@pytest.mark.parametrize("how", LOST)
def test_a_repeated_key_revives_what_was_lost_under_the_same_ids(gateway: Gateway, how: str) -> None:
    worker = gateway.start("worker", PENSTOCK_LEASE_MS="5000")
    paid = gateway.pay(CARD, wait=10).json()["id"]
    with stopped(worker):
        told = gateway.pay(CARD, key="lost").json()
        gateway.post(f"/v1/payments/{paid}/capture", key="lost-capture")
        on_each(gateway.redis, LOST[how])

    shown = gateway.request("GET", f"/v1/payments/{told['id']}")
    other = gateway.pay(CARD, key="lost", amount=77)
    again = gateway.pay(CARD, key="lost", wait=10)
    once_more = gateway.pay(CARD, key="lost", wait=10)
    captured = gateway.post(f"/v1/payments/{paid}/capture", key="lost-capture", wait=10)

    assert (shown.status_code, shown.json()["status"]) == (200, "pending")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (201, told["id"], "authorized")
    assert again.content == once_more.content
    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    gateway.settled()
    assert gateway.dead() == []


def test_what_was_accepted_behind_a_lost_authorize_comes_back_in_its_order_when_that_is_revived(
    gateway: Gateway,
) -> None:
    worker = gateway.start("worker")
    told = {}
    with stopped(worker):
        for key in ("never repeated", "lost"):
            accepted = gateway.pay(CARD, key=key).json()
            told[key], authorize = accepted["id"], accepted["operation"]["id"].encode()
            for verb in ("capture", "refund"):
                gateway.post(f"/v1/payments/{told[key]}/{verb}", key=f"{key} {verb}")
            stream = keys.commands(partition_of(told[key], 16))
            entries: Any = gateway.redis.xrange(stream)
            gateway.redis.xdel(stream, *(entry for entry, fields in entries if fields[b"operation"] == authorize))
    eventually(lambda: len(gateway.dead()) == 4, "nobody has seen their payments")
    waiting = [letter for letter in gateway.dead() if letter[b"payment"].decode() == told["never repeated"]]

    again = gateway.pay(CARD, key="lost", wait=10)

    assert again.status_code == 201
    eventually(lambda: gateway.get(told["lost"])["status"] == "refunded", "captured, then refunded", 40)
    assert gateway.dead() == waiting, "what nobody has seen is not given back to be given up again"


def test_two_who_repeat_a_lost_key_at_once_revive_it_once(gateway: Gateway) -> None:
    told = gateway.pay(CARD, key="lost").json()
    stream = keys.commands(partition_of(told["id"], 16))
    gateway.redis.delete(stream)

    answers = [gateway.pay(CARD, key="lost").status_code for _ in range(3)]

    assert answers == [202, 202, 202]
    assert gateway.redis.xlen(stream) == 1


def test_what_is_journaled_and_waits_is_not_revived(database: str, redis_url: str, tmp_path: Path) -> None:
    # Its entry is acknowledged: record and open entry stay, and the stream is empty as it should be.
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path) as gateway:  # its bank is nobody: it is parked
        told = gateway.pay(CARD, key="parked").json()
        eventually(lambda: gateway.unsettled() == 1 and gateway.backlog() == 0, "it is parked")

        with stopped(next(running for running in gateway.processes if running.role == "worker")):
            assert gateway.pay(CARD, key="parked").json()["id"] == told["id"]
            assert gateway.backlog() == 0


def test_in_hand_without_being_pending_is_taken_on_by_the_next_owner(gateway: Gateway) -> None:
    worker = gateway.start("worker", PENSTOCK_FAILPOINTS="before-intent:stop")
    told = gateway.pay(CARD).json()["id"]
    eventually(lambda: worker.out, "it is in hand")

    on_each(gateway.redis, delete_consumers)
    worker.kill()
    gateway.start("worker")

    eventually(lambda: gateway.get(told)["status"] == "authorized", "it is carried out", 20)
    gateway.settled()
