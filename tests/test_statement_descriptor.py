"""A statement descriptor goes with its payment to wherever a shop reads it, and is part of what a key means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway

pytest_plugins = ["support.bank_fixtures"]

TEXT = "FICMART ORDER 1001, & +"


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder, url = tmp_path_factory.mktemp("gateway"), f"http://127.0.0.1:{calm_bank.port}"
    with a_gateway(module_database, module_redis_url, url, folder) as running:
        yield running


def test_it_is_in_the_receipt_the_list_the_answer_and_the_event(gateway: Gateway) -> None:
    order = f"order-{uuid4().hex[:8]}"
    text = TEXT[:22]

    accepted = gateway.pay(next(fresh_cards), order_id=order, statement_descriptor=text).json()
    answered = gateway.pay(next(fresh_cards), order_id=order, statement_descriptor=text, wait=10).json()
    (newest, _) = gateway.request("GET", f"/v1/payments?order_id={order}").json()["data"]
    events: list[Any] = gateway.request("GET", "/v1/events?limit=100").json()["data"]
    told = [event["data"] for event in events if event["data"]["id"] == answered["id"]]

    shown = [accepted, answered, gateway.get(answered["id"]), newest, *told]
    assert len(told) > 0
    assert {each["statement_descriptor"] for each in shown} == {text}


def test_without_one_it_is_null_everywhere(gateway: Gateway) -> None:
    answered = gateway.pay(next(fresh_cards), wait=10).json()

    assert answered["statement_descriptor"] is None
    assert gateway.get(answered["id"])["statement_descriptor"] is None


def test_another_one_under_a_used_key_is_another_payload(gateway: Gateway) -> None:
    card, key = next(fresh_cards), uuid4().hex
    first = gateway.pay(card, key=key, statement_descriptor="ONE", wait=10)

    other = gateway.pay(card, key=key, statement_descriptor="TWO")
    again = gateway.pay(card, key=key, statement_descriptor="ONE")

    assert other.status_code == 422
    assert [error["pointer"] for error in other.json()["errors"]] == ["/statement_descriptor"]
    assert again.content == first.content


@pytest.mark.parametrize("text", ["", "x" * 23, "a<b", "tab\t", "ümlaut", 7, "line\n"])
def test_what_no_statement_can_carry_is_refused_by_pointer(gateway: Gateway, text: Any) -> None:
    refused = gateway.pay(next(fresh_cards), statement_descriptor=text)

    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/statement_descriptor"]
