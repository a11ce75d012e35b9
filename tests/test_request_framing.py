# ruff: noqa: E501 (one case a line)
"""Where one request ends and the next begins: read in the one way that RFC 9112 allows, or refused and the connection closed.

Each case carries a whole payment where a careless reader would find a second request.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import orjson
import pytest

from support.edge_stand import MERCHANT, Stand, a_payment, running_edge, running_postgres
from support.wire import connected, exchange, read_all, read_reply, replies

BODY = orjson.dumps(a_payment())
KEY = f"X-API-Key: {MERCHANT}\r\nContent-Type: application/json\r\n".encode()
LINE, HOST = b"POST /v1/payments HTTP/1.1\r\n", b"Host: edge\r\n"
HEAD = LINE + HOST + KEY + b"Idempotency-Key: first\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
WHOLE = HEAD + LENGTH + b"\r\n" + BODY
HIDDEN = LINE + HOST + KEY + b"Idempotency-Key: hidden\r\n" + LENGTH + b"\r\n" + BODY
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
GET = b"GET /livez HTTP/1.1\r\n" + HOST
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


# fmt: off
REFUSED = {
    # two lengths
    "a length and chunks":                  HEAD + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunks and a length":                  HEAD + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths":                          HEAD + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "the same length twice":                HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a list of lengths":                    HEAD + b"Content-Length: 0, 0\r\n\r\n" + HIDDEN,
    "a length in the trailer":              HEAD + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
    # no length
    "a negative length":                    HEAD + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a signed length":                      HEAD + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a hexadecimal length":                 HEAD + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "a length with a fraction":             HEAD + b"Content-Length: 0.0\r\n\r\n" + HIDDEN,
    "a length with a space in it":          HEAD + b"Content-Length: 0 0\r\n\r\n" + HIDDEN,
    "an empty length":                      HEAD + b"Content-Length: \r\n\r\n" + HIDDEN,
    "a length in other digits":             HEAD + "Content-Length: ٣\r\n\r\n".encode() + HIDDEN,
    "a length that overflows":              HEAD + b"Content-Length: 18446744073709551616\r\n\r\n" + HIDDEN,
    "a length of a thousand digits":        HEAD + b"Content-Length: " + b"9" * 1000 + b"\r\n\r\n" + HIDDEN,
    # chunked, in spellings
    "chunked twice":                        HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunked, chunked":                     HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked, identity":                    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "identity, chunked":                    HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "identity and chunked":                 HEAD + b"Transfer-Encoding: identity\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "identity":                             HEAD + b"Transfer-Encoding: identity\r\n\r\n" + HIDDEN,
    "gzip, chunked":                        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "gzip":                                 HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + HIDDEN,
    "xchunked":                             HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunkedx":                             HEAD + b"Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked with a parameter":             HEAD + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked in quotes":                    HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + HIDDEN,
    "chunked behind a vertical tab":        HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked behind a comma":               HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an empty coding":                      HEAD + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks of HTTP/1.0":                   HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    # lines
    "a space before the colon":             HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a tab before the colon":               HEAD + b"Content-Length\t: 0\r\n\r\n" + HIDDEN,
    "a space in a name":                    HEAD + b"Content Length: 0\r\n\r\n" + HIDDEN,
    "no name":                              HEAD + b": 0\r\n\r\n" + HIDDEN,
    "no colon":                             HEAD + b"Content-Length\r\n\r\n" + HIDDEN,
    "a folded value":                       HEAD + b"X: a\r\n Content-Length: 0\r\n\r\n" + HIDDEN,
    "a folded coding":                      HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded first line":                  LINE + b" X: a\r\n" + HOST + b"\r\n" + HIDDEN,
    "bare line feeds":                      HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + HIDDEN,
    "one bare line feed":                   HEAD + b"X: a\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a bare line feed at the end":          HEAD + b"Content-Length: 0\r\n\n" + HIDDEN,
    "a bare carriage return":               HEAD + b"X: a\rContent-Length: 0\r\n\r\n" + HIDDEN,
    "a NUL in a value":                     HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a NUL in a name":                      HEAD + b"X\0: a\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a NUL in the path":                    b"GET /livez\0 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a control character in a value":       HEAD + b"X: a\x01\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "beyond ASCII in the path":             b"GET /livez\xff HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    # chunks
    "a chunk without a size":               HEAD + CHUNKED + b"\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a chunk of hexadecimal size":          HEAD + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk of negative size":             HEAD + CHUNKED + b"\r\n-1\r\n\r\n" + HIDDEN,
    "a chunk of signed size":               HEAD + CHUNKED + b"\r\n+0\r\n\r\n" + HIDDEN,
    "a chunk size that overflows":          HEAD + CHUNKED + b"\r\n10000000000000000\r\n" + HIDDEN,
    "a chunk size with a space":            HEAD + CHUNKED + b"\r\n0 \r\n\r\n" + HIDDEN,
    "a chunk size behind a space":          HEAD + CHUNKED + b"\r\n 0\r\n\r\n" + HIDDEN,
    "a chunk size and a line feed":         HEAD + CHUNKED + b"\r\n0\n\r\n" + HIDDEN,
    "a chunk longer than it says":          HEAD + CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in a line feed":     HEAD + CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n" + HIDDEN,
    "a line feed in a chunk extension":     HEAD + CHUNKED + b"\r\n0;a\nb\r\n\r\n" + HIDDEN,
    "a return in a chunk extension":        HEAD + CHUNKED + b"\r\n0;a\rb\r\n\r\n" + HIDDEN,
    # targets, versions, hosts
    "no Host":                              LINE + KEY + b"Idempotency-Key: first\r\n" + LENGTH + b"\r\n" + BODY + HIDDEN,
    "two Hosts":                            HEAD + b"Host: other\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "the same Host twice":                  HEAD + HOST + b"Content-Length: 0\r\n\r\n" + HIDDEN,
    "a Host with a space":                  LINE + b"Host: a b\r\n" + KEY + b"\r\n" + HIDDEN,
    "a Host with a path":                   LINE + b"Host: a/b\r\n" + KEY + b"\r\n" + HIDDEN,
    "a Host with a user":                   LINE + b"Host: a@b\r\n" + KEY + b"\r\n" + HIDDEN,
    "a list of Hosts":                      LINE + b"Host: a, b\r\n" + KEY + b"\r\n" + HIDDEN,
    "CONNECT":                              b"CONNECT edge:443 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "CONNECT with an upgrade":              b"CONNECT edge:443 HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n" + HIDDEN,
    "CONNECT to a path":                    b"CONNECT /v1/payments HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "the simple request of HTTP/0.9":       b"GET /livez\r\n" + HIDDEN,
    "HTTP/0.9":                             b"GET /livez HTTP/0.9\r\n\r\n" + HIDDEN,
    "HTTP/2.0":                             b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n" + HIDDEN,
    "HTTP/2 with its preface":              b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/1.2":                             b"GET /livez HTTP/1.2\r\n" + HOST + b"\r\n" + HIDDEN,
    "http in small letters":                b"GET /livez http/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a method in small letters":            b"get /livez HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "tabs in the first line":               b"GET\t/livez\tHTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a space after the version":            b"GET /livez HTTP/1.1 \r\n" + HOST + b"\r\n" + HIDDEN,
    "a space in the target":                b"GET /livez ?a HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a fragment in the target":             b"GET /livez#a HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "an asterisk":                          b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "another scheme":                       b"GET ftp://edge/livez HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a target without its slash":           b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "101 lines":                            GET + b"X: a\r\n" * 100 + b"\r\n" + HIDDEN,
    "a head of 40 KB in one piece":         GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n" + HIDDEN,
}
# fmt: on


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_ends(edge: Stand, sent: bytes) -> None:
    answers = exchange(edge.port, sent)

    assert [(answer.status, answer.code) for answer in answers] == [(400, "malformed_request")]
    assert answers[0].headers["connection"] == "close"
    assert edge.engine.asked == []


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_too_behind_a_sound_request_which_is_answered(edge: Stand, sent: bytes) -> None:
    answers = exchange(edge.port, WHOLE.replace(b"first", b"before") + sent)

    assert [answer.status for answer in answers] in ([202], [202, 400])
    assert keys(edge) == ["before"]


# fmt: off
READ = {
    # what                                  sent                                                            answered
    "a payment":                            (WHOLE,                                                         [202]),
    "in chunks":                            (HEAD + CHUNKED + b"\r\n" + CHUNKS,                             [202]),
    "in chunks, in capitals":               (HEAD + b"TRANSFER-ENCODING: Chunked\r\n\r\n" + CHUNKS,         [202]),
    "with chunk extensions":                (HEAD + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b';a=b;c="d"\r\n', 1), [202]),
    "with a long chunk size":               (HEAD + CHUNKED + b"\r\n" + b"0" * 40 + CHUNKS,                 [202]),
    "with a trailer":                       (HEAD + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"Idempotency-Key: trailer\r\nX-API-Key: none\r\n\r\n", [202]),
    "a length with leading zeros":          (HEAD + b"Content-Length: 000%d\r\n\r\n" % len(BODY) + BODY,    [202]),
    "a length with spaces around it":       (HEAD + b"Content-Length: \t %d \t\r\n\r\n" % len(BODY) + BODY, [202]),
    "empty lines before it":                (b"\r\n\r\n" + WHOLE,                                           [202]),
    "two, pipelined":                       (WHOLE + WHOLE.replace(b"first", b"second"),                    [202, 202]),
    "a GET with a body":                    (GET + b"Content-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE + GET + b"\r\n", [200, 200]),
    "a GET with chunks":                    (GET + CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(WHOLE), WHOLE), [200]),
    "a DELETE with a body":                 (b"DELETE /v1/payments HTTP/1.1\r\n" + HOST + KEY + b"Content-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE, [405]),
    "a whole URL":                          (WHOLE.replace(b"/v1", b"http://elsewhere/v1", 1),              [202]),
    "a whole URL without a path":           (GET.replace(b"/livez", b"http://edge") + b"\r\n",              [200]),
    "an empty Host":                        (WHOLE.replace(b"Host: edge", b"Host:"),                        [202]),
    "a Host that is an address":            (WHOLE.replace(b"Host: edge", b"Host: [::1]:8000"),             [202]),
    "HTTP/1.0 without a Host":              (WHOLE.replace(HOST, b"").replace(b"HTTP/1.1", b"HTTP/1.0"),    [202]),
    "HTTP/1.0 that would be kept":          (WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(HOST, b"Connection: keep-alive\r\n") + HIDDEN, [202]),
    "the last one, and more behind it":     (WHOLE.replace(HOST, HOST + b"Connection: close\r\n") + HIDDEN, [202]),
    "an underscore for a dash":             (HEAD + LENGTH + b"Transfer_Encoding: chunked\r\n\r\n" + BODY,  [202]),
    "100 lines":                            (GET + b"X: a\r\n" * 99 + b"\r\n",                              [200]),
    "a head of 30 KB":                      (GET + b"X: " + b"a" * 30_000 + b"\r\n\r\n",                    [200]),
}
# fmt: on


@pytest.mark.parametrize(("sent", "statuses"), READ.values(), ids=READ)
def test_what_can_be_read_in_one_way_only_is_read(edge: Stand, sent: bytes, statuses: list[int]) -> None:
    answers = exchange(edge.port, sent, half_close=True)

    assert [answer.status for answer in answers] == statuses
    assert not {"hidden", "trailer"} & set(keys(edge))
    assert len(edge.engine.asked) == statuses.count(202)


def test_a_head_is_answered_without_a_body(edge: Stand) -> None:
    with connected(edge.port) as wire:
        wire.sendall(GET.replace(b"GET", b"HEAD") + b"Connection: close\r\n\r\n")
        head, _, body = read_all(wire).partition(b"\r\n\r\n")

    assert (head[:12], body) == (b"HTTP/1.1 200", b"")


# fmt: off
OFFERS = {
    "h2c":                      UPGRADE,
    "websocket":                b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n",
    "TLS":                      b"Connection: keep-alive, UPGRADE\r\nUPGRADE: TLS/1.0, HTTP/2.0\r\n",
    "two protocols":            b"Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: anything/1\r\n",
    "before all else":          b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    "of which Connection says nothing": b"Upgrade: h2c\r\n",
    "which only Connection names": b"Connection: Upgrade\r\n",
}
# fmt: on
offered = pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)


@offered
@pytest.mark.parametrize("late", [False, True], ids=["at once", "a late body"])
@pytest.mark.parametrize("chunked", [False, True], ids=["a length", "chunks"])
def test_an_upgrade_that_is_not_taken_changes_nothing(edge: Stand, offer: bytes, chunked: bool, late: bool) -> None:
    head, body = HEAD + offer + (CHUNKED if chunked else LENGTH) + b"\r\n", CHUNKS if chunked else BODY
    parts = (head, body) if late else (head + body,)

    answers = exchange(edge.port, *parts, WHOLE.replace(b"first", b"second"), half_close=True, pause_s=0.05)

    assert [answer.status for answer in answers] == [202, 202]
    assert keys(edge) == ["first", "second"]
    assert edge.engine.asked[0][2] == edge.engine.asked[1][2], "the same payment was read"


@offered
def test_a_capture_of_a_part_does_not_become_one_of_everything(edge: Stand, offer: bytes) -> None:
    payment = edge.post().json()["id"]
    edge.engine.asked.clear()
    head = HEAD.replace(b"/v1/payments", f"/v1/payments/{payment}/capture".encode()) + offer

    answers = exchange(edge.port, head + b"Content-Length: 13\r\n\r\n", b'{"amount": 1}', half_close=True, pause_s=0.05)

    assert [answer.status for answer in answers] == [202]
    assert [(asked[0], asked[2], asked[3]) for asked in edge.engine.asked] == [("capture", payment, 1)]


@offered
def test_the_body_of_a_request_with_an_offer_is_never_another_request(edge: Stand, offer: bytes) -> None:
    head = HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(HIDDEN)

    answers = exchange(edge.port, head, HIDDEN, half_close=True, pause_s=0.05)

    assert [(answer.status, answer.code) for answer in answers] == [(400, "malformed_json")]
    assert edge.engine.asked == []


def test_a_hundred_offers_in_one_packet_are_a_hundred_requests(edge: Stand) -> None:
    answers = exchange(edge.port, (GET + UPGRADE + b"\r\n") * 100, half_close=True)

    assert [answer.status for answer in answers] == [200] * 100


def test_more_than_a_hundred_requests_at_once_are_not_all_taken_and_those_that_are_are_answered(edge: Stand) -> None:
    answers = exchange(edge.port, (GET + b"\r\n") * 2000)

    assert 100 <= len(answers) < 2000
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["connection"] == "close"


# fmt: off
CUT_OFF = {
    "nothing of a length":      b"Content-Length: 13\r\n\r\n",
    "a part of a length":       b'Content-Length: 13\r\n\r\n{"amoun',
    "all but a byte":           b'Content-Length: 13\r\n\r\n{"amount": 1',
    "no chunk":                 CHUNKED + b"\r\n",
    "a part of a chunk":        CHUNKED + b'\r\nd\r\n{"amoun',
    "no last chunk":            CHUNKED + b'\r\nd\r\n{"amount": 1}\r\n',
    "a part of the last chunk": CHUNKED + b'\r\nd\r\n{"amount": 1}\r\n0\r\n',
    "a part of the trailer":    CHUNKED + b'\r\nd\r\n{"amount": 1}\r\n0\r\nX: y\r\n',
    "no end of the head":       b"Content-Length: 0\r\n",
    "a part of a line":         b"Content-Len",
}
# fmt: on


@pytest.mark.parametrize("rest", CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.parametrize("offer", [b"", UPGRADE], ids=["", "with an offer"])
@pytest.mark.parametrize("verb", ["", "/capture", "/void", "/refund"])
def test_a_body_that_was_announced_and_did_not_come_is_never_no_body(
    edge: Stand, verb: str, offer: bytes, rest: bytes
) -> None:
    path = f"/v1/payments/pay_4DVNQPMZBZFG0VHZJX492ZPG4J{verb}" if verb else "/v1/payments"

    answers = exchange(edge.port, HEAD.replace(b"/v1/payments", path.encode()) + offer + rest, half_close=True)

    assert [(answer.status, answer.code) for answer in answers] == [(400, "malformed_request")]
    assert edge.engine.asked == []


@pytest.mark.parametrize("offer", [b"", UPGRADE], ids=["", "with an offer"])
@pytest.mark.parametrize("expectation", [b"100-continue", b"100-Continue", b" 100-continue\t"])
def test_who_expects_100_continue_is_told_to_and_answered(edge: Stand, offer: bytes, expectation: bytes) -> None:
    with connected(edge.port) as wire:
        wire.sendall(HEAD + offer + LENGTH + b"Expect: " + expectation + b"\r\n\r\n")
        assert wire.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(BODY)
        assert read_reply(wire).status == 202


def test_who_was_not_told_to_send_a_body_and_goes_on_is_not_misread(edge: Stand) -> None:
    refused = HEAD.replace(MERCHANT.encode(), b"sk_wrong") + LENGTH + b"Expect: 100-continue\r\n\r\n"

    answers = exchange(edge.port, refused, HIDDEN, pause_s=0.1)

    assert [(answer.status, answer.headers.get("connection")) for answer in answers] == [(401, "close")]
    assert edge.engine.asked == []


@pytest.mark.parametrize("expectation", [b"200-ok", b"100-continue, tea", b"100-continue;a=b", b""])
def test_another_expectation_is_not_met(edge: Stand, expectation: bytes) -> None:
    answers = exchange(edge.port, HEAD + LENGTH + b"Expect: " + expectation + b"\r\n\r\n" + BODY + HIDDEN)

    assert [(answer.status, answer.code) for answer in answers] == [(417, "expectation_failed")]
    assert edge.engine.asked == []


def test_http_1_0_is_never_told_to_continue(edge: Stand) -> None:
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + LENGTH + b"Expect: 100-continue\r\n\r\n"
    with connected(edge.port) as wire:
        wire.sendall(head + BODY)

        assert read_all(wire).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("begins", [b"0\r\nX: ", b"0\r\nX", b"1;a=", b"1;"])
def test_what_stands_around_chunks_has_an_end(edge: Stand, begins: bytes) -> None:
    with connected(edge.port) as wire:
        wire.sendall(HEAD + CHUNKED + b"\r\n" + begins)
        for _ in range(64):
            wire.sendall(b"a" * 16_384)
        answers = replies(read_all(wire))

    assert [(answer.status, answer.code) for answer in answers] == [(400, "malformed_request")]
    assert edge.engine.asked == []


def test_many_small_chunks_are_a_body(edge: Stand) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY + b" " * 60_000)

    (answer,) = exchange(edge.port, HEAD + CHUNKED + b"\r\n" + chunks + b"0\r\n\r\n", half_close=True)

    assert answer.status == 202


@pytest.mark.parametrize("seed", range(20))
def test_requests_are_read_alike_however_they_are_cut_into_packets(edge: Stand, seed: int) -> None:
    dice = random.Random(seed)
    sent = WHOLE + HEAD.replace(b"first", b"second") + UPGRADE + CHUNKED + b"\r\n" + CHUNKS + GET + b"\r\n"
    cuts = [0, *sorted(dice.sample(range(1, len(sent)), dice.randint(1, 12))), len(sent)]

    answers = exchange(edge.port, *(sent[a:b] for a, b in pairwise(cuts)), half_close=True, pause_s=0.003)

    assert [answer.status for answer in answers] == [202, 202, 200]
    assert keys(edge) == ["first", "second"]


def keys(edge: Stand) -> list[str]:
    """The idempotency keys of all that the engine was asked to do."""
    return [asked[1].key for asked in edge.engine.asked]  # type: ignore[attr-defined]
