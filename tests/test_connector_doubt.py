"""On a wire that breaks, no doubt is taken for a failure, and nothing is sent twice by the FicMart connector."""

from __future__ import annotations

import asyncio
import gzip
from time import monotonic

import pytest

from bank.ficmart import FicmartBank
from engine.domain.bank_answer import Approved, NoAnswer
from engine.domain.payment import Verb
from support.ficmart_asks import (
    BODY,
    OK,
    SUCCESS,
    an_ask,
    now,
)
from support.raw_bank import Received, http, raw_bank, sending, silence

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_a_kept_connection_closed_after_reading_the_request_gets_it_only_once() -> None:
    async def close_at_the_second(request: Received) -> None:
        if request.header("idempotency-key") == ["op_2"]:
            request.writer.close()
        else:
            request.writer.write(OK)

    async with raw_bank(close_at_the_second) as bank, FicmartBank(bank.url, clock=now) as connector:
        first = await connector.ask(an_ask(key="op_1"))
        second = await connector.ask(an_ask(key="op_2"))
        third = await connector.ask(an_ask(key="op_3"))

    assert [type(answer) for answer in (first, second, third)] == [Approved, NoAnswer, Approved]
    assert [request.header("idempotency-key") for request in bank.received] == [["op_1"], ["op_2"], ["op_3"]]
    assert bank.connections == 2


async def test_silence_ends_at_the_deadline_in_doubt() -> None:
    async with raw_bank(silence) as bank, FicmartBank(bank.url, clock=now) as connector:
        began = monotonic()
        answer = await connector.ask(an_ask(send_by_ms=100, deadline_ms=300))
        took_s = monotonic() - began

    assert isinstance(answer, NoAnswer)
    assert answer.ask_again
    assert 0.25 < took_s < 1.5
    assert len(bank.received) == 1


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_deadline_of_more_than_five_seconds_is_not_rounded_up() -> None:
    # aiohttp would round these up to the next full second of the loop's clock; so would a later attempt overlap.
    async with raw_bank(silence) as bank, FicmartBank(bank.url, clock=now) as connector:
        loop = asyncio.get_running_loop()
        deadline_s = 5.05 + (0.1 - loop.time()) % 1  # just after a full second: rounding up would add almost one
        began = monotonic()
        answer = await connector.ask(an_ask(deadline_ms=round(deadline_s * 1000)))
        took_s = monotonic() - began

    assert isinstance(answer, NoAnswer)
    assert took_s < deadline_s + 0.5


async def drip(request: Received) -> None:
    """A byte now and then, for ever: each read makes progress, the answer never ends."""
    request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    while True:
        request.writer.write(b" ")
        await request.writer.drain()
        await asyncio.sleep(0.01)


async def reset(request: Received) -> None:
    request.reset()


BROKEN_ANSWERS = {
    "closed": sending(close=True),
    "reset": reset,
    "silent": silence,
    "dripping": drip,
    "cut in the head": sending(OK[:25], close=True),
    "cut in the body": sending(OK[:-9], close=True),
    "cut chunk": sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{", close=True),
    "cut, without a length": sending(b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:-9], close=True),
    "not HTTP": sending(b"+OK Redis\r\n", close=True),
    "a head too long": sending(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", close=True),
    "a body too long": sending(http(200, b" " * 70_000 + BODY)),
    "an endless body": sending(b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 20_000] * 5),
    "a decline cut": sending(http(402, {"error": "insufficient_funds"})[:-3], close=True),
    "empty": sending(http(200, b"")),
    "no content": sending(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not JSON": sending(http(200, b"<html>", "text/html")),
    "a JSON list": sending(http(200, b"[]")),
    "invalid UTF-8": sending(http(200, b'{"status": "\xff"}')),
    "compressed unasked": sending(http(200, gzip.compress(BODY), "application/json", "Content-Encoding: gzip")),
    "an error as success": sending(http(200, {"error": "internal_error"})),
    "switching protocols": sending(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
}


@pytest.mark.parametrize("what", BROKEN_ANSWERS)
async def test_a_broken_answer_is_in_doubt_and_asked_once(what: str) -> None:
    async with raw_bank(BROKEN_ANSWERS[what]) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(send_by_ms=1_000, deadline_ms=1_200))

    assert isinstance(answer, NoAnswer)
    assert answer.ask_again
    assert len(bank.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    moved = http(status, b"", "text/html", "Location: /api/v1/captures")
    async with raw_bank(sending(moved)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(Verb.CAPTURE))

    assert isinstance(answer, NoAnswer)
    assert len(bank.received) == 1


async def test_a_cookie_is_not_carried_from_one_payment_to_the_next() -> None:
    ok = http(200, SUCCESS[Verb.AUTHORIZE], "application/json", "Set-Cookie: a=b")
    async with raw_bank(sending(ok)) as bank:
        by_name = bank.url.replace("127.0.0.1", "localhost")  # aiohttp keeps cookies of names only
        async with FicmartBank(by_name, clock=now) as connector:
            await connector.ask(an_ask())
            await connector.ask(an_ask())

    assert len(bank.received) == 2
    assert bank.received[1].header("cookie") == []


async def test_a_500_is_not_sent_again_by_the_connector() -> None:
    failed = http(500, {"error": "internal_error", "message": "Random failure injection"})
    async with raw_bank(sending(failed)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, NoAnswer)
    assert answer.ask_again
    assert answer.evidence["bank_code"] == "internal_error"
    assert len(bank.received) == 1


@pytest.mark.parametrize("status", [408, 500, 520, 522, 524, 502, 503, 504])
@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/json"])
async def test_what_something_in_between_may_have_said_does_not_end_the_attempt(status: int, kind: str) -> None:
    # The bank itself may still be at work: until its deadline nothing may be asked again.
    gone = sending(http(status, b"<p>gone</p>", kind))
    async with raw_bank(gone) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, NoAnswer)
    assert (answer.over, answer.ask_again) == (False, True)


@pytest.mark.parametrize("body", [b"", b"<p>welcome</p>", b"[]", b'{"status": "appr', b'{"error": "internal_error"}'])
async def test_a_success_that_cannot_be_read_does_not_end_the_attempt(body: bytes) -> None:
    async with raw_bank(sending(http(200, body))) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, NoAnswer)
    assert (answer.over, answer.ask_again) == (False, True)


@pytest.mark.parametrize("verb", Verb)
async def test_an_internal_error_in_the_banks_own_words_ends_the_attempt(verb: Verb) -> None:
    failed = http(500, {"error": "internal_error", "message": "Random failure injection"})
    async with raw_bank(sending(failed)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(verb))

    assert isinstance(answer, NoAnswer)
    assert (answer.over, answer.ask_again) == (True, True)
