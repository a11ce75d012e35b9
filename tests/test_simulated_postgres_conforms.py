"""The simulated Postgres keeps the ledger as the real one does: the same rows, verdicts and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any
from unittest.mock import patch

import anyio
import psycopg
from msgspec.structs import replace
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from engine.domain.changeset import ChangeSet
from engine.domain.creation import new_payment
from engine.domain.decision import Decider
from engine.domain.ids import partition_of
from engine.domain.journal import Journal
from engine.domain.payment import BankIds, Operation, Payment, PaymentFailure, PaymentState, Status, Verb
from engine.errors import Broken, Taken
from engine.ledger.rows import operation_of
from engine.ledger.statement import statement
from engine.ledger.writer import CommitVerdict, FencingToken, LedgerWriter
from simulation.run import run
from simulation.simulated_loop import SimulatedLoop
from simulation.simulated_network import Link
from simulation.simulated_postgres import PostgresPool, PostgresServer
from support.decision_stand import PATIENCE, a_command, approved

PARTITIONS = 16
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SEEDS = range(700, 725)
_AFRESH = """
    TRUNCATE payments, operations, transitions, outbox;
    UPDATE partitions SET epoch = 0, token = '', owner = NULL;
"""
_TABLES = ("payments", "operations", "transitions", "outbox")
Told = tuple[bytes, Mapping[str, Any], Any]


def told_by(seed: int) -> list[Told]:
    """Every statement of a history in the order in which Postgres got them, with what the simulated one said."""
    told: list[Told] = []
    answer = PostgresServer.run

    def recording(self: PostgresServer, client: str, text: bytes, parameters: Mapping[str, Any]) -> Any:
        rows = answer(self, client, text, parameters)
        told.append((text, self.timed(text, parameters), rows))
        return rows

    with patch.object(PostgresServer, "run", recording):
        run(seed)
    return told


def test_the_statements_of_whole_histories_are_answered_alike(database: str) -> None:
    # They tell of a database, not of its content.
    silent = {statement(name) for name in ("fences", "installation", "ledger_time")}
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        for seed in SEEDS:
            connection.execute(_AFRESH)
            for text, parameters, here in told_by(seed):
                cursor = connection.execute(text, parameters)
                there = cursor.fetchall() if cursor.description else []
                if text not in silent:
                    assert _plain(here) == _plain(there), f"seed {seed}: {text.decode()[:60]}"


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in one order, and a row inside a row as the engine reads it."""
    read = [{name: operation_of(value) if name == "shown" else value for name, value in row.items()} for row in rows]
    return sorted(read, key=lambda row: str(row.get("id") or row))


def a_payment() -> tuple[Payment, Operation, list[ChangeSet]]:
    """Authorized, with the two steps that led there."""
    decider = Decider(PATIENCE, Journal(b"j" * 32), Random(7))
    command = a_command(Verb.AUTHORIZE, "first")
    payment, operation = new_payment(command, partition_of(command.payment, PARTITIONS), 1, NOON)
    first = decider.admit(payment, operation, NOON)
    assert first.then is not None
    second = decider.conclude(first.payment, first.then, [], approved(first.then), NOON)
    assert isinstance(second, ChangeSet)
    return second.payment, second.operations[0], [first, second]


def _broken(name: str) -> ChangeSet:
    """A further step that the constraint of this name must refuse; behind a comma, for what."""
    payment, operation, _ = a_payment()
    payment = replace(payment, version=payment.version + 1)
    captured = replace(payment, amount_captured=5000, at=replace(payment.at, captured_at=NOON))
    other = replace(
        operation,
        id="op_" + "0" * 26,
        verb=Verb.CAPTURE,
        status=Status.ACCEPTED,
        attempts=0,
        response_status=None,
        response_body=None,
        settled_at=None,
    )
    sent = replace(other, status=Status.SENT, attempts=1)
    failure = PaymentFailure(code="payment_failed", message="no")
    receipts = {
        "authorized_has_its_proof": replace(payment, bank=BankIds()),
        "captured_has_its_proof": replace(payment, state=PaymentState.CAPTURED),
        "refunded_has_its_proof": replace(captured, state=PaymentState.REFUNDED),
        "voided_has_its_proof": replace(payment, state=PaymentState.VOIDED),
        "declined_has_its_proof": replace(payment, state=PaymentState.DECLINED, failure=failure),
        "failed_has_its_proof": replace(payment, state=PaymentState.FAILED),
        "amounts_are_ordered": replace(payment, amount_refunded=1),
    }
    operations = {
        "sent_has_its_deadline, not before it is sent": replace(sent, deadline=sent.send_by),
        "sent_has_its_deadline, and does have one": replace(sent, deadline=None),
        "settled_has_no_card": replace(other, status=Status.FAILED, settled_at=NOON, sealed="a sealed card"),
        "answered_is_whole": replace(other, response_status=200),
        "final_is_final": replace(other, settled_at=NOON),
        "operations_succeed_once": replace(other, verb=Verb.AUTHORIZE, status=Status.SUCCEEDED, settled_at=NOON),
    }
    if name == "outbox_one_event":
        return ChangeSet(payment=payment, operations=(), events=a_payment()[2][1].events)
    if name in receipts:
        return ChangeSet(payment=receipts[name], operations=())
    return ChangeSet(payment=payment, operations=(operations[name],))


