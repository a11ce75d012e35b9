"""What a client leaves unfinished ends, what it has finished is answered, and nobody shuts the door for others."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import orjson
import pytest

from edge.server.admission import AdmissionLimits
from edge.server.protocol import configuration
from support.edge_stand import MERCHANT, Stand, a_payment, running_edge, running_postgres
from support.gateway import eventually
from support.wire import connected, exchange, is_kept, read_all, read_reply, replies

BODY = orjson.dumps(a_payment())
KEY = f"X-API-Key: {MERCHANT}\r\nContent-Type: application/json\r\nIdempotency-Key: ends\r\n".encode()
HEAD = b"POST /v1/payments HTTP/1.1\r\nHost: edge\r\n" + KEY
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
WAITING = HEAD + b"Prefer: wait=30\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: edge\r\n\r\n"
EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: edge\r\nPrefer: wait=30\r\n" + KEY + b"\r\n"
SOON_S = 0.5


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def running(dsn: str) -> Iterator[Stand]:
    with running_edge(dsn, limits=AdmissionLimits(in_flight_max=8, waiting_max=4)) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Iterator[Stand]:
    running.engine.forget()
    yield running
    running.engine.forget()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes one of the bounds half a second; all others stay far beyond a test's patience."""

    def shorten(name: str) -> None:
        monkeypatch.setattr(name, SOON_S)

    return shorten


# fmt: off
UNFINISHED = {
    "nothing":                        (b"",                                         "KEEP_ALIVE_S",  None),
    "nothing after an answer":        (LIVEZ,                                       "KEEP_ALIVE_S",  None),
    "empty lines":                    (b"\r\n" * 50,                                "KEEP_ALIVE_S",  None),
    "a letter":                       (b"P",                                        "HEAD_WITHIN_S", 408),
    "a first line":                   (b"POST /v1/payments HTTP/1.1\r\n",           "HEAD_WITHIN_S", 408),
    "a head without its end":         (HEAD,                                        "HEAD_WITHIN_S", 408),
    "half a head after an answer":    (LIVEZ + HEAD,                                "HEAD_WITHIN_S", 408),
}
# fmt: on


@pytest.mark.parametrize(("sent", "bound", "status"), UNFINISHED.values(), ids=UNFINISHED)
def test_a_silent_connection_and_half_a_head_are_closed_in_time(
    edge: Stand, soon: Callable[[str], None], sent: bytes, bound: str, status: int | None
) -> None:
    soon(f"edge.server.connection.{bound}")

    answers = exchange(edge.port, sent)

    assert [answer.status for answer in answers] == [200] * sent.startswith(LIVEZ) + [status] * (status is not None)
    assert httpx.get(f"{edge.url}/livez").status_code == 200, "others are served"


@pytest.mark.parametrize("drop", [b"x", b"X: y\r\n"], ids=["a byte", "a line"])
def test_a_head_that_comes_bit_by_bit_is_given_no_more_time(
    edge: Stand, soon: Callable[[str], None], drop: bytes
) -> None:
    soon("edge.server.connection.HEAD_WITHIN_S")
    with connected(edge.port) as wire:
        wire.sendall(b"GET /livez HTTP/1.1\r\n")
        sent = dripping(wire, drop)

    assert sent < 90, "it was cut off while it was sending"


def test_empty_lines_for_ever_are_no_sign_of_life(edge: Stand, soon: Callable[[str], None]) -> None:
    soon("edge.server.connection.KEEP_ALIVE_S")
    with connected(edge.port) as wire:
        sent = dripping(wire, b"\r\n")

    assert sent < 90


