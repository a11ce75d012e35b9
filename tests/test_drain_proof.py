"""What went unanswered is asked again only when the bank's queue is shown to be drained (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engine.contracts.connector import BankRequest, Capabilities
from engine.domain.bank_answer import Answer, Approved, NoAnswer, Unsent
from engine.domain.money import CURRENCIES, Money
from engine.domain.payment import Verb
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import BreakerPolicy
from engine.resilience.drain_proof import DrainProof
from engine.resilience.guarded_connector import GuardedConnector, HoldBackPolicy
from engine.resilience.retry_budget import RetryBudgetPolicy

WORST_S = 5.0
NOON = datetime(2030, 1, 1, tzinfo=UTC)
SILENCE = NoAnswer(reason="timeout")
BROKE = NoAnswer(reason="500 internal_error", over=True)
YES = Approved(reference="auth_1", at=NOON)


def test_a_call_sent_before_the_silence_proves_nothing() -> None:
    proof = DrainProof(WORST_S)
    proof.unanswered("op_1", 10.0)

    proof.answered(sent_s=9.9, now_s=30.0)

    assert proof.wait_s("op_1", 60.0) is None


def test_an_answer_to_a_later_call_and_the_worst_latency_are_the_proof() -> None:
    proof = DrainProof(WORST_S)
    proof.unanswered("op_1", 10.0)

    proof.answered(sent_s=10.0, now_s=25.0)

    assert proof.wait_s("op_1", 26.0) == 4.0
    assert proof.wait_s("op_1", 31.0) == 0.0


def test_a_later_answer_does_not_begin_the_wait_anew() -> None:
    proof = DrainProof(WORST_S)
    proof.unanswered("op_1", 10.0)
    proof.answered(sent_s=11.0, now_s=12.0)

    proof.answered(sent_s=20.0, now_s=21.0)

    assert proof.wait_s("op_1", 17.0) == 0.0


def test_each_new_silence_needs_its_own_proof() -> None:
    proof = DrainProof(WORST_S)
    proof.unanswered("op_1", 10.0)
    proof.answered(sent_s=11.0, now_s=12.0)
    proof.unanswered("op_1", 20.0)

    assert proof.wait_s("op_1", 60.0) is None
    proof.answered(sent_s=19.0, now_s=21.0)
    assert proof.wait_s("op_1", 60.0) is None


def test_what_proves_one_silence_proves_no_later_one_of_the_same_key() -> None:
    proof = DrainProof(WORST_S)
    proof.unanswered("op_1", 10.0)
    proof.unanswered("op_1", 20.0)

    proof.answered(sent_s=15.0, now_s=16.0)

    assert proof.wait_s("op_1", 60.0) is None


def test_what_has_its_final_answer_is_forgotten_and_what_is_proven_waits_no_more() -> None:
    proof = DrainProof(WORST_S)
    for number in range(3):
        proof.unanswered(f"op_{number}", 10.0)
    waiting = len(proof)

    proof.answered(sent_s=11.0, now_s=12.0)
    proof.forget("op_0")

    assert (waiting, len(proof)) == (3, 0)
    assert (proof.wait_s("op_0", 60.0), proof.wait_s("op_1", 60.0)) == (None, 0.0)


def test_of_too_many_keys_the_one_that_is_longest_unheard_of_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.resilience.drain_proof._KEYS_MAX", 2)
    proof = DrainProof(WORST_S)
    for key in ("a", "b", "b", "a", "c"):
        proof.ended(key, 10.0)
        if key == "b":
            assert proof.wait_s("a", 10.0) == 0.0, "a key that is heard of again is not one more"

    assert [proof.wait_s(key, 10.0) for key in ("a", "c", "b")] == [0.0, 0.0, None]


def test_what_nobody_here_has_sent_waits_for_a_proof_from_now_on() -> None:
    proof = DrainProof(WORST_S)
    proof.answered(sent_s=99.0, now_s=99.5)

    assert proof.wait_s("op_of_a_dead_worker", 100.0) is None
    proof.answered(sent_s=99.9, now_s=101.0)
    assert proof.wait_s("op_of_a_dead_worker", 200.0) is None
    proof.answered(sent_s=100.1, now_s=101.0)
    assert proof.wait_s("op_of_a_dead_worker", 101.0) == WORST_S


def test_what_the_bank_itself_has_ended_waits_for_nothing() -> None:
    proof = DrainProof(WORST_S)
    proof.unanswered("op_1", 10.0)

    proof.ended("op_1", 11.0)

    assert proof.wait_s("op_1", 11.0) == 0.0


class ABank:
    """Says what it is told to say, and answers probes or not."""

    name = "a_bank"
    capabilities = Capabilities(
        methods=frozenset({"card"}), currencies=CURRENCIES, verbs=frozenset(Verb), partial_amounts=False
    )

    def __init__(self, *answers: Answer, probes: bool = True) -> None:
        self.answers, self.probes, self.probed = list(answers), probes, 0

    async def ask(self, ask: BankRequest) -> Answer:
        return self.answers.pop(0)

    async def probe(self, timeout_s: float) -> bool:
        self.probed += 1
        await asyncio.sleep(0.01)
        return self.probes


def an_ask(verb: Verb = Verb.AUTHORIZE, *, doubted: bool = True) -> BankRequest:
    return BankRequest(
        bank_key="op_1",
        verb=verb,
        money=Money(amount=1, currency="USD"),
        card=None,
        reference=None,
        send_by=NOON,
        deadline=NOON,
        traceparent=None,
        doubted=doubted,
    )


def before(
    bank: ABank, story: Callable[[GuardedConnector], Coroutine[Any, Any, None]], worst_s: float = WORST_S
) -> None:
    """Tell a story with a gate before this bank."""

    async def told() -> None:
        tolerance = BreakerPolicy(silences_max=1000, rest_s=1.0, rest_cap_s=1.0, probes=1)
        patience = HoldBackPolicy(attempt_s=1.0, worst_latency_s=worst_s)
        allowance = RetryBudgetPolicy(share=1.0, floor_per_s=1000)
        await story(GuardedConnector(bank, tolerance, allowance, patience, EngineMetrics(CollectorRegistry())))

    asyncio.run(told())


@pytest.mark.parametrize("verb", Verb)
def test_a_silent_bank_is_not_asked_again_before_it_has_answered_a_probe_and_its_time_is_over(verb: Verb) -> None:
    bank = ABank(SILENCE, YES)

    async def story(gate: GuardedConnector) -> None:
        await gate.ask(an_ask(verb, doubted=False))
        held = await gate.ask(an_ask(verb))
        assert isinstance(held, Unsent) and held.wait is not None and 0 < held.wait.total_seconds() <= WORST_S
        assert (bank.probed, len(bank.answers)) == (1, 1)

    before(bank, story)


def test_a_bank_that_does_not_answer_the_probe_is_left_alone() -> None:
    bank = ABank(SILENCE, YES, probes=False)

    async def story(gate: GuardedConnector) -> None:
        await gate.ask(an_ask(doubted=False))
        for _ in range(2):
            held = await gate.ask(an_ask())
            assert isinstance(held, Unsent) and held.wait is not None
        assert len(bank.answers) == 1

    before(bank, story)


def test_once_the_queue_is_drained_the_attempt_is_made_again() -> None:
    bank = ABank(SILENCE, YES)

    async def story(gate: GuardedConnector) -> None:
        await gate.ask(an_ask(doubted=False))
        assert isinstance(await gate.ask(an_ask()), Unsent)
        left_s = await gate.drained_in("op_1")
        assert left_s is not None
        await asyncio.sleep(left_s + 0.01)
        assert await gate.ask(an_ask()) is YES

    before(bank, story, worst_s=0.05)


def test_what_the_bank_has_failed_in_its_own_words_is_asked_again_at_once() -> None:
    bank = ABank(BROKE, YES)

    async def story(gate: GuardedConnector) -> None:
        await gate.ask(an_ask(doubted=False))
        assert await gate.ask(an_ask()) is YES
        assert bank.probed == 0

    before(bank, story)


def test_one_probe_serves_all_who_asked_before_it_was_sent() -> None:
    bank = ABank(*[SILENCE] * 50)

    async def story(gate: GuardedConnector) -> None:
        waits = await asyncio.gather(*(gate.drained_in(f"op_{number}") for number in range(50)))
        assert all(waits) and bank.probed == 2  # the first one's own, and one for those who came meanwhile

    before(bank, story)


def test_a_probe_that_was_cancelled_serves_nobody() -> None:
    bank = ABank()

    async def story(gate: GuardedConnector) -> None:
        first = asyncio.create_task(gate.drained_in("op_1"))
        await asyncio.sleep(0)
        second, third = (asyncio.create_task(gate.drained_in(key)) for key in ("op_2", "op_3"))
        await first
        await asyncio.sleep(0)
        assert bank.probed == 2, "the second one's is under way"
        second.cancel()

        assert await third is not None and bank.probed == 3

    before(bank, story)
