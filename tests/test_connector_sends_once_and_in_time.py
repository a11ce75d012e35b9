"""The FicMart connector sends one request per ask, and none after send_by; what it did not send is Unsent."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import anyio
import orjson
import pytest

from bank import dialect
from bank.ficmart import FicmartBank
from engine.contracts.connector import BankRequest
from engine.domain.bank_answer import Answer, Approved, NoAnswer, Unsent
from engine.domain.money import Money
from engine.domain.payment import Verb
from engine.errors import Broken
from support.ficmart_asks import (
    AUTHORIZATION,
    CAPTURE,
    CVV,
    OK,
    PAN,
    PATH,
    SUCCESS,
    TRACE,
    an_ask,
    clock_that_jumps_after,
    now,
)
from support.gateway import eventually
from support.raw_bank import Received, http, raw_bank, sending, silence

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.mark.parametrize("verb", Verb)
async def test_an_ask_is_one_post_with_the_bank_key_and_the_trace(verb: Verb) -> None:
    async with raw_bank(sending(http(200, SUCCESS[verb]))) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(verb, key="op_42"))

    assert isinstance(answer, Approved)
    (request,) = bank.received
    assert request.line == f"POST {PATH[verb]} HTTP/1.1"
    assert request.header("idempotency-key") == ["op_42"]
    assert request.header("traceparent") == [TRACE]
    assert request.header("content-type") == ["application/json"]


async def test_no_trace_is_sent_where_there_is_none() -> None:
    async with raw_bank(sending(OK)) as bank, FicmartBank(bank.url, clock=now) as connector:
        await connector.ask(replace(an_ask(), traceparent=None))

    assert bank.received[0].header("traceparent") == []


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        (
            Verb.AUTHORIZE,
            {"amount": 5000, "card_number": PAN, "cvv": CVV, "expiry_month": 12, "expiry_year": 2030},
        ),
        (Verb.CAPTURE, {"authorization_id": AUTHORIZATION, "amount": 5000}),
        (Verb.VOID, {"authorization_id": AUTHORIZATION}),
        (Verb.REFUND, {"capture_id": CAPTURE, "amount": 5000}),
    ],
)
def test_a_body_has_the_fields_of_the_contract(verb: Verb, fields: dict[str, object]) -> None:
    assert orjson.loads(dialect.request(an_ask(verb))) == fields


@pytest.mark.parametrize(
    "ask",
    [
        replace(an_ask(), card=None),
        replace(an_ask(Verb.CAPTURE), reference=None),
        replace(an_ask(), money=Money(amount=5000, currency="EUR")),
    ],
    ids=["no card", "no reference", "euros"],
)
async def test_what_the_edge_should_have_refused_is_a_bug_and_is_not_sent(ask: BankRequest) -> None:
    async with raw_bank(sending(OK)) as bank, FicmartBank(bank.url, clock=now) as connector:
        with pytest.raises(Broken):
            await connector.ask(ask)

    assert bank.connections == 0


@pytest.mark.parametrize("url", ["", "bank:8787", "ftp://bank", "/relative"])
def test_a_url_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        FicmartBank(url, clock=now)


async def test_connections_are_kept_and_shared() -> None:
    async with (
        raw_bank(sending(OK)) as bank,
        FicmartBank(bank.url, clock=now, connections_max=3) as connector,
        anyio.create_task_group() as tasks,
    ):
        for number in range(30):
            tasks.start_soon(connector.ask, an_ask(key=f"op_{number}"))

    assert len(bank.received) == 30
    assert bank.connections <= 3


async def test_a_refused_connection_is_unsent() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        async with FicmartBank(f"http://127.0.0.1:{unused.getsockname()[1]}", clock=now) as connector:
            answer = await connector.ask(an_ask())

    assert isinstance(answer, Unsent)
    assert answer.unreachable, "it is the bank's doing, and opens the circuit breaker"


async def test_a_host_without_an_address_is_unsent() -> None:
    async with FicmartBank("http://no-such-bank.invalid", clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, Unsent)


async def test_a_connection_not_made_by_send_by_is_unsent() -> None:
    # A listener that never speaks: the connection is made only with the TLS handshake, which hangs.
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        async with FicmartBank(f"https://127.0.0.1:{mute.getsockname()[1]}", clock=now) as connector:
            began = monotonic()
            answer = await connector.ask(an_ask(send_by_ms=200, deadline_ms=3_000))
            took_s = monotonic() - began

    assert isinstance(answer, Unsent)
    assert took_s < 1.5


async def test_nothing_is_written_once_send_by_has_passed() -> None:
    async with raw_bank(sending(OK)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(send_by_ms=-1))

    assert isinstance(answer, Unsent)
    assert bank.connections == 0


async def test_nothing_is_written_when_send_by_passes_after_the_connection_was_made() -> None:
    # The clock is read before the call and right before the write; the pause falls between them.
    clock = clock_that_jumps_after(calls=1, by=timedelta(seconds=3))
    async with raw_bank(sending(OK)) as bank, FicmartBank(bank.url, clock=clock) as connector:
        answer = await connector.ask(an_ask())
        await bank.hung_up.wait()

    assert isinstance(answer, Unsent)
    assert "send_by" in answer.reason
    assert (bank.connections, bank.received) == (1, [])


async def test_who_finds_no_free_connection_by_send_by_is_unsent_and_takes_no_place() -> None:
    go = asyncio.Event()

    async def once_told(request: Received) -> None:
        await go.wait()
        request.writer.write(OK)

    answers: list[Answer] = []
    async with raw_bank(once_told) as bank, FicmartBank(bank.url, clock=now, connections_max=1) as connector:
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                answers.append(await connector.ask(an_ask(key="op_1")))

            tasks.start_soon(first)
            await bank.asked.wait()
            crowded = await connector.ask(an_ask(key="op_2", send_by_ms=50))
            go.set()
        after = await connector.ask(an_ask(key="op_3"))

    assert isinstance(crowded, Unsent)
    assert isinstance(answers[0], Approved)
    assert isinstance(after, Approved)
    assert [request.header("idempotency-key") for request in bank.received] == [["op_1"], ["op_3"]]
    assert bank.connections == 1


async def test_a_cancelled_ask_gives_its_place_back() -> None:
    async with raw_bank(silence) as bank, FicmartBank(bank.url, clock=now, connections_max=1) as connector:
        with anyio.move_on_after(0.05):
            await connector.ask(an_ask())
        answer = await connector.ask(an_ask(send_by_ms=100, deadline_ms=200))

    assert isinstance(answer, NoAnswer)
    assert len(bank.received) == 2


async def test_bytes_left_on_a_kept_connection_are_never_taken_for_an_answer() -> None:
    stranger = http(200, SUCCESS[Verb.AUTHORIZE] | {"authorization_id": "auth_stranger"})
    told, there = asyncio.Event(), asyncio.Event()

    async def answer_then_babble(request: Received) -> None:
        request.writer.write(OK)
        await told.wait()
        request.writer.write(stranger)
        raw = request.writer.get_extra_info("socket")
        await asyncio.to_thread(eventually, lambda: _arrived(raw.fileno()), "it is at the other end")
        there.set()

    async with raw_bank(answer_then_babble) as bank, FicmartBank(bank.url, clock=now) as connector:
        first = await connector.ask(an_ask(key="op_1"))
        told.set()
        await there.wait()  # by the kernel's word: the stray bytes are in no one's hands yet
        second = await connector.ask(an_ask(key="op_2"))
        third = await connector.ask(an_ask(key="op_3"))

    assert isinstance(first, Approved)
    assert isinstance(second, Unsent)
    assert isinstance(third, Approved)  # on a fresh connection
    assert third.reference == AUTHORIZATION
    assert [request.header("idempotency-key") for request in bank.received] == [["op_1"], ["op_3"]]


def _arrived(descriptor: int) -> bool:
    """Whether all that was written to a socket is in the hands of the kernel at its other end."""
    return fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)) == bytes(4)
