"""The mock bank's way in: routes, headers, bodies, chaos and health, as plain HTTP sees them."""

import json
import time
from typing import Any
from uuid import uuid4

import pytest

from bank.simulator.chaos import FaultProfile
from support.bank_harness import Bank, a_bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]

AUTHORIZATIONS = "/api/v1/authorizations"


def is_text_error(response: Any, status: int, text: str) -> bool:
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    return bool((response.status_code, response.text) == (status, f"{text}\n"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{AUTHORIZATIONS}/"),
        ("GET", f"{AUTHORIZATIONS}/"),
        ("GET", "/api/v1/voids/void_1"),
        ("GET", "/nothing"),
        ("GET", "/health/"),
    ],
)
def test_an_unknown_path_is_404_in_plain_text(bank: Bank, method: str, path: str) -> None:
    assert is_text_error(bank.http.request(method, path), 404, "404 page not found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", AUTHORIZATIONS, "POST"),
        ("HEAD", "/api/v1/voids", "POST"),
        ("POST", f"{AUTHORIZATIONS}/auth_1", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/docs", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_told_what_is_allowed(bank: Bank, method: str, path: str, allowed: str) -> None:
    response = bank.http.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.text == ("" if method == "HEAD" else "Method Not Allowed\n")


def test_head_is_answered_wherever_get_is(bank: Bank) -> None:
    auth = bank.authorized()

    for path in ("/health", "/", "/docs", "/docs/openapi", f"{AUTHORIZATIONS}/{auth}"):
        head, get = bank.http.head(path), bank.http.get(path)
        assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
        assert (head.content, head.headers["content-length"]) == (b"", str(len(get.content)))


def test_the_root_and_untidy_paths_are_redirected(bank: Bank) -> None:
    root, untidy = bank.http.get("/"), bank.http.get("/api//v1/./authorizations?a=1")

    assert (root.status_code, root.headers["location"]) == (301, "/docs")
    assert (untidy.status_code, untidy.headers["location"]) == (301, f"{AUTHORIZATIONS}?a=1")


def test_the_documentation_needs_nothing_from_elsewhere(bank: Bank) -> None:
    page = bank.http.get("/docs")
    document = bank.http.get("/docs/openapi")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "://" not in page.text
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"):
        assert f"/docs/{asset}" in page.text
        assert bank.http.get(f"/docs/{asset}").status_code == 200
    assert document.headers["content-type"] == "application/json"
    assert document.json()["openapi"] == "3.0.3"
    assert set(document.json()["paths"]) == {
        "/health",
        *(f"/api/v1/{noun}" for noun in ("authorizations", "captures", "voids", "refunds")),
        *(f"/api/v1/{noun}/{{id}}" for noun in ("authorizations", "captures", "refunds")),
    }


def test_the_key_header_must_be_there_once_and_not_be_empty(bank: Bank) -> None:
    def post(*values: str) -> Any:
        headers = [("Idempotency-Key", value) for value in values]
        return bank.http.post(AUTHORIZATIONS, content=b"no json", headers=headers)

    absent = "Header parameter Idempotency-Key is required, but not found"
    empty = "Invalid format for parameter Idempotency-Key: parameter 'Idempotency-Key' is empty, can't bind its value"
    assert is_text_error(post(), 400, absent)
    assert is_text_error(post(""), 400, empty)
    assert is_text_error(post("a", "b"), 400, "Expected one value for Idempotency-Key, got 2")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b'{"amount":',
        b'{"amount": 1',
        b'{"cvv": "12',
        b"no",
        b"[]",
        b"1",
        b'"text"',
        b"true",
        b'{"amount": "100"}',
        b'{"amount": 1.5}',
        b'{"amount": 1.0}',
        b'{"amount": 1e3}',
        b'{"amount": 9223372036854775808}',
        b'{"amount": true}',
        b'{"amount": {}}',
        b'{"amount": NaN}',
        b'{"expiry_month": "12"}',
        b'{"cvv": 123}',
        b'{"amount": 01}',
        b"{'amount': 1}",
        b"[" * 200_000,
    ],
)
def test_what_cannot_be_decoded_is_400_in_plain_text(bank: Bank, body: bytes) -> None:
    response = bank.post("authorizations", body)

    assert response.status_code == 400
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.startswith("can't decode JSON body: ") and response.text.endswith("\n")


@pytest.mark.parametrize("body", [b"{}", b"null", b'{"amount": null}', b'{"unknown": [1, {"a": 1.5}]}', b"{}}garbage"])
def test_missing_and_null_fields_are_zero_and_the_rest_is_ignored(bank: Bank, body: bytes) -> None:
    response = bank.post("authorizations", body)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_card")


def test_names_match_in_any_case_and_the_last_one_counts(bank: Bank) -> None:
    request = a_card_request()
    shouted = {name.upper(): value for name, value in request.items()}
    twice = json.dumps({**shouted, "AMOUNT": 1})[:-1] + ', "Amount": 7, "amount": null} and more'

    response = bank.post("authorizations", b" \t\r\n" + twice.encode())

    assert (response.status_code, response.json()["amount"]) == (200, 7)


def test_the_content_type_and_the_size_of_a_body_do_not_matter(bank: Bank) -> None:
    body = json.dumps({"padding": "x" * 3_000_000, **a_card_request()})
    headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "image/png"}

    assert bank.http.post(AUTHORIZATIONS, content=body, headers=headers).status_code == 200


def test_health_follows_the_database(bank: Bank) -> None:
    assert (bank.http.get("/health").status_code, bank.http.get("/health").text) == (200, '{"status":"healthy"}\n')


def test_chaos_fails_everything_but_health_docs_and_their_namesakes(bank_postgres: str) -> None:
    with a_bank(bank_postgres, FAILURE_RATE="1", MIN_LATENCY_MS="40", MAX_LATENCY_MS="40") as bank:
        began_s = time.monotonic()
        failed = [
            bank.authorize(),
            bank.http.get(f"{AUTHORIZATIONS}/auth_1"),
            bank.http.get("/nothing"),
            bank.http.get("/"),
            bank.http.post(AUTHORIZATIONS, content=b"no key"),
        ]
        slow_s = time.monotonic() - began_s
        spared = [bank.http.get(path).status_code for path in ("/health", "/docs", "/healthz", "/docsx")]
        control = bank.http.get("/control/faults").status_code

    assert {answer.status_code for answer in failed} == {500}
    assert {answer.text for answer in failed} == {'{"error":"internal_error","message":"Random failure injection"}\n'}
    assert slow_s >= 5 * 0.04
    assert spared == [200, 200, 404, 404]
    assert control == 500


def test_latency_is_a_whole_number_below_the_maximum_and_failures_keep_their_rate() -> None:
    def weather(low_ms: int, high_ms: int, rate: float, draw: int) -> FaultProfile:
        return FaultProfile(
            failure_rate=rate, min_latency_ms=low_ms, max_latency_ms=high_ms, random_below=lambda n: min(draw, n - 1)
        )

    assert weather(100, 2000, 0, 0).latency_ms() == 100
    assert weather(100, 2000, 0, 10**9).latency_ms() == 1999
    assert weather(300, 300, 0, 10**9).latency_ms() == 300
    assert [weather(0, 0, 0.25, draw).fails() for draw in (0, 249_999, 250_000)] == [True, True, False]
    assert not weather(0, 0, 0, 0).fails()
    assert weather(0, 0, 1, 10**9).fails()