CONSTRAINTS = (
    "authorized_has_its_proof", "captured_has_its_proof", "refunded_has_its_proof", "voided_has_its_proof",
    "declined_has_its_proof", "failed_has_its_proof", "amounts_are_ordered",
    "sent_has_its_deadline, not before it is sent", "sent_has_its_deadline, and does have one",
    "settled_has_no_card", "answered_is_whole", "final_is_final", "operations_succeed_once", "outbox_one_event",
)  # fmt: skip


async def story(ledger: LedgerWriter) -> list[object]:
    """What a ledger says to each broken step, and what it holds in the end."""
    payment, operation, steps = a_payment()
    said: list[object] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.run)
        epoch = (await ledger.fences())[payment.partition].epoch
        seen = {payment.partition: FencingToken(epoch, "token")}
        (fence,) = (await ledger.acquire(seen, "worker")).values()
        said += [await ledger.acquire(seen, "too late") == {}]
        said += [await ledger.commit(step, fence) for step in steps]
        said += [await ledger.commit(steps[1], fence), await ledger.commit(steps[0], fence)]  # too late
        strangers = (
            FencingToken(fence.epoch - 1, fence.token),
            FencingToken(fence.epoch, "another token"),
        )  # not the owner
        further = replace(steps[1], payment=replace(payment, version=3))
        said += [await ledger.commit(further, stranger) for stranger in strangers]
        for name in CONSTRAINTS:
            try:
                said.append(await ledger.commit(_broken(name), fence))
            except Broken as error:
                said.append(name.partition(",")[0] in str(error))
        other = replace(payment, id="pay_" + "0" * 26, version=1)
        try:
            said.append(await ledger.commit(ChangeSet(payment=other, operations=(), opened=True), fence))
        except Taken as error:
            said.append("authorization id" in str(error))
        said.append(await ledger.load(payment.id, operation.id))
        tasks.cancel_scope.cancel()
    return said


def test_what_the_constraints_forbid_is_refused_alike_and_leaves_nothing(database: str) -> None:
    async def really() -> list[object]:
        async with AsyncConnectionPool(database, min_size=1, open=False, kwargs={"autocommit": True}) as pool:
            return await story(LedgerWriter(pool, 10))

    there, here = asyncio.run(really()), simulated()

    assert here == there
    assert here[0] is True, "an epoch seen before another acquired is none"
    assert here[1:5] == [
        CommitVerdict.COMMITTED,
        CommitVerdict.COMMITTED,
        CommitVerdict.CONFLICT,
        CommitVerdict.CONFLICT,
    ]
    assert here[5:7] == [CommitVerdict.STALE, CommitVerdict.STALE], (
        "neither another epoch nor another token owns a partition"
    )
    assert here[7:-1] == [True] * (len(CONSTRAINTS) + 1)


def simulated() -> list[object]:
    loop = SimulatedLoop(Random(7), shuffled=False)
    link = Link(loop, Random(7), broken=psycopg.OperationalError, silent=psycopg.OperationalError, patience_s=1.0)
    server = PostgresServer(link, PARTITIONS, loop.clock, lambda *_: None, lambda *_: None)
    pool: Any = PostgresPool(server, "worker", 1.0)
    try:
        return loop.run_until_complete(story(LedgerWriter(pool, 10)))
    finally:
        loop.close()
