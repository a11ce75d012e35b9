# ruff: noqa: E501 (one case a line)
"""Bad headers, paths, methods and queries are refused clearly, and the engine never hears of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.edge_stand import Stand, a_payment, assert_refused, running_edge, running_postgres

PAYMENT = "pay_4DVNQPMZBZFG0VHZJX492ZPG4J"
CAPTURE = f"/v1/payments/{PAYMENT}/capture"


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


# fmt: off
HEADERS = [
    # what                           headers                                                   without              status  code
    ("no key",                       {},                                                       ("Idempotency-Key",), 400, "idempotency_key_missing"),
    ("an empty key",                 {"Idempotency-Key": ""},                                  (),                   400, "idempotency_key_missing"),
    ("an empty quoted key",          {"Idempotency-Key": '""'},                                (),                   400, "idempotency_key_missing"),
    ("a key of 256",                 {"Idempotency-Key": "k" * 256},                           (),                   400, "idempotency_key_invalid"),
    ("a quoted key of 256",          {"Idempotency-Key": f'"{"k" * 256}"'},                    (),                   400, "idempotency_key_invalid"),
    ("a key beyond ASCII",           {"Idempotency-Key": "schlüssel".encode()},                (),                   400, "idempotency_key_invalid"),
    ("a key with a tab",             {"Idempotency-Key": b"a\tb"},                             (),                   400, "idempotency_key_invalid"),
    ("half a quotation",             {"Idempotency-Key": '"abc'},                              (),                   400, "idempotency_key_invalid"),
    ("a quotation in a quotation",   {"Idempotency-Key": '"a"b"'},                             (),                   400, "idempotency_key_invalid"),
    ("a parameter after it",         {"Idempotency-Key": '"a";b=1'},                           (),                   400, "idempotency_key_invalid"),
    ("a bad escape",                 {"Idempotency-Key": '"a\\n"'},                            (),                   400, "idempotency_key_invalid"),
    ("a derived key",                {"Idempotency-Key": "drv_" + "0a" * 32},                  (),                   422, "validation_failed"),
    ("a quoted derived key",         {"Idempotency-Key": f'"drv_{"0a" * 32}"'},                (),                   422, "validation_failed"),
    ("no content type",              {},                                                       ("Content-Type",),    415, "unsupported_media_type"),
    ("a form",                       {"Content-Type": "application/x-www-form-urlencoded"},    (),                   415, "unsupported_media_type"),
    ("plain text",                   {"Content-Type": "text/plain"},                           (),                   415, "unsupported_media_type"),
    ("another charset",              {"Content-Type": "application/json; charset=utf-16"},     (),                   415, "unsupported_media_type"),
    ("another JSON",                 {"Content-Type": "application/merge-patch+json"},         (),                   415, "unsupported_media_type"),
    ("a compressed body",            {"Content-Encoding": "gzip"},                             (),                   415, "unsupported_media_type"),
]
# fmt: on


@pytest.mark.parametrize("path", ["/v1/payments", CAPTURE])
@pytest.mark.parametrize(
    ("headers", "without", "status", "code"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS]
)
def test_a_wrong_header_is_refused(
    edge: Stand, path: str, headers: dict[str, str], without: tuple[str, ...], status: int, code: str
) -> None:
    body = a_payment() if path == "/v1/payments" else {"amount": 5000}

    answer = edge.post(path, body, headers=headers, without=without)

    assert_refused(edge, answer, status, code)


def test_a_key_sent_twice_is_refused(edge: Stand) -> None:
    headers = [("X-API-Key", "sk_test_merchant"), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]

    answer = edge.client.post("/v1/payments", json=a_payment(), headers=headers)

    assert_refused(edge, answer, 400, "idempotency_key_invalid")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
def test_json_may_be_declared_in_these_ways(edge: Stand, content_type: str) -> None:
    assert edge.post(headers={"Content-Type": content_type}).status_code == 202


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("k-1", "k-1"),
        ('"k-1"', "k-1"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('a"b', 'a"b'),
        ("with a space, and a comma", "with a space, and a comma"),
        ("k" * 255, "k" * 255),
        (f'"{"k" * 255}"', "k" * 255),
        ("drv_short", "drv_short"),
    ],
)
def test_a_key_is_the_same_bare_or_quoted(edge: Stand, sent: str, meant: str) -> None:
    answer = edge.post(headers={"Idempotency-Key": sent})

    assert answer.status_code == 202
    assert edge.engine.asked[0][1].key == meant


# fmt: off
PATHS = [
    "/v1/payments/pay_1", f"/v1/payments/{PAYMENT}x", f"/v1/payments/{PAYMENT.lower()}", "/v1/payments/pay_OOOOOOOOOOOOOOOOOOOOOOOOOO",
    "/v1/payments/op_4DVNQPMZBZFG0VHZJX492ZPG4J", "/v1/payments/%00", "/v1/payments/..%2f..%2fetc", "/v1/payments/%ff", "/v1/payments/" + "9" * 3000,
    f"/v1/payments/{PAYMENT}%0a", "/v1/payments/'%20OR%201=1", "/v1/payments/x/shippable", "/v1/operations/x", f"/v1/operations/{PAYMENT}",
    "/v1/payments/", "/v1", "/v2/payments", f"/v1/payments/{PAYMENT}/nonsense", "/problems/nonsense", "/docs/../secret", "/docs/index.html",
]
# fmt: on


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_names_nothing_is_not_found(edge: Stand, path: str) -> None:
    assert_refused(edge, edge.get(path), 404, "not_found")


def test_an_operation_on_a_malformed_id_is_not_found(edge: Stand) -> None:
    assert_refused(edge, edge.post("/v1/payments/pay_1/capture", {}), 404, "not_found")


METHODS = [
    ("DELETE", "/v1/payments", "GET, HEAD, POST"),
    ("PUT", f"/v1/payments/{PAYMENT}", "GET, HEAD"),
    ("GET", CAPTURE, "POST"),
    ("OPTIONS", CAPTURE, "POST"),
    ("POST", "/livez", "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "allow"), METHODS)
def test_a_wrong_method_is_told_the_right_ones(edge: Stand, method: str, path: str, allow: str) -> None:
    answer = edge.request(method, path)

    assert_refused(edge, answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


# fmt: off
QUERIES = [
    # path and query                                          said
    ("/v1/payments",                                          "filter"),
    ("/v1/payments?limit=10",                                 "filter"),
    ("/v1/payments?order_id=",                                '"order_id"'),
    (f"/v1/payments?order_id={'x' * 129}",                    '"order_id"'),
    ("/v1/payments?order_id=a%00b",                           '"order_id"'),
    ("/v1/payments?customer_id=%0a",                          '"customer_id"'),
    ("/v1/payments?order_id=%ff",                             "UTF-8"),
    ("/v1/payments?order_id=a&order_id=b",                    '"order_id" was sent more than once'),
    ("/v1/payments?order=a",                                  '"order" is not known'),
    ("/v1/payments?order_id=a&4111111111111111=1",            '"…" is not known'),
    ("/v1/payments?status=done",                              '"status"'),
    ("/v1/payments?status=AUTHORIZED",                        '"status"'),
    ("/v1/payments?order_id=a&limit=0",                       '"limit"'),
    ("/v1/payments?order_id=a&limit=101",                     '"limit"'),
    ("/v1/payments?order_id=a&limit=-1",                      '"limit"'),
    ("/v1/payments?order_id=a&limit=ten",                     '"limit"'),
    ("/v1/payments?order_id=a&limit=1.5",                     '"limit"'),
    ("/v1/payments?order_id=a&limit=%D9%A1",                  '"limit"'),
    ("/v1/payments?order_id=a&limit=",                        '"limit"'),
    ("/v1/payments?order_id=a&cursor=",                       '"cursor"'),
    (f"/v1/payments?order_id=a&cursor={'c' * 513}",           '"cursor"'),
    ("/v1/payments?order_id=a&cursor=%C3%A9",                 '"cursor"'),
    ("/v1/payments?" + "&".join(f"a{n}=1" for n in range(99)), "too many"),
    ("/v1/operations",                                        '"idempotency_key"'),
    ("/v1/operations?key=1",                                  '"key" is not known'),
    (f"/v1/payments/{PAYMENT}?expand=all",                    '"expand" is not known'),
    (f"/v1/payments/{PAYMENT}/shippable?x",                   '"x" is not known'),
]
# fmt: on


@pytest.mark.parametrize(("path", "said"), QUERIES)
def test_a_wrong_query_is_refused_by_name(edge: Stand, path: str, said: str) -> None:
    answer = edge.get(path)

    assert_refused(edge, answer, 400, "malformed_request")
    assert said in answer.json()["detail"]


def test_a_query_on_a_post_is_refused(edge: Stand) -> None:
    assert_refused(edge, edge.post("/v1/payments?dry_run=1"), 400, "malformed_request")


@pytest.mark.parametrize("key", ["", "%C3%A9", "x" * 256, "%22half"])
def test_a_wrong_key_to_look_up_is_refused(edge: Stand, key: str) -> None:
    answer = edge.get(f"/v1/operations?idempotency_key={key}")

    assert answer.json()["code"] in ("idempotency_key_invalid", "idempotency_key_missing")
    assert (answer.status_code, edge.engine.asked) == (400, [])


def test_a_card_number_in_a_path_is_not_repeated(edge: Stand) -> None:
    answer = edge.get("/v1/payments/4111111111111111")

    assert_refused(edge, answer, 404, "not_found")
    assert "4111" not in answer.text
