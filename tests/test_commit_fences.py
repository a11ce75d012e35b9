"""A commit writes all of a step or nothing of it: not for a former owner, not over what is newer (I2, I6).

On a real Postgres, because its locks are half of the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest
from msgspec.structs import replace

from engine.domain.changeset import ChangeSet
from engine.domain.payment import Operation, Status, Verb
from engine.ledger.writer import CommitVerdict
from support.decision_stand import Desk
from support.gateway import eventually
from support.ledger_stand import PARTITION, LedgerStand, Tenure, a_ledger, a_payment_of, an_authorized_payment

Scene = Callable[[LedgerStand], Awaitable[None]]
WAITING = """SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
             AND query LIKE '%%ledger_commit%%'"""


def on_a_ledger(dsn: str, scene: Scene) -> None:
    async def played() -> None:
        async with a_ledger(dsn) as stand:
            await scene(stand)

    asyncio.run(played())


def last_step(desk: Desk) -> ChangeSet:
    return desk.steps[-1]


def test_a_former_owner_writes_nothing_not_even_a_new_operation(database: str) -> None:
    async def scene(stand: LedgerStand) -> None:
        former = await stand.acquire()
        desk = await an_authorized_payment(stand, former)
        await stand.acquire("the next one")
        before = stand.rows()

        verdict = await stand.commit(last_step(desk.accept(Verb.CAPTURE)), former)

        assert verdict is CommitVerdict.STALE
        assert stand.rows() == before

    on_a_ledger(database, scene)


def test_a_step_from_an_older_receipt_writes_nothing_not_even_a_new_operation(database: str) -> None:
    async def scene(stand: LedgerStand) -> None:
        owner = await stand.acquire()
        desk = await an_authorized_payment(stand, owner)
        assert await stand.commit(last_step(desk.accept(Verb.CAPTURE, "capture")), owner) is CommitVerdict.COMMITTED
        before = stand.rows()

        verdict = await stand.commit(last_step(desk.accept(Verb.VOID, "void")), owner)

        assert verdict is CommitVerdict.CONFLICT
        assert stand.rows() == before

    on_a_ledger(database, scene)


def test_a_payment_that_is_there_already_is_not_opened_again_with_another_operation(database: str) -> None:
    async def scene(stand: LedgerStand) -> None:
        owner = await stand.acquire()
        desk = await an_authorized_payment(stand, owner)
        opened = desk.steps[0]
        (authorize,) = opened.operations
        before = stand.rows()

        again = replace(opened, operations=(replace(authorize, id="op_" + "0" * 26, key="another"),))
        verdict = await stand.commit(again, owner)

        assert verdict is CommitVerdict.CONFLICT
        assert stand.rows() == before

    on_a_ledger(database, scene)


def test_who_loses_beside_winners_of_the_same_batch_writes_nothing(database: str) -> None:
    async def scene(stand: LedgerStand) -> None:
        owner = await stand.acquire()
        desk = await an_authorized_payment(stand, owner)
        assert await stand.commit(last_step(desk.accept(Verb.CAPTURE, "capture")), owner) is CommitVerdict.COMMITTED
        held = set(stand.transactions())
        loser = last_step(desk.accept(Verb.VOID, "void"))

        verdicts = await stand.commit_together(
            (a_payment_of("one").steps[0], owner), (loser, owner), (a_payment_of("two").steps[0], owner)
        )

        _assert_one_batch(stand, held)
        assert verdicts == [CommitVerdict.COMMITTED, CommitVerdict.CONFLICT, CommitVerdict.COMMITTED]
        assert stand.sql("SELECT verb FROM operations WHERE payment = %s ORDER BY verb", desk.payment.id) == [
            ("authorize",),
            ("capture",),
        ]
        told = "SELECT count(*) FROM outbox WHERE payment = %s"
        assert stand.sql(told, desk.payment.id) == stand.sql(told.replace("outbox", "transitions"), desk.payment.id)

    on_a_ledger(database, scene)


def test_a_write_of_the_tenure_before_is_stale_beside_one_of_this_tenure(database: str) -> None:
    async def scene(stand: LedgerStand) -> None:
        before = await stand.acquire()
        now = await stand.acquire()
        late = a_payment_of("late")

        verdicts = await stand.commit_together(
            (a_payment_of("one").steps[0], now), (late.steps[0], before), (a_payment_of("two").steps[0], now)
        )

        _assert_one_batch(stand, set())
        assert verdicts == [CommitVerdict.COMMITTED, CommitVerdict.STALE, CommitVerdict.COMMITTED]
        assert stand.sql("SELECT 1 FROM payments WHERE id = %s", late.payment.id) == []
        assert stand.sql("SELECT 1 FROM operations WHERE payment = %s", late.payment.id) == []

    on_a_ledger(database, scene)


def _as_an_answer(operation: Operation) -> Operation:
    """Written by the statement for what is surely there."""
    return replace(operation, response_body=b'{"another":"answer"}')


def _as_a_row(operation: Operation) -> Operation:
    """Written as a whole row: of an operation that nobody has put to the bank."""
    return replace(operation, status=Status.FAILED, attempts=0, response_status=409, response_body=b'{"no":"answer"}')


@pytest.mark.parametrize("rewritten", [_as_an_answer, _as_a_row])
def test_an_answer_once_stored_is_never_rewritten(database: str, rewritten: Callable[[Operation], Operation]) -> None:
    async def scene(stand: LedgerStand) -> None:
        owner = await stand.acquire()
        desk = await an_authorized_payment(stand, owner)
        authorize = desk.operation(Verb.AUTHORIZE)
        stored = stand.sql("SELECT o::text FROM operations o WHERE id = %s", authorize.id)

        # Its receipt is at the right version and its owner is the right one: only the answer itself stands in the way.
        payment = replace(desk.payment, version=desk.payment.version + 1)
        verdict = await stand.commit(ChangeSet(payment=payment, operations=(rewritten(authorize),)), owner)

        assert verdict is CommitVerdict.COMMITTED
        assert stand.sql("SELECT o::text FROM operations o WHERE id = %s", authorize.id) == stored

    on_a_ledger(database, scene)


def test_a_commit_waits_for_an_acquisition_under_way_and_sees_its_epoch(database: str) -> None:
    async def scene(stand: LedgerStand) -> None:
        former: Tenure = await stand.acquire()
        late = a_payment_of("late")
        with psycopg.connect(stand.dsn) as taker:
            taker.execute("UPDATE partitions SET epoch = epoch + 1 WHERE id = %s", [PARTITION])
            commit = asyncio.ensure_future(stand.commit(late.steps[0], former))
            await asyncio.to_thread(eventually, lambda: commit.done() or stand.sql(WAITING), "it waits or has not")
            waited = not commit.done()
            taker.commit()
        verdict = await commit

        assert waited, "what commits meanwhile commits for an owner that is none any more"
        assert verdict is CommitVerdict.STALE
        assert stand.sql("SELECT 1 FROM payments WHERE id = %s", late.payment.id) == []

    on_a_ledger(database, scene)


def _assert_one_batch(stand: LedgerStand, before: set[str]) -> None:
    """The winners were written by one transaction, so who asked between them was in it."""
    assert len(set(stand.transactions()) - before) == 1, "or nothing is tested here"
