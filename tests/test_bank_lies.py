"""A bank whose successes cannot be read, tell of something else, are forgotten or denied: nobody is told a lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from engine.domain.ids import partition_of
from engine.domain.payment import Verb
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

# fmt: off
# verb           before        after         the bank's kind  its prefix
STORY = {
    "authorize": ("pending",    "authorized", "AUTH_HOLD",     "auth_"),
    "capture":   ("authorized", "captured",   "CAPTURE",       "cap_"),
    "void":      ("authorized", "voided",     "VOID",          "void_"),
    "refund":    ("captured",   "refunded",   "REFUND",        "ref_"),
}
# fmt: on


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{calm_bank.port}", folder) as running:
        yield running


@pytest.fixture
def cards(bank: Bank) -> dict[str, str]:
    """A card for each verb."""
    return {verb: next(fresh_cards) for verb in STORY}


def test_half_an_answer_is_asked_again_and_the_whole_one_counts(
    gateway: Gateway, bank: Bank, cards: dict[str, str]
) -> None:
    asked = _asked_of(gateway, bank, cards, "unreadable_answer")

    for verb, payment in asked.items():
        shown = eventually(lambda payment=payment, verb=verb: _with_state(gateway, payment, STORY[verb][1]), verb)
        assert (shown["operation"]["verb"], shown["operation"]["attempts"]) == (verb, 2)
        assert _kinds(bank, cards[verb]).count(STORY[verb][2]) == 1


def test_a_success_that_tells_of_something_else_is_for_a_person_who_finds_it_in_the_statement(
    gateway: Gateway, bank: Bank, cards: dict[str, str]
) -> None:
    asked = _asked_of(gateway, bank, cards, "mismatched_answer")

    for verb, payment in asked.items():
        shown = eventually(lambda payment=payment: _with_status(gateway, payment, "review"), verb)
        assert (shown["status"], shown["in_doubt"], shown["operation"]["attempts"]) == (STORY[verb][0], True, 1)
        assert _reason(gateway, payment).startswith("mismatch: ")
        _resolve(gateway, payment, shown["operation"]["id"], _statement(bank, cards[verb], verb))
    for verb, payment in asked.items():
        eventually(lambda payment=payment, verb=verb: _with_state(gateway, payment, STORY[verb][1]), verb)
        assert _kinds(bank, cards[verb]).count(STORY[verb][2]) == 1


def test_already_used_after_our_own_lost_success_is_never_shown_as_failed(
    gateway: Gateway, bank: Bank, cards: dict[str, str]
) -> None:
    del cards["authorize"]
    asked = _asked_of(gateway, bank, cards, "drop_key_and_response")

    voided = eventually(lambda: _with_state(gateway, asked["void"], "voided"), "a void needs no id")
    assert (voided["bank"]["void_id"], voided["operation"]["attempts"]) == (None, 2)
    for verb in ("capture", "refund"):
        shown = eventually(lambda verb=verb: _with_status(gateway, asked[verb], "review"), verb)
        assert (shown["status"], shown["failure"], shown["in_doubt"]) == (STORY[verb][0], None, True)
        _resolve(gateway, asked[verb], shown["operation"]["id"], _statement(bank, cards[verb], verb))
    for verb in ("capture", "refund"):
        shown = eventually(lambda verb=verb: _with_state(gateway, asked[verb], STORY[verb][1]), verb)
        assert shown["bank"][f"{verb}_id"] == _statement(bank, cards[verb], verb)
        assert _kinds(bank, cards[verb]).count(STORY[verb][2]) == 1


def test_a_bank_that_forgets_an_authorization_s_key_holds_twice_and_we_own_one(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("drop_key_and_response", card_number=card, operation="authorize", times=1)

    shown = gateway.pay(card, wait=15).json()

    holds = [f"auth_{number}" for kind, number in _rows(bank, card) if kind == "AUTH_HOLD"]
    assert (shown["status"], shown["operation"]["attempts"], len(holds)) == ("authorized", 2, 2)
    assert shown["bank"]["authorization_id"] == holds[1], "the one that is left over has no payment, which audits find"
    assert gateway.post(f"/v1/payments/{shown['id']}/void", wait=10).status_code == 200


def _asked_of(gateway: Gateway, bank: Bank, cards: dict[str, str], fault: str) -> dict[str, str]:
    """Verb to payment: each verb asked of the bank while it has this fault for it, once."""
    payments = {}
    for verb, card in cards.items():
        bank.fault(fault, card_number=card, operation=verb, times=1)
        payments[verb] = gateway.pay(card, capture=verb == "refund", wait=0 if verb == "authorize" else 10).json()["id"]
        if verb != Verb.AUTHORIZE:
            gateway.post(f"/v1/payments/{payments[verb]}/{verb}")
    return payments


def _with_state(gateway: Gateway, payment: str, state: str) -> dict[str, Any] | None:
    shown = gateway.get(payment)
    return shown if shown["status"] == state and not shown["in_doubt"] else None


def _with_status(gateway: Gateway, payment: str, status: str) -> dict[str, Any] | None:
    shown = gateway.get(payment)
    return shown if shown["operation"]["status"] == status else None


def _reason(gateway: Gateway, payment: str) -> str:
    ((evidence,),) = gateway.sql("SELECT evidence FROM transitions WHERE payment = %s AND event = 'review'", payment)
    return str(evidence["reason"])


def _resolve(gateway: Gateway, payment: str, operation: str, reference: str) -> None:
    detail = orjson.dumps({"outcome": "approved", "reference": reference}).decode()
    gateway.sql(
        """INSERT INTO audit (actor, act, subject, reason, detail, partition, payment, operation)
           VALUES ('ada', 'resolve', %s, 'the statement shows it', %s, %s, %s, %s)""",
        *(payment, detail, partition_of(payment, 16), payment, operation),
    )


def _rows(bank: Bank, card: str) -> list[tuple[str, str]]:
    statement = """SELECT t.type, t.id::text FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.created_at"""
    return [(kind, number) for kind, number in bank.sql(statement, card)]


def _kinds(bank: Bank, card: str) -> list[str]:
    return [kind for kind, _ in _rows(bank, card)]


def _statement(bank: Bank, card: str, verb: str) -> str:
    """The bank's id of what it did."""
    _, _, kind, prefix = STORY[verb]
    return prefix + dict(_rows(bank, card))[kind]
