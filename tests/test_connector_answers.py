"""What the FicMart connector makes of whole answers: only what was asked is approved, and no card is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from bank import dialect
from bank.ficmart import FicmartBank
from engine.domain.bank_answer import Approved, NoAnswer, Refusal, Refused
from engine.domain.payment import DeclineCode, Verb
from support.ficmart_asks import (
    AUTHORIZATION,
    CVV,
    OK,
    PAN,
    SUCCESS,
    an_ask,
    now,
)
from support.raw_bank import http, raw_bank, sending

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_an_approval_has_times_in_utc_cut_to_microseconds() -> None:
    async with raw_bank(sending(OK)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, Approved)
    assert answer.reference == AUTHORIZATION
    assert answer.at == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert answer.expires_at == datetime(2026, 1, 8, 0, 0, 0, 500000, tzinfo=UTC)
    assert answer.at.tzinfo is UTC


async def test_a_replay_is_told_in_the_evidence() -> None:
    replay = http(200, SUCCESS[Verb.CAPTURE], "application/json", "X-Idempotent-Replayed: true")
    async with raw_bank(sending(replay)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(Verb.CAPTURE))

    assert isinstance(answer, Approved)
    assert answer.expires_at is None
    duration_ms = answer.evidence["duration_ms"]
    assert answer.evidence == {"http_status": 200, "replayed": True, "duration_ms": duration_ms}
    assert isinstance(duration_ms, int)


@pytest.mark.parametrize(
    ("verb", "field", "value"),
    [
        (Verb.AUTHORIZE, "amount", 5001),
        (Verb.AUTHORIZE, "amount", 5000.0),
        (Verb.AUTHORIZE, "amount", "5000"),
        (Verb.AUTHORIZE, "amount", None),
        (Verb.AUTHORIZE, "currency", "EUR"),
        (Verb.AUTHORIZE, "status", "declined"),
        (Verb.CAPTURE, "amount", 1),
        (Verb.CAPTURE, "authorization_id", "auth_another"),
        (Verb.VOID, "authorization_id", "auth_another"),
        (Verb.REFUND, "capture_id", "cap_another"),
        (Verb.REFUND, "amount", -5000),
    ],
)
async def test_a_success_of_something_else_is_in_doubt_and_not_asked_again(
    verb: Verb, field: str, value: object
) -> None:
    other = http(200, SUCCESS[verb] | {field: value})
    async with raw_bank(sending(other)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask(verb))

    assert isinstance(answer, NoAnswer)
    assert not answer.ask_again
    assert "mismatch" in answer.reason
    assert field in answer.reason


@pytest.mark.parametrize(
    ("verb", "field", "value"),
    [
        (Verb.AUTHORIZE, "authorization_id", None),
        (Verb.AUTHORIZE, "authorization_id", 7),
        (Verb.AUTHORIZE, "authorization_id", "cap_1"),
        (Verb.AUTHORIZE, "authorization_id", "auth_\x00"),
        (Verb.AUTHORIZE, "authorization_id", "auth_" + "a" * 1000),
        (Verb.AUTHORIZE, "created_at", "yesterday"),
        (Verb.AUTHORIZE, "created_at", "2026-01-01"),
        (Verb.AUTHORIZE, "created_at", "2026-01-01T00:00:00"),
        (Verb.AUTHORIZE, "created_at", "0001-01-01T00:00:00+14:00"),
        (Verb.AUTHORIZE, "created_at", 1767225600),
        (Verb.AUTHORIZE, "expires_at", None),
        (Verb.REFUND, "refund_id", ""),
    ],
)
def test_a_success_without_usable_ids_and_times_is_unreadable(verb: Verb, field: str, value: object) -> None:
    body = orjson.dumps(SUCCESS[verb] | {field: value})

    with pytest.raises(dialect.Unreadable):
        dialect.approval(an_ask(verb), body, {})


@pytest.mark.parametrize(
    ("text", "microsecond", "hour"),
    [
        ("2026-01-01T12:00:00Z", 0, 12),
        ("2026-01-01T12:00:00.1Z", 100_000, 12),
        ("2026-01-01T12:00:00.1234567Z", 123_456, 12),
        ("2026-01-01T12:00:00.999999999Z", 999_999, 12),
        ("2026-01-01T12:00:00.5-05:30", 500_000, 17),
        ("2026-01-01t12:00:00.25z", 250_000, 12),
    ],
)
def test_rfc_3339_times_are_read_in_all_their_forms(text: str, microsecond: int, hour: int) -> None:
    body = orjson.dumps(SUCCESS[Verb.VOID] | {"voided_at": text})

    at = dialect.approval(an_ask(Verb.VOID), body, {}).at

    assert (at.hour, at.microsecond, at.utcoffset()) == (hour, microsecond, timedelta())


async def test_a_decline_carries_its_code_and_nothing_that_the_bank_wrote() -> None:
    talkative = http(402, {"error": "insufficient_funds", "message": f"card {PAN} cvv {CVV} is empty"})
    async with raw_bank(sending(talkative)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.code) == (Refusal.DECLINED, "insufficient_funds")
    assert answer.decline_code is DeclineCode.INSUFFICIENT_FUNDS
    assert PAN not in repr(answer)
    assert CVV not in repr(answer)


@pytest.mark.parametrize("code", [PAN, f"card {PAN}", "x" * 100, "UPPER", "", 5, None, ["invalid_card"]])
async def test_a_code_that_is_no_code_is_neither_believed_nor_kept(code: object) -> None:
    async with raw_bank(sending(http(400, {"error": code}))) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, NoAnswer)
    assert answer.evidence["bank_code"] == "no/word"
    assert PAN not in repr(answer)


async def test_plain_text_is_our_mistake() -> None:
    text = http(400, b"can't decode JSON body: EOF\n", "text/plain; charset=utf-8")
    async with raw_bank(sending(text)) as bank, FicmartBank(bank.url, clock=now) as connector:
        answer = await connector.ask(an_ask())

    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.MISTAKE
    assert answer.decline_code is None
