"""On the wire: oversized, cut off, endless and meaningless requests over raw sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import orjson
import psutil
import pytest

from support.edge_stand import MERCHANT, Stand, a_payment, running_edge, running_postgres
from support.wire import read_all, read_reply

BODY = orjson.dumps(a_payment())
HEAD = (
    f"POST /v1/payments HTTP/1.1\r\nHost: edge\r\nX-API-Key: {MERCHANT}\r\nContent-Type: application/json\r\n".encode()
)
KEYED = HEAD + b"Idempotency-Key: wire\r\n"


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


@pytest.fixture
def wire(edge: Stand) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as connection:
        yield connection


def test_ten_megabytes_are_refused_before_they_are_sent(edge: Stand, wire: socket.socket) -> None:
    wire.sendall(KEYED + b"Content-Length: 10485760\r\n\r\n" + b"x" * 1000)

    answer = read_all(wire)  # or this waits in vain for the rest to be asked for

    assert problem(answer) == (413, "payload_too_large")
    assert b"connection: close" in answer.lower()
    assert edge.engine.asked == []


def test_a_client_that_sends_ten_megabytes_anyway_sees_the_answer(edge: Stand) -> None:
    answer = edge.post(body=b"x" * 10 * 1024 * 1024)

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_ten_megabytes_in_chunks_are_refused_at_the_limit(edge: Stand, wire: socket.socket) -> None:
    wire.sendall(KEYED + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    for _ in range(5):
        wire.sendall(chunk)

    assert problem(read_all(wire)) == (413, "payload_too_large"), "the end of the body is not waited for"
    assert edge.engine.asked == []


def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(edge: Stand) -> None:
    def padded(size: int) -> bytes:
        return BODY[:-1] + b" " * (size - len(BODY)) + b"}"

    assert edge.post(body=padded(65536)).status_code == 202
    assert edge.post(body=padded(65537)).status_code == 413


def test_a_small_body_in_chunks_is_read(edge: Stand, wire: socket.socket) -> None:
    wire.sendall(KEYED + b"Transfer-Encoding: chunked\r\n\r\n")
    for part in (BODY[:50], BODY[50:]):
        wire.sendall(b"%x\r\n%s\r\n" % (len(part), part))
    wire.sendall(b"0\r\n\r\n")

    assert read_reply(wire).status == 202


def test_a_key_that_is_wrong_is_refused_before_a_large_body(edge: Stand, wire: socket.socket) -> None:
    head = KEYED.replace(MERCHANT.encode(), b"sk_wrong")
    wire.sendall(head + b"Content-Length: 10485760\r\n\r\n")

    assert problem(read_all(wire)) == (401, "api_key_invalid")


def test_a_client_that_expects_100_continue_is_refused_without_it(edge: Stand, wire: socket.socket) -> None:
    wire.sendall(KEYED + b"Expect: 100-continue\r\nContent-Length: 10485760\r\n\r\n")

    assert problem(read_all(wire)) == (413, "payload_too_large")


def test_a_refusal_with_a_small_unread_body_keeps_the_connection(edge: Stand, wire: socket.socket) -> None:
    wire.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
    assert read_reply(wire).status == 400

    wire.sendall(KEYED + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
    assert read_reply(wire).status == 202


@pytest.mark.parametrize("blank", [b"Idempotency-Key:\r\n", b"Idempotency-Key:    \r\n", b'Idempotency-Key: ""\r\n'])
def test_a_blank_key_is_a_missing_key(edge: Stand, wire: socket.socket, blank: bytes) -> None:
    wire.sendall(HEAD + blank + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))

    assert problem(read_all(wire)) == (400, "idempotency_key_missing")


# fmt: off
GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),                            # TLS on a plain port
    b"hello\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
    KEYED + b"Content-Length: ten\r\n\r\n",
    KEYED + b"Content-Length: -5\r\n\r\n",
    KEYED + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    KEYED + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",             # smuggling
    KEYED + b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n",
]
# fmt: on


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_http_gets_400_and_the_edge_lives_on(edge: Stand, wire: socket.socket, garbage: bytes) -> None:
    wire.sendall(garbage)

    answer = read_all(wire)

    assert problem(answer) == (400, "malformed_request")
    assert edge.client.get("/livez").status_code == 200
    assert edge.engine.asked == []


def test_a_head_that_never_ends_is_cut_off(edge: Stand, wire: socket.socket) -> None:
    wire.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
    sent = 0
    try:
        while sent < 4 * 1024 * 1024:
            wire.sendall(b"x" * 16384)
            sent += 16384
    except OSError:
        pass  # the edge hung up, as it should

    assert sent < 4 * 1024 * 1024


def test_many_refused_large_bodies_do_not_fill_the_memory(edge: Stand) -> None:
    def rss() -> int:
        return int(psutil.Process().memory_info().rss)

    edge.post(body=b"x" * 1024 * 1024)
    before = rss()
    body = b"x" * 4 * 1024 * 1024
    for _ in range(20):
        assert edge.post(body=body).status_code == 413

    assert rss() - before < 30 * 1024 * 1024


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), orjson.loads(body)["code"]
