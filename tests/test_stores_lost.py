"""Stores lost or away in the middle of load: nothing lost, nothing doubled, owners keep what they own."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from engine.streams import keys
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

AWAY_S = float(os.environ.get("AWAY_S", "6"))  # for longer: AWAY_S=30 pytest tests/test_stores_lost.py
LOAD = 100  # payments journaled before a store is struck, and after
CLIENTS = 8
BACKLOG = 40  # of a partition: above what is under way at any moment, and reached while Postgres is away
# All backlogs reach the bank at once afterwards: one that took longer than an attempt may take would break its promise.
PATIENCE = {"PENSTOCK_ATTEMPT_TIMEOUT_MS": "15000"}
BUSY_MAX = 0.3  # of a core: a loop that does not wait takes all of one


@dataclass(frozen=True, kw_only=True)
class Stand:
    """One edge, two workers, a Redis of its own, and the cards that are used."""

    gateway: Gateway
    redis: EmbeddedRedis
    aof: Path
    bank: Bank
    cards: list[str]

    def epochs(self) -> list[tuple[int, int]]:
        return self.gateway.sql("SELECT id, epoch FROM partitions ORDER BY id")

    def goes_on(self) -> None:
        """Wait until so many more payments are journaled."""
        journaled = "SELECT count(*) FROM payments"
        ((before,),) = self.gateway.sql(journaled)
        eventually(lambda: self.gateway.sql(journaled)[0][0] >= before + LOAD, "the load goes on", 30)

    def books(self) -> tuple[list[str], list[str]]:
        """The holds that the bank has, and those that the ledger knows."""
        statement = """SELECT 'auth_' || t.id FROM transactions t JOIN accounts a ON a.id = t.account_id
                       WHERE a.account_number = ANY(%s) AND t.type = 'AUTH_HOLD'"""
        known = self.gateway.sql("SELECT authorization_id FROM payments")
        return sorted(row[0] for row in self.bank.sql(statement, self.cards)), sorted(row[0] for row in known)


@dataclass(kw_only=True)
class Load:
    """Shops that pay, and repeat a key that got no 202. By key: the ids they were told, the statuses, the card."""

    stand: Stand
    ids: dict[str, set[str]] = field(default_factory=dict)
    cards: dict[str, str] = field(default_factory=dict)
    answers: list[httpx.Response] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        while not self.over.is_set():
            key = uuid4().hex
            self.ids[key], self.cards[key] = set(), self.stand.cards[number % len(self.stand.cards)]
            while not self.repeat(key) and not self.over.is_set():
                time.sleep(0.05)  # as a client that was refused does

    def repeat(self, key: str) -> bool:
        """Whether the key was accepted."""
        try:
            answer = self.stand.gateway.pay(self.cards[key], key=key, amount=100)
        except httpx.TransportError:
            return False
        self.answers.append(answer)
        if answer.status_code in (201, 202):
            self.ids[key].add(answer.json()["id"])
        return answer.status_code in (201, 202)

    def refused(self, since: int) -> list[httpx.Response]:
        """The answers after the first `since` that are no 202."""
        return [answer for answer in self.answers[since:] if answer.status_code != 202]


@contextmanager
def load_on(stand: Stand) -> Iterator[Load]:
    """Load for as long as the block lasts."""
    load = Load(stand=stand)
    with ThreadPoolExecutor(CLIENTS) as pool:
        shops = [pool.submit(load.run, number) for number in range(CLIENTS)]
        try:
            yield load
        finally:
            load.over.set()
    for shop in shops:
        shop.result()


@pytest.fixture(scope="module")
def module_stand(module_database: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stores")
    redis, environ = EmbeddedRedis(folder / "redis"), {**PATIENCE, "PENSTOCK_BACKLOG_MAX": str(BACKLOG)}
    url, bank_url = redis.start(), f"http://127.0.0.1:{calm_bank.port}"
    try:
        with a_gateway(module_database, url, bank_url, folder, workers=2, **environ) as gateway:
            cards = [next(fresh_cards) for _ in range(CLIENTS)]
            aof = folder / "redis" / "appendonlydir"
            yield Stand(gateway=gateway, redis=redis, aof=aof, bank=calm_bank, cards=cards)
    finally:
        redis.kill()


@pytest.fixture
def stand(module_stand: Stand, bank: Bank) -> Stand:
    """Its workers share; nothing is open. The bank takes its time, so that much is under way at any moment."""
    module_stand.gateway.shared(2)
    for card in module_stand.cards:
        bank.fault("latency", card_number=card, latency_ms=300)
    return module_stand


def emptied(stand: Stand) -> None:
    stand.redis.kill()
    shutil.rmtree(stand.aof)


def rewound(stand: Stand) -> None:
    """As a replica that had not heard the last of it, and is the master now."""
    copy = stand.aof.with_name("a-while-ago")
    shutil.copytree(stand.aof, copy)
    stand.goes_on()
    stand.redis.kill()
    shutil.rmtree(stand.aof)
    copy.rename(stand.aof)


@pytest.mark.parametrize("lose", [emptied, rewound])
def test_a_redis_that_lost_its_memory_is_rebuilt_by_the_same_owners_and_what_was_journaled_ends_by_itself(
    stand: Stand, lose: Callable[[Stand], None]
) -> None:
    gateway, owned, epochs = stand.gateway, stand.gateway.owned(), stand.epochs()

    with load_on(stand) as load:
        stand.goes_on()
        open_then = gateway.unsettled()
        lose(stand)
        journaled = {row[0] for row in gateway.sql("SELECT id FROM payments")}
        stand.redis.start()
        eventually(lambda: gateway.pay(stand.cards[0], wait=5).status_code == 201, "new work is done", 10)
        stand.goes_on()
    open_after = "SELECT id FROM payments WHERE state <> 'authorized'"
    eventually(lambda: not journaled & {row[0] for row in gateway.sql(open_after)}, "what was journaled has ended", 20)
    for key in load.ids:
        eventually(lambda key=key: load.repeat(key), "the repeated key is accepted", 10)
    gateway.settled()

    assert open_then > 0, "something was under way"
    assert (gateway.shared(2), stand.epochs()) == (owned, epochs)
    assert {len(ids) for ids in load.ids.values()} == {1}
    at_the_bank, in_the_ledger = stand.books()
    assert at_the_bank == in_the_ledger
    assert gateway.dead() == []


def test_heartbeats_that_went_back_in_time_move_no_partition(stand: Stand) -> None:
    gateway, owned, epochs = stand.gateway, stand.gateway.owned(), stand.epochs()
    leases = [keys.lease(partition) for partition in range(16)]

    with gateway.redis.pipeline(transaction=True) as rewind:
        rewind.zadd(keys.WORKERS, dict.fromkeys(gateway.redis.zrange(keys.WORKERS, 0, -1), 1))
        rewind.delete(*leases)
        rewind.execute()
    eventually(lambda: gateway.redis.exists(*leases) == len(leases), "all partitions are held")

    assert (gateway.shared(2), stand.epochs()) == (owned, epochs)


def test_while_postgres_is_away_the_edge_accepts_up_to_its_backlog_and_workers_wait_without_work(
    stand: Stand, postgres: EmbeddedPostgres
) -> None:
    gateway = stand.gateway
    old = gateway.pay(stand.cards[0], wait=10).json()["id"]
    gateway.settled()
    owned, epochs = gateway.owned(), stand.epochs()
    workers = [psutil.Process(pid) for pid in owned]

    with load_on(stand) as load:
        stand.goes_on()
        with frozen(postgres.pid):
            began, before = time.monotonic(), [_cpu_s(worker) for worker in workers]
            answers_before = len(load.answers)
            time.sleep(AWAY_S)
            eventually(lambda: load.refused(answers_before), "a backlog is full", 60)
            backlog = sum(gateway.redis.xlen(keys.commands(partition)) for partition in range(16))
            busy = [_cpu_s(worker) - was for worker, was in zip(workers, before, strict=True)]
            away_s, refused = time.monotonic() - began, load.refused(answers_before)
            shown = gateway.request("GET", f"/v1/payments/{old}")
            ready = gateway.request("GET", "/readyz")
        stand.goes_on()
    for key in load.ids:
        eventually(lambda key=key: load.repeat(key), "the repeated key is accepted", 10)
    gateway.settled()

    assert backlog > 16 * BACKLOG * 0.5
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "overloaded")}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert max(busy) / away_s < BUSY_MAX
    assert (shown.status_code, int(shown.headers["Retry-After"]) > 0) == (503, True)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert (gateway.shared(2), stand.epochs()) == (owned, epochs)
    assert {len(ids) for ids in load.ids.values()} == {1}
    at_the_bank, in_the_ledger = stand.books()
    assert at_the_bank == in_the_ledger
    assert gateway.dead() == []


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server and its children, stopped."""
    server = psutil.Process(pid)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
