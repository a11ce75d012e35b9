"""What a gate learns of the bank's queue from calls and probes, by when each was sent and how it ended (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engine.contracts.connector import BankRequest, Capabilities
from engine.domain.bank_answer import Answer, Approved, NoAnswer, Refusal, Refused, Unsent
from engine.domain.money import CURRENCIES, Money
from engine.domain.payment import Verb
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import BreakerPolicy
from engine.resilience.guarded_connector import GuardedConnector, HoldBackPolicy
from engine.resilience.retry_budget import RetryBudgetPolicy

NOON = datetime(2030, 1, 1, tzinfo=UTC)
SILENCE = NoAnswer(reason="timeout")
BROKE = NoAnswer(reason="500 internal_error", over=True)
YES = Approved(reference="auth_1", at=NOON)
NO = Refused(reason=Refusal.MISTAKE, code="amount_mismatch", message="mismatch")
NOT_SENT = Unsent(reason="connection refused", unreachable=True)
A_MOMENT_S = 0.005


class ABank:
    """Calls and probes are under way until the test ends them."""

    name = "a_bank"
    capabilities = Capabilities(
        methods=frozenset({"card"}), currencies=CURRENCIES, verbs=frozenset(Verb), partial_amounts=False
    )

    def __init__(self) -> None:
        self.calls: dict[str, asyncio.Future[Answer]] = {}
        self.probes: list[asyncio.Future[bool]] = []

    async def ask(self, ask: BankRequest) -> Answer:
        call = self.calls[ask.bank_key] = asyncio.get_running_loop().create_future()
        return await call

    async def probe(self, timeout_s: float) -> bool:
        self.probes.append(asyncio.get_running_loop().create_future())
        return await self.probes[-1]


class Stand:
    """A gate before this bank, and what is under way. Between two steps the clock goes on."""

    def __init__(self, worst_s: float, silences_max: int) -> None:
        tolerance = BreakerPolicy(silences_max=silences_max, rest_s=0.02, rest_cap_s=0.02, probes=1)
        patience, allowance = (
            HoldBackPolicy(attempt_s=1.0, worst_latency_s=worst_s),
            RetryBudgetPolicy(share=1.0, floor_per_s=1000),
        )
        self.bank, self.registry = ABank(), CollectorRegistry()
        self.gate = GuardedConnector(self.bank, tolerance, allowance, patience, EngineMetrics(self.registry))  # type: ignore[arg-type]

    async def sends(self, key: str, *, doubted: bool = False) -> asyncio.Task[Answer]:
        ask = BankRequest(
            bank_key=key,
            verb=Verb.AUTHORIZE,
            money=Money(amount=1, currency="USD"),
            card=None,
            reference=None,
            send_by=NOON,
            deadline=NOON,
            traceparent=None,
            doubted=doubted,
        )
        task = asyncio.create_task(self.gate.ask(ask))
        await asyncio.sleep(A_MOMENT_S)
        return task

    async def hears(self, key: str, answer: Answer) -> None:
        self.bank.calls[key].set_result(answer)
        await asyncio.sleep(A_MOMENT_S)

    async def asks(self, key: str, answer: Answer, *, doubted: bool = False) -> Answer:
        """The answer of a whole call; what is held back never comes to the bank."""
        self.bank.calls.pop(key, None)
        task = await self.sends(key, doubted=doubted)
        if key in self.bank.calls:
            await self.hears(key, answer)
        return await task

    async def probing(self, key: str) -> asyncio.Task[float | None]:
        """Somebody wants to know when this may be sent again, and the bank is being probed for it."""
        task = asyncio.create_task(self.gate.drained_in(key))
        await asyncio.sleep(A_MOMENT_S)
        return task

    async def drained_in(self, key: str, *, probed: bool = False) -> float | None:
        """As the gate says; a probe that it makes is answered or not."""
        before = len(self.bank.probes)
        task = await self.probing(key)
        if len(self.bank.probes) > before:
            self.bank.probes[-1].set_result(probed)
        return await task


def told(
    story: Callable[[Stand], Coroutine[Any, Any, None]], *, worst_s: float = 5.0, silences_max: int = 1000
) -> None:
    async def begun() -> None:
        await story(Stand(worst_s, silences_max))

    asyncio.run(begun())


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("answer", [YES, NO, BROKE], ids=["approved", "refused", "failed"])
def test_any_answer_of_the_bank_to_a_later_call_is_a_proof_and_no_probe_is_needed(answer: Answer) -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await stand.asks("later", answer)

        wait_s = await stand.drained_in("lost")

        assert wait_s is not None and 4.0 < wait_s <= 5.0
        assert stand.bank.probes == []

    told(story)


@pytest.mark.parametrize("answer", [YES, NO, BROKE], ids=["approved", "refused", "failed"])
def test_an_answer_to_a_call_that_was_sent_before_a_silence_is_no_proof(answer: Answer) -> None:
    async def story(stand: Stand) -> None:
        early = await stand.sends("early")
        await stand.asks("lost", SILENCE)
        await stand.hears("early", answer)
        await early

        assert await stand.drained_in("lost") is None

    told(story)


def test_a_silence_is_as_late_as_its_end_since_nobody_knows_when_it_was_written() -> None:
    async def story(stand: Stand) -> None:
        lost = await stand.sends("lost")
        meanwhile = await stand.sends("meanwhile")
        await stand.hears("lost", SILENCE)
        await lost
        await stand.hears("meanwhile", YES)
        await meanwhile

        assert await stand.drained_in("lost") is None

    told(story)


@pytest.mark.parametrize("answer", [SILENCE, NOT_SENT], ids=["silence", "not sent"])
def test_what_the_bank_did_not_answer_is_no_proof(answer: Answer) -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await stand.asks("later", answer)

        assert await stand.drained_in("lost") is None

    told(story)


def test_a_repetition_that_is_cut_off_needs_a_proof_of_its_own() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await stand.asks("later", YES)
        assert await stand.drained_in("lost") == 0.0
        await cancelled(await stand.sends("lost", doubted=True))

        assert await stand.drained_in("lost") is None

    told(story, worst_s=0.0)


def test_what_has_its_final_answer_is_forgotten() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await stand.asks("later", YES)
        assert await stand.asks("lost", YES, doubted=True) is YES

        assert await stand.drained_in("lost") is None

    told(story, worst_s=0.0)


def test_a_repetition_that_was_not_sent_needs_no_other_proof() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await stand.asks("later", YES)
        assert await stand.asks("lost", NOT_SENT, doubted=True) is NOT_SENT

        assert await stand.drained_in("lost") == 0.0

    told(story, worst_s=0.0)


def test_an_attempt_of_a_lost_owner_may_be_written_until_its_window_is_over() -> None:
    async def story(stand: Stand) -> None:
        stand.gate.lost("lost", in_s=0.1)
        within = await stand.drained_in("lost", probed=True)
        await asyncio.sleep(0.1)
        after = await stand.drained_in("lost", probed=True)

        assert within is None
        assert after is not None and 4.0 < after <= 5.0

    told(story)


def test_a_probe_that_was_sent_before_a_silence_is_no_proof() -> None:
    async def story(stand: Stand) -> None:
        first = await stand.probing("one")
        await stand.asks("other", SILENCE)
        stand.bank.probes[0].set_result(True)

        assert await first is not None
        assert await stand.drained_in("other") is None

    told(story)


def test_a_probe_that_is_not_answered_is_no_proof() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)

        assert await stand.drained_in("lost", probed=False) is None
        assert await stand.drained_in("lost", probed=True) is not None

    told(story)


def test_a_bank_that_is_left_alone_is_not_probed_either() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)

        assert await stand.drained_in("lost", probed=True) is None
        assert stand.bank.probes == []

    told(story, silences_max=1)


def test_a_probe_without_an_answer_counts_against_the_bank() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await stand.drained_in("lost", probed=False)

        held = await stand.asks("fresh", YES)

        assert isinstance(held, Unsent) and "circuit breaker" in held.reason

    told(story, silences_max=2)


def test_an_answered_probe_shows_that_the_bank_is_back() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await asyncio.sleep(0.03)

        assert await stand.drained_in("lost", probed=True) is not None
        assert await stand.asks("fresh", YES) is YES

    told(story, silences_max=1)


def test_a_probe_that_is_cut_off_gives_its_place_back() -> None:
    async def story(stand: Stand) -> None:
        await stand.asks("lost", SILENCE)
        await asyncio.sleep(0.03)
        await cancelled(await stand.probing("lost"))

        assert len(stand.bank.probes) == 1, "or nothing is tested here"
        assert await stand.asks("fresh", YES) is YES

    told(story, silences_max=1)


def test_how_many_wait_for_a_proof_is_a_metric() -> None:
    async def story(stand: Stand) -> None:
        def undrained() -> float | None:
            return stand.registry.get_sample_value("penstock_bank_undrained_attempts", {"connector": "a_bank"})

        await stand.asks("lost", SILENCE)
        waiting = undrained()
        await stand.asks("later", YES)

        assert (waiting, undrained()) == (1.0, 0.0)

    told(story)
