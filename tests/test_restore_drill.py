"""The restore drill of docs/restore.md: the ledger goes back to a dump in a new cluster; nothing is charged twice.

Run it with -s to see the table: what each order was before, right after the restore, and when the shop has repeated
its keys.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

from engine.ledger.migrate import migrate, seed_local
from ops.audit.auditor import Auditor
from ops.audit.breach import Report
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from ops.store_url import Locations
from support.bank_harness import POSTGRES_BIN, Bank, a_bank, fresh_cards
from support.event_stand import ENDPOINTS, ask
from support.gateway import Gateway, eventually
from support.webhook_stand import HASTE, Shop, a_shop

pytest_plugins = ["support.bank_fixtures"]

PARTITIONS = 16


@dataclass(kw_only=True)
class Order:
    """One order of the shop: what it asks for, under which keys, and what it was told."""

    name: str
    card: str = field(default_factory=lambda: next(fresh_cards))
    sale: bool = False
    payment: str = ""
    told: dict[str, tuple[int, str]] = field(default_factory=dict)  # by verb: status and the payment's state

    def ask(self, gateway: Gateway, verb: str) -> tuple[int, str]:
        """Asks for it under its own key, the first time or again; the status and the payment's state."""
        key = f"{self.name}-{verb}"
        if verb == "authorize":
            answer = gateway.pay(self.card, key=key, wait=20, **({"capture": True} if self.sale else {}))
        else:
            answer = gateway.post(f"/v1/payments/{self.payment}/{verb}", key=key, wait=20)
        document: dict[str, Any] = answer.json()
        payment = document.get("payment") or document
        self.payment = self.payment or payment["id"]
        return answer.status_code, str(payment.get("status"))

    def does(self, gateway: Gateway, *verbs: str) -> None:
        for verb in verbs:
            self.told[verb] = self.ask(gateway, verb)
            assert self.told[verb][0] in (200, 201), (self.name, verb, self.told[verb])

    def state(self, gateway: Gateway) -> str:
        document = gateway.get(self.payment)
        return str(document.get("status")) if "id" in document else "404"


@dataclass(kw_only=True)
class Drill:
    """What outlives the ledger: the bank, the shop and Redis."""

    bank: Bank
    shop: Shop
    redis: EmbeddedRedis
    folder: Path

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    @contextmanager
    def gateway(self, database: str, name: str) -> Iterator[Gateway]:
        folder = self.folder / name
        folder.mkdir()
        url = f"http://127.0.0.1:{self.bank.port}"
        gateway = Gateway(database=database, redis_url=self.redis_url, bank_url=url, folder=folder, environ=HASTE)
        try:
            gateway.wait_for(*(gateway.launch(role) for role in ("edge", "worker", "dispatcher")))
            yield gateway
        finally:
            gateway.close()

    def redis_client(self) -> Redis:
        return Redis(port=self.redis.port)

    def effects(self) -> list[tuple[object, ...]]:
        """What the bank has done, all of it."""
        return self.bank.sql("SELECT id, type, amount_cents, status FROM transactions ORDER BY id")

    def audit(self, database: str) -> Report:
        where = Locations(ledger=database, redis=self.redis_url, bank=self.bank.dsn)
        with closing(Auditor(where, grace_s=0, limit=100)) as auditor:
            return auditor.look_at_all()

    def webhooks(self) -> list[str]:
        return [one.id for one in list(self.shop.received)]


@pytest.fixture
def drill(bank_postgres: str, store_folder: Path, tmp_path: Path) -> Iterator[Drill]:
    redis = EmbeddedRedis(store_folder / "drill-redis")
    redis.start()
    try:
        with a_bank(bank_postgres, "drillbank") as bank, a_shop() as shop:
            yield Drill(bank=bank, shop=shop, redis=redis, folder=tmp_path)
    finally:
        redis.kill()


