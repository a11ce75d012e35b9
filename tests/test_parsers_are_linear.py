# ruff: noqa: E501 (one case a line)
"""No input makes a parser take more than linear time: each is given its worst case, and four times as much of it.

CPU time is compared, the least of several runs: four times the input may take eight times as long, and a quadratic parser
takes sixteen times. Where a parser refuses what is too long, it is that refusal that is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from bank import dialect
from edge.parsing import (
    document,
    idempotency_key,
    json_body,
    payment_bodies,
    preference,
    query,
    stray_card,
    webhook_bodies,
)
from edge.parsing.operator_bodies import ResolveBody
from edge.server.endpoint import RequestIds
from edge.server.request import Request
from engine import pagination as cursor
from engine.contracts.gateway import RequestContext
from engine.contracts.signature import secret_bytes
from engine.domain import ids as identity
from engine.errors import PenstockError
from engine.streams import dead_letter
from engine.webhooks.sender import _retry_after_s
from ops import store_url
from support.edge_stand import CARDS, TARGETS, a_card, a_payment

SMALL, LARGE = 16_000, 64_000  # bytes; a body has at most 64 KiB, all else less
AT_MOST = 8.0
NOISE_S = 0.003
Parser = Callable[[Any], object]

CARD = "4111111111111111"
IDS = RequestIds()


def a_call(*headers: tuple[bytes, bytes], path: bytes = b"/", query_string: bytes = b"") -> Request:
    scope = {"path": path.decode("latin-1"), "raw_path": path, "query_string": query_string, "headers": list(headers)}
    return Request(scope, _nothing, IDS)  # type: ignore[arg-type]


async def _nothing() -> None:
    raise AssertionError("nothing is read here")


def a_path(text: str) -> object:
    return a_call(path=text.encode()).path


def a_head(value: bytes) -> object:
    """Each header that has a grammar of its own."""
    names = (
        b"x-request-id",
        b"traceparent",
        b"content-type",
        b"idempotency-key",
        b"prefer",
        b"accept",
        b"content-length",
    )
    call = a_call(*((name, value) for name in names))
    with suppress(PenstockError):
        idempotency_key.of_call(call)
    json_body._parts(value.decode("latin-1"))
    return call.traceparent, preference.wait_s(value), call.prefers_html(), call.declares_too_much()


def preferences(value: bytes) -> object:
    """Without the bound on its length."""
    return list(preference._preferences(value))


def a_body(body: bytes) -> object:
    """All that is done with the body of a new payment."""
    wanted = document.parse(body)
    call = a_call()
    stray_card.refuse(call, RequestContext(merchant="m", key="k", wait_s=0, request_id="r", traceparent=None), wanted)
    return payment_bodies.new_payment(wanted, {"card": CARDS}, TARGETS)


def a_hook(body: bytes) -> object:
    return webhook_bodies.new_endpoint(document.parse(body), TARGETS)


def a_redelivery(body: bytes) -> object:
    return webhook_bodies.redelivery(document.parse(body), datetime(2030, 1, 1, tzinfo=UTC))


def a_resolution(body: bytes) -> object:
    return payment_bodies.validated(ResolveBody, document.parse(body))


def a_query(text: bytes) -> object:
    found = query.parameters(a_call(query_string=text), ("order_id", "type", "after", "idempotency_key"))
    for read in (query.types, query.place, query.key):
        with suppress(PenstockError):
            read(found)
    return query.filters(found)


def with_card(**changes: object) -> bytes:
    return orjson.dumps(a_payment(payment_method=a_card(number=CARD), **changes))


def long_name(unit: str, size: int, children: str) -> bytes:
    """Half of it one name, half of it what stands under the name."""
    child = orjson.dumps(children).decode()
    name, many = unit * (size // 2 // len(unit)), ",".join([child] * (size // 2 // (len(child) + 1)))
    return with_card()[:-1] + f',"{name}":[{many}]}}'.encode()


def nested(size: int) -> bytes:
    depth = 30
    leaves = ",".join([f'"{CARD}"'] * ((size - 60 * depth) // 19))
    return with_card()[:-1] + b',"m":' + b'{"a":' * depth + f"[{leaves}]".encode() + b"}" * depth + b"}"


# fmt: off
WORST: dict[str, tuple[Parser, Callable[[int], Any]]] = {
    # Prefer
    "Prefer: parameters":                 (preferences, lambda n: b"a" + b";" * n),
    "Prefer: empty parameters, spaced":   (preferences, lambda n: b"a=" + b" ;" * (n // 2) + b"<"),
    "Prefer: parameters with values":     (preferences, lambda n: b"a" + b" ; b = c" * (n // 8) + b"<"),
    "Prefer: spaces":                     (preferences, lambda n: b"a" + b" " * n + b"<"),
    "Prefer: spaces around =":            (preferences, lambda n: b"a" + b" = " * (n // 3) + b"<"),
    "Prefer: a string without an end":    (preferences, lambda n: b'a="' + b"\\a" * (n // 2)),
    "Prefer: strings":                    (preferences, lambda n: b'"a";' * (n // 4) + b"<"),
    "Prefer: commas":                     (preferences, lambda n: b"," * n + b"<"),
    "Prefer: a token":                    (preferences, lambda n: b"a" * n + b"<"),
    # every header
    **{f"headers: {unit!r}":              (a_head, lambda n, unit=unit: unit * (n // len(unit)))
       for unit in (b"a", b" ", b";", b",", b"1", b"0-", b'"', b'\\"', b'"\\"', b"; a=b", b"%41", b"\xff")},
    "headers: a quotation":               (a_head, lambda n: b'"' + b'\\"' * (n // 2)),
    "headers: an open quotation":         (a_head, lambda n: b'"' + b"a" * n),
    "headers: json, parameters":          (a_head, lambda n: b"application/json" + b"; a=b" * (n // 5)),
    "headers: json, spaces":              (a_head, lambda n: b"application/json;" + b" " * n + b"x"),
    # paths and queries
    "path: digits":                       (a_path, lambda n: "1" * n),
    "path: nearly card numbers":          (a_path, lambda n: "1-1-1-1-1-1-1-1-1-1-1-1-a" * (n // 25)),
    "query: an escaped value":            (a_query, lambda n: b"order_id=" + b"%41" * (n // 3)),
    "query: half escapes":                (a_query, lambda n: b"order_id=" + b"%" * n),
    "query: parameters":                  (a_query, lambda n: b"&" * n),
    "query: names":                       (a_query, lambda n: b"a=1&" * (n // 4)),
    "query: a long name":                 (a_query, lambda n: b"1 " * (n // 2) + b"=1"),
    "query: types":                       (a_query, lambda n: b"type=" + b"a," * (n // 2)),
    "query: a key":                       (a_query, lambda n: b"idempotency_key=%22" + b"a" * n),
    "query: a cursor":                    (a_query, lambda n: b"after=" + b"A" * n),
    "a cursor":                           (lambda text: cursor.parts(text, 2), lambda n: "fHx8" * (n // 4)),
    "an id":                              (lambda text: identity.is_id(text, "pay"), lambda n: "pay_" + "0" * n),
    "a delivery's id":                    (identity.event_of_delivery, lambda n: "dlv_pay_" + "0" * n),
    "a dead letter's id":                 (dead_letter.place_of, lambda n: "dl_1-" + "1" * n),
    # bodies
    "body: brackets":                     (a_body, lambda n: b"[" * n),
    "body: objects in objects":           (a_body, lambda n: b'{"a":' * (n // 5) + b"1" + b"}" * (n // 5)),
    "body: lists in lists":               (a_body, lambda n: b'{"a":' + b"[" * (n // 2) + b"]" * (n // 2) + b"}"),
    "body: wide lists":                   (a_body, lambda n: b'{"a":[' + b"[]," * (n // 3) + b"[]]}"),
    "body: a digit and no end":           (a_body, lambda n: b'{"a":' + b"1" * n + b"}"),
    "body: a small fraction":             (a_body, lambda n: b'{"a":0.' + b"0" * n + b"1}"),
    "body: quotes":                       (a_body, lambda n: b'{"a":"' + b'\\"' * (n // 2) + b'"}'),
    "body: colons":                       (a_body, lambda n: b'{"a":"' + b":" * n + b'"}'),
    "body: quotes before spaces":         (a_body, lambda n: b'{"a":"' + b'\\"   ' * (n // 5) + b':"}'),
    "body: space before the colon":       (a_body, lambda n: b'{"a:"' + b" " * n + b":1}"),
    "body: spaces":                       (a_body, lambda n: b" " * n),
    "body: many names":                   (a_body, lambda n: b"{" + b",".join(b'"%d":1' % i for i in range(n // 9)) + b"}"),
    "body: a name again and again":       (a_body, lambda n: b"{" + b",".join([b'"a":1'] * (n // 6)) + b"}"),
    "body: the last name again":          (a_body, lambda n: b"{" + b",".join(b'"%d":1' % i for i in range(n // 9)) + b',"1":1}'),
    "body: names in metadata":            (a_body, lambda n: with_card(metadata={str(i): 1 for i in range(n // 9)})),
    "body: long digits in names":         (a_body, lambda n: with_card(**{"1 " * (n // 2): 1})),
    "body: an escaped name":              (a_body, lambda n: with_card(**{"%25" * (n // 3): 1})),
    "body: NULs":                         (a_body, lambda n: b'{"a":[' + b",".join([b'"\\u0000"'] * (n // 9)) + b"]}"),
    "body: NULs under a long name":       (a_body, lambda n: long_name("%41", n, "\0")),
    "body: NULs in a long name":          (a_body, lambda n: long_name("\\u0000", n, "\0")),
    "body: NULs in names":                (a_body, lambda n: b"{" + b",".join(b'"\\u0000%d":1' % i for i in range(n // 16)) + b"}"),
    "body: the card under a long name":   (a_body, lambda n: long_name("%41", n, CARD)),
    "body: the card under a wide name":   (a_body, lambda n: long_name("１a", n, CARD)),
    "body: the card in a name":           (a_body, lambda n: long_name(CARD + "a", n, CARD)),
    "body: the card, deep":               (a_body, nested),
    "body: the card, escaped":            (a_body, lambda n: with_card(description="%2525" * (n // 5) + CARD)),
    "body: the card, in other digits":    (a_body, lambda n: with_card(description="４" * (n // 3) + CARD)),
    "body: combining characters":         (a_body, lambda n: with_card(order_id="a" + "\u0301\u0316" * (n // 4) + "1" * 12)),
    "body: a long card number":           (a_body, lambda n: orjson.dumps(a_payment(payment_method=a_card(number="4" * n)))),
    "body: a payment method":             (a_body, lambda n: orjson.dumps(a_payment(payment_method={str(i): 1 for i in range(n // 9)}))),
    "body: a type":                       (a_body, lambda n: orjson.dumps(a_payment(payment_method=a_card(type="a" * n)))),
    "body: a currency":                   (a_body, lambda n: with_card(currency="U" * n)),
    "body: metadata":                     (a_body, lambda n: with_card(metadata={"a": "\u0301" * (n // 2)})),
    "body: a webhook's URL":              (a_body, lambda n: with_card(webhook_url="http://" + "a." * (n // 2))),
    # webhooks
    "hook: labels":                       (a_hook, lambda n: orjson.dumps({"url": "https://" + "a." * (n // 2) + "b/"})),
    "hook: punycode":                     (a_hook, lambda n: orjson.dumps({"url": "https://xn--" + "a" * n + "/"})),
    "hook: brackets":                     (a_hook, lambda n: orjson.dumps({"url": "https://" + "[" * n + "/"})),
    "hook: a number":                     (a_hook, lambda n: orjson.dumps({"url": "https://" + "1" * n + "/"})),
    "hook: a port":                       (a_hook, lambda n: orjson.dumps({"url": "https://a:" + "1" * n + "/"})),
    "hook: events":                       (a_hook, lambda n: orjson.dumps({"url": "https://a.b/", "events": ["payment.captured"] * (n // 19)})),
    "hook: a schedule":                   (a_hook, lambda n: orjson.dumps({"url": "https://a.b/", "retry_schedule": [1] * (n // 2)})),
    "hook: a secret":                     (a_hook, lambda n: orjson.dumps({"url": "https://a.b/", "secret": "whsec_" + "A" * n})),
    "a secret":                           (secret_bytes, lambda n: "whsec_" + "A" * n),
    "redelivery: a time":                 (a_redelivery, lambda n: orjson.dumps({"since": "2" * n})),
    "redelivery: a fraction":             (a_redelivery, lambda n: orjson.dumps({"since": "2016-01-01T00:00:00." + "1" * n + "Z"})),
    "Retry-After: digits":                (_retry_after_s, lambda n: "1" * n),
    "Retry-After: a date":                (_retry_after_s, lambda n: "Mon, " * (n // 5)),
    "Retry-After: spaces":                (_retry_after_s, lambda n: " " * n + "x"),
    "Retry-After: a zone":                (_retry_after_s, lambda n: "Mon, 01 Jan 2030 00:00:00 " + "+" * n),
    # operators, and what is kept of entries that nobody could read
    "operator: an operation":             (a_resolution, lambda n: orjson.dumps({"reason": "r", "outcome": "approved", "operation_id": "op_" + "0" * n})),
    "operator: a reason":                 (a_resolution, lambda n: orjson.dumps({"reason": " " * n})),
    "dead letter: digits":                (dead_letter.masked, lambda n: b"1" * n),
    "dead letter: nearly card numbers":   (dead_letter.masked, lambda n: b"1-1-1-1-1-1-1-1-1-1-1-1-a" * (n // 25)),
    "dead letter: sealed":                (dead_letter._shown, lambda n: b'"sealed"' * (n // 8)),
    "dead letter: sealed, and space":     (dead_letter._shown, lambda n: b'"sealed"' + b" " * n),
    "dead letter: sealed without an end": (dead_letter._shown, lambda n: b'"sealed":"' * (n // 10)),
    "operator: a store's URL":            (store_url.judged_redis, lambda n: "redis://" + "a" * n),
    "operator: a store's password":       (store_url.judged_postgres, lambda n: "postgresql://" + "%41" * (n // 3) + "@h/d"),
    "operator: many hosts":               (store_url.judged_postgres, lambda n: "postgresql://" + "h," * (n // 2) + "h/d"),
    "operator: a DSN":                    (store_url.judged_dsn, lambda n: "a=" + "'" * n),
    # banks
    "bank: a word":                       (lambda body: dialect.word("application/json", body), lambda n: b'{"error":"' + b"a" * n + b'"}'),
    "bank: an answer":                    (lambda body: dialect.word("application/json", body), lambda n: b"{" + b'"error":1,' * (n // 10)),
    "bank: a media type":                 (lambda text: dialect.word(text, b"{}"), lambda n: "application/json" + "; a=b" * (n // 5)),
}
# fmt: on


@pytest.mark.parametrize(("parse", "make"), WORST.values(), ids=WORST)
def test_four_times_the_input_takes_no_more_than_in_proportion(parse: Parser, make: Callable[[int], Any]) -> None:
    small, large = make(SMALL), make(LARGE)
    assert len(large) >= 3 * len(small)

    took_s = least_s(parse, small)

    assert least_s(parse, large) <= AT_MOST * took_s + NOISE_S


@pytest.mark.parametrize("unit", [b";", b" ;", b"; ", b" = ", b";=", b" ; b = c", b'"', b'\\"', b",", b"a", b" "])
@pytest.mark.parametrize("begins", [b"a", b"a=", b'a="'])
@pytest.mark.parametrize("ends", [b"<", b'"<', b""])
def test_no_header_of_256_bytes_stops_an_edge(begins: bytes, unit: bytes, ends: bytes) -> None:
    value = begins + unit * ((preference.VALUE_BYTES_MAX - 10) // len(unit)) + ends

    assert least_s(a_head, value) < 0.02  # it takes 0.0002 s


def test_a_parser_that_is_not_linear_would_be_found() -> None:
    def quadratic(text: str) -> int:
        return sum(1 for _ in range(len(text) ** 2 // 10_000))

    small, large = least_s(quadratic, "x" * SMALL), least_s(quadratic, "x" * LARGE)

    assert large > AT_MOST * small + NOISE_S


def least_s(parse: Parser, given: Any) -> float:
    """CPU seconds, the least of five runs; of one, where that takes long. A refusal is an answer like others."""
    least = float("inf")
    for _ in range(5):
        if 1 < least < float("inf"):
            break
        began = time.process_time()
        with suppress(PenstockError, ValueError):
            parse(given)
        least = min(least, time.process_time() - began)
    return least
