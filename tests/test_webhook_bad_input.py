# ruff: noqa: E501 (one case a line)
"""What is wrong about a call on webhooks is refused with a problem document that names it, and nothing has happened."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engine.contracts.webhooks import OVERLAP_S_MAX
from engine.pagination import cursor
from ops.stack.embedded import EmbeddedRedis
from support.event_stand import ENDPOINTS, MERCHANT, OTHER, an_edge, an_endpoint, ask
from support.gateway import Gateway

NONE_SUCH = "whe_00000000000000000000000009"
NO_PAYMENT = "pay_" + 26 * "0"


@pytest.fixture(scope="module")
def gateway(
    module_database: str, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """An edge that allows 127.0.0.0/8 and nothing else that is not public."""
    with an_edge(module_database, redis_server, tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(gateway: Gateway) -> str:
    return str(an_endpoint(gateway)["id"])


def made(gateway: Gateway) -> list[tuple[Any, ...]]:
    """Everything that a refused call could have left behind."""
    return gateway.sql(
        "SELECT (SELECT count(*) FROM stored_answers), (SELECT count(*) FROM webhook_secrets),"
        " (SELECT json_agg(e ORDER BY id)::text FROM webhook_endpoints e)"
    )


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem = dict(answer.json())
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["type"]) == (status, f"/problems/{code}")
    assert problem["title"] and problem["detail"] and problem["request_id"] == answer.headers["x-request-id"]
    return problem


def assert_fields(answer: httpx.Response, *pointers: str) -> None:
    problem = assert_problem(answer, 422, "validation_failed")
    assert sorted(error["pointer"] for error in problem["errors"]) == sorted(pointers)
    assert all(error["detail"].strip() for error in problem["errors"])


# fmt: off
URLS = {
    "nothing":                       "",
    "no URL":                        "shop",
    "no scheme":                     "shop.example/hooks",
    "no scheme, two slashes":        "//shop.example/hooks",
    "ftp":                           "ftp://shop.example/hooks",
    "file":                          "file:///etc/passwd",
    "gopher":                        "gopher://shop.example/",
    "javascript":                    "javascript:alert(1)",
    "a socket":                      "unix:///var/run/docker.sock",
    "websocket":                     "wss://shop.example/",
    "no host":                       "http:///hooks",
    "only a port":                   "http://:80/",
    "one slash":                     "http:/shop.example/",
    "a user":                        "http://user@shop.example/",
    "a user and password":           "http://user:secret@shop.example/",
    "an empty user":                 "http://@shop.example/",
    "a fragment":                    "http://shop.example/#part",
    "an empty fragment":             "http://shop.example/#",
    "a space":                       "http://shop.example/a b",
    "a space before":                " http://shop.example/",
    "a line break":                  "http://shop.example/\r\nx-header: 1",
    "a tab in the host":             "http://shop\t.example/",
    "a NUL":                         "http://shop.example/%00\x00",
    "a name beyond ASCII":           "http://bücher.example/",
    "a path beyond ASCII":           "http://shop.example/bücher",
    "full-width digits":             "http://１２７.0.0.1/",
    "a dot that is none":            "http://127。0。0。1/",
    "too long":                      "http://shop.example/" + "x" * 2048,
    "port 0":                        "http://shop.example:0/",
    "port 65536":                    "http://shop.example:65536/",
    "a port that is none":           "http://shop.example:http/",
    "a negative port":               "http://shop.example:-1/",
    "a backslash":                   "http://shop.example\\@10.0.0.1/",
    "a percent sign in the host":    "http://127.0.0.1%2f.shop.example/",
    "an open bracket":               "http://[::1/",
    "brackets around a name":        "http://[shop.example]/",
    "an empty label":                "http://shop..example/",
    "an empty first label":          "http://.example/",
    "a label of 64":                 f"http://{'x' * 64}.example/",
    "a name of 254":                 f"http://{'.'.join(['x' * 62] * 4)}.xy/",
    "a dash in front":               "http://-shop.example/",
    "a dash at the end":             "http://shop-.example/",
    "a star":                        "http://*.example/",
    "xn-- alone":                    "http://xn--.example/",
    "xn-- of ASCII":                 "http://xn--shop-.example/",
    "xn-- that is no punycode":      "http://xn--99999999999.example/",
    "IPv4 in octal":                 "http://0177.0.0.1/",
    "IPv4 in hexadecimal":           "http://0x7f.0.0.1/",
    "IPv4 as one number":            "http://2130706433/",
    "IPv4 as one number in hex":     "http://0x7f000001/",
    "IPv4 of two numbers":           "http://127.1/",
    "IPv4 of three numbers":         "http://10.0.1/",
    "IPv4 with leading zeros":       "http://010.000.000.001/",
    "IPv4 with a dot at the end":    "http://10.0.0.1./",
    "IPv4 out of bounds":            "http://256.1.1.1/",
    "IPv4 of five numbers":          "http://1.2.3.4.5/",
    "a zone":                        "http://[fe80::1%25eth0]/",
    "a zone, bare":                  "http://[fe80::1%eth0]/",
    "private, 10":                   "http://10.0.0.1/",
    "private, 172.16":               "http://172.16.0.1:8080/",
    "private, 192.168":              "https://192.168.1.1/",
    "carrier's":                     "http://100.64.0.1/",
    "metadata":                      "http://169.254.169.254/latest/meta-data",
    "unspecified":                   "http://0.0.0.0/",
    "broadcast":                     "http://255.255.255.255/",
    "multicast":                     "http://224.0.0.1/",
    "documentation":                 "http://192.0.2.1/",
    "IPv6 loopback":                 "http://[::1]/",
    "IPv6 unspecified":              "http://[::]/",
    "IPv6 link-local":               "http://[fe80::1]/",
    "IPv6 unique local":             "http://[fd00:ec2::254]/",
    "IPv4 in IPv6":                  "http://[::ffff:10.0.0.1]/",
    "IPv4 in IPv6, in hex":          "http://[::ffff:a9fe:a9fe]/",
    "IPv4 behind NAT64":             "http://[64:ff9b::10.0.0.1]/",
    "IPv4 behind 6to4":              "http://[2002:a9fe:a9fe::]/",
    "a number":                      80,
    "null":                          None,
    "a list":                        ["http://shop.example/"],
}

BODIES = {
    "no URL":                        ({"url": ...},                                            ["/url"]),
    "an unknown type":               ({"events": ["payment.exploded"]},                        ["/events/0"]),
    "a type in capitals":            ({"events": ["Payment.Captured"]},                        ["/events/0"]),
    "a star":                        ({"events": ["payment.captured", "*"]},                   ["/events/1"]),
    "no types":                      ({"events": []},                                          ["/events"]),
    "a type twice":                  ({"events": ["payment.captured", "payment.captured"]},    ["/events"]),
    "types as text":                 ({"events": "payment.captured"},                          ["/events"]),
    "a type that is a number":       ({"events": [1]},                                         ["/events/0"]),
    "ordered as text":               ({"ordered": "true"},                                     ["/ordered"]),
    "ordered null":                  ({"ordered": None},                                       ["/ordered"]),
    "no delays":                     ({"retry_schedule": []},                                  ["/retry_schedule"]),
    "31 delays":                     ({"retry_schedule": [1] * 31},                            ["/retry_schedule"]),
    "a thousand delays":             ({"retry_schedule": [1] * 1000},                          ["/retry_schedule"]),
    "a delay of nothing":            ({"retry_schedule": [1, 0]},                              ["/retry_schedule/1"]),
    "a delay into the past":         ({"retry_schedule": [-1]},                                ["/retry_schedule/0"]),
    "a delay of a year":             ({"retry_schedule": [31_536_000]},                        ["/retry_schedule/0"]),
    "a delay beyond 64 bits":        ({"retry_schedule": [2**64 - 1]},                             ["/retry_schedule/0"]),
    "half a second":                 ({"retry_schedule": [0.5]},                               ["/retry_schedule/0"]),
    "a delay as text":               ({"retry_schedule": ["1"]},                               ["/retry_schedule/0"]),
    "a delay that is true":          ({"retry_schedule": [True]},                              ["/retry_schedule/0"]),
    "a schedule as text":            ({"retry_schedule": "1,2,4"},                             ["/retry_schedule"]),
    "a long description":            ({"description": "x" * 501},                              ["/description"]),
    "a description with a NUL":      ({"description": "\0"},                                   ["/description"]),
    "ed25519 as text":               ({"ed25519": "yes"},                                      ["/ed25519"]),
    "an unknown field":              ({"active": True},                                        ["/active"]),
    "a field of the answer":         ({"status": "enabled"},                                   ["/status"]),
    "three things at once":          ({"url": "ftp://x/", "events": [], "colour": 1},          ["/url", "/events", "/colour"]),
}

SECRETS = {
    "nothing":                       "",
    "no prefix":                     base64.b64encode(b"s" * 32).decode(),
    "another prefix":                "whpk_" + base64.b64encode(b"s" * 32).decode(),
    "the prefix in capitals":        "WHSEC_" + base64.b64encode(b"s" * 32).decode(),
    "the prefix alone":              "whsec_",
    "23 bytes":                      "whsec_" + base64.b64encode(b"s" * 23).decode(),
    "65 bytes":                      "whsec_" + base64.b64encode(b"s" * 65).decode(),
    "no base64":                     "whsec_" + "!" * 32,
    "base64 for URLs":               "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
    "no padding":                    "whsec_" + base64.b64encode(b"s" * 32).decode().rstrip("="),
    "a line break":                  "whsec_" + base64.b64encode(b"s" * 30).decode() + "\n",
    "beyond ASCII":                  "whsec_" + "ü" * 32,
    "a number":                      7,
}

REDELIVERIES = {
    "no since":                      ({"since": ...},                                     "/since"),
    "since null":                    ({"since": None},                                    "/since"),
    "since a number":                ({"since": 1_900_000_000},                           "/since"),
    "since a word":                  ({"since": "yesterday"},                             "/since"),
    "since without an offset":       ({"since": "2020-05-04T12:00:00"},                   "/since"),
    "since a day":                   ({"since": "2020-05-04"},                            "/since"),
    "since the 30th of February":    ({"since": "2020-02-30T00:00:00Z"},                  "/since"),
    "since far in the past":         ({"since": "0000-01-01T00:00:00Z"},                  "/since"),
    "since in the future":           ({"since": "2999-01-01T00:00:00Z"},                  "/since"),
    "until before since":            ({"until": "2019-05-04T12:00:00Z"},                  "/since"),
    "until as soon as since":        ({"until": "2020-05-04T14:00:00+02:00"},             "/since"),
    "until a word":                  ({"until": "now"},                                   "/until"),
    "something else":                ({"deliveries": "some"},                             "/deliveries"),
    "dry_run as text":               ({"dry_run": "true"},                                "/dry_run"),
    "an unknown field":              ({"endpoint": NONE_SUCH},                            "/endpoint"),
}

OVERLAPS = {"negative": -1, "too long": OVERLAP_S_MAX + 1, "a float": 1.5, "text": "3600", "null": None, "true": True}

QUERIES = [
    # path                                      query                          what it must name
    (ENDPOINTS,                                 "limit=0",                     '"limit"'),
    (ENDPOINTS,                                 "limit=101",                   '"limit"'),
    (ENDPOINTS,                                 "limit=-1",                    '"limit"'),
    (ENDPOINTS,                                 "limit=1.0",                   '"limit"'),
    (ENDPOINTS,                                 "limit=%D9%A1",                '"limit"'),
    (ENDPOINTS,                                 "limit=1&limit=2",             '"limit"'),
    (ENDPOINTS,                                 "cursor=",                     '"cursor"'),
    (ENDPOINTS,                                 "cursor=nonsense",             "cursor"),
    (ENDPOINTS,                                 "cursor=" + "x" * 600,         '"cursor"'),
    (ENDPOINTS,                                 f"cursor={cursor('2020-01-01T00:00:00', NONE_SUCH)}", "cursor"),
    (ENDPOINTS,                                 f"cursor={cursor('2020-01-01T00:00:00Z', 'whe_x')}",  "cursor"),
    (ENDPOINTS,                                 f"cursor={cursor('noon', NONE_SUCH)}", "cursor"),
    (ENDPOINTS,                                 "page=2",                      '"page"'),
    (f"{ENDPOINTS}/{{}}",                       "expand=secret",               '"expand"'),
    (f"{ENDPOINTS}/{{}}/deliveries",            "status=lost",                 '"status"'),
    (f"{ENDPOINTS}/{{}}/deliveries",            "limit=101",                   '"limit"'),
    (f"{ENDPOINTS}/{{}}/deliveries",            "cursor=nonsense",             "cursor"),
    (f"{ENDPOINTS}/{{}}/deliveries",            f"cursor={cursor('2020-01-01T00:00:00Z', 'pay_x', 1)}", "cursor"),
    (f"{ENDPOINTS}/{{}}/deliveries",            f"cursor={cursor('2020-01-01T00:00:00Z', NO_PAYMENT, 'x')}", "cursor"),
    (f"{ENDPOINTS}/{{}}/deliveries",            "since=yesterday",             '"since"'),
    ("/v1/events",                              "since=yesterday",             '"since"'),
    ("/v1/events",                              "after=nonsense",              "cursor"),
    ("/v1/events",                              f"after={cursor('1', '-1')}",  "cursor"),
    ("/v1/events",                              f"after={cursor(10**19, 1)}",  "cursor"),
    ("/v1/events",                              "type=payment.exploded",       '"type"'),
    ("/v1/events",                              "limit=1000",                  '"limit"'),
    ("/v1/webhook-secret",                      "show=true",                   '"show"'),
]

METHODS = [
    # path                                      method    allowed
    (ENDPOINTS,                                 "PUT",    "GET, HEAD, POST"),
    (ENDPOINTS,                                 "DELETE", "GET, HEAD, POST"),
    (f"{ENDPOINTS}/{{}}",                       "POST",   "DELETE, GET, HEAD, PATCH"),
    (f"{ENDPOINTS}/{{}}",                       "PUT",    "DELETE, GET, HEAD, PATCH"),
    (f"{ENDPOINTS}/{{}}/enable",                "GET",    "POST"),
    (f"{ENDPOINTS}/{{}}/rotate-secret",         "GET",    "POST"),
    (f"{ENDPOINTS}/{{}}/deliveries",            "POST",   "GET, HEAD"),
    (f"{ENDPOINTS}/{{}}/redeliver",             "GET",    "POST"),
    ("/v1/events",                              "POST",   "GET, HEAD"),
    ("/v1/webhook-secret",                      "POST",   "GET, HEAD"),
    ("/.well-known/webhook-keys/{}",            "POST",   "GET, HEAD"),
]
# fmt: on


def changed(body: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_url_that_cannot_be_called_is_refused(gateway: Gateway, endpoint: str, url: object) -> None:
    before = made(gateway)

    registered = ask(gateway, "POST", ENDPOINTS, {"url": url})
    moved = ask(gateway, "PATCH", f"{ENDPOINTS}/{endpoint}", {"url": url})

    assert_fields(registered, "/url")
    assert_fields(moved, "/url")
    assert made(gateway) == before


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/allowed",
        "http://localhost:9/allowed",
        "https://93.184.216.34/public",
        "https://xn--bcher-kva.example/international",
        "https://shop.example:8443/a/b?c=d&e=%C3%BC",
        "https://SHOP.example./dot-at-the-end",
        "HTTPS://Shop.Example:443",
        "http://shop.example?q=a+b%20c%7E",
        "https://[2606:4700::1111]/six",
        "http://hooks_1.shop.example/underscore",
        "http://shop.example/" + "x" * 2028,
    ],
)
def test_a_url_that_can_is_not(gateway: Gateway, url: str) -> None:
    answer = ask(gateway, "POST", ENDPOINTS, {"url": url})

    assert answer.status_code == 201, answer.text
    assert answer.json()["url"] == url
    ask(gateway, "DELETE", f"{ENDPOINTS}/{answer.json()['id']}")


@pytest.mark.parametrize(("changes", "pointers"), BODIES.values(), ids=BODIES)
def test_a_wrong_field_is_refused_by_pointer(
    gateway: Gateway, endpoint: str, changes: dict[str, object], pointers: list[str]
) -> None:
    before = made(gateway)

    registered = ask(gateway, "POST", ENDPOINTS, changed({"url": "http://127.0.0.1:9/wrong"}, changes))
    refused = [registered]
    if ... not in changes.values():  # of a change, everything may be left out
        refused.append(ask(gateway, "PATCH", f"{ENDPOINTS}/{endpoint}", changes))

    for answer in refused:
        assert_fields(answer, *pointers)
    assert made(gateway) == before


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_of_the_wrong_form_is_refused_and_not_repeated(
    gateway: Gateway, endpoint: str, secret: object
) -> None:
    before = made(gateway)

    answers = [
        ask(gateway, "POST", ENDPOINTS, {"url": "http://127.0.0.1:9/secret", "secret": secret}),
        ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/rotate-secret", {"secret": secret}),
        ask(gateway, "POST", "/v1/webhook-secret/rotate", {"secret": secret}),
    ]

    for answer in answers:
        assert_fields(answer, "/secret")
        assert len(str(secret)) < 10 or str(secret) not in answer.text
    assert made(gateway) == before


def test_a_change_of_the_secret_is_a_rotation(gateway: Gateway, endpoint: str) -> None:
    answer = ask(gateway, "PATCH", f"{ENDPOINTS}/{endpoint}", {"secret": "whsec_" + "QUJD" * 8})

    assert_fields(answer, "/secret")


@pytest.mark.parametrize("overlap_s", OVERLAPS.values(), ids=OVERLAPS)
def test_an_overlap_out_of_bounds_is_refused(gateway: Gateway, endpoint: str, overlap_s: object) -> None:
    for path in (f"{ENDPOINTS}/{endpoint}/rotate-secret", "/v1/webhook-secret/rotate"):
        assert_fields(ask(gateway, "POST", path, {"overlap_s": overlap_s}), "/overlap_s")


@pytest.mark.parametrize(("changes", "pointer"), REDELIVERIES.values(), ids=REDELIVERIES)
def test_a_range_that_makes_no_sense_is_refused(
    gateway: Gateway, endpoint: str, changes: dict[str, object], pointer: str
) -> None:
    body = changed({"since": "2020-05-04T12:00:00Z"}, changes)

    for more in ({}, {} if "dry_run" in changes else {"dry_run": True}):
        assert_fields(ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/redeliver", {**body, **more}), pointer)


@pytest.mark.parametrize(("path", "query", "named"), QUERIES)
def test_a_query_that_makes_no_sense_is_refused(
    gateway: Gateway, endpoint: str, path: str, query: str, named: str
) -> None:
    problem = assert_problem(ask(gateway, "GET", f"{path.format(endpoint)}?{query}"), 400, "malformed_request")

    assert named in problem["detail"]


@pytest.mark.parametrize(("path", "method", "allowed"), METHODS)
def test_a_method_that_a_path_does_not_know_is_refused(
    gateway: Gateway, endpoint: str, path: str, method: str, allowed: str
) -> None:
    answer = ask(gateway, method, path.format(endpoint), {})

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "id", ["nonsense", "whe_", "pay_00000000000000000000000009", NONE_SUCH, NONE_SUCH.lower(), "%00"]
)
def test_an_endpoint_that_is_not_there_is_404(gateway: Gateway, id: str) -> None:
    calls = [
        ("GET", "", None),
        ("PATCH", "", {"ordered": True}),
        ("DELETE", "", None),
        ("POST", "/rotate-secret", None),
        ("POST", "/enable", None),
        ("GET", "/deliveries", None),
        ("POST", "/redeliver", {"since": "2020-05-04T12:00:00Z"}),
        ("POST", "/redeliver", {"since": "2020-05-04T12:00:00Z", "dry_run": True}),
        ("GET", f"/deliveries/dlv_{NO_PAYMENT}_1", None),
    ]
    for method, verb, body in calls:
        assert_problem(ask(gateway, method, f"{ENDPOINTS}/{id}{verb}", body), 404, "not_found")
    assert_problem(ask(gateway, "GET", f"/.well-known/webhook-keys/{id}"), 404, "not_found")


@pytest.mark.parametrize(
    "id",
    ["nonsense", "dlv_", "dlv_pay_1", f"dlv_{NO_PAYMENT}_0", f"dlv_{NO_PAYMENT}_x", f"dlv_{NO_PAYMENT}_1"],
)
def test_a_delivery_that_is_not_there_is_404(gateway: Gateway, endpoint: str, id: str) -> None:
    path = f"{ENDPOINTS}/{endpoint}/deliveries/{id}"

    assert_problem(ask(gateway, "GET", path), 404, "not_found")
    assert_problem(ask(gateway, "POST", f"{path}/redeliver"), 404, "not_found")


def test_anothers_endpoint_is_404_and_stays_as_it_is(gateway: Gateway, endpoint: str) -> None:
    before = made(gateway)

    for method, verb, body in (
        ("GET", "", None),
        ("PATCH", "", {"url": "http://127.0.0.1:9/stolen"}),
        ("DELETE", "", None),
        ("POST", "/rotate-secret", {}),
        ("POST", "/disable", None),
        ("GET", "/deliveries", None),
    ):
        assert_problem(ask(gateway, method, f"{ENDPOINTS}/{endpoint}{verb}", body, by=OTHER), 404, "not_found")
    assert made(gateway) == before


@pytest.mark.parametrize("again", ["http://127.0.0.1:9/twin?x=1", "HTTP://127.0.0.1:9/twin?x=1"])
def test_one_url_is_registered_once(gateway: Gateway, endpoint: str, again: str) -> None:
    ask(gateway, "POST", ENDPOINTS, {"url": "http://127.0.0.1:9/twin?x=1"})

    assert_fields(ask(gateway, "POST", ENDPOINTS, {"url": again}), "/url")
    assert_fields(ask(gateway, "PATCH", f"{ENDPOINTS}/{endpoint}", {"url": again}), "/url")


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"url": "http://127.0.0.1:9/another"}, ["/url"]),
        ({"ordered": True}, ["/ordered"]),
        ({"events": ["payment.captured"], "retry_schedule": [1]}, ["/events", "/retry_schedule"]),
    ],
)
def test_a_key_that_is_used_for_another_body_is_refused_by_what_differs(
    gateway: Gateway, changes: dict[str, object], pointers: list[str]
) -> None:
    key, body = f"key-{pointers}", {"url": f"http://127.0.0.1:9/{'-'.join(pointers).replace('/', '')}"}
    assert ask(gateway, "POST", ENDPOINTS, body, Idempotency_Key=key).status_code == 201

    answer = ask(gateway, "POST", ENDPOINTS, {**body, **changes}, Idempotency_Key=key)

    problem = assert_problem(answer, 422, "idempotency_key_reused")
    assert sorted(error["pointer"] for error in problem["errors"]) == pointers


def test_a_key_that_is_used_for_another_rotation_or_range_is_refused(gateway: Gateway) -> None:
    path = f"{ENDPOINTS}/{an_endpoint(gateway)['id']}"
    first = [
        ask(gateway, "POST", f"{path}/rotate-secret", {"overlap_s": 60}, Idempotency_Key="twice"),
        ask(gateway, "POST", f"{path}/redeliver", {"since": "2020-05-04T12:00:00Z"}, Idempotency_Key="twice"),
    ]

    rotated = ask(gateway, "POST", f"{path}/rotate-secret", {"overlap_s": 0}, Idempotency_Key="twice")
    sent = ask(gateway, "POST", f"{path}/redeliver", {"since": "2021-05-04T12:00:00Z"}, Idempotency_Key="twice")

    assert [answer.status_code for answer in first] == [200, 200]
    assert [error["pointer"] for error in assert_problem(rotated, 422, "idempotency_key_reused")["errors"]] == [
        "/overlap_s"
    ]
    assert [error["pointer"] for error in assert_problem(sent, 422, "idempotency_key_reused")["errors"]] == ["/since"]


@pytest.mark.parametrize("verb", ["", "/{}/rotate-secret", "/{}/enable", "/{}/disable", "/{}/redeliver"])
def test_a_post_without_a_sound_key_is_refused(gateway: Gateway, endpoint: str, verb: str) -> None:
    path = gateway.edge + ENDPOINTS + verb.format(endpoint)
    bodies = {"": {"url": "http://127.0.0.1:9/keyless"}, "/{}/redeliver": {"since": "2020-05-04T12:00:00Z"}}

    def post(**headers: str) -> httpx.Response:
        return gateway.http.post(path, json=bodies.get(verb, {}), headers={"X-API-Key": MERCHANT, **headers})

    assert_problem(post(), 400, "idempotency_key_missing")
    assert_problem(post(**{"Idempotency-Key": ""}), 400, "idempotency_key_missing")
    assert_problem(post(**{"Idempotency-Key": "x" * 256}), 400, "idempotency_key_invalid")


@pytest.mark.parametrize(
    ("content", "declared", "status", "code"),
    [
        (b"", "application/json", 400, "malformed_json"),
        (b"{", "application/json", 400, "malformed_json"),
        (b"[]", "application/json", 400, "malformed_json"),
        (b'{"url": "http://a.example/", "url": "http://b.example/"}', "application/json", 400, "malformed_json"),
        (b"url=http://a.example/", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"url": "' + b"x" * 70_000 + b'"}', "application/json", 413, "payload_too_large"),
    ],
    ids=["empty", "cut", "a list", "a name twice", "a form", "too large"],
)
def test_a_body_that_is_no_json_object_is_refused(
    gateway: Gateway, endpoint: str, content: bytes, declared: str, status: int, code: str
) -> None:
    for method, path in (("POST", ENDPOINTS), ("PATCH", f"{ENDPOINTS}/{endpoint}")):
        headers = {"X-API-Key": MERCHANT, "Idempotency-Key": "malformed", "Content-Type": declared}
        answer = gateway.http.request(method, gateway.edge + path, content=content, headers=headers)
        assert_problem(answer, status, code)


@pytest.mark.parametrize(
    "path", [ENDPOINTS, f"{ENDPOINTS}/{{}}", f"{ENDPOINTS}/{{}}/deliveries", "/v1/events", "/v1/webhook-secret"]
)
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "api_key_missing"),
        ({"X-API-Key": "sk_of_nobody"}, 401, "api_key_invalid"),
        ({"X-API-Key": "ok_local_operator"}, 403, "scope_missing"),
    ],
    ids=["no key", "a wrong one", "an operator's"],
)
def test_who_is_no_merchant_is_refused(
    gateway: Gateway, endpoint: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    assert_problem(gateway.http.get(gateway.edge + path.format(endpoint), headers=headers), status, code)


def test_what_says_nothing_may_have_no_body_but_an_empty_one(gateway: Gateway, endpoint: str) -> None:
    answer = ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/enable", {"reason": "please"})

    assert_fields(answer, "/reason")
