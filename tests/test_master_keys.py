"""Keys are compared with the installation's, and a rotation of the master key may reach processes in any order."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from engine.ledger.statement import statement
from engine.security.encryption import Vault, key_id
from ops.cli.master_key_store import read_keys, reseal
from support.gateway import FINGERPRINT_KEY, MASTER_KEY, Gateway, Running, a_payment, eventually

CARD = "4111111111111111"
OLD, NEW, OTHER = b"m" * 32, b"n" * 32, b"o" * 32
OLD_ID, NEW_ID, OTHER_ID = (next(iter(Vault([key]).checks)) for key in (OLD, NEW, OTHER))
NEW_KEY, OTHER_KEY = (base64.b64encode(key).decode() for key in (NEW, OTHER))
ROTATED = {"PENSTOCK_MASTER_KEY": NEW_KEY, "PENSTOCK_RETIRED_MASTER_KEYS": MASTER_KEY}
SEALING = "SELECT sealing_key FROM installation"
ROLES = ("edge", "worker", "dispatcher")


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    environ = {
        "PENSTOCK_CONNECTOR": "instant",
        "PENSTOCK_KEY_HOLDER_S": "1",
        "PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8",
    }
    running = Gateway(
        database=database, redis_url=redis_url, bank_url="http://127.0.0.1:1", folder=tmp_path, environ=environ
    )
    yield running
    running.close()


@pytest.mark.parametrize("role", ROLES)
def test_a_process_without_the_key_that_seals_or_with_another_fingerprint_key_refuses_by_name(
    gateway: Gateway, role: str
) -> None:
    gateway.start("edge")
    lacking = gateway.launch(role, PENSTOCK_MASTER_KEY=OTHER_KEY)
    strange = gateway.launch(role, PENSTOCK_FINGERPRINT_KEY=OTHER_KEY)

    codes = [each.died() for each in (lacking, strange)]
    said = [each.log.read_text() for each in (lacking, strange)]

    assert codes == [1, 1]
    assert OLD_ID in said[0] and OTHER_ID in said[0] and "PENSTOCK_RETIRED_MASTER_KEYS" in said[0]
    assert "PENSTOCK_FINGERPRINT_KEY" in said[1]
    assert not any(key in text for text in said for key in (MASTER_KEY, OTHER_KEY, FINGERPRINT_KEY))
    assert gateway.sql("SELECT id FROM master_keys") == [(OLD_ID,)], "what is refused leaves nothing behind"


class Shop:
    """Pays at a steady pace at whichever edge answers, until told to stop."""

    def __init__(self, gateway: Gateway, edges: Sequence[int]) -> None:
        self._gateway, self._edges, self._stopping = gateway, edges, False
        self.answers: Counter[int] = Counter()

    def __enter__(self) -> Shop:
        self._pool = ThreadPoolExecutor(4)
        self._done = [self._pool.submit(self._pay, number) for number in range(4)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for each in self._done:
            each.result(60)
        self._pool.shutdown()

    def _pay(self, shop: int) -> None:
        with httpx.Client(timeout=20) as http:
            number = 0
            while not self._stopping:
                number += 1
                headers = {"X-API-Key": "sk_local_merchant", "Idempotency-Key": f"{shop}-{number}", "Prefer": "wait=5"}
                for port in [*self._edges, *self._edges, *self._edges]:
                    with suppress(httpx.TransportError):  # restarted just now: the next one has it, under the same key
                        url = f"http://127.0.0.1:{port}/v1/payments"
                        self.answers[http.post(url, json=a_payment(CARD), headers=headers).status_code] += 1
                        break
                else:
                    self.answers[0] += 1


@pytest.mark.parametrize("order", [("edge", "worker"), ("worker", "edge")], ids=["edges first", "workers first"])
def test_a_rotation_in_any_order_under_traffic_reviews_nothing_and_refuses_nobody(
    gateway: Gateway, order: tuple[str, ...]
) -> None:
    running = {role: [gateway.start(role), gateway.start(role)] for role in order}
    edges = [each.port for each in running["edge"]]
    sealed_by_then = []
    with Shop(gateway, edges) as shop:
        for role in order:
            for each in running[role]:
                sealed_by_then += gateway.sql(SEALING)
                assert each.end() == 0
                successor = gateway.launch(role, **ROTATED, **{f"PENSTOCK_{role.upper()}_PORT": str(each.port)})
                successor.port = each.port
                gateway.wait_for(successor)
        eventually(lambda: gateway.sql(SEALING) == [(NEW_ID,)], "all have the new key, and it seals")
        at = shop.answers.total()
        eventually(lambda: shop.answers.total() > at + 20, "payments go on with it")
    gateway.settled()

    assert set(shop.answers) == {201}
    assert sealed_by_then == [(OLD_ID,)] * 4, "and until all had it, everybody went on with the old one"
    assert gateway.sql("SELECT DISTINCT status FROM operations") == [("succeeded",)]
    assert gateway.dead() == []


def test_a_process_that_lacks_a_key_which_something_waits_under_refuses_unless_it_is_said_to_be_lost(
    gateway: Gateway,
) -> None:
    gateway.start("edge", **ROTATED).end()
    sealing = gateway.sql(SEALING)
    (payment,) = (gateway_payment(gateway, Vault([OLD]).seal_secret(b"x", "y", "v1")),)
    lacking = gateway.launch("worker", PENSTOCK_MASTER_KEY=NEW_KEY)
    code, said = lacking.died(), lacking.log.read_text()
    lost = gateway.start("worker", PENSTOCK_MASTER_KEY=NEW_KEY, PENSTOCK_LOST_MASTER_KEYS=OLD_ID)

    assert sealing == [(NEW_ID,)] and payment
    assert code == 1 and OLD_ID in said and "PENSTOCK_LOST_MASTER_KEYS" in said
    # What nobody can open any more is a person's, and keeps its card should the key be found.
    review = "SELECT status, attempts, sealed IS NOT NULL FROM operations WHERE payment = %s"
    eventually(lambda: gateway.sql(review, payment) == [("review", 0, True)], "it is in review", 20)
    assert lost.end() == 0


def gateway_payment(gateway: Gateway, sealed: str) -> str:
    """A payment that waits in the ledger, its card sealed like this: paid, then set back by hand."""
    gateway.start("edge", **ROTATED)
    worker = gateway.start("worker", **ROTATED)
    payment = str(gateway.pay(CARD, wait=10).json()["id"])
    assert worker.end() == 0
    gateway.sql(
        "UPDATE operations SET settled_at = NULL, response_status = NULL, response_body = NULL, status = 'accepted', "
        "attempts = 0, first_sent_at = NULL, deadline = NULL, send_by = NULL, sealed = %s WHERE payment = %s",
        sealed,
        payment,
    )
    gateway.sql(
        "UPDATE payments SET state = 'pending', authorized_at = NULL, authorization_id = NULL WHERE id = %s", payment
    )
    return payment


def hold(connection: psycopg.Connection, name: str, *keys: bytes, ttl_s: float = 1.0, lost: Sequence[str] = ()) -> Any:
    """What the ledger says to one process: the key that seals."""
    checks = Vault(keys).checks
    arguments = {
        "kind": "worker",
        "name": name,
        "held": list(checks),
        "checks": list(checks.values()),
        "fingerprint": "f",
        "lost": list(lost),
        "ttl_s": ttl_s,
    }
    row = connection.execute(statement("hold_keys"), arguments).fetchone()
    assert row is not None
    return row[1]


@pytest.fixture
def ledger(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def age(ledger: psycopg.Connection, seconds: float, name: str = "%") -> None:
    """These holders were heard of for the last time so much earlier, and have been steady for longer."""
    moved = "seen_at = seen_at - make_interval(secs => %s), steady_since = steady_since - make_interval(secs => %s)"
    ledger.execute(f"UPDATE key_holders SET {moved} WHERE name LIKE %s", (seconds, seconds, name))  # type: ignore[arg-type]


def steady(ledger: psycopg.Connection) -> None:
    ledger.execute("UPDATE key_holders SET steady_since = steady_since - interval '1 hour'")


def test_the_key_that_seals_changes_only_when_each_live_process_has_the_new_one_as_its_own(
    ledger: psycopg.Connection,
) -> None:
    assert {hold(ledger, name, OLD, ttl_s=60) for name in ("a", "b")} == {OLD_ID}
    hold(ledger, "a", NEW, OLD, ttl_s=60)
    steady(ledger)
    while_one_lacks_it = hold(ledger, "a", NEW, OLD, ttl_s=60)
    hold(ledger, "b", OLD, NEW, ttl_s=60)  # it can open it, and still would seal with the old one
    steady(ledger)
    while_one_is_only_prepared = hold(ledger, "a", NEW, OLD, ttl_s=60)
    hold(ledger, "b", NEW, OLD, ttl_s=60)
    steady(ledger)

    assert (while_one_lacks_it, while_one_is_only_prepared) == (OLD_ID, OLD_ID)
    assert hold(ledger, "a", NEW, OLD, ttl_s=60) == NEW_ID
    assert hold(ledger, "b", NEW, OLD, ttl_s=60) == NEW_ID


def test_after_an_outage_of_the_ledger_nobody_moves_on_before_the_others_had_time_to_come_back(
    ledger: psycopg.Connection,
) -> None:
    hold(ledger, "a", OLD, ttl_s=60)
    hold(ledger, "b", OLD, ttl_s=60)
    hold(ledger, "a", NEW, OLD, ttl_s=60)
    age(ledger, 600)  # nobody could say anything for ten minutes

    at_once = hold(ledger, "a", NEW, OLD, ttl_s=60)
    hold(ledger, "b", OLD, ttl_s=60)
    steady(ledger)

    assert at_once == OLD_ID
    assert hold(ledger, "a", NEW, OLD, ttl_s=60) == OLD_ID, "the other one is back, without it"
    age(ledger, 600, "b")
    assert hold(ledger, "a", NEW, OLD, ttl_s=60) == NEW_ID, "a process that is gone is not waited for for ever"


def test_a_lost_key_that_somebody_still_holds_goes_on_sealing(ledger: psycopg.Connection) -> None:
    hold(ledger, "a", OLD, ttl_s=60)

    assert hold(ledger, "b", NEW, ttl_s=60, lost=[OLD_ID]) == OLD_ID
    age(ledger, 600)
    assert hold(ledger, "b", NEW, ttl_s=60, lost=[OLD_ID]) == NEW_ID


def test_two_who_come_at_once_are_told_the_same_key(database: str, ledger: psycopg.Connection) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%hold_keys%'"

    def come() -> Any:
        with psycopg.connect(database, autocommit=True) as connection:
            return hold(connection, "b", NEW)

    with psycopg.connect(database) as first, ThreadPoolExecutor(1) as pool:
        told = hold(first, "a", OLD)
        second = pool.submit(come)
        eventually(lambda: ledger.execute(waiting).fetchone() == (1,), "the second waits for the first")
        first.commit()
        also = second.result(10)

    assert (told, also) == (OLD_ID, OLD_ID)


def test_an_envelope_s_key_is_read_alike_here_and_in_the_ledger(ledger: psycopg.Connection) -> None:
    sealed = Vault([OLD]).seal_secret(b"x", "y", "v1")

    for text in (sealed, "", "AQ", "c2VhbGVk", "not base64 at all", sealed[:7], "Ag" + sealed[2:]):
        row = ledger.execute("SELECT sealing_key_of(%s)", (text,)).fetchone()
        assert (row or ("",))[0] == (key_id(text) or None), text
    assert key_id(sealed) == OLD_ID


def test_secrets_and_answers_are_sealed_anew_and_the_old_key_may_go(gateway: Gateway) -> None:
    gateway.start("edge").end()
    edge: Running = gateway.start("edge")
    body = {"url": "http://127.0.0.1:9/hook"}
    headers = {"X-API-Key": "sk_local_merchant", "Idempotency-Key": "an-endpoint"}
    url = "/v1/webhook-endpoints"
    first = gateway.request("POST", url, json=body, headers=headers)
    edge.end()
    gateway.start("edge", **ROTATED)
    eventually(lambda: gateway.sql(SEALING) == [(NEW_ID,)], "the new key seals")
    gateway.sql("UPDATE master_keys SET sealed_until = sealed_until - interval '1 hour'")
    before = {key.id: key.may_go for key in read_keys(gateway.database)[0]}

    done = reseal(gateway.database, Vault([NEW, OLD]))
    after = {key.id: key.may_go for key in read_keys(gateway.database)[0]}
    alone = gateway.start("edge", PENSTOCK_MASTER_KEY=NEW_KEY)
    again = gateway.http.post(f"http://127.0.0.1:{alone.port}{url}", json=body, headers=headers)

    assert first.status_code == 201, first.text
    assert (before, after) == ({OLD_ID: False, NEW_ID: False}, {OLD_ID: True, NEW_ID: False})
    assert done == 2
    assert (again.status_code, again.content) == (201, first.content)
