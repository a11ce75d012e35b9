"""The description of the API says what the API does, and is readable without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
from msgspec.structs import replace

from edge.openapi import payment_schemas as receipts
from edge.openapi.webhook_schemas import EventSchema
from engine.domain.journal import JournalEntry
from engine.domain.lifecycle import Event
from engine.domain.money import Money
from engine.domain.payment import (
    BankIds,
    DeclineCode,
    MaskedCard,
    Operation,
    Payment,
    PaymentFailure,
    PaymentState,
    Status,
    Terms,
    Times,
    Verb,
)
from engine.domain.rendering import (
    operation_document,
    render,
    render_event,
    render_failure,
    render_payment,
    render_pending,
    render_refusal,
)
from engine.problem import CATALOGUE
from engine.webhooks.delivery import body_for
from support.edge_stand import Stand, running_edge, running_postgres

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SAMPLES = {
    "{payment}": "pay_4DVNQPMZBZFG0VHZJX492ZPG4J",
    "{operation}": "op_4DVNQPMZBZFG0VHZJX492ZPG4J",
    "{letter}": "dl_7-1935734400000-0",
    "{endpoint}": "whe_4DVNQPMZBZFG0VHZJX492ZPG4J",
    "{delivery}": "dlv_pay_4DVNQPMZBZFG0VHZJX492ZPG4J_1",
    "{code}": "not_found",
}


@pytest.fixture(scope="module")
def edge() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def document(edge: Stand) -> dict:
    found = edge.client.get("/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    return found


def test_every_described_method_is_one_that_the_edge_knows(edge: Stand, document: dict) -> None:
    for path, methods in document["paths"].items():
        for parameter, sample in SAMPLES.items():
            path = path.replace(parameter, sample)
        allowed = edge.request("OPTIONS", path).headers["allow"]

        assert {method.upper() for method in methods} == set(allowed.split(", ")) - {"HEAD"}


def test_every_path_is_described(edge: Stand, document: dict) -> None:
    edge.get("/metrics")
    routes = set(re.findall(r'route="(/v1[^"]*)"', edge.client.get("/metrics").text))

    assert routes == {path for path in document["paths"] if path.startswith("/v1")}


def test_every_reference_in_the_document_resolves(document: dict) -> None:
    pointers = set(re.findall(r'"\$ref":"#/([^"]*)"', orjson.dumps(document).decode()))

    assert pointers
    assert [pointer for pointer in pointers if not resolved(document, pointer)] == []


def test_every_problem_is_described_with_an_example(document: dict) -> None:
    examples = document["components"]["examples"]
    used = set(re.findall(r"#/components/examples/(\w+)", orjson.dumps(document).decode()))

    assert set(examples) == set(CATALOGUE)
    for example in examples.values():
        receipts.Problem.model_validate(example["value"])
    assert set(CATALOGUE) - used == {"method_not_allowed"}  # it is the answer to a call that is not described


def test_a_request_body_is_described_with_its_bounds(document: dict) -> None:
    fields = document["components"]["schemas"]["PaymentBody"]

    assert fields["additionalProperties"] is False
    assert set(fields["required"]) == {"amount", "currency", "order_id", "customer_id", "payment_method"}
    assert (fields["properties"]["amount"]["minimum"], fields["properties"]["amount"]["maximum"]) == (1, 10**12)
    assert "integer" in fields["properties"]["amount"]["description"]


@pytest.mark.parametrize(
    "failure", [None, PaymentFailure(code="card_declined", message="No.", decline_code=DeclineCode.INVALID_CVV)]
)
def test_what_the_engine_renders_is_what_is_described(failure: PaymentFailure | None) -> None:
    payment, operation = a_payment(failure), an_operation(failure)

    shown = receipts.PaymentSchema.model_validate_json(render_payment(payment, operation))
    asked = receipts.OperationSchema.model_validate_json(render(operation_document(operation)))
    refused = receipts.Problem.model_validate_json(render_refusal(payment, operation, "transition_not_allowed"))
    assert (shown.id, asked.id, refused.code) == (payment.id, operation.id, "transition_not_allowed")
    if failure is not None:
        failed = receipts.Problem.model_validate_json(render_failure(payment, operation, failure))
        assert (failed.code, failed.decline_code) == (failure.code, failure.decline_code)


def test_the_page_and_all_it_loads_come_from_here(edge: Stand) -> None:
    page = edge.client.get("/docs")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert loaded and all(address.startswith("/docs/") for address in loaded)
    for address in [*loaded, *re.findall(r'"(/docs/[^"]+)"', edge.client.get("/docs/start.js").text)]:
        answer = edge.client.get(address)
        assert (answer.status_code, len(answer.content) > 100) == (200, True)


def test_the_page_gets_the_dialect_that_it_can_read(edge: Stand, document: dict) -> None:
    older = edge.client.get("/docs/openapi-3.0.json").json()
    text = orjson.dumps(older).decode()

    assert older["openapi"] == "3.0.3"
    assert older["paths"].keys() == document["paths"].keys()
    assert '"type":"null"' not in text and '"const":' not in text


def test_a_browser_gets_a_page_at_the_address_of_the_gateway(edge: Stand) -> None:
    page = edge.client.get("/", headers={"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})
    links = re.findall(r'href="([^"]+)"', page.text)

    assert (page.status_code, page.headers["content-type"], page.headers["vary"]) == (
        200,
        "text/html; charset=utf-8",
        "accept",
    )
    assert {"/docs", "/openapi.json", "/problems"} <= set(links)
    assert [link for link in links if edge.client.get(link).status_code != 200] == []


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_gets_the_same_links_as_json(edge: Stand, accept: str) -> None:
    found = edge.client.get("/", headers={"Accept": accept})

    home = receipts.Home.model_validate_json(found.content)
    assert found.headers["content-type"] == "application/json"
    for link in (home.docs, home.openapi, home.problems, home.ready):
        assert edge.client.get(link).status_code == 200


def test_answers_may_have_more_fields_tomorrow_and_requests_may_not(document: dict) -> None:
    answers = closed_below(document, [call["responses"] for call in calls(document)])
    events = closed_below(document, [told["post"]["requestBody"] for told in document["webhooks"].values()])
    requests = [call["requestBody"] for call in calls(document) if "requestBody" in call]

    assert answers == events == set()
    for request in requests:
        assert closed_below(document, request), request


def test_no_two_things_have_one_name(document: dict) -> None:
    names = [call["operationId"] for call in calls(document)]
    schemas = document["components"]["schemas"]

    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in schemas), "names of modules are no names"
    assert [name for name, schema in schemas.items() if "title" in schema] == []
    assert schemas["PaymentStatus"]["enum"] == [*PaymentState]


def test_every_call_says_what_its_answers_mean(document: dict) -> None:
    declared = {tag["name"] for tag in document["tags"]}

    for call in calls(document):
        texts = [answer["description"] for answer in call["responses"].values()]
        assert set(call["tags"]) <= declared and call["summary"]
        assert len(texts) == len(set(texts)), call["operationId"]
        assert all(len(text) > 9 for text in texts), call["operationId"]
    told = [told["post"] for told in document["webhooks"].values()]
    assert {tag for call in [*calls(document), *told] for tag in call["tags"]} == declared


def test_a_currency_is_one_that_a_connector_here_takes(document: dict) -> None:
    assert document["components"]["schemas"]["PaymentBody"]["properties"]["currency"]["enum"] == ["USD"]


def test_no_field_has_a_default_that_a_generator_would_rely_on(document: dict) -> None:
    """It would take a field for one that is always there, or reset by PATCH what it was not asked to change."""
    for name, schema in document["components"]["schemas"].items():
        assert [field for field, part in schema.get("properties", {}).items() if "default" in part] == [], name


def test_an_event_is_as_it_is_described() -> None:
    payment, operation = a_payment(None), an_operation(None)
    entry = JournalEntry(
        payment=payment.id,
        sequence=2,
        from_state=PaymentState.PENDING,
        to_state=PaymentState.AUTHORIZED,
        event=Event.AUTHORIZED,
        operation=operation.id,
        at=NOW,
        evidence={},
    )
    body = render_event(entry, render_payment(payment, operation))

    told = EventSchema.model_validate_json(body_for(body, None))
    assert receipts.PaymentSchema.model_validate_json(render(told.data)).id == payment.id
    assert EventSchema.model_validate_json(body_for(body, 1)).previous_sequence == 1


def test_a_payment_shows_neither_its_key_nor_its_webhook_url(edge: Stand) -> None:
    """API.md names what a payment shows; a URL may have a secret in it, and events go to other URLs."""
    payment = a_payment(None)
    payment = replace(payment, terms=replace(payment.terms, webhook_url="https://shop.example/secret-path"))
    operation = replace(an_operation(None), key="the-key-of-the-shop")

    shown = render_payment(payment, operation) + render_pending(payment.id, operation.id, payment.terms, NOW)

    assert b"secret-path" not in shown and b"the-key-of-the-shop" not in shown


def calls(document: dict) -> list[dict]:
    return [call for methods in document["paths"].values() for call in methods.values()]


def closed_below(document: dict, place: object) -> set[str]:
    """Which parts below this one, references followed, allow no other fields."""
    closed, seen, ahead = set(), set(), [("", place)]
    while ahead:
        path, part = ahead.pop()
        if isinstance(part, list):
            ahead += [(path, item) for item in part]
        elif isinstance(part, dict):
            if part.get("additionalProperties") is False:
                closed.add(path)
            reference = part.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                ahead.append((reference, resolved(document, reference.removeprefix("#/"))))
            ahead += [(f"{path}/{name}", item) for name, item in part.items()]
    return closed


def resolved(document: dict, pointer: str) -> object:
    """What stands there; None when nothing does."""
    place: object = document
    for step in pointer.split("/"):
        place = place.get(step) if isinstance(place, dict) else None
    return place


def a_payment(failure: PaymentFailure | None) -> Payment:
    terms = Terms(
        merchant="m_1",
        money=Money(amount=5000, currency="USD"),
        order_id="o",
        customer_id="c",
        description=None,
        metadata={"a": "b"},
        method=MaskedCard(brand="visa", last4="1111", expiry_month=12, expiry_year=2030),
        connector="ficmart_bank",
        webhook_url=None,
    )
    return Payment(
        id="pay_1",
        partition=1,
        terms=terms,
        state=PaymentState.AUTHORIZED if failure is None else PaymentState.DECLINED,
        version=2,
        sequence=2,
        amount_captured=0,
        amount_refunded=0,
        bank=BankIds(authorization_id="auth_1"),
        at=Times(created_at=NOW, authorized_at=NOW),
        failure=failure,
        operation_id="op_1",
        journal_head="",
    )


def an_operation(failure: PaymentFailure | None) -> Operation:
    told: dict[str, object] = {
        "id": "op_1",
        "payment": "pay_1",
        "verb": Verb.AUTHORIZE,
        "key": "k",
        "amount": 5000,
        "status": Status.SUCCEEDED if failure is None else Status.DECLINED,
        "attempts": 1,
        "first_sent_at": NOW,
        "request_id": "req_1",
        "failure": failure,
        "response_status": 201,
        "created_at": NOW,
        "settled_at": NOW,
    }
    return Operation(**(dict.fromkeys(Operation.__struct_fields__) | told))  # type: ignore[arg-type]
