"""Dispatchers die by SIGKILL under load, and every event still arrives; what was recorded is never sent again.

What must be is read from the delivery log, not from clocks: a claim without a row in it was under way when its
dispatcher died, and may have arrived. Each of these allows one more copy; nothing else allows any.
"""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.gateway import Gateway, Running, eventually
from support.webhook_stand import Answer, Ledger, Received, Shop, a_shop, dispatchers

CRASHES, DISPATCHERS = 20, 2
PAYMENTS = 30  # a round
TYPES = ("payment.created", "payment.authorized", "payment.captured", "payment.refunded")
FIRST_AND_THIRD = ["payment.created", "payment.captured"]
REQUESTS = PAYMENTS * (4 + 4 + 2)  # a round, when nothing goes wrong
REFUSED = 20  # each so manieth request is answered 503
# A claim lapses late enough that no living dispatcher loses one, however slow the machine.
PATIENT = {"PENSTOCK_WEBHOOK_TIMEOUT_MS": "2000", "PENSTOCK_WEBHOOK_LEASE_MS": "8000"}


class Trap:
    """Counts the shop's requests, and kills dispatchers while the shop has the chosen ones in hand."""

    def __init__(self) -> None:
        self.requests = 0
        self.victims: list[tuple[int, Running]] = []  # which request each dies over
        self._lock = threading.Lock()

    def answer(self, event: dict[str, Any]) -> Answer:
        with self._lock:
            self.requests += 1
            while self.victims and self.requests >= self.victims[0][0]:
                self.victims.pop(0)[1].send(signal.SIGKILL)
            return 503 if self.requests % REFUSED == 0 else 200


@pytest.fixture
def shop() -> Iterator[Shop]:
    with a_shop() as shop:
        yield shop


@pytest.fixture
def running(database: str, tmp_path: Path) -> Iterator[Gateway]:
    with dispatchers(database, "redis://127.0.0.1:9", tmp_path, number=DISPATCHERS, **PATIENT) as gateway:
        yield gateway


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_twenty_kills_lose_nothing_and_repeat_only_what_was_under_way(running: Gateway, shop: Shop) -> None:
    ledger, trap = Ledger(dsn=running.database), Trap()
    for path, columns in {"/all": {}, "/ordered": {"ordered": True}, "/some": {"events": FIRST_AND_THIRD}}.items():
        ledger.register(shop.url(path), retry_schedule=[1] * 10, **columns)
        shop.answers[path] = trap.answer

    payments = _kill_under_load(running, ledger, trap)
    eventually(lambda: _waiting(ledger) == 0, "everything is delivered", 60)

    log = _log(ledger)
    came = list(shop.received)
    copies = Counter((one.path, one.id) for one in came if one.answered == 200)
    died = {delivery: claims - len(rows) for delivery, (claims, rows) in log.items()}
    print(
        f"{len(payments) * len(TYPES)} events, {len(log)} deliveries, {CRASHES} crashes, {sum(died.values())} claims "
        f"died with them, {copies.total() - len(copies)} came twice, {max(copies.values())} times at most"
    )
    assert len(log) == len(payments) * (4 + 4 + 2)
    assert copies.keys() == log.keys(), "every event arrives wherever it is wanted"
    assert sum(died.values()) > 0, "the crashes meet something under way"
    for delivery, (claims, rows) in log.items():
        assert [attempt for attempt, outcome in rows if outcome == "delivered"] == [claims], (
            "recorded, never sent again"
        )
        assert copies[delivery] <= 1 + died[delivery] <= 1 + CRASHES, "once more a crash, at most"
    requests: dict[str, list[Received]] = defaultdict(list)
    for one in came:
        requests[one.event["data"]["id"]].append(one)
    assert requests.keys() == set(payments)
    for of_one_payment in requests.values():
        _assert_without_gaps(of_one_payment)


def _kill_under_load(running: Gateway, ledger: Ledger, trap: Trap) -> list[str]:
    """Rounds of events; in each all dispatchers die, one after the other, while the next ones start. All payments."""
    payments: list[str] = []
    draw = random.Random(4)
    with ThreadPoolExecutor(DISPATCHERS) as starter, psycopg.connect(ledger.dsn) as writer:
        for _ in range(CRASHES // DISPATCHERS):
            dying = [one for one in running.processes if one.process.poll() is None]
            over = sorted(draw.sample(range(1, REQUESTS * 3 // 4), len(dying)))
            trap.victims = [(trap.requests + after, victim) for after, victim in zip(over, dying, strict=True)]
            next_ones = [starter.submit(running.start, "dispatcher") for _ in dying]
            for _ in range(PAYMENTS):
                payments.append(ledger.happen(*TYPES, connection=writer))
                writer.commit()
            for victim in dying:
                assert victim.died(30) == -signal.SIGKILL
            for next_one in next_ones:
                next_one.result()
    return payments


def _waiting(ledger: Ledger) -> int:
    [(number,)] = ledger.sql(
        """SELECT (SELECT count(*) FROM deliveries WHERE finished_at IS NULL)
                + (SELECT count(*) FROM outbox o JOIN fan_out f ON o.id > f.id)"""
    )
    return int(number)


def _log(ledger: Ledger) -> dict[tuple[str, str], tuple[int, list[list[Any]]]]:
    """By path and webhook-id: how often the delivery was claimed, and its recorded attempts with their outcomes."""
    rows = ledger.sql(
        """SELECT regexp_replace(e.url, '.*/', '/'), o.event_id, d.attempts,
                  json_agg(json_build_array(a.attempt, a.outcome) ORDER BY a.attempt)
           FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint JOIN outbox o USING (payment, sequence)
           LEFT JOIN delivery_attempts a USING (payment, endpoint, sequence)
           GROUP BY 1, 2, 3"""
    )
    return {(path, event): (claims, recorded) for path, event, claims, recorded in rows}


def _assert_without_gaps(requests: Sequence[Received]) -> None:
    """All sequences at each endpoint, and at the ordered one none before the one before it was acknowledged."""
    told: dict[str, set[tuple[int, int | None]]] = defaultdict(set)
    acknowledged = {0}
    for one in requests:
        sequence = one.event["sequence"]
        if one.answered == 200:
            told[one.path].add((sequence, one.event.get("previous_sequence")))
        if one.path == "/ordered":
            assert sequence - 1 in acknowledged, "not before the one before it"
            acknowledged |= {sequence} if one.answered == 200 else set()
    everything = {(1, None), (2, None), (3, None), (4, None)}
    assert told == {"/all": everything, "/ordered": everything, "/some": {(1, 0), (3, 1)}}
