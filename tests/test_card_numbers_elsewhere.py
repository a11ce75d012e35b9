"""A card number typed into another field is refused before it is kept, in every spelling, and never repeated."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from support.edge_stand import Stand, a_payment, running_edge, running_postgres

NUMBER = "4111111111111111"  # as in edge_stand.a_card
SPELLINGS = [
    NUMBER,
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111.1111.1111.1111",
    "4111_1111/1111:1111",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    f"card{NUMBER}",
    f"order 77, paid with {NUMBER}!",
    f"99{NUMBER}99",
    "4111%201111%201111%201111",
    "4111%1111%1111%1111",
    "".join(f"%3{digit}" for digit in NUMBER),
    "".join(f"%253{digit}" for digit in NUMBER),
    "\u200b".join(NUMBER),
    "".join(chr(0xFF10 + int(digit)) for digit in NUMBER),
    "".join(chr(0x0660 + int(digit)) for digit in NUMBER),
]
ASCII = [spelling for spelling in SPELLINGS if spelling.isascii()]
# Order numbers that pass Luhn under an issuer's prefix, and other cards' numbers.
INNOCENT = ["4000000000000002", "5555555555554444", "order-4242424242424242", "411111111111111", "4111111111111112"]


@pytest.fixture(scope="module")
def module_edge() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(module_edge: Stand) -> Stand:
    module_edge.engine.forget()
    return module_edge


def bodies(spelling: str) -> dict[str, dict[str, object]]:
    """A body for each field that takes text, by the pointer it is refused with."""
    return {
        "/order_id": {"order_id": spelling},
        "/customer_id": {"customer_id": spelling},
        "/description": {"description": spelling},
        "/metadata/note": {"metadata": {"note": spelling}},
        "/metadata": {"metadata": {spelling: "note"}},
        "/webhook_url": {"webhook_url": f"https://shop.example/hooks?of={quote(spelling, safe='%')}"},
    }


def assert_refused_without_digits(edge: Stand, answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert edge.engine.asked == []
    said = answer.text + str(answer.headers)
    for spelling in SPELLINGS:
        assert spelling not in said
    assert NUMBER not in "".join(character for character in said if character not in " -._/:%")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("where", list(bodies("")))
def test_the_own_card_number_is_refused_in_every_field(edge: Stand, where: str, spelling: str) -> None:
    body = a_payment(**bodies(spelling)[where])
    answer = edge.post(body=body)

    assert_refused_without_digits(edge, answer, 422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == [where]


def test_every_field_that_holds_it_is_named(edge: Stand) -> None:
    body = a_payment(order_id=NUMBER, description=NUMBER, metadata={"a": NUMBER, "b": "x", NUMBER: NUMBER})

    answer = edge.post(body=body)

    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert sorted(pointers) == ["/description", "/metadata", "/metadata/a", "/order_id"]


@pytest.mark.parametrize("spelling", ASCII)
def test_a_key_that_holds_it_is_refused_in_words(edge: Stand, spelling: str) -> None:
    answer = edge.post(headers={"Idempotency-Key": spelling})

    assert_refused_without_digits(edge, answer, 400, "idempotency_key_invalid")
    assert "card number" in answer.json()["detail"]


@pytest.mark.parametrize("name", [NUMBER, "req-4111-1111-1111-1111", "4111.1111.1111.1111"])
def test_a_request_id_that_holds_it_is_replaced_by_one_of_ours(edge: Stand, name: str) -> None:
    accepted = edge.post(headers={"X-Request-Id": name})
    ((_, origin, _),) = edge.engine.asked
    edge.engine.forget()
    refused = edge.post(body=a_payment(order_id=NUMBER), headers={"X-Request-Id": name})

    assert accepted.status_code == 202
    assert origin.request_id == accepted.headers["x-request-id"]  # type: ignore[attr-defined]
    assert accepted.headers["x-request-id"].startswith("req_")
    assert_refused_without_digits(edge, refused, 422, "validation_failed")


def test_a_trace_that_holds_it_is_not_passed_on(edge: Stand) -> None:
    trace = f"00-{NUMBER}{'a' * 16}-00f067aa0ba902b7-01"
    sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    edge.post(headers={"traceparent": trace})
    edge.post(headers={"traceparent": sound})

    assert [origin.traceparent for _, origin, _ in edge.engine.asked] == [None, sound]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", INNOCENT)
def test_a_number_is_not_refused_because_it_looks_like_a_cards(edge: Stand, text: str) -> None:
    body = a_payment(order_id=text, customer_id=text, description=text, metadata={text: text})

    answer = edge.post(body=body, headers={"Idempotency-Key": text, "X-Request-Id": text})

    assert answer.status_code == 202
    assert answer.headers["x-request-id"] == text


def test_fields_side_by_side_are_no_number(edge: Stand) -> None:
    answer = edge.post(body=a_payment(order_id=NUMBER[:8], customer_id=NUMBER[8:], metadata={NUMBER[:8]: NUMBER[8:]}))

    assert answer.status_code == 202


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_name_with_it_is_not_repeated_when_something_else_is_wrong(edge: Stand, spelling: str) -> None:
    number = NUMBER[:-1] + "2"  # no valid card, so the body is refused for that
    wrong = spelling.replace(NUMBER, number)
    body = a_payment(payment_method={"type": "card"}, **{wrong: 1}) | {"metadata": {wrong: 1}}

    answer = edge.post(body=body)

    assert answer.status_code == 422
    assert wrong not in answer.text