# fmt: off
LATE = {
    "nothing of a length":   (b"Content-Length: 100\r\n\r\n",            b""),
    "a part of a length":    (b'Content-Length: 100\r\n\r\n{"amount":',  b""),
    "no chunk":              (b"Transfer-Encoding: chunked\r\n\r\n",     b""),
    "a length, bit by bit":  (b"Content-Length: 1000\r\n\r\n",           b" "),
    "chunks, bit by bit":    (b"Transfer-Encoding: chunked\r\n\r\n",     b"1\r\n \r\n"),
    "a chunk's size for ever": (b"Transfer-Encoding: chunked\r\n\r\n",   b"0"),
    "nothing, though told to continue": (b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n", b""),
}
# fmt: on


@pytest.mark.parametrize(("rest", "drop"), LATE.values(), ids=LATE)
@pytest.mark.parametrize("path", ["/v1/payments", "/v1/payments/pay_4DVNQPMZBZFG0VHZJX492ZPG4J/capture"])
def test_a_body_that_does_not_come_ends_in_408_and_gives_back_its_place(
    edge: Stand, soon: Callable[[str], None], path: str, rest: bytes, drop: bytes
) -> None:
    soon("edge.server.request.BODY_WITHIN_S")
    with connected(edge.port) as wire:
        wire.sendall(HEAD.replace(b"/v1/payments", path.encode()) + rest)
        assert dripping(wire, drop) < 90
        answers = replies(read_all(wire))

    assert in_flight(edge, "write") == 0
    assert [(answer.status, answer.code) for answer in answers] == [(408, "request_timeout")]
    assert answers[0].headers["connection"] == "close"
    assert edge.engine.asked == []


@pytest.mark.parametrize("drop", [b"", b" "], ids=["silent", "bit by bit"])
def test_a_body_that_nobody_reads_ends_too(edge: Stand, soon: Callable[[str], None], drop: bytes) -> None:
    soon("edge.server.request.BODY_WITHIN_S")
    soon("edge.server.connection.LINGER_S")
    with connected(edge.port) as wire:
        wire.sendall(LIVEZ[:-2] + b"Content-Length: 1000\r\n\r\n")
        assert read_reply(wire).status == 200

        assert dripping(wire, drop, until=lambda wire: not is_kept(wire)) < 90


def test_a_client_that_does_not_read_its_answers_is_given_up(edge: Stand, soon: Callable[[str], None]) -> None:
    soon("edge.server.connection.SEND_WITHIN_S")
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", edge.port))
        wire.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: edge\r\n\r\n" * 100)
        eventually(lambda: is_kept(wire), "it is being answered")

        eventually(lambda: not is_kept(wire), "it was given up")


# fmt: off
HALF_CLOSED = {
    "a payment":            (WHOLE,                           [202]),
    "one that would wait":  (WAITING,                         [202]),
    "a look":               (LIVEZ,                           [200]),
    "events":               (EVENTS,                          [200]),
    "a refusal":            (WHOLE.replace(b"sk_", b"xx_"),   [401]),
    "three":                (WHOLE + LIVEZ + WAITING,         [202, 200, 202]),
    "a look with HTTP/1.0": (LIVEZ.replace(b"1.1", b"1.0"),   [200]),
    "nothing":              (b"",                             []),
}
# fmt: on


@pytest.mark.parametrize(("sent", "statuses"), HALF_CLOSED.values(), ids=HALF_CLOSED)
def test_a_client_that_closes_its_sending_side_gets_its_answers(edge: Stand, sent: bytes, statuses: list[int]) -> None:
    assert [answer.status for answer in exchange(edge.port, sent, half_close=True)] == statuses


@pytest.mark.parametrize("sent", [WAITING, EVENTS, LIVEZ + WAITING], ids=["a payment", "events", "the second of two"])
def test_a_client_that_closes_its_sending_side_may_wait(edge: Stand, sent: bytes) -> None:
    edge.engine.gate.clear()
    with connected(edge.port) as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        eventually(lambda: in_flight(edge, "wait") == 1, "it waits")
        time.sleep(1.2)  # two looks at who is still there
        assert in_flight(edge, "wait") == 1
        edge.engine.gate.set()
        answers = replies(read_all(wire))

    assert [answer.status for answer in answers][-1] in (200, 202)
    assert len(answers) == 1 + sent.startswith(LIVEZ)


def closed(wire: socket.socket) -> None:
    wire.close()


def reset(wire: socket.socket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def half_closed_then_closed(wire: socket.socket) -> None:
    wire.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    wire.close()


@pytest.mark.parametrize("hang_up", [closed, reset, half_closed_then_closed])
@pytest.mark.parametrize(
    "sent",
    [WAITING, EVENTS, LIVEZ + WAITING, WAITING + LIVEZ],
    ids=["a payment", "events", "the second of two", "the first of two"],
)
def test_clients_that_hang_up_while_they_wait_give_back_their_places_at_once(
    edge: Stand, sent: bytes, hang_up: Callable[[socket.socket], None]
) -> None:
    edge.engine.gate.clear()
    with connected(edge.port) as one, connected(edge.port) as other:
        for wire in (one, other):
            wire.sendall(sent)
        eventually(lambda: in_flight(edge, "wait") == 2, "both wait, and a merchant may not take more")
        hang_up(one)
        hang_up(other)

        eventually(lambda: in_flight(edge, "wait") == 0, "their places are free", 8)  # of the 30 s that they would wait
    assert not edge.engine.gate.is_set()


def test_a_client_that_hangs_up_costs_its_payment_nothing(edge: Stand) -> None:
    edge.engine.gate.clear()
    with connected(edge.port) as wire:
        wire.sendall(WAITING)
        eventually(lambda: edge.engine.asked, "the engine has heard of it")
    eventually(lambda: in_flight(edge, "wait") == 0, "the place is free")
    edge.engine.gate.set()

    repeated = edge.post(headers={"Idempotency-Key": "ends"})

    assert repeated.status_code == 202


MANY = b"x" * (11 * 1024 * 1024)


def pieces() -> Iterator[bytes]:
    for begin in range(0, len(MANY), 1 << 16):
        yield MANY[begin : begin + (1 << 16)]


def by_httpx(url: str, headers: dict[str, str], chunked: bool, folder: Path) -> int:
    return httpx.post(url, headers=headers, content=pieces() if chunked else MANY, timeout=30).status_code


def by_http_client(url: str, headers: dict[str, str], chunked: bool, folder: Path) -> int:
    """As `requests` and urllib3 do it: everything is sent before anything is read."""
    target = httpx.URL(url)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=30)
    connection.request("POST", target.path, pieces() if chunked else MANY, headers, encode_chunked=chunked)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def by_urllib(url: str, headers: dict[str, str], chunked: bool, folder: Path) -> int:
    length = {} if chunked else {"Content-Length": str(len(MANY))}
    request = urllib.request.Request(url, pieces() if chunked else MANY, headers | length)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            refused.read()
        return refused.code


def by_curl(url: str, headers: dict[str, str], chunked: bool, folder: Path) -> int:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    (folder / "body").write_bytes(MANY)
    sent = headers | ({"Transfer-Encoding": "chunked"} if chunked else {})
    options = [word for name, value in sent.items() for word in ("-H", f"{name}: {value}")]
    command = [curl, "-sS", "-m", "30", "-o", folder / "out", "-w", "%{http_code}", "--data-binary", f"@{folder}/body"]
    done = subprocess.run([*command, *options, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("chunked", [False, True], ids=["a length", "chunks"])
@pytest.mark.parametrize(
    ("path", "without", "status"),
    [
        ("/v1/payments", "", 413),
        ("/v1/payments", "X-API-Key", 401),
        ("/v1/payments", "Idempotency-Key", 400),
        ("/v1/payments", "Content-Type", 415),
        ("/livez", "", 405),
        ("/nowhere", "", 404),
    ],
)
@pytest.mark.parametrize("send", [by_httpx, by_http_client, by_urllib, by_curl])
def test_a_refusal_is_read_by_every_client_that_sends_eleven_megabytes(
    edge: Stand,
    tmp_path: Path,
    send: Callable[[str, dict[str, str], bool, Path], int],
    path: str,
    without: str,
    status: int,
    chunked: bool,
) -> None:
    headers = {"X-API-Key": MERCHANT, "Idempotency-Key": "large", "Content-Type": "application/json"}
    if without:
        headers[without] = ""  # curl and urllib would add a Content-Type of their own

    assert send(f"{edge.url}{path}", headers, chunked, tmp_path) == status
    assert edge.engine.asked == []


def test_a_refusal_by_a_full_edge_is_read_too(edge: Stand) -> None:
    edge.engine.gate.clear()
    calls = [threading.Thread(target=exchange, args=(edge.port, WHOLE), kwargs={"half_close": True}) for _ in range(4)]
    for call in calls:
        call.start()
    try:
        eventually(lambda: in_flight(edge, "write") == 4, "a merchant's half of the lane is taken")
        for _ in range(5):
            assert (
                httpx.post(f"{edge.url}/v1/payments", headers={"X-API-Key": MERCHANT}, content=MANY).status_code == 429
            )
    finally:
        edge.engine.gate.set()
        edge.engine.forget()


def test_who_never_stops_sending_is_cut_off(edge: Stand, soon: Callable[[str], None]) -> None:
    soon("edge.server.connection.LINGER_S")
    with connected(edge.port) as wire:
        wire.sendall(HEAD + b"Content-Length: 999999999999\r\n\r\n")

        assert dripping(wire, b"x" * 1000, until=lambda _: False) < 90


def test_who_sends_without_end_is_cut_off_by_what_it_sent(edge: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.server.connection.LINGER_BYTES_MAX", 1 << 20)
    with connected(edge.port) as wire, pytest.raises(OSError):
        wire.sendall(HEAD + b"Content-Length: 999999999999\r\n\r\n")
        for _ in range(256):
            wire.sendall(b"x" * (1 << 20))


@pytest.fixture
def narrow(dsn: str) -> Iterator[Stand]:
    """An edge that keeps five connections."""
    with running_edge(dsn, connections_max=5) as stand:
        yield stand
        stand.engine.gate.set()


def test_silent_connections_make_room_for_newcomers_the_oldest_first(narrow: Stand) -> None:
    silent = [socket.create_connection(("127.0.0.1", narrow.port), timeout=30) for _ in range(4)]
    silent[1].sendall(b"POST /v1/pay")
    try:
        with connected(narrow.port) as kept:
            kept.sendall(WHOLE)
            assert read_reply(kept).status == 202

            newcomers = [narrow.post().status_code for _ in range(3)]  # one connection, kept by the client
            assert exchange(narrow.port, WHOLE, half_close=True)[0].status == 202

            assert newcomers == [202] * 3
            assert [heard(wire) for wire in silent] == [True, True, False, False]
            kept.sendall(LIVEZ)
            assert read_reply(kept).status == 200, "who has made a payment before stays longer"
    finally:
        for wire in silent:
            wire.close()


def test_only_where_every_connection_has_a_call_a_newcomer_is_refused(narrow: Stand) -> None:
    narrow.engine.gate.clear()
    with connected(narrow.port) as one:
        wires = [one, *(socket.create_connection(("127.0.0.1", narrow.port), timeout=30) for _ in range(4))]
        for wire in wires:
            wire.sendall(WHOLE)
        eventually(lambda: len(narrow.engine.asked) == 5, "all are being handled")

        (refused,) = exchange(narrow.port, WHOLE)
        narrow.engine.gate.set()

        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert [read_reply(wire).status for wire in wires] == [202] * 5
        for wire in wires[1:]:
            wire.close()


@pytest.mark.parametrize(("files", "kept"), [(1024, 768), (256, 128), (100_000, 10_000), (-1, 10_000)])
def test_no_more_connections_are_kept_than_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, files: int, kept: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))

    made = configuration(nothing).http
    assert isinstance(made, partial)

    assert made.args[0].connections_max == kept


async def nothing(scope: object, receive: object, send: object) -> None:
    """An application that is never called."""


def in_flight(edge: Stand, lane: str) -> int:
    text = edge.client.get("/metrics").text
    found = re.search(rf'^penstock_http_in_flight{{lane="{lane}"}} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def dripping(wire: socket.socket, drop: bytes, until: Callable[[socket.socket], bool] | None = None) -> int:
    """Send a drop every tenth of a second, a hundred times at most, until there is something to read, or `until` says
    so, or it cannot be sent any more. Returns how many were sent."""
    for sent in range(100):
        try:
            if (until or heard)(wire):
                return sent
            wire.sendall(drop)
        except OSError:
            return sent
        time.sleep(0.1)
    return 100


def heard(wire: socket.socket) -> bool:
    """Whether the other side has answered or closed the connection. Reads nothing."""
    wire.settimeout(0)
    try:
        wire.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    finally:
        wire.settimeout(30)
    return True
