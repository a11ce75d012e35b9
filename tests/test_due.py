"""What the ledger makes due, row by row, on a real Postgres: its clock is half of the claim."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from engine.domain.payment import Verb
from engine.ledger.writer import DueTerms, FencingToken
from support.ledger_stand import PARTITION, LedgerStand, a_ledger, an_authorized_payment

TERMS = DueTerms(
    expiry_notice=timedelta(hours=2),
    expiry_grace=timedelta(minutes=5),
    lost_after=timedelta(seconds=5),
    farthest=timedelta(minutes=10),
)
MINE, ELSEWHERE = [PARTITION], [PARTITION + 1]
OPEN = "UPDATE operations SET status = '{}', next_attempt_at = now() + interval '{}' WHERE verb = 'capture'"
UNDER_WAY = """UPDATE operations SET status = '{0}', next_attempt_at = NULL, deadline = now() + interval '{1}',
                   send_by = now() + interval '{1}' - interval '10 s' WHERE verb = 'capture'"""
HELD = "UPDATE payments SET expires_at = now() + interval '{}', expiring_at = {}"
ACT = """INSERT INTO audit (actor, act, subject, reason, partition, payment, operation, result, done_at)
         SELECT 'ada', '{0}', payment, 'a test', {1}, payment, id, {2}, CASE WHEN {2} IS NULL THEN NULL ELSE now() END
         FROM operations LIMIT 1"""


class Stand:
    """One authorized payment, with a capture under way or not."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def told(self, *statements: str, capture: bool = False, partitions: list[int] = MINE) -> tuple[bool, bool]:
        """Whether the payment is due, and whether it is unanswered, after these statements."""

        async def asked() -> tuple[bool, bool]:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                connection.execute("TRUNCATE payments, operations, transitions, outbox, deliveries, audit")
            async with a_ledger(self._dsn) as stand:
                owner = await stand.acquire()
                desk = await an_authorized_payment(stand, owner)
                if capture:
                    await stand.commit(desk.accept(Verb.CAPTURE).steps[-1], owner)
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    for statement in statements:
                        connection.execute(statement)
                due = await stand.ledger.due(partitions, TERMS, 10)
                unanswered = await stand.ledger.unanswered(partitions, TERMS, 10)
            assert set(due + unanswered) <= {(PARTITION, desk.payment.id)}
            return bool(due), bool(unanswered)

        return asyncio.run(asked())


@pytest.fixture
def ledger(module_database: str) -> Iterator[Stand]:
    yield Stand(module_database)


@pytest.mark.parametrize("status", ["accepted", "sent", "in_doubt"])
@pytest.mark.parametrize(
    ("ahead", "due"),
    [("-1 second", True), ("9 minutes", False), ("11 minutes", True)],
    ids=["come", "not yet", "never"],
)
def test_an_operation_is_due_when_its_time_has_come_or_lies_further_ahead_than_any_schedule(
    ledger: Stand, status: str, ahead: str, due: bool
) -> None:
    assert ledger.told(OPEN.format(status, ahead), capture=True) == (due, False)


@pytest.mark.parametrize("status", ["sent", "in_doubt"])
@pytest.mark.parametrize(
    ("ahead", "lost"),
    [("-6 seconds", True), ("-1 second", False), ("9 minutes", False), ("11 minutes", True)],
    ids=["over", "just over", "under way", "never over"],
)
def test_an_attempt_is_lost_when_its_outcome_is_overdue_or_its_end_further_ahead_than_any_attempt_s(
    ledger: Stand, status: str, ahead: str, lost: bool
) -> None:
    assert ledger.told(UNDER_WAY.format(status, ahead), capture=True) == (False, lost)


NOBODYS: dict[str, list[str]] = {
    "parked": [UNDER_WAY.format("in_doubt", "-1 hour"), OPEN.format("in_doubt", "9 minutes")],
    "in review": [UNDER_WAY.format("review", "-1 hour")],
    "in review, and scheduled before": [OPEN.format("review", "-1 hour")],
}


@pytest.mark.parametrize("how", NOBODYS)
def test_what_rests_is_neither_due_nor_lost(ledger: Stand, how: str) -> None:
    assert ledger.told(*NOBODYS[how], capture=True) == (False, False)


EXPIRES: list[tuple[str, str, bool]] = [
    # expires in       told at   due
    ("-6 minutes", "now()", True),
    ("-4 minutes", "now()", False),
    ("-4 minutes", "NULL", False),
    ("1 hour", "NULL", True),
    ("1 hour", "now()", False),
    ("3 hours", "NULL", False),
]


@pytest.mark.parametrize(("ahead", "told", "due"), EXPIRES)
def test_an_authorization_is_due_past_its_grace_and_once_before_it_expires(
    ledger: Stand, ahead: str, told: str, due: bool
) -> None:
    assert ledger.told(HELD.format(ahead, told)) == (due, False)


@pytest.mark.parametrize(("ahead", "told"), [("-6 minutes", "now()"), ("1 hour", "NULL")])
def test_an_authorization_is_not_looked_at_while_an_operation_of_it_is_open(
    ledger: Stand, ahead: str, told: str
) -> None:
    assert ledger.told(HELD.format(ahead, told), OPEN.format("in_doubt", "9 minutes"), capture=True) == (False, False)


@pytest.mark.parametrize(
    ("act", "partition", "result", "due"),
    [
        ("retry", PARTITION, "NULL", True),
        ("resolve", PARTITION, "NULL", True),
        ("correct", PARTITION, "NULL", True),
        ("hold.release", PARTITION, "NULL", False),
        ("retry", PARTITION, "'carried out'", False),
        ("retry", PARTITION + 1, "NULL", False),
    ],
)
def test_an_act_is_due_until_it_is_carried_out(ledger: Stand, act: str, partition: int, result: str, due: bool) -> None:
    assert ledger.told(ACT.format(act, partition, result)) == (due, False)


SEEN: list[tuple[str, bool]] = [
    (OPEN.format("in_doubt", "-1 second"), True),
    (OPEN.format("in_doubt", "11 minutes"), True),
    (UNDER_WAY.format("sent", "-1 hour"), True),
    (HELD.format("-1 hour", "now()"), False),
    (HELD.format("1 hour", "NULL"), False),
    (ACT.format("retry", PARTITION, "NULL"), False),
    (ACT.format("retry", PARTITION + 1, "NULL"), False),
]


@pytest.mark.parametrize(("statement", "capture"), SEEN)
def test_what_is_another_owner_s_is_not_due_here(ledger: Stand, statement: str, capture: bool) -> None:
    assert ledger.told(statement, capture=capture, partitions=ELSEWHERE) == (False, False)


@pytest.mark.parametrize("stranger", ["of an earlier epoch", "with another token"])
def test_only_the_owner_gives_a_partition_up(database: str, stranger: str) -> None:
    async def story() -> list[tuple[object, ...]]:
        async with a_ledger(database) as stand:
            return await _released(stand, stranger)

    assert asyncio.run(story()) == [("worker",), (None,)]


async def _released(stand: LedgerStand, stranger: str) -> list[tuple[object, ...]]:
    owner = (await stand.acquire()).fence
    others = {
        "of an earlier epoch": FencingToken(owner.epoch - 1, owner.token),
        "with another token": FencingToken(owner.epoch, "another"),
    }
    seen = []
    for fence in (others[stranger], owner):
        await stand.ledger.release({PARTITION: fence})
        seen += stand.sql("SELECT owner FROM partitions WHERE id = %s", PARTITION)
    return seen
