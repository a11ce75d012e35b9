"""What a connector finds out by reading: what the bank shows of an id, and whether the bank itself answers at all."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import anyio
import pytest
from prometheus_client import CollectorRegistry

from bank.ficmart import FicmartBank
from bank.instant import InstantBank
from engine.contracts.connector import Connector
from engine.domain.bank_answer import Absent, Found, NoAnswer, Unsearchable
from engine.domain.payment import Verb
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import BreakerPolicy
from engine.resilience.guarded_connector import GuardedConnector, HoldBackPolicy
from engine.resilience.retry_budget import RetryBudgetPolicy
from support.bank_harness import Bank

pytest_plugins = ["support.bank_fixtures"]
pytestmark = pytest.mark.anyio

PATIENCE_S = 5.0
AMOUNT = 5000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(params=["connector", "behind the gate"])
async def ficmart(bank: Bank, request: pytest.FixtureRequest) -> AsyncIterator[Connector]:
    async with FicmartBank(f"http://127.0.0.1:{bank.port}", clock=now) as connector:
        yield connector if request.param == "connector" else behind_a_gate(connector)


def behind_a_gate(connector: Connector) -> GuardedConnector:
    tolerance = BreakerPolicy(silences_max=1, rest_s=60, rest_cap_s=60, probes=1)
    return GuardedConnector(
        connector,
        tolerance,
        RetryBudgetPolicy(share=0, floor_per_s=0),
        HoldBackPolicy(attempt_s=5.0, worst_latency_s=5.0),
        EngineMetrics(CollectorRegistry()),
    )


async def test_a_hold_a_capture_and_a_refund_are_found_as_they_were_made(ficmart: Connector, bank: Bank) -> None:
    hold = bank.authorized(amount=AMOUNT)
    capture = bank.post("captures", {"authorization_id": hold, "amount": AMOUNT}).json()["capture_id"]
    refund = bank.post("refunds", {"capture_id": capture, "amount": AMOUNT}).json()["refund_id"]
    made = {Verb.AUTHORIZE: (hold, None), Verb.CAPTURE: (capture, hold), Verb.REFUND: (refund, capture)}

    for verb, (reference, parent) in made.items():
        found = await ficmart.look_up(verb, reference, PATIENCE_S)

        assert isinstance(found, Found)
        assert (found.reference, found.amount, found.currency, found.parent) == (reference, AMOUNT, "USD", parent)
        assert found.at is not None and abs(found.at - now()) < timedelta(minutes=1)
        assert (found.expires_at is not None) is (verb is Verb.AUTHORIZE)


async def test_an_id_that_the_bank_never_gave_is_absent_and_one_of_another_form_is_never_asked_for(
    ficmart: Connector, bank: Bank
) -> None:
    hold = bank.authorized()

    assert isinstance(await ficmart.look_up(Verb.AUTHORIZE, f"auth_{uuid4()}", PATIENCE_S), Absent)
    for strange in (hold.removeprefix("auth_"), f"cap_{hold[5:]}", f"../captures/{hold}", f"{hold}/", f"{hold}?", ""):
        finding = await ficmart.look_up(Verb.AUTHORIZE, strange, PATIENCE_S)
        assert isinstance(finding, Absent) and "has not the form" in finding.reason


async def test_an_id_spelt_otherwise_is_found_as_the_bank_spells_it(ficmart: Connector, bank: Bank) -> None:
    hold = bank.authorized()

    found = await ficmart.look_up(Verb.AUTHORIZE, "auth_" + hold[5:].upper(), PATIENCE_S)

    assert isinstance(found, Found) and found.reference == hold


async def test_a_void_cannot_be_looked_up(ficmart: Connector) -> None:
    assert isinstance(await ficmart.look_up(Verb.VOID, f"void_{uuid4()}", PATIENCE_S), Unsearchable)


async def test_a_bank_that_fails_says_nothing_of_an_id_but_answers_a_probe(ficmart: Connector, bank: Bank) -> None:
    hold = bank.authorized()
    bank.http.put("/control/chaos", json={"failure_rate": 1, "min_latency_ms": 0, "max_latency_ms": 0})
    try:
        finding, answered = await ficmart.look_up(Verb.AUTHORIZE, hold, PATIENCE_S), await ficmart.probe(PATIENCE_S)
    finally:
        bank.http.put("/control/chaos", json={"failure_rate": 0, "min_latency_ms": 0, "max_latency_ms": 0})

    assert isinstance(finding, NoAnswer)
    assert answered is True


async def test_a_bank_in_order_answers_a_probe(ficmart: Connector) -> None:
    assert await ficmart.probe(PATIENCE_S) is True


@contextmanager
def a_listener(reply: bytes | None) -> Iterator[int]:
    """Takes connections. Says nothing to them, or this."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        kept: list[socket.socket] = []

        def serve() -> None:
            try:
                while True:
                    peer, _ = server.accept()
                    kept.append(peer)
                    if reply is not None:
                        peer.recv(65_536)
                        peer.sendall(reply)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
    for peer in kept:
        peer.close()


def relayed(body: bytes, media_type: str, status: str = "502 Bad Gateway") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    "reply",
    [None, relayed(b"<html>bad gateway</html>", "text/html"), relayed(b"404 page not found\n", "text/plain", "404 No")],
    ids=["silence", "a relay's page", "plain text"],
)
async def test_what_is_not_the_bank_s_own_word_is_no_answer_to_a_probe_and_it_ends_in_time(
    reply: bytes | None,
) -> None:
    with a_listener(reply) as port:
        async with FicmartBank(f"http://127.0.0.1:{port}", clock=now) as connector:
            with anyio.fail_after(10):
                assert await connector.probe(0.3) is False
                assert isinstance(await connector.look_up(Verb.AUTHORIZE, f"auth_{uuid4()}", 0.3), NoAnswer)


async def test_a_bank_that_nobody_can_reach_does_not_answer_a_probe() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with FicmartBank(f"http://127.0.0.1:{port}", clock=now) as connector:
        assert await connector.probe(1.0) is False


async def test_a_probe_waits_behind_no_attempt(bank: Bank) -> None:
    """All places are taken, as when the bank stalls: the probe is how we find out that it has come back."""
    async with FicmartBank(f"http://127.0.0.1:{bank.port}", clock=now, connections_max=1) as connector:
        await connector._places.acquire()

        assert await asyncio.wait_for(connector.probe(PATIENCE_S), 10) is True


async def test_the_bank_inside_the_process_remembers_nothing_and_always_answers() -> None:
    bank = InstantBank(clock=now)

    assert isinstance(await bank.look_up(Verb.AUTHORIZE, "auth_1", PATIENCE_S), Unsearchable)
    assert await bank.probe(PATIENCE_S) is True
