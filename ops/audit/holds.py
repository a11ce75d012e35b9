"""Holds at the bank that no receipt names: found by comparing the books, given back by an act of the audit.

Such a hold keeps a customer's money for nothing, and no actor owns it. Its release is written down first, with the bank
key that it will use, which is made of the hold's own id: so the command may be repeated, from anywhere, until its
result is known, and nothing is voided that nobody asked for. Refused where a receipt has the hold, or an authorization
without an answer may have placed it. The ledger's payments are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import psycopg

from engine.contracts.connector import BankRequest, Connector
from engine.domain.bank_answer import Absent, Answer, Approved, Found, NoAnswer, Refusal, Refused
from engine.domain.ids import release_key
from engine.domain.money import Money
from engine.domain.payment import Verb
from engine.errors import Broken
from engine.ledger.session import connect, conninfo, prepare
from engine.ledger.statement import statement as engine_statement
from ops.audit.books import Orphan, orphans, read_bank, read_ledger
from ops.audit.snapshot import one_moment
from ops.statement import statement

_LOOKS = 3
_LOOK_S = 5.0
_TRIES = 5
_SEND_WINDOW = timedelta(seconds=2)
_DEADLINE = timedelta(seconds=14)  # above the bank's worst latency, like an attempt's
_PAUSE_S = 0.2
_CONNECTION: Mapping[str, object] = {"autocommit": True, "connect_timeout": 5}


class NotReleased(Exception):
    """The act was refused: nothing was asked of the bank. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The act, and how it ended. `before`: that was known already."""

    act: int
    result: str
    before: bool = False


def find(ledger_dsn: str, bank_dsn: str, *, grace_s: float) -> list[Orphan]:
    """The holds that no receipt names, oldest first. Raises psycopg's errors."""
    with (
        connect(ledger_dsn, autocommit=True) as ledger,
        one_moment(ledger, by_index=False),
    ):
        ours = read_ledger(ledger)
    found, _ = orphans(ours, read_bank(bank_dsn), grace_s=grace_s)
    return sorted(found, key=lambda orphan: orphan.made_at)


async def release(ledger_dsn: str, connector: Connector, hold: str, *, reason: str, actor: str) -> Released:
    """Give the hold back. Raises NotReleased; Broken where it is not known how it ended: then it is to be repeated."""
    async with await psycopg.AsyncConnection.connect(conninfo(ledger_dsn), **_CONNECTION) as ledger:  # type: ignore[arg-type]
        await prepare(ledger)
        row = await _one(ledger, engine_statement("installation"), {})
        if row is None:
            raise Broken("the database is no installation of Penstock: run `penstock migrate` first")
        bank_key = release_key(str(row[0]), hold)
        wanted = {"hold": hold, "reason": reason, "actor": actor, "bank_key": bank_key}
        begun = await _one(ledger, statement("holds/begin"), wanted)
        fresh = begun is not None
        act, result = begun or await _one(ledger, statement("holds/begun"), {"hold": hold}) or (0, None)
        if result is not None:
            return Released(act=act, result=result, before=True)
        found = await _found(ledger, connector, hold, act, fresh=fresh)
        result = _word(await _voided(connector, found, bank_key), act)
        await ledger.execute(statement("holds/finish"), {"id": act, "result": result})
        return Released(act=act, result=result)


async def _found(ledger: psycopg.AsyncConnection, connector: Connector, hold: str, act: int, *, fresh: bool) -> Found:
    """The hold, once it is certain that it is nobody's. If it is not, an act that was begun before stays open: the bank
    may have been asked by then."""
    obstacle = await _obstacle(ledger, connector, hold)
    if isinstance(obstacle, Found):
        return obstacle
    if not fresh:
        raise Broken(f"act_{act} is not done, and cannot be just now: {obstacle}. Repeat the command later")
    await ledger.execute(statement("holds/finish"), {"id": act, "result": f"refused: {obstacle}"})
    raise NotReleased(obstacle)


async def _obstacle(ledger: psycopg.AsyncConnection, connector: Connector, hold: str) -> Found | str:
    for _ in range(_LOOKS):
        finding = await connector.look_up(Verb.AUTHORIZE, hold, _LOOK_S)
        if not isinstance(finding, NoAnswer):
            break
    if isinstance(finding, Absent):
        return f"{hold} is no hold at the bank: {finding.reason}"
    if not isinstance(finding, Found):
        return f"{hold} cannot be looked up just now, {finding.reason}: try again"
    if finding.reference != hold:
        return f"the bank writes this id as {finding.reference}: give it so"
    whose = {
        "hold": hold,
        "connector": connector.name,
        "amount": finding.amount,
        "currency": finding.currency,
        "made_at": finding.at,
    }
    row = await _one(ledger, statement("holds/obstacle"), whose)
    return finding if row is None else str(row[0])


async def _voided(connector: Connector, hold: Found, bank_key: str) -> Answer:
    """The bank's answer; asked again, serially and under the same key, where it gives none."""
    answer: Answer = NoAnswer(reason="the bank was not asked")
    for _ in range(_TRIES):
        now = datetime.now(UTC)
        ask = BankRequest(
            bank_key=bank_key,
            verb=Verb.VOID,
            money=Money(amount=hold.amount, currency=hold.currency),
            card=None,
            reference=hold.reference,
            send_by=now + _SEND_WINDOW,
            deadline=now + _DEADLINE,
            traceparent=None,
        )
        answer = await connector.ask(ask)
        match answer:
            case Approved() | Refused(reason=Refusal.ALREADY_DONE):
                break
            case NoAnswer(over=False):
                await anyio.sleep(max(0.0, (ask.deadline - datetime.now(UTC)).total_seconds()))
        await anyio.sleep(_PAUSE_S)
    return answer


def _word(answer: Answer, act: int) -> str:
    """How the act ended. Raises Broken where that is not known."""
    match answer:
        case Approved(reference=reference):
            return f"released: {reference}"
        case Refused(reason=Refusal.ALREADY_DONE, code=code):
            # Ours, without an answer, or somebody else's. A capture would have no receipt, and audits would find it.
            return f"over: the bank says {code}, so it was given back or captured before"
        case Refused(code=code):
            why = f"the bank says {code}"
        case _:
            why = answer.reason
    raise Broken(f"act_{act} is not done: {why}. Repeat the command: it asks under the same bank key")


async def _one(
    connection: psycopg.AsyncConnection, text: bytes, parameters: Mapping[str, object]
) -> tuple[Any, ...] | None:
    return await (await connection.execute(text, parameters)).fetchone()
