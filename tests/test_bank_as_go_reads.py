"""The mock bank reads what is on the wire as Go does: escapes in paths, expectations, deep and long JSON, odd text."""

import json
import random
import socket
from typing import Any
from uuid import uuid4

import pytest

from bank.simulator.decoding import BadBody, read_body
from bank.simulator.syntax import DEPTH_MAX, SyntaxFault, flatten
from support.bank_harness import Bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]

AUTHORIZATIONS = "/api/v1/authorizations"
NO_PAGE = (404, "404 page not found\n")


def exchange(bank: Bank, *pieces: bytes) -> list[bytes]:
    """What the bank says to each piece, on one connection."""
    with socket.create_connection(("127.0.0.1", bank.port), timeout=10) as connection:
        said = []
        for piece in pieces:
            connection.sendall(piece)
            said.append(connection.recv(65536))
        return said


def asked(bank: Bank, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], str]:
    """(status, headers, body) of a request whose target and headers go out as they stand here."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bank", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", bank.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, _, content = answer.partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    return int(status.split()[1]), dict(field.lower().split(": ", 1) for field in fields), content


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1%2Fauthorizations",
        "/api%2fv1/authorizations",
        "/%2Fapi/v1/authorizations",
        "/api/v1/authorizations%2F",
        "/api/v1/authorizations/%2F",
        "/api/v1/authorizations%0A",
        "/api/v1/authorizations%00",
        "/api/v1/authorizations%20",
        "/api/v1/authorizations%3Fa",
        "/api/v1/%2e/authorizations",
        "/api/v1/x/%2E%2e/authorizations",
        "/api/v1/authorizations%252F",
        "/api/v1/authorizations#fragment",
        "/api/v1/authorizations;a",
        "/API/v1/authorizations",
        "http://bank/api/v1%2Fauthorizations",
    ],
)
def test_an_escaped_delimiter_is_no_delimiter_and_places_no_hold(bank: Bank, target: str) -> None:
    request = a_card_request()

    status, _, text = asked(bank, "POST", target, json.dumps(request).encode(), Idempotency_Key=uuid4().hex)

    assert (status, text) == NO_PAGE
    held = "SELECT 1 FROM transactions t JOIN accounts a ON a.id = account_id WHERE account_number = %s"
    assert bank.sql(held, request["card_number"]) == []


def test_an_escaped_letter_is_that_letter(bank: Bank) -> None:
    request = json.dumps(a_card_request()).encode()

    status, _, text = asked(bank, "POST", "/%61pi/v1/authorization%73?a=%2F", request, Idempotency_Key=uuid4().hex)
    auth = json.loads(text)["authorization_id"]

    assert status == 200
    assert asked(bank, "GET", f"{AUTHORIZATIONS}/{auth.replace('-', '%2D')}")[0] == 200
    assert asked(bank, "GET", "/%68ealth")[2] == '{"status":"healthy"}\n'


def test_a_kept_answer_is_found_by_the_unescaped_path_before_any_route_is(bank: Bank) -> None:
    key = uuid4().hex
    first = bank.authorize(key)

    status, headers, text = asked(bank, "POST", "/api/v1%2Fauthorizations", b"{}", Idempotency_Key=key)

    assert (status, text, headers["x-idempotent-replayed"]) == (200, first.text, "true")


@pytest.mark.parametrize(
    ("target", "to"),
    [
        ("/api/v1/./authorizations", AUTHORIZATIONS),
        ("/api/v1/x/../authorizations?a=%2F", f"{AUTHORIZATIONS}?a=%2F"),
        ("//api/v1/authorizations", AUTHORIZATIONS),
        (f"{AUTHORIZATIONS}/..", "/api/v1"),
        (f"{AUTHORIZATIONS}/.", AUTHORIZATIONS),
        (f"{AUTHORIZATIONS}//", f"{AUTHORIZATIONS}/"),
        ("//api%2Fv1", "/api%252fv1"),
    ],
)
def test_an_untidy_path_is_redirected_also_where_a_route_would_take_it(bank: Bank, target: str, to: str) -> None:
    status, headers, page = asked(bank, "POST", target, b"{}", Idempotency_Key="tidy")
    _, _, page_of_get = asked(bank, "GET", target)

    assert (status, headers["location"], page) == (301, to.lower(), "")
    assert "Moved Permanently" in page_of_get


@pytest.mark.parametrize("target", ["/health%", "/health%2", "/health%zz", "/api/v1/%g0/../authorizations"])
def test_a_percent_sign_without_two_digits_is_400_before_anything_else(bank: Bank, target: str) -> None:
    status, headers, text = asked(bank, "GET", target)

    assert (status, text, headers["connection"]) == (400, "400 Bad Request", "close")


@pytest.mark.parametrize("noun", ["authorization", "capture", "refund"])
def test_an_identifier_with_a_slash_in_it_is_not_found_and_one_that_unescapes_no_further_is_400(
    bank: Bank, noun: str
) -> None:
    not_found = asked(bank, "GET", f"/api/v1/{noun}s/a%2Fb")
    twice = asked(bank, "GET", f"/api/v1/{noun}s/a%25zz")

    assert (not_found[0], json.loads(not_found[2])["message"]) == (404, f"{noun} not found")
    name = f"{noun}Id"
    assert twice[0] == 400
    assert twice[2] == (
        f"Invalid format for parameter {name}: error unescaping path parameter '{name}': invalid URL escape \"%zz\"\n"
    )


def head(target: str, length: int, expect: str, key: str = "expected") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: bank", f"Content-Length: {length}", f"Expect: {expect}"]
    return "\r\n".join([*lines, *([f"Idempotency-Key: {key}"] if key else []), "", ""]).encode()


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue", "later, 100-CONTINUE"])
def test_a_client_that_waits_to_be_told_is_told_to_go_on(bank: Bank, expect: str) -> None:
    body = json.dumps(a_card_request()).encode()

    go_on, answer = exchange(bank, head(AUTHORIZATIONS, len(body), expect, uuid4().hex), body)
    [both] = exchange(bank, head(AUTHORIZATIONS, 2, expect, uuid4().hex) + b"{}")

    assert go_on == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert both.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize(("target", "key", "status"), [(AUTHORIZATIONS, "", b"400"), ("/nowhere", "k", b"404")])
def test_a_client_that_need_not_send_its_body_is_not_told_to_and_the_connection_ends(
    bank: Bank, target: str, key: str, status: bytes
) -> None:
    [answer] = exchange(bank, head(target, 100, "100-continue", key))

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize("expect", ["200-ok", "100-continue;q=1", "100-continuex", "nothing"])
@pytest.mark.parametrize("target", [AUTHORIZATIONS, "/nowhere"])
def test_any_other_expectation_is_417_whatever_is_asked(bank: Bank, expect: str, target: str) -> None:
    request, key = a_card_request(), uuid4().hex
    bank.http.put("/control/chaos", json={"failure_rate": 1, "min_latency_ms": 0, "max_latency_ms": 0})
    try:
        status, headers, text = asked(
            bank, "POST", target, json.dumps(request).encode(), Expect=expect, Idempotency_Key=key
        )
    finally:
        bank.http.put("/control/chaos", json={"failure_rate": 0, "min_latency_ms": 0, "max_latency_ms": 0})

    assert (status, text, headers["connection"], headers["content-length"]) == (417, "", "close", "0")
    assert "x-idempotent-replayed" not in bank.post("authorizations", request, key).headers


@pytest.mark.parametrize(
    "unknown",
    [
        b"9" * 5_000,
        b"[-" + b"9" * 100_000 + b"]",
        b"1." + b"9" * 5_000 + b"e99999",
        b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1),
        b'{"a":' * (DEPTH_MAX - 1) + b"null" + b"}" * (DEPTH_MAX - 1),
    ],
    ids=["integer", "integers", "fraction", "arrays", "objects"],
)
def test_a_field_nobody_knows_may_be_as_long_and_as_deep_as_go_allows(bank: Bank, unknown: bytes) -> None:
    body = json.dumps(a_card_request(amount=7)).encode()

    answer = bank.post("authorizations", b'{"unknown":' + unknown + b"," + body[1:])

    assert (answer.status_code, answer.json().get("amount")) == (200, 7)


@pytest.mark.parametrize("closed", [True, False])
def test_one_level_more_than_go_allows_is_refused(bank: Bank, closed: bool) -> None:
    end = b"]" * DEPTH_MAX + b"}" if closed else b""

    answer = bank.post("authorizations", b'{"unknown":' + b"[" * DEPTH_MAX + end)

    too_deep = "can't decode JSON body: invalid character '[' exceeded max depth\n"
    assert (answer.status_code, answer.text) == (400, too_deep)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "EOF"),
        (b'{"amount": 1', "unexpected EOF"),
        (b'{"amount": "1', "unexpected EOF"),
        (b"1.", "unexpected EOF"),
        (b"no", "invalid character 'o' in literal null (expecting 'u')"),
        (b"{'amount': 1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"amount": 01}', "invalid character '1' after object key:value pair"),
        (b'{"amount": 1.x}', "invalid character 'x' after decimal point in numeric literal"),
        (b'{"cvv": "\n"}', "invalid character '\\n' in string literal"),
        (b'{"cvv": "\\x"}', "invalid character 'x' in string escape code"),
        (b'{"cvv" 1}', "invalid character '1' after object key"),
        (b'{"u": [1 2]}', "invalid character '2' after array element"),
        (b"[]", "json: cannot unmarshal array into Go value of type api.CreateAuthorizationRequest"),
        (
            b'{"amount": ' + b"9" * 30 + b"}",
            "json: cannot unmarshal number 999999999999999999999999999999"
            " into Go struct field CreateAuthorizationRequest.amount of type int64",
        ),
        (
            b'{"cvv": 123}',
            "json: cannot unmarshal number into Go struct field CreateAuthorizationRequest.cvv of type string",
        ),
        (
            b'{"expiry_month": "1"}',
            "json: cannot unmarshal string into Go struct field CreateAuthorizationRequest.expiry_month of type int",
        ),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_gos_words(bank: Bank, body: bytes, text: str) -> None:
    assert bank.post("authorizations", body).text == f"can't decode JSON body: {text}\n"


def test_both_readers_of_json_agree_on_what_is_json() -> None:
    draw = random.Random(15)
    whole = b'{"amount": [1, -2.5e+3, {"a\\u00e9": "b\\n\\ud800"}], "cvv": null, "u": [true, false, {}, []]}'
    for _ in range(4_000):
        text = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            text[draw.randrange(len(text))] = draw.choice(b'{}[]",:\\ 019.eE-+tfnu\x00\x1f\xe9')
        try:
            json.JSONDecoder(parse_constant=int).raw_decode(text.decode("utf-8", "replace").lstrip(" \t\n\r"))
            is_json = True
        except ValueError:
            is_json = False
        try:
            flatten(bytes(text))
        except SyntaxFault:
            assert not is_json, bytes(text)
            with pytest.raises(BadBody):
                read_body(bytes(text), "CreateVoidRequest", {"authorization_id": str})
        else:
            assert is_json, bytes(text)


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\ud800\ud800", "\ufffe", "\ufffd", "\U0001f600", "\u0660"])
def test_characters_that_a_database_refuses_change_no_order_of_checks(bank: Bank, odd: str) -> None:
    card = a_card_request()["card_number"]

    def refused(**changes: Any) -> tuple[str, str]:
        answer = bank.authorize(**changes)
        assert answer.status_code == 400
        return answer.json()["error"], answer.json()["message"]

    assert refused(card_number=card + odd) == ("invalid_card", "card not found or invalid")
    assert refused(card_number=odd + card, cvv="12") == ("invalid_cvv", "invalid CVV: must be 3 or 4 digits")
    assert refused(card_number=odd + card, amount=0) == ("invalid_amount", "invalid amount: must be greater than 0")
    assert refused(card_number=odd + card[:-1] + str((int(card[-1]) + 1) % 10))[0] == "invalid_card"
    assert refused(card_number=card, cvv="12" + odd)[0] == "invalid_cvv"
    for noun, field in (("captures", "authorization_id"), ("voids", "authorization_id"), ("refunds", "capture_id")):
        answer = bank.post(noun, {field: f"{odd}auth_{uuid4()}", "amount": 1})
        assert answer.json()["message"].startswith("invalid ")
