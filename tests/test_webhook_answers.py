"""Whatever an endpoint answers, an attempt is over in time, has one outcome, and keeps little of it."""

from __future__ import annotations

import asyncio
import socket
import time
import tracemalloc

import pytest

from engine.contracts.url_policy import UrlPolicy, networks
from engine.contracts.webhooks import AttemptOutcome
from engine.webhooks.delivery import EndpointReply
from engine.webhooks.sender import BODY_BYTES_KEPT, WebhookSender
from support.raw_bank import Received, Script, raw_bank, sending, silence

LOCAL = UrlPolicy(https_only=False, inside=networks("127.0.0.0/8"))


def posted(script: Script, *, timeout_ms: int = 1000, times: int = 1) -> tuple[EndpointReply, int]:
    """The reply to the last of some posts, and how many requests came in."""

    async def scene() -> tuple[EndpointReply, int]:
        async with raw_bank(script) as server, WebhookSender(LOCAL, timeout_ms=timeout_ms) as sender:
            for _ in range(times):
                reply = await sender.post(server.url, {"webhook-id": "evt_1"}, b'{"a":1}')
            return reply, len(server.received)

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, AttemptOutcome.DELIVERED) for status in (200, 201, 204, 299)),
        *((status, AttemptOutcome.REFUSED) for status in (300, 304, 400, 404, 429, 500, 503)),
        (410, AttemptOutcome.GONE),
    ],
)
def test_two_hundreds_are_success_410_is_gone_and_all_else_is_refused(status: int, outcome: AttemptOutcome) -> None:
    body = b"" if status in (204, 304) else b"content-length: 0\r\n"

    reply, _ = posted(sending(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, body)))

    assert (reply.outcome, reply.status) == (outcome, status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(status: int) -> None:
    reply, requests = posted(sending(b"HTTP/1.1 %d X\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n" % status))

    assert reply.outcome is AttemptOutcome.REFUSED
    assert requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff" * 100, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, b"",
    ],
    ids=["bytes", "ssh", "status", "header", "headers", "long header", "nothing"],
)  # fmt: skip
def test_garbage_is_no_answer(answer: bytes) -> None:
    reply, _ = posted(sending(answer, close=True))

    assert (reply.outcome, reply.status) == (AttemptOutcome.UNREACHABLE, None)


def test_an_endpoint_that_never_answers_is_given_up_in_time() -> None:
    began = time.monotonic()
    reply, _ = posted(silence, timeout_ms=300)

    assert reply.outcome is AttemptOutcome.TIMEOUT
    assert time.monotonic() - began < 3


def test_headers_that_drip_are_given_up_in_time() -> None:
    async def dripping(request: Received) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            request.writer.write(b"y")
            await request.writer.drain()
            await asyncio.sleep(0.02)

    reply, _ = posted(dripping, timeout_ms=300)

    assert reply.outcome is AttemptOutcome.TIMEOUT


@pytest.mark.parametrize("head", [b"content-length: 1073741824", b"transfer-encoding: chunked"])
def test_of_an_endless_answer_little_is_read(head: bytes) -> None:
    sent = 0

    async def gushing(request: Received) -> None:
        nonlocal sent
        request.writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        chunk = b"z" * 65_536
        while True:
            request.writer.write(chunk if b"length" in head else b"10000\r\n" + chunk + b"\r\n")
            await request.writer.drain()
            sent += len(chunk)

    tracemalloc.start()
    reply, _ = posted(gushing)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (reply.outcome, reply.body) == (AttemptOutcome.DELIVERED, "z" * BODY_BYTES_KEPT)
    assert sent < 32 << 20, "the socket's buffers, and no more"
    assert peak < 16 << 20


def test_a_status_whose_body_drips_is_the_answer_at_once() -> None:
    async def dripping(request: Received) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            request.writer.write(b"y")
            await request.writer.drain()
            await asyncio.sleep(0.05)

    reply, _ = posted(dripping, timeout_ms=600)

    assert reply.outcome is AttemptOutcome.DELIVERED
    assert reply.body is not None and set(reply.body) == {"y"}


def test_of_the_body_a_kib_is_kept_as_text_that_a_database_takes() -> None:
    body = b"\x00\xff\xfe" + b"x" * 5000

    reply, _ = posted(sending(b"HTTP/1.1 500 X\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)))

    assert reply.body is not None
    assert reply.body.startswith("���x")
    assert "\x00" not in reply.body
    assert len(reply.body) == BODY_BYTES_KEPT


def test_a_compressed_answer_does_not_swell() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\nnot gzip!!"

    reply, _ = posted(sending(answer))

    assert (reply.outcome, reply.body) == (AttemptOutcome.DELIVERED, "not gzip!!")


def test_a_kept_connection_that_was_closed_costs_no_attempt() -> None:
    async def once_each(request: Received) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await request.writer.drain()
        request.writer.close()  # without saying so

    reply, requests = posted(once_each, times=3)

    assert reply.outcome is AttemptOutcome.DELIVERED
    assert requests >= 3


def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        async def scene() -> EndpointReply:
            async with WebhookSender(LOCAL, timeout_ms=1000) as sender:
                return await sender.post(f"http://127.0.0.1:{taken.getsockname()[1]}/", {}, b"{}")

        assert asyncio.run(scene()).outcome is AttemptOutcome.UNREACHABLE


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("0", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("-1", None)],
)
def test_retry_after_is_understood_in_both_its_forms(header: str, seconds: float | None) -> None:
    reply, _ = posted(sending(b"HTTP/1.1 503 X\r\nretry-after: %s\r\ncontent-length: 0\r\n\r\n" % header.encode()))

    assert reply.retry_after_s == seconds


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        ("9" * 60, 86_400, 86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400, 86_400),
        ("Fri, 31 Dec 2030 23:59:59 -0000", 0, 86_400),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_between_now_and_a_day(header: str, least_s: float, most_s: float) -> None:
    reply, _ = posted(sending(b"HTTP/1.1 503 X\r\nretry-after: %s\r\ncontent-length: 0\r\n\r\n" % header.encode()))

    assert reply.retry_after_s is not None
    assert least_s <= reply.retry_after_s <= most_s


@pytest.mark.parametrize(
    "header",
    ["Fri, 31 Dec 99999999999 23:59:59 GMT", "Fri, 31 Dec 2030 23:59:59 +99999999999999", "1e9", "+5", "9" * 99],
)
def test_a_retry_after_that_is_no_time_is_left_out(header: str) -> None:
    reply, _ = posted(sending(b"HTTP/1.1 503 X\r\nretry-after: %s\r\ncontent-length: 0\r\n\r\n" % header.encode()))

    assert (reply.outcome, reply.retry_after_s) == (AttemptOutcome.REFUSED, None)
