"""What the engine says leaves the edge unchanged, with the headers that API.md promises."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
import structlog

from engine.contracts.gateway import StoredResponse
from engine.errors import Broken, FieldError, Rejected, Unavailable
from support.edge_stand import Stand, a_card, a_payment, running_edge, running_postgres

PAYMENT = "pay_4DVNQPMZBZFG0VHZJX492ZPG4J"
LOCATION = f"/v1/payments/{PAYMENT}"


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


def a_reply(status: int, body: bytes = b'{"a": 1}', *, replayed: bool = False, waited: bool = False) -> StoredResponse:
    return StoredResponse(status=status, body=body, payment=PAYMENT, operation="op_1", replayed=replayed, waited=waited)


# fmt: off
REPLIES = [
    # reply                                    Location   Retry-After  replayed  content type
    (a_reply(202),                             LOCATION,  "1",         None,     "application/json"),
    (a_reply(201),                             LOCATION,  None,        None,     "application/json"),
    (a_reply(201, replayed=True),              LOCATION,  None,        "true",   "application/json"),
    (a_reply(200),                             None,      None,        None,     "application/json"),
    (a_reply(402),                             None,      None,        None,     "application/problem+json"),
    (a_reply(409, replayed=True),              None,      None,        "true",   "application/problem+json"),
]
# fmt: on


@pytest.mark.parametrize(("reply", "location", "retry_after", "replayed", "content_type"), REPLIES)
def test_a_reply_keeps_its_status_and_bytes(
    edge: Stand,
    reply: StoredResponse,
    location: str | None,
    retry_after: str | None,
    replayed: str | None,
    content_type: str,
) -> None:
    edge.engine.answer = lambda: reply

    answer = edge.post()

    assert (answer.status_code, answer.content) == (reply.status, reply.body)
    assert answer.headers["content-type"] == content_type
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get("location") == location
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers.get("idempotent-replayed") == replayed


def test_a_repeated_call_is_marked_as_replayed(edge: Stand) -> None:
    first, second = (edge.post(headers={"Idempotency-Key": "again"}) for _ in range(2))

    assert (first.content, first.headers.get("idempotent-replayed")) == (second.content, None)
    assert second.headers["idempotent-replayed"] == "true"


# fmt: off
PREFERENCES = [
    # header                                  seconds
    (None,                                    0),
    ("wait=10",                               10),
    ("wait=0",                                0),
    ("wait=30",                               30),
    ("wait=31",                               30),
    ("wait=999999999",                        30),
    ('wait="5"',                              5),
    ("WAIT = 5",                              5),
    ("respond-async, wait=7",                 7),
    ("wait=7, wait=9",                        7),
    ('foo="a, wait=1"; bar=wait, wait=6',     6),
    ("return=minimal; wait=3",                0),
    ("wait",                                  0),
    ("wait=",                                 0),
    ("wait=-1",                               0),
    ("wait=1.5",                              0),
    ("wait=ten",                              0),
    ("wait=9999999999",                       0),
    ("nonsense<<>>",                          0),
    ("wait=5" + " " * 300,                    5),
    ("a=" + ";" * 300,                        0),
]
# fmt: on


@pytest.mark.parametrize(("header", "seconds"), PREFERENCES)
def test_prefer_says_how_long_to_wait(edge: Stand, header: str | None, seconds: int) -> None:
    waited = seconds > 0
    edge.engine.answer = lambda: a_reply(201, waited=waited)

    answer = edge.post(headers={} if header is None else {"Prefer": header.strip()})

    assert edge.engine.asked[0][1].wait_s == seconds  # type: ignore[attr-defined]
    assert answer.headers.get("preference-applied") == (f"wait={seconds}" if waited else None)


@pytest.mark.parametrize("sent", ["order-77", "a" * 128, "3f2a/b:c=1+2.3_4"])
def test_a_sane_request_id_is_kept(edge: Stand, sent: str) -> None:
    answer = edge.post(headers={"X-Request-Id": sent})

    assert answer.headers["x-request-id"] == sent
    assert edge.engine.asked[0][1].request_id == sent  # type: ignore[attr-defined]


@pytest.mark.parametrize("sent", ["", "a b", "a" * 129, "{}", '"', "é".encode(), "4111;drop"])
def test_another_request_id_is_replaced(edge: Stand, sent: str) -> None:
    answer = edge.post(headers={"X-Request-Id": sent})

    assert answer.headers["x-request-id"].startswith("req_")


def test_generated_request_ids_differ(edge: Stand) -> None:
    assert len({edge.get("/livez").headers["x-request-id"] for _ in range(20)}) == 20


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACE, TRACE),
        (TRACE.upper(), None),
        ("ff" + TRACE[2:], None),
        ("00-" + "0" * 32 + TRACE[35:], None),
        ("x", None),
    ],
)
def test_only_a_sound_trace_context_is_passed_on(edge: Stand, sent: str, kept: str | None) -> None:
    edge.post(headers={"traceparent": sent})

    assert edge.engine.asked[0][1].traceparent == kept  # type: ignore[attr-defined]


def test_a_rejection_of_the_engine_becomes_its_problem(edge: Stand) -> None:
    wrong = FieldError(pointer="/amount", detail="differs")
    edge.engine.answer = lambda: Rejected("idempotency_key_reused", "Other payload.", errors=(wrong,), extra={"x": 1})

    answer = edge.post()

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["errors"] == [{"pointer": "/amount", "detail": "differs"}]
    assert (problem["code"], problem["x"], problem["instance"]) == ("idempotency_key_reused", 1, "/v1/payments")


@pytest.mark.parametrize(
    ("code", "status"),
    [("overloaded", 503), ("store_unavailable", 503), ("acceptance_unknown", 503), ("rate_limited", 429)],
)
def test_unavailable_says_when_to_come_back(edge: Stand, code: str, status: int) -> None:
    edge.engine.answer = lambda: Unavailable(code, "Try again.", retry_after_s=7)

    answer = edge.post()

    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (status, code, "7")


@pytest.mark.parametrize("error", [ValueError("4111111111111111"), Broken("rule"), KeyError("4111111111111111")])
def test_a_mistake_of_ours_is_a_problem_with_a_request_id_and_no_secret(edge: Stand, error: Exception) -> None:
    edge.engine.answer = lambda: error

    with structlog.testing.capture_logs() as logged:
        answer = edge.post()

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    (fault,) = (line for line in logged if line["event"] != "request")
    assert {line["request_id"] for line in logged} == {answer.json()["request_id"]}
    assert "4111" not in answer.text + str(logged)
    assert fault["error"] == type(error).__name__


def test_what_goes_well_or_is_refused_is_one_line_each(edge: Stand) -> None:
    with structlog.testing.capture_logs() as logged:
        edge.post()
        edge.post(body=a_payment(payment_method=a_card(number="4111111111111112")))
        edge.get("/nowhere")

    assert [(line["event"], line["status"]) for line in logged] == [
        ("request", 202),
        ("request", 422),
        ("request", 404),
    ]


def test_head_answers_like_get_without_a_body(edge: Stand) -> None:
    location = edge.post().headers["location"]

    got, head = edge.get(location), edge.request("HEAD", location)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_a_list_is_asked_with_all_its_filters(edge: Stand) -> None:
    answer = edge.get("/v1/payments?order_id=a%20%C3%A9+b&customer_id=c&status=captured&limit=100&cursor=abc")

    assert answer.status_code == 200
    assert edge.engine.asked[0][2] == {
        "order_id": "a é b",
        "customer_id": "c",
        "status": "captured",
        "limit": 100,
        "cursor": "abc",
    }


def test_an_operation_is_looked_up_by_the_key_bare_or_quoted(edge: Stand) -> None:
    edge.get("/v1/operations", params={"idempotency_key": "a b"})
    edge.get("/v1/operations", params={"idempotency_key": '"a b"'})

    assert edge.engine.asked == [("operations", "m_1", "a b")] * 2


def test_shippable_is_passed_on(edge: Stand) -> None:
    answer = edge.get(f"{LOCATION}/shippable")

    assert answer.json()["shippable"] is False


def test_the_date_of_an_answer_that_waited_is_that_of_the_answer(edge: Stand) -> None:
    edge.engine.gate.clear()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(edge.post, headers={"Prefer": "wait=10"})
        time.sleep(2.5)  # longer than the second that any clock of headers may lag
        answered_at = datetime.now(UTC).replace(microsecond=0)
        edge.engine.gate.set()
        answer = asked.result()

    assert answer.headers.get_list("date") == [answer.headers["date"]]
    assert parsedate_to_datetime(answer.headers["date"]) >= answered_at


@pytest.mark.parametrize("path", ["/livez", "/v1/nonsense", "/v1/payments", "/docs"])
def test_every_answer_has_one_date_and_it_is_now(edge: Stand, path: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    answer = edge.client.get(path)

    assert len(answer.headers.get_list("date")) == 1
    assert before <= parsedate_to_datetime(answer.headers["date"]) <= datetime.now(UTC)
