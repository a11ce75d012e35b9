"""The instant bank: deterministic where money is concerned, slow and failing only when told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from time import monotonic

import anyio
import pytest

from bank.instant import InstantBank
from engine.contracts.connector import BankRequest
from engine.domain.bank_answer import Approved, NoAnswer
from engine.domain.money import Money
from engine.domain.payment import Verb

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def now() -> datetime:
    return datetime.now(UTC)


def an_ask(key: str, *, deadline_ms: int = 5_000) -> BankRequest:
    return BankRequest(
        bank_key=key,
        verb=Verb.AUTHORIZE,
        money=Money(amount=5000, currency="JPY"),
        card=None,
        reference=None,
        send_by=now() + timedelta(milliseconds=deadline_ms),
        deadline=now() + timedelta(milliseconds=deadline_ms),
        traceparent=None,
    )


async def test_a_key_gets_the_same_reference_from_any_instance() -> None:
    answers = [await InstantBank(clock=now).ask(an_ask("op_1")) for _ in range(2)]

    assert {answer.reference for answer in answers if isinstance(answer, Approved)} == {
        "auth_f90b19374af6e392e6ebb6f6e9ca9717"
    }


async def test_as_many_go_unanswered_as_the_failure_rate_says() -> None:
    bank = InstantBank(clock=now, failure_rate=0.25, random=Random(7))

    answers = [await bank.ask(an_ask(f"op_{number}")) for number in range(1000)]

    assert 200 < sum(isinstance(answer, NoAnswer) for answer in answers) < 300


async def test_a_failure_is_before_the_effect_so_asking_again_may_succeed() -> None:
    bank = InstantBank(clock=now, failure_rate=0.5, random=Random(7))

    answers = [await bank.ask(an_ask("op_1")) for _ in range(20)]

    assert all(answer.ask_again for answer in answers if isinstance(answer, NoAnswer))
    assert len({answer.reference for answer in answers if isinstance(answer, Approved)}) == 1


async def test_the_latency_is_kept() -> None:
    bank = InstantBank(clock=now, latency_ms=(50, 60))
    began = monotonic()

    answer = await bank.ask(an_ask("op_1"))

    assert isinstance(answer, Approved)
    assert monotonic() - began >= 0.05


async def test_a_latency_beyond_the_deadline_is_no_answer_at_the_deadline() -> None:
    bank = InstantBank(clock=now, latency_ms=(60_000, 60_000))

    with anyio.fail_after(30):  # half of the latency
        answer = await bank.ask(an_ask("op_1", deadline_ms=50))

    assert isinstance(answer, NoAnswer)


@pytest.mark.parametrize("wrong", [{"latency_ms": (5, 1)}, {"latency_ms": (-1, 1)}, {"failure_rate": 1.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        InstantBank(clock=now, **wrong)  # type: ignore[arg-type]
