# ruff: noqa: E501 (one case a line)
"""A bad body is refused with a clear problem document, and the engine never hears of it."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from support.edge_stand import Stand, a_card, a_payment, assert_refused, running_edge, running_postgres

PAYMENT = "pay_4DVNQPMZBZFG0VHZJX492ZPG4J"
LUHN_19 = "4000000000000000006"


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


# fmt: off
FIELDS = [
    # what                           body                                                          the wrong pointers
    ("no amount",                    a_payment(amount=...),                                        ["/amount"]),
    ("amount null",                  a_payment(amount=None),                                       ["/amount"]),
    ("amount a string",              a_payment(amount="5000"),                                     ["/amount"]),
    ("amount true",                  a_payment(amount=True),                                       ["/amount"]),
    ("amount a float",               a_payment(amount=50.5),                                       ["/amount"]),
    ("amount a whole float",         a_payment(amount=50.0),                                       ["/amount"]),
    ("amount zero",                  a_payment(amount=0),                                          ["/amount"]),
    ("amount negative",              a_payment(amount=-1),                                         ["/amount"]),
    ("amount above the limit",       a_payment(amount=10**12 + 1),                                 ["/amount"]),
    ("amount above 2**63",           a_payment(amount=2**63),                                      ["/amount"]),
    ("amount an object",             a_payment(amount={"value": 1}),                               ["/amount"]),
    ("currency unknown",             a_payment(currency="XTS"),                                    ["/currency"]),
    ("currency small letters",       a_payment(currency="usd"),                                    ["/currency"]),
    ("currency a number",            a_payment(currency=840),                                      ["/currency"]),
    ("currency empty",               a_payment(currency=""),                                       ["/currency"]),
    ("order_id missing",             a_payment(order_id=...),                                      ["/order_id"]),
    ("order_id empty",               a_payment(order_id=""),                                       ["/order_id"]),
    ("order_id too long",            a_payment(order_id="x" * 129),                                ["/order_id"]),
    ("order_id a number",            a_payment(order_id=7),                                        ["/order_id"]),
    ("order_id with a line break",   a_payment(order_id="a\nb"),                                   ["/order_id"]),
    ("order_id with a NUL",          a_payment(order_id="a\0b"),                                   ["/order_id"]),
    ("customer_id too long",         a_payment(customer_id="x" * 129),                             ["/customer_id"]),
    ("customer_id with escape",      a_payment(customer_id="a\x1bb"),                              ["/customer_id"]),
    ("description too long",         a_payment(description="x" * 501),                             ["/description"]),
    ("description a list",           a_payment(description=["x"]),                                 ["/description"]),
    ("description with a NUL",       a_payment(description="\0"),                                  ["/description"]),
    ("metadata a list",              a_payment(metadata=[]),                                       ["/metadata"]),
    ("metadata null",                a_payment(metadata=None),                                     ["/metadata"]),
    ("metadata value a number",      a_payment(metadata={"a": 1}),                                 ["/metadata/a"]),
    ("metadata value nested",        a_payment(metadata={"a/b~c": {}}),                            ["/metadata/a~1b~0c"]),
    ("metadata with 51 pairs",       a_payment(metadata={str(n): "" for n in range(51)}),          ["/metadata"]),
    ("metadata above 8 KiB",         a_payment(metadata={"a": "é" * 4096}),                        ["/metadata"]),
    ("metadata with a NUL",          a_payment(metadata={"a": "x\0"}),                             ["/metadata/a"]),
    ("webhook_url no URL",           a_payment(webhook_url="shop"),                                ["/webhook_url"]),
    ("webhook_url another scheme",   a_payment(webhook_url="ftp://shop.example/x"),                ["/webhook_url"]),
    ("webhook_url without host",     a_payment(webhook_url="http:///x"),                           ["/webhook_url"]),
    ("webhook_url bad port",         a_payment(webhook_url="http://shop.example:99999/"),          ["/webhook_url"]),
    ("webhook_url bad bracket",      a_payment(webhook_url="http://[::1/"),                        ["/webhook_url"]),
    ("webhook_url with a password",  a_payment(webhook_url="http://u:p@shop.example/"),            ["/webhook_url"]),
    ("webhook_url with a space",     a_payment(webhook_url="http://shop.example/a b"),             ["/webhook_url"]),
    ("webhook_url too long",         a_payment(webhook_url="http://shop.example/" + "x" * 2048),   ["/webhook_url"]),
    ("capture a string",             a_payment(capture="true"),                                    ["/capture"]),
    ("capture a number",             a_payment(capture=1),                                         ["/capture"]),
    ("unknown field",                a_payment(amout=1),                                           ["/amout"]),
    ("unknown field in the card",    a_payment(payment_method=a_card(pin="1")),                    ["/payment_method/pin"]),
    ("no payment method",            a_payment(payment_method=...),                                ["/payment_method"]),
    ("payment method a list",        a_payment(payment_method=[a_card()]),                         ["/payment_method"]),
    ("payment method without type",  a_payment(payment_method={"number": "1"}),                    ["/payment_method/type"]),
    ("payment method unknown",       a_payment(payment_method={"type": "cheque"}),                 ["/payment_method/type"]),
    ("payment method type a list",   a_payment(payment_method={"type": []}),                       ["/payment_method/type"]),
    ("token",                        a_payment(payment_method={"type": "token", "token": "t"}),    ["/payment_method/type"]),
    ("upi",                          a_payment(payment_method={"type": "upi", "vpa": "a@b"}),      ["/payment_method/type"]),
    ("wallet",                       a_payment(payment_method={"type": "wallet"}),                 ["/payment_method/type"]),
    ("crypto",                       a_payment(payment_method={"type": "crypto"}),                 ["/payment_method/type"]),
    ("number with a bad check digit", a_payment(payment_method=a_card(number="4111111111111112")), ["/payment_method/number"]),
    ("number with spaces",           a_payment(payment_method=a_card(number="4111 1111 1111 1111")), ["/payment_method/number"]),
    ("number with dashes",           a_payment(payment_method=a_card(number="4111-1111-1111-1111")), ["/payment_method/number"]),
    ("number with a line break",     a_payment(payment_method=a_card(number="4111111111111111\n")), ["/payment_method/number"]),
    ("number too short",             a_payment(payment_method=a_card(number="411111111112")),      ["/payment_method/number"]),
    ("number too long",              a_payment(payment_method=a_card(number="0" * 20)),            ["/payment_method/number"]),
    ("number in Arabic digits",      a_payment(payment_method=a_card(number="٤" * 16)),            ["/payment_method/number"]),
    ("number a number",              a_payment(payment_method=a_card(number=4111111111111111)),    ["/payment_method/number"]),
    ("cvv too short",                a_payment(payment_method=a_card(cvv="12")),                   ["/payment_method/cvv"]),
    ("cvv too long",                 a_payment(payment_method=a_card(cvv="12345")),                ["/payment_method/cvv"]),
    ("cvv a number",                 a_payment(payment_method=a_card(cvv=123)),                    ["/payment_method/cvv"]),
    ("cvv missing",                  a_payment(payment_method=a_card(cvv=...)),                    ["/payment_method/cvv"]),
    ("month 13",                     a_payment(payment_method=a_card(expiry_month=13)),            ["/payment_method/expiry_month"]),
    ("month 0",                      a_payment(payment_method=a_card(expiry_month=0)),             ["/payment_method/expiry_month"]),
    ("month a string",               a_payment(payment_method=a_card(expiry_month="12")),          ["/payment_method/expiry_month"]),
    ("year of two digits",           a_payment(payment_method=a_card(expiry_year=30)),             ["/payment_method/expiry_year"]),
    ("year far away",                a_payment(payment_method=a_card(expiry_year=20300)),          ["/payment_method/expiry_year"]),
    ("two fields at once",           a_payment(amount=0, currency="usd"),                          ["/amount", "/currency"]),
]
# fmt: on


@pytest.mark.parametrize(("body", "pointers"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_a_wrong_field_is_refused_by_pointer(edge: Stand, body: object, pointers: list[str]) -> None:
    answer = edge.post(body=body)

    assert_refused(edge, answer, 422, "validation_failed")
    assert sorted(error["pointer"] for error in answer.json()["errors"]) == pointers
    assert all(error["detail"].strip() for error in answer.json()["errors"])


# fmt: off
RAW = [
    # what                     bytes                                       status  code                 said
    ("a huge integer",         b'{"amount":' + b"9" * 400 + b"}",          400, "malformed_json",      "JSON"),
    ("an exponent",            orjson.dumps(a_payment(amount=77777)).replace(b"77777", b"5e3"), 422, "validation_failed", "/amount"),
    ("thirty digits",          orjson.dumps(a_payment(amount=77777)).replace(b"77777", b"1" * 30), 422, "validation_failed", "/amount"),
    ("nothing",                b"",                                        400, "malformed_json",      "empty"),
    ("only spaces",            b"  \n",                                    400, "malformed_json",      "empty"),
    ("cut off",                orjson.dumps(a_payment())[:-9],             400, "malformed_json",      "JSON"),
    ("a list",                 b"[]",                                      400, "malformed_json",      "one JSON object"),
    ("a string",               b'"x"',                                     400, "malformed_json",      "one JSON object"),
    ("null",                   b"null",                                    400, "malformed_json",      "one JSON object"),
    ("a trailing comma",       b'{"amount":1,}',                           400, "malformed_json",      "comma"),
    ("two objects",            b"{}{}",                                    400, "malformed_json",      "JSON"),
    ("a comment",              b'{/*x*/"amount":1}',                       400, "malformed_json",      "JSON"),
    ("NaN",                    b'{"amount":NaN}',                          400, "malformed_json",      "JSON"),
    ("Infinity",               b'{"amount":-Infinity}',                    400, "malformed_json",      "JSON"),
    ("not UTF-8",              b'{"order_id":"\xff"}',                     400, "malformed_json",      "UTF-8"),
    ("UTF-16",                 '{"amount":1}'.encode("utf-16"),            400, "malformed_json",      "JSON"),
    ("a byte order mark",      b"\xef\xbb\xbf{}",                          400, "malformed_json",      "BOM"),
    ("half a surrogate pair",  b'{"order_id":"\\ud800"}',                  400, "malformed_json",      "surrogate"),
    ("a raw control character", b'{"order_id":"\x00"}',                    400, "malformed_json",      "control character"),
    ("a name twice",           b'{"amount":1,"amount":2}',                 400, "malformed_json",      '"amount" appears twice'),
    ("a name twice, spaced",   b'{"amount" :1,"amount"\n:2}',              400, "malformed_json",      '"amount" appears twice'),
    ("a name twice, escaped",  b'{"amount":1,"\\u0061mount":2}',           400, "malformed_json",      '"amount" appears twice'),
    ("a name twice, inside",   b'{"a":[{"b":{"x":1,"x":1}}]}',             400, "malformed_json",      '"x" appears twice'),
    ("a name twice, disguised", b'{"a":"\\":","x":1,"x":1}',               400, "malformed_json",      '"x" appears twice'),
    ("33 levels",              b'{"a":' * 33 + b"1" + b"}" * 33,           400, "malformed_json",      "32 levels"),
    ("33 levels of lists",     b'{"a":' + b"[" * 32 + b"]" * 32 + b"}",    400, "malformed_json",      "32 levels"),
    ("5,000 levels",           b"[" * 5000 + b"]" * 5000,                  400, "malformed_json",      "depth"),
    ("a NUL in a name",        b'{"a\\u0000":1}',                          422, "validation_failed",   "NUL"),
    ("32 levels",              b'{"a":' * 32 + b"1" + b"}" * 32,           422, "validation_failed",   "/a"),
]
# fmt: on


@pytest.mark.parametrize(("body", "status", "code", "said"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
def test_a_body_that_is_no_sound_json_is_refused(edge: Stand, body: bytes, status: int, code: str, said: str) -> None:
    answer = edge.post(body=body)

    assert_refused(edge, answer, status, code)
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("number", "cvv"), [("4111111111111112", "98765"), ("4111-1111-1111-1111", "9 9"), (4111111111111111, 987)]
)
def test_a_refusal_never_repeats_card_data(edge: Stand, number: object, cvv: object) -> None:
    body = a_payment(payment_method=a_card(number=number, cvv=cvv), **{"4111111111111111": 1})
    body["metadata"] = {"4111 1111 1111 1111": 4111111111111111}

    answer = edge.post(body=body)

    assert_refused(edge, answer, 422, "validation_failed")
    assert "1111" not in answer.text.replace(answer.json()["request_id"], "")
    assert not any(str(secret) in answer.text for secret in (cvv, number))


def test_a_duplicate_name_that_is_a_card_number_is_masked(edge: Stand) -> None:
    answer = edge.post(body=b'{"4111111111111111":1,"4111111111111111":2}')

    assert_refused(edge, answer, 400, "malformed_json")
    assert "4111" not in answer.text


def test_a_body_with_thousands_of_wrong_fields_gets_a_short_answer(edge: Stand) -> None:
    answer = edge.post(body=a_payment(**{f"f{n}": 1 for n in range(3000)}))

    assert_refused(edge, answer, 422, "validation_failed")
    assert len(answer.json()["errors"]) == 20
    assert "2999 more" in answer.json()["detail"]


def test_a_currency_that_the_connector_lacks_has_its_own_code(edge: Stand) -> None:
    answer = edge.post(body=a_payment(currency="EUR"))

    assert_refused(edge, answer, 422, "currency_not_supported")
    assert answer.json()["errors"] == [{"pointer": "/currency", "detail": "must be one of USD for this payment method"}]


# fmt: off
GOOD = [
    ("the largest amount",   a_payment(amount=10**12)),
    ("an expired card",      a_payment(payment_method=a_card(expiry_year=2001))),  # the bank's to decline
    ("19 digits",            a_payment(payment_method=a_card(number=LUHN_19))),
    ("amex",                 a_payment(payment_method=a_card(number="378282246310005", cvv="1234"))),
    ("everything",           a_payment(capture=True, description="é" * 500, metadata={"a": "1", "url": "https://x:1"},
                                       webhook_url="http://127.0.0.1:9/hook?a=b", order_id="Bestellung №1 ü")),
    ("nulls",                a_payment(description=None, webhook_url=None)),
    ("metadata of 50 pairs", a_payment(metadata={str(n): "v" for n in range(50)})),
]
# fmt: on


@pytest.mark.parametrize("body", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
def test_a_good_body_reaches_the_engine_as_it_was_meant(edge: Stand, body: dict[str, object]) -> None:
    answer = edge.post(body=body)

    assert answer.status_code == 202
    verb, origin, new = edge.engine.asked[0]
    assert (verb, origin.merchant, new.money.amount) == ("authorize", "m_1", body["amount"])
    assert (new.details.order_id, new.sale, new.details.metadata) == (
        body["order_id"],
        body.get("capture", False),
        body.get("metadata", {}),
    )
    assert new.card.number == body["payment_method"]["number"]  # type: ignore[index]


OPERATION_BODIES = [
    ({"amount": 0}, "/amount"),
    ({"amount": 5.0}, "/amount"),
    ({"amount": "1"}, "/amount"),
    ({"amount": True}, "/amount"),
    ({"amount": 10**12 + 1}, "/amount"),
    ({"reason": "x"}, "/reason"),
]


@pytest.mark.parametrize("verb", ["capture", "void", "refund"])
@pytest.mark.parametrize(("body", "pointer"), OPERATION_BODIES)
def test_an_operation_takes_nothing_but_an_amount(edge: Stand, verb: str, body: object, pointer: str) -> None:
    answer = edge.post(f"/v1/payments/{PAYMENT}/{verb}", body)

    assert_refused(edge, answer, 422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("verb", ["capture", "void", "refund"])
@pytest.mark.parametrize(
    ("body", "without", "amount"),
    [
        (b"", ("Content-Type",), None),
        (b"", (), None),
        ({}, (), None),
        ({"amount": 1}, (), 1),
        ({"amount": None}, (), None),
    ],
)
def test_the_body_of_an_operation_is_optional(
    edge: Stand, verb: str, body: object, without: tuple[str, ...], amount: int | None
) -> None:
    answer = edge.post(f"/v1/payments/{PAYMENT}/{verb}", body, without=without)

    assert answer.status_code == 202
    assert edge.engine.asked[0][0] == verb
    assert edge.engine.asked[0][2:] == (PAYMENT, amount)
