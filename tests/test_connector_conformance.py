"""What the engine may expect of any connector: the same claims, made of each of them.

The FicMart connector runs against the real mock bank over a real Postgres.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import anyio
import pytest

from bank.ficmart import FicmartBank
from bank.instant import InstantBank
from engine.contracts.connector import BankRequest, Connector
from engine.domain.bank_answer import Answer, Approved, NoAnswer, Refusal, Refused, Unsent
from engine.domain.money import Money
from engine.domain.payment import Card, DeclineCode, Verb
from support.bank_harness import Bank, fresh_cards

pytest_plugins = ["support.bank_fixtures"]
pytestmark = pytest.mark.anyio

CVV = "123"
AMOUNT = 5000
keys = (f"op_conformance_{number}" for number in count())


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True, kw_only=True)
class Asker:
    """A connector, and the short way to ask it something."""

    connector: Connector

    async def ask(self, verb: Verb, reference: str | None = None, **changes: object) -> Answer:
        return await self.connector.ask(an_ask(verb, reference, **changes))

    async def done(self, verb: Verb, reference: str | None = None, **changes: object) -> Approved:
        answer = await self.ask(verb, reference, **changes)
        assert isinstance(answer, Approved), answer
        return answer


def an_ask(verb: Verb, reference: str | None = None, **changes: object) -> BankRequest:
    usual = BankRequest(
        bank_key=next(keys),
        verb=verb,
        money=Money(amount=AMOUNT, currency="USD"),
        card=a_card() if verb is Verb.AUTHORIZE else None,
        reference=reference,
        send_by=now() + timedelta(seconds=5),
        deadline=now() + timedelta(seconds=10),
        traceparent=None,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def a_card(number: str | None = None, cvv: str = CVV) -> Card:
    return Card(number=number or next(fresh_cards), cvv=cvv, expiry_month=12, expiry_year=2030)


@pytest.fixture(params=["instant", "ficmart"])
async def asker(request: pytest.FixtureRequest) -> AsyncIterator[Asker]:
    if request.param == "instant":
        yield Asker(connector=InstantBank(clock=now))
        return
    bank: Bank = request.getfixturevalue("bank")
    async with FicmartBank(f"http://127.0.0.1:{bank.port}", clock=now) as connector:
        yield Asker(connector=connector)


@pytest.fixture
async def ficmart(bank: Bank) -> AsyncIterator[Asker]:
    async with FicmartBank(f"http://127.0.0.1:{bank.port}", clock=now) as connector:
        yield Asker(connector=connector)


# Of every connector.


async def test_a_payment_is_authorized_captured_and_refunded(asker: Asker) -> None:
    authorization = await asker.done(Verb.AUTHORIZE)
    capture = await asker.done(Verb.CAPTURE, authorization.reference)
    refund = await asker.done(Verb.REFUND, capture.reference)

    assert len({authorization.reference, capture.reference, refund.reference}) == 3


async def test_a_hold_is_voided(asker: Asker) -> None:
    authorization = await asker.done(Verb.AUTHORIZE)
    void = await asker.done(Verb.VOID, authorization.reference)

    assert void.reference != authorization.reference


async def test_times_are_utc_and_only_an_authorization_expires(asker: Asker) -> None:
    authorization = await asker.done(Verb.AUTHORIZE)
    capture = await asker.done(Verb.CAPTURE, authorization.reference)

    assert authorization.at.tzinfo is UTC
    assert abs(authorization.at - now()) < timedelta(minutes=1)
    assert authorization.expires_at is not None
    assert authorization.expires_at - authorization.at == pytest.approx(timedelta(days=7), abs=timedelta(seconds=5))
    assert capture.expires_at is None


async def test_the_same_key_asked_again_is_the_same_effect(asker: Asker) -> None:
    ask = an_ask(Verb.AUTHORIZE)
    first, second = await asker.connector.ask(ask), await asker.connector.ask(ask)

    assert isinstance(first, Approved)
    assert isinstance(second, Approved)
    assert first.reference == second.reference


async def test_other_keys_are_other_effects(asker: Asker) -> None:
    card = a_card()
    first, second = [await asker.done(Verb.AUTHORIZE, card=card) for _ in range(2)]

    assert first.reference != second.reference


async def test_what_is_late_is_unsent_and_had_no_effect(asker: Asker) -> None:
    late = an_ask(Verb.AUTHORIZE, send_by=now() - timedelta(milliseconds=1))
    answer = await asker.connector.ask(late)
    again = await asker.connector.ask(replace(late, send_by=now() + timedelta(seconds=5)))

    assert isinstance(answer, Unsent)
    assert isinstance(again, Approved)
    assert not again.evidence.get("replayed")


async def test_many_at_once_each_get_their_own_answer(asker: Asker) -> None:
    card = a_card()
    answers: dict[int, Approved] = {}

    async def one(number: int) -> None:
        answers[number] = await asker.done(Verb.AUTHORIZE, card=card)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(one, number)

    assert len({answer.reference for answer in answers.values()}) == 50


async def test_evidence_holds_plain_small_facts_and_no_card(asker: Asker) -> None:
    card = a_card()
    approved = await asker.done(Verb.AUTHORIZE, card=card)
    missed = await asker.ask(Verb.AUTHORIZE, card=card, deadline=now() - timedelta(seconds=1))

    for answer in (approved, missed):
        assert all(isinstance(fact, str | int | bool) for fact in answer.evidence.values())
        assert card.number not in repr(answer)
        assert len(repr(answer)) < 1000


async def test_a_connector_says_who_it_is_and_what_it_can_do(asker: Asker) -> None:
    assert asker.connector.name
    assert asker.connector.capabilities.verbs == frozenset(Verb)
    assert "card" in asker.connector.capabilities.methods
    assert "USD" in asker.connector.capabilities.currencies


# Of the FicMart connector, at the bank itself.


@pytest.mark.parametrize(
    ("card", "decline"),
    [
        (a_card("4111111111111112"), DeclineCode.INVALID_CARD),
        (a_card("4111111111111111", cvv="999"), DeclineCode.INVALID_CVV),
        (a_card("5105105105105100", cvv="321"), DeclineCode.CARD_EXPIRED),
        (a_card("5555555555554444", cvv="789"), DeclineCode.INSUFFICIENT_FUNDS),
    ],
    ids=lambda value: value if isinstance(value, DeclineCode) else "",
)
async def test_the_banks_declines_are_told_by_their_codes(ficmart: Asker, card: Card, decline: DeclineCode) -> None:
    answer = await ficmart.ask(Verb.AUTHORIZE, card=card)

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.decline_code) == (Refusal.DECLINED, decline)


async def test_what_was_done_before_is_told_from_what_is_unknown_and_from_our_mistakes(ficmart: Asker) -> None:
    held = (await ficmart.done(Verb.AUTHORIZE)).reference
    other = Money(amount=AMOUNT + 1, currency="USD")
    mistaken = await ficmart.ask(Verb.CAPTURE, held, money=other)
    capture = await ficmart.done(Verb.CAPTURE, held)
    twice = await ficmart.ask(Verb.CAPTURE, held)
    voided = await ficmart.ask(Verb.VOID, held)
    await ficmart.done(Verb.REFUND, capture.reference)
    refunded = await ficmart.ask(Verb.REFUND, capture.reference)
    unknown = await ficmart.ask(Verb.REFUND, "cap_00000000-0000-4000-8000-000000000000")

    reasons = [answer.reason for answer in (mistaken, twice, voided, refunded, unknown)]
    assert reasons == [
        Refusal.MISTAKE,
        Refusal.ALREADY_DONE,
        Refusal.ALREADY_DONE,
        Refusal.ALREADY_DONE,
        Refusal.UNKNOWN_REFERENCE,
    ]


async def test_a_key_used_for_another_amount_is_a_mismatch_never_an_approval(ficmart: Asker) -> None:
    ask = an_ask(Verb.AUTHORIZE)
    await ficmart.connector.ask(ask)
    answer = await ficmart.connector.ask(replace(ask, money=Money(amount=AMOUNT + 1, currency="USD")))

    assert isinstance(answer, NoAnswer)
    assert not answer.ask_again
    assert answer.evidence["replayed"]


async def test_an_answer_dropped_after_the_effect_is_in_doubt_and_replayed_on_asking_again(
    ficmart: Asker, bank: Bank
) -> None:
    ask = an_ask(Verb.AUTHORIZE)
    bank.fault("drop_response", card_number=ask.card.number if ask.card else None, times=1)
    lost, found = await ficmart.connector.ask(ask), await ficmart.connector.ask(ask)

    assert isinstance(lost, NoAnswer)
    assert lost.ask_again
    assert isinstance(found, Approved)
    assert found.evidence["replayed"]


async def test_a_bad_commit_of_an_authorization_is_not_asked_again(ficmart: Asker, bank: Bank) -> None:
    ask = an_ask(Verb.AUTHORIZE)
    bank.fault("internal_error_after", card_number=ask.card.number if ask.card else None, times=1)
    answer = await ficmart.connector.ask(ask)

    assert isinstance(answer, NoAnswer)
    assert not answer.ask_again
    assert (answer.evidence["http_status"], answer.evidence["bank_code"]) == (400, "internal_error")
