"""A key answers the payload it was first used with and no other, whichever store forgets or is away meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import httpx
import psutil
import pytest

from engine.domain.ids import operation_id, partition_of
from engine.domain.payment import Verb
from engine.streams import keys
from ops.stack.embedded import EmbeddedPostgres
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

FIRST, SECOND = 5000, 6000


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("one-payload")
    bank_url = f"http://127.0.0.1:{calm_bank.port}"
    with a_gateway(module_database, module_redis_url, bank_url, folder) as running:
        yield running


@contextmanager
def away(gateway: Gateway, postgres: EmbeddedPostgres) -> Iterator[None]:
    """Postgres does not answer, and the edge knows."""
    server = psutil.Process(postgres.pid)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        assert gateway.request("GET", "/v1/payments/pay_00000000000000000000000000").status_code == 503
        yield
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)


@contextmanager
def halted(gateway: Gateway) -> Iterator[None]:
    """The worker does nothing."""
    worker = next(running for running in gateway.processes if running.role == "worker")
    worker.send(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.send(signal.SIGCONT)


class Key:
    """One key, with a payment of the first amount made under it whose record Redis has lost."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.card, self.key = gateway, next(fresh_cards), uuid4().hex
        self.made = self.used(FIRST, wait=20)
        assert self.made.status_code == 201
        self.payment = self.made.json()["id"]
        operation = operation_id(self.payment, Verb.AUTHORIZE, self.key)
        gateway.redis.delete(keys.record(partition_of(self.payment, 16), operation))

    def used(self, amount: int, *, wait: int = 0) -> httpx.Response:
        return self.gateway.pay(self.card, key=self.key, wait=wait, amount=amount)


def test_who_waits_with_another_payload_gets_no_answer_of_the_first(
    gateway: Gateway, postgres: EmbeddedPostgres
) -> None:
    key = Key(gateway)

    with ThreadPoolExecutor(1) as pool:
        with away(gateway, postgres):
            waiting = pool.submit(key.used, SECOND, wait=20)
            eventually(lambda: gateway.backlog() == 1, "it is accepted, because nobody can tell")
            key.used(SECOND)  # answered after whatever the edge asked for the one who waits
        answer = waiting.result()

    assert_reused(answer)


def test_who_waited_in_vain_is_told_what_the_ledger_knew_meanwhile(
    gateway: Gateway, postgres: EmbeddedPostgres
) -> None:
    key = Key(gateway)

    with ThreadPoolExecutor(1) as pool, halted(gateway):
        with away(gateway, postgres):
            waiting = pool.submit(key.used, SECOND, wait=4)
            eventually(lambda: gateway.backlog() == 1, "it is accepted, because nobody can tell")
            key.used(SECOND)
        answer = waiting.result()

    assert_reused(answer)


def test_after_a_202_that_nobody_could_check_reads_and_repeats_tell_the_truth(
    gateway: Gateway, postgres: EmbeddedPostgres
) -> None:
    key = Key(gateway)

    with away(gateway, postgres):
        accepted = key.used(SECOND)
        first_again = key.used(FIRST)
    gateway.settled()
    shown = gateway.get(key.payment)
    listed = gateway.request("GET", f"/v1/operations?idempotency_key={key.key}").json()["data"]

    assert (accepted.status_code, accepted.json()["amount"]) == (202, SECOND)
    assert (first_again.status_code, first_again.json()["code"]) == (503, "store_unavailable")
    assert (shown["amount"], shown["status"]) == (FIRST, "authorized")
    assert [operation["amount"] for operation in listed] == [FIRST]
    assert (key.used(FIRST).status_code, key.used(FIRST).content) == (201, key.made.content)
    assert key.used(FIRST, wait=5).content == key.made.content
    assert_reused(key.used(SECOND))
    assert_reused(key.used(SECOND, wait=5))


def test_a_capture_of_the_amount_of_a_payload_that_came_too_late_takes_nothing(
    gateway: Gateway, postgres: EmbeddedPostgres
) -> None:
    key = Key(gateway)
    path, named, unnamed = f"/v1/payments/{key.payment}/capture", uuid4().hex, uuid4().hex

    with away(gateway, postgres):
        key.used(SECOND)
        of_second = gateway.post(path, {"amount": SECOND}, key=named)
        of_all = gateway.post(path, key=unnamed)
    gateway.settled()
    ended = gateway.sql("SELECT key, status, response_status FROM operations WHERE payment = %s", key.payment)

    assert (of_second.status_code, of_all.status_code) == (202, 202)
    assert set(ended) == {(key.key, "succeeded", 201), (named, "rejected", 422), (unnamed, "succeeded", 200)}
    assert gateway.get(key.payment)["amount_captured"] == FIRST
    for wait in (0, 5):
        again = gateway.post(path, {"amount": SECOND}, key=named, wait=wait)
        assert (again.status_code, again.json()["code"]) == (422, "amount_not_supported")
        assert gateway.post(path, key=unnamed, wait=wait).json()["amount_captured"] == FIRST
        assert gateway.post(path, {"amount": FIRST}, key=unnamed, wait=wait).status_code == 200


def test_a_settled_record_tells_of_another_payload_with_the_ledger_away(
    gateway: Gateway, postgres: EmbeddedPostgres
) -> None:
    key = Key(gateway)
    assert key.used(FIRST).status_code == 201  # repairs the record

    with away(gateway, postgres):
        answer = key.used(SECOND)

    assert_reused(answer)


def assert_reused(answer: httpx.Response) -> None:
    """Refused, naming the field that differs."""
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "idempotency_key_reused"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/amount"]
