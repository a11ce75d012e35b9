"""A bank that stays silent is left alone, tried carefully, and not overrun when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engine.contracts.connector import BankRequest, Capabilities
from engine.domain.bank_answer import Absent, Answer, Approved, Finding, NoAnswer, Refusal, Refused, Unsent
from engine.domain.money import CURRENCIES, Money
from engine.domain.payment import Verb
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import CIRCUITS, BreakerPolicy, Circuit, CircuitBreaker, Signal
from engine.resilience.guarded_connector import GuardedConnector, HoldBackPolicy
from engine.resilience.retry_budget import RetryBudget, RetryBudgetPolicy

TOLERANCE = BreakerPolicy(silences_max=3, rest_s=1.0, rest_cap_s=5.0, probes=2)
PATIENCE = HoldBackPolicy(attempt_s=1.0, worst_latency_s=0.5)
PLENTY = RetryBudgetPolicy(share=1.0, floor_per_s=1000)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
SILENCE = NoAnswer(reason="timeout")
YES = Approved(reference="auth_1", at=NOW)
NO = Refused(reason=Refusal.DECLINED, code="declined", message="no")
AWAY = Unsent(reason="connection refused", unreachable=True)
TOO_LATE = Unsent(reason="send_by had passed")


def opened() -> CircuitBreaker:
    """Just opened, at second 0."""
    breaker = CircuitBreaker(TOLERANCE)
    for _ in range(TOLERANCE.silences_max):
        breaker.silent(0.0)
    return breaker


def test_the_circuit_has_a_row_for_all_that_can_happen() -> None:
    impossible = {(Circuit.CLOSED, Signal.RESTED), (Circuit.HALF_OPEN, Signal.RESTED)}
    # Only a closed circuit counts how much is too much.
    impossible |= {(Circuit.OPEN, Signal.TOO_SILENT), (Circuit.HALF_OPEN, Signal.TOO_SILENT)}

    assert {(circuit, sign) for circuit in Circuit for sign in Signal} - set(CIRCUITS) == impossible


def test_silence_in_a_row_opens_it_and_any_answer_starts_the_count_anew() -> None:
    breaker = CircuitBreaker(TOLERANCE)

    for _ in range(10):
        breaker.silent(0.0)
        breaker.silent(0.0)
        breaker.answered()

    assert breaker.circuit is Circuit.CLOSED
    assert opened().circuit is Circuit.OPEN


def test_after_its_rest_a_few_probes_pass_and_an_answer_closes_it() -> None:
    breaker = opened()

    assert not breaker.admits(0.99)
    assert [breaker.admits(1.0) for _ in range(4)] == [True, True, False, False]
    breaker.answered()
    assert breaker.circuit is Circuit.CLOSED
    assert all(breaker.admits(1.1) for _ in range(10))


def test_rests_double_up_to_their_bound_while_the_probes_stay_silent() -> None:
    breaker, now_s, rests = opened(), 0.0, []

    for _ in range(5):
        began_s = now_s
        while not breaker.admits(now_s):
            now_s += 0.25
        rests.append(now_s - began_s)
        breaker.silent(now_s)

    assert rests == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_probe_that_was_not_made_gives_its_place_back() -> None:
    breaker = opened()
    assert breaker.admits(1.0)
    assert breaker.admits(1.0)

    breaker.withdrawn()

    assert breaker.admits(1.0)


@given(st.lists(st.sampled_from(["ask", "answered", "silent", "withdrawn", "wait"]), max_size=60))
def test_whatever_happens_it_never_stays_shut_for_longer_than_its_longest_rest(story: list[str]) -> None:
    breaker, now_s, under_way = CircuitBreaker(TOLERANCE), 0.0, 0
    for event in story:
        if event == "ask":
            under_way += breaker.admits(now_s)
        elif event == "wait":
            now_s += 0.7
        elif under_way:
            under_way -= 1
            if event == "silent":
                breaker.silent(now_s)
            else:
                getattr(breaker, event)()
    for _ in range(under_way):
        breaker.withdrawn()

    assert breaker.admits(now_s + TOLERANCE.rest_cap_s)


def test_repeats_are_a_share_of_fresh_calls_and_a_few_a_second() -> None:
    budget = RetryBudget(RetryBudgetPolicy(share=0.25, floor_per_s=2), 0.0)
    spent_at_first = sum(budget.spend(0.0) for _ in range(100))

    for _ in range(8):
        budget.fresh()
    spent_for_fresh = sum(budget.spend(0.0) for _ in range(100))
    spent_by_and_by = sum(budget.spend(tenth / 10) for tenth in range(1, 101))

    assert (spent_at_first, spent_for_fresh) == (4, 2)
    assert spent_by_and_by == pytest.approx(20, abs=1)


class ABank:
    """Says what it is told to say, and counts who asks."""

    name = "a_bank"
    capabilities = Capabilities(
        methods=frozenset({"card"}), currencies=CURRENCIES, verbs=frozenset(Verb), partial_amounts=False
    )

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def ask(self, ask: BankRequest) -> Answer:
        self.asked += 1
        return self._answers.pop(0)

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding:
        return Absent(reason=reference)

    async def probe(self, timeout_s: float) -> bool:
        return True


def asked(bank: ABank, calls: int, *, allowance: RetryBudgetPolicy = PLENTY, repeated: bool = False) -> list[Answer]:
    """What the gate before this bank says to so many calls, one after the other."""
    ask = BankRequest(
        bank_key="op_1",
        verb=Verb.AUTHORIZE,
        money=Money(amount=1, currency="USD"),
        card=None,
        reference=None,
        send_by=NOW,
        deadline=NOW,
        traceparent=None,
        repeated=repeated,
    )

    async def story() -> list[Answer]:
        gate = GuardedConnector(bank, TOLERANCE, allowance, PATIENCE, EngineMetrics(CollectorRegistry()))
        return [await gate.ask(ask) for _ in range(calls)]

    return asyncio.run(story())


@pytest.mark.parametrize("silence", [SILENCE, AWAY], ids=["no answer", "unreachable"])
def test_an_open_circuit_costs_the_bank_nothing_and_leaves_no_doubt(silence: Answer) -> None:
    bank = ABank([silence] * 3)

    answers = asked(bank, 10)

    assert bank.asked == 3
    assert all(isinstance(answer, Unsent) and answer.wait for answer in answers[3:])


def test_what_is_not_the_banks_doing_does_not_count_against_it() -> None:
    bank = ABank([SILENCE, SILENCE, NO, SILENCE, SILENCE, TOO_LATE, TOO_LATE, YES])

    asked(bank, 8)

    assert bank.asked == 8


def test_beyond_the_budget_a_repeat_waits_and_a_fresh_call_does_not() -> None:
    tight = RetryBudgetPolicy(share=0.2, floor_per_s=1)
    bank = ABank([YES] * 12)

    repeats = asked(bank, 10, allowance=tight, repeated=True)
    fresh = asked(bank, 10, allowance=tight)

    assert [answer for answer in repeats if answer is not YES] == [
        Unsent(reason="the retry budget of this bank is spent", wait=timedelta(seconds=1))
    ] * 8
    assert fresh == [YES] * 10