@contextmanager
def a_cluster(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def found(report: Report) -> dict[str, set[str]]:
    """By invariant, the payments and operations that stand against it."""
    return {
        each.invariant.name: {str(breach.payment or breach.operation or breach.detail) for breach in each.breaches}
        for each in report.found
        if each.breaches
    }


def page(gateway: Gateway, after: str) -> Any:
    return ask(gateway, "GET", f"/v1/events?limit=100&after={after}")


def test_a_ledger_that_is_set_back_to_a_dump_charges_nobody_twice_and_gets_back_what_is_asked_for_again(
    drill: Drill, store_folder: Path
) -> None:
    kept, late, back = Order(name="kept"), Order(name="captured later"), Order(name="refunded later", sale=True)
    other = Order(name="captured, then voided")
    lost, sold, gone = Order(name="lost"), Order(name="lost sale", sale=True), Order(name="never repeated")
    orders = (kept, late, other, back, lost, sold, gone)
    dump = drill.folder / "ledger.dump"

    with a_cluster(store_folder / "drill-before") as first:
        ledger = first.dsn("penstock")
        migrate(ledger, PARTITIONS)
        seed_local(ledger)
        with drill.gateway(ledger, "before") as gateway:
            assert ask(gateway, "POST", ENDPOINTS, {"url": drill.shop.url()}).status_code == 201
            for order in (kept, late, other, back):
                order.does(gateway, "authorize")
            backup = eventually(lambda: (got := page(gateway, "latest").json()) and got["next_cursor"], "a cursor")
            subprocess.run([POSTGRES_BIN / "pg_dump", "-Fc", "-f", dump, ledger], check=True)

            late.does(gateway, "capture")
            other.does(gateway, "capture")
            back.does(gateway, "refund")
            for order in (lost, sold, gone):
                order.does(gateway, "authorize")
            events = gateway.sql("SELECT event_id FROM outbox")
            eventually(lambda: {one for (one,) in events} <= set(drill.webhooks()), "the shop heard of all")
            cursor = page(gateway, "latest").json()["next_cursor"]
            was = {order.name: order.state(gateway) for order in orders}
        healthy = found(drill.audit(ledger))
    told = {(order.name, verb): answer for order in orders for verb, answer in order.told.items()}
    effects, heard = drill.effects(), len(drill.webhooks())

    # The operator: everything is stopped; the dump goes into a new cluster; Redis is emptied.
    with a_cluster(store_folder / "drill-after") as second:
        ledger = second.dsn("penstock")
        with psycopg.connect(second.dsn("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE penstock")
        subprocess.run([POSTGRES_BIN / "pg_restore", "--exit-on-error", "-d", ledger, dump], check=True)
        migrate(ledger, PARTITIONS)
        with drill.gateway(ledger, "with-old-redis") as gateway:
            replayed, missing = lost.ask(gateway, "authorize"), lost.state(gateway)
        stale = found(drill.audit(ledger))
        with drill.redis_client() as redis:
            redis.flushall()
        with drill.gateway(ledger, "after") as gateway:
            restored = {order.name: order.state(gateway) for order in orders}
            differing = found(drill.audit(ledger))
            refused, goes_on = page(gateway, cursor), page(gateway, backup)

            # The shop: each key without a final answer in its own books, or all of them since the backup, once more.
            again = {
                (order.name, verb): order.ask(gateway, verb)
                for order in (kept, late, back, lost, sold)
                for verb in order.told
            }
            # And the careless: what was captured is asked to be voided, under a new key.
            gateway.post(f"/v1/payments/{other.payment}/void")
            doubted = "SELECT status FROM operations WHERE payment = %s AND verb = 'void'"
            eventually(lambda: gateway.sql(doubted, other.payment) == [("review",)], "it is left to a person", 30)
            now = {order.name: order.state(gateway) for order in orders}
            told_again = gateway.sql("SELECT event_id FROM outbox")
            eventually(lambda: _handled(gateway), "every webhook is delivered")
        left = found(drill.audit(ledger))
        repeated = drill.effects()

        print(f"\n{'order':22} {'before':12} {'restored':12} {'keys repeated':14}")
        for order in orders:
            print(f"{order.name:22} {was[order.name]:12} {restored[order.name]:12} {now[order.name]:14}")
        doubled = len(repeated) - len(effects)
        print(f"effects at the bank: {len(effects)} before, {len(repeated)} after; doubled: {doubled}")
        fresh = set(drill.webhooks()[heard:]) - set(drill.webhooks()[:heard])
        print(f"webhooks: {heard} before, {len(drill.webhooks()) - heard} after, of which {len(fresh)} have new ids")
        for name, report in (("before", healthy), ("restored", differing), ("repeated", left)):
            said = ", ".join(f"{key} {len(each)}" for key, each in report.items())
            print(f"audit, {name}: {said or 'each invariant holds'}")

    assert healthy == {}
    assert (replayed[0], missing) == (201, "404"), "the old Redis still answers for a payment that is gone"
    assert stale["replays_are_the_ledgers"], "and the audit says so"
    lost_ones = dict.fromkeys((lost.name, sold.name, gone.name), "404")
    assert restored == {**was, late.name: "authorized", other.name: "authorized", back.name: "captured", **lost_ones}
    assert set(differing) >= {"bank_agrees", "calls_are_known"}
    assert refused.status_code == 410 and refused.json()["code"] == "cursor_unknown"
    assert goes_on.status_code == 200
    assert again == {key: told[key] for key in again}
    assert now == {**was, "captured, then voided": "authorized", "never repeated": "404"}
    assert repeated == effects, "nothing is done twice"
    assert set(told_again) <= set(events), "events have their ids again, so the shop knows them"
    assert set(left) == {"bank_agrees", "calls_are_known", "holds_have_a_receipt", "reviews_are_resolved"}
    assert left["reviews_are_resolved"] == {other.payment}
    cards = (gone.card[-4:], other.card[-4:])
    assert all(any(card in each for card in cards) for each in left["bank_agrees"]), "no order but what nobody repeated"
    assert len(left["calls_are_known"]) == 2


def _handled(gateway: Gateway) -> bool:
    waits = """SELECT (SELECT count(*) FROM deliveries WHERE finished_at IS NULL)
                    + (SELECT count(*) FROM outbox o JOIN fan_out f ON o.id > f.id)"""
    return bool(gateway.sql(waits)[0][0] == 0)
