"""Engines that are broken on purpose, one mistake each, to show that the simulation would notice.

Each is a context in which the engine, or what it rests on, does one thing wrong that somebody could well have written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace as changed
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import anyio
import orjson

from engine.contracts.connector import BankRequest
from engine.domain.bank_answer import Answer, NoAnswer, Refusal, Refused
from engine.domain.changeset import ChangeSet
from engine.domain.payment import Operation, Payment
from engine.ledger.store_clock import StoreClock
from engine.ledger.writer import CommitVerdict, FencingToken, LedgerWriter
from engine.resilience.guarded_connector import GuardedConnector
from engine.streams.command_stream import StreamEntry
from engine.streams.completion import Completed, Completion, DeadLettered, Journaled
from engine.worker.bank_caller import BankCaller
from engine.worker.operation_runner import OperationRunner
from engine.worker.partition_consumer import PartitionConsumer
from simulation import simulated_postgres
from simulation.simulated_bank import SimulatedConnector
from simulation.simulated_commit import Batch, Row, Tables, ledger_commit
from simulation.simulated_postgres import STATEMENTS
from simulation.simulated_scripts import SCRIPTS, Arguments, Database, Keys, accept, read
from simulation.simulated_streams import text_of

Variant = AbstractContextManager[object]


def _no_epoch_check() -> Variant:
    """The group commit takes every epoch for the current one."""

    def commit(tables: Tables, batch: Batch) -> tuple[list[Row], set[str]]:
        current = {partition: tables.partitions[partition].fence for partition in batch.fences}
        return ledger_commit(tables, changed(batch, fences=current))

    return patch.object(simulated_postgres, "ledger_commit", commit)


def _last_write_wins() -> Variant:
    """The group commit looks neither at epochs nor at versions."""

    def commit(tables: Tables, batch: Batch) -> tuple[list[Row], set[str]]:
        current = {partition: tables.partitions[partition].fence for partition in batch.fences}
        for row in batch.changed:
            row["version"] = tables.payments[row["id"]]["version"] + 1
        return ledger_commit(tables, changed(batch, fences=current))

    return patch.object(simulated_postgres, "ledger_commit", commit)


def _one_epoch_for_all_owners() -> Variant:
    """Acquiring a partition leaves its epoch as it is."""
    acquire = STATEMENTS["acquire_partitions"]

    def again(tables: Tables, wanted: Mapping[str, Any]) -> list[Row]:
        rows = acquire(tables, wanted)
        for row in rows:
            tables.partitions[row["id"]].epoch, tables.partitions[row["id"]].token = 1, "shared"
        return [{**row, "epoch": 1} for row in rows]

    return patch.dict(STATEMENTS, acquire_partitions=again)


def _ack_before_commit() -> Variant:
    """Entries are acknowledged as soon as they were read."""
    dispatch = PartitionConsumer.dispatch

    def hasty(self: PartitionConsumer, entries: list[StreamEntry], *, poison: bool = False) -> None:
        dispatch(self, entries, poison=poison)
        if entries:
            ids = tuple(entry.id for entry in entries)
            self._tasks.create_task(
                self._context.completion(Journaled(partition=self.partition, merchant="m_1", entries=ids))
            )

    return patch.object(PartitionConsumer, "dispatch", hasty)


def _ask_before_commit() -> Variant:
    """A commit is begun, and not waited for."""
    commit = LedgerWriter.commit

    async def hasty(self: LedgerWriter, step: ChangeSet, fence: FencingToken) -> CommitVerdict:
        asyncio.get_running_loop().create_task(commit(self, step, fence))
        return CommitVerdict.COMMITTED

    return patch.object(LedgerWriter, "commit", hasty)


def _new_bank_key_on_retry() -> Variant:
    """An attempt that went unanswered is made again under another key."""

    def key(self: Operation) -> str:
        return self.id if self.attempts < 2 else f"{self.id}-{self.attempts}"

    return patch.object(Operation, "bank_key", property(key))


def _overlapping_attempts() -> Variant:
    """An attempt whose connection broke off counts as over."""
    return _hearing(lambda answer: changed(answer, over=True) if isinstance(answer, NoAnswer) else answer)


def _no_answer_is_a_refusal() -> Variant:
    """Silence is taken for a no."""
    no = Refused(reason=Refusal.MISTAKE, code="no_answer", message="no answer")
    return _hearing(lambda answer: no if isinstance(answer, NoAnswer) else answer)


def _hearing(heard: Callable[[Answer], Answer]) -> Variant:
    ask = SimulatedConnector.ask

    async def mishearing(self: SimulatedConnector, what: BankRequest) -> Answer:
        return heard(await ask(self, what))

    return patch.object(SimulatedConnector, "ask", mishearing)


def _impatient_take_over() -> Variant:
    """A new owner does not wait until the attempt of the one before is over."""

    async def hasty(self: OperationRunner, operation: Operation) -> None:
        """Not at all."""

    return _together(patch.object(OperationRunner, "outlive", hasty), _no_drain_proof())


def _deadline_by_the_wrong_clock() -> Variant:
    """Each process believes its own clock, and a new owner the deadline that the old one wrote by its own."""

    async def believing(self: OperationRunner, operation: Operation) -> None:
        if operation.deadline is not None:
            left_s = (operation.deadline - self._context.clock.now()).total_seconds()
            await anyio.sleep(max(left_s, 0.0))

    own = patch.object(StoreClock, "now", lambda self: self._wall())
    return _together(own, patch.object(OperationRunner, "outlive", believing), _no_drain_proof())


def _no_drain_proof() -> Variant:
    """A time-out is taken for the end of the work at the bank."""

    async def at_once(self: GuardedConnector, bank_key: str, owner: str = "") -> float:
        return 0.0

    return patch.object(GuardedConnector, "drained_in", at_once)


def _alone_without_a_wait() -> Variant:
    """What former owners had at the bank counts as over, for entries that are run alone."""

    async def at_once(self: OperationRunner, operation: Operation) -> None:
        if self._drained_since_s is None or self._aggregate.payment is None:
            return await outlive(self, operation)
        self._context.bank_caller.drained(self._aggregate.payment, operation, self._fence.token)

    async def all_drained(self: BankCaller, wait: str) -> bool:
        return True

    outlive = OperationRunner.outlive
    return _together(
        patch.object(OperationRunner, "outlive", at_once), patch.object(BankCaller, "all_drained", all_drained)
    )


def _expiry_by_one_clock() -> Variant:
    """An authorization is old enough when the ledger's clock says so."""
    return patch.object(StoreClock, "earliest", StoreClock.now)


def _together(*variants: Variant) -> Variant:
    stack = ExitStack()

    @contextmanager
    def all_of_them() -> Iterator[None]:
        with stack:
            for variant in variants:
                stack.enter_context(variant)
            yield

    return all_of_them()


def _late_write() -> Variant:
    """The connector does not look at the clock again before it writes."""
    ask, window = SimulatedConnector.ask, timedelta(seconds=1)

    async def late(self: SimulatedConnector, what: BankRequest) -> Answer:
        now = self._clock()
        return await ask(
            self, what if now < what.send_by else changed(what, send_by=now + window, deadline=now + window)
        )

    return patch.object(SimulatedConnector, "ask", late)


def _unfenced_reads() -> Variant:
    """Entries are read by whoever asks for them, and new ones before those that were lost on the way."""
    return patch.dict(SCRIPTS, read=_read_for_anybody)


def _take_over_leaves_old_entries() -> Variant:
    """A new owner reads on; what the one before had read is left to the reclaimer."""
    return patch.dict(SCRIPTS, claim=lambda *_: [b"claimed", b"0-0", []], read=_read_of_holder)


def _read_for_anybody(db: Database, keys: Keys, arguments: Arguments) -> Any:
    held = dict(db.strings)
    db.strings[keys[0]] = (str(arguments[0]).encode(), None)
    try:
        return _read_of_holder(db, keys, arguments)
    finally:
        db.strings = held


def _read_of_holder(db: Database, keys: Keys, arguments: Arguments) -> Any:
    """read-2 without its look at what was delivered before."""
    token, group, consumer, entries_max, _ = arguments
    known = db.group(keys[1], str(group))
    delivered = b"0-0" if known is None else text_of(known.delivered)
    return read(db, keys, (token, group, consumer, entries_max, delivered))


def _keys_without_memory() -> Variant:
    """A key is accepted whenever it comes."""

    def anew(db: Database, keys: Keys, arguments: Arguments) -> Any:
        db.strings.pop(keys[0], None)
        return accept(db, keys, arguments)

    return patch.dict(SCRIPTS, accept=anew)


def _answers_rendered_again() -> Variant:
    """The record holds the answer's meaning, in other bytes than the ledger has."""
    settle = Completion.__call__

    async def rendered(self: Completion, done: Completed | Journaled | DeadLettered) -> None:
        if isinstance(done, Completed):
            record = orjson.loads(done.record)
            record["body"] = orjson.dumps(orjson.loads(record["body"]), option=orjson.OPT_SORT_KEYS).decode()
            done = changed(done, record=orjson.dumps(record))
        await settle(self, done)

    return patch.object(Completion, "__call__", rendered)


def _sale_captured_last() -> Variant:
    """The capture of a sale comes after what was asked for meanwhile."""
    commit = OperationRunner.commit

    async def appended(self: OperationRunner, step: ChangeSet) -> Payment:
        payment = await commit(self, step)
        self._aggregate.operations.sort(key=lambda known: known.parent is not None)
        return payment

    return patch.object(OperationRunner, "commit", appended)


def _nobody_adopts() -> Variant:
    """What the group counts as delivered is taken for delivered."""
    return patch.dict(SCRIPTS, adopt=lambda *_: [b"adopted", b"", 0])


def _nobody_revives() -> Variant:
    """A known key is accepted work, whatever became of its entry."""
    return patch.dict(SCRIPTS, revive=lambda *_: [b"changed"])


VARIANTS: Mapping[str, Callable[[], Variant]] = {
    "no-epoch-check": _no_epoch_check,
    "last-write-wins": _last_write_wins,
    "one-epoch-for-all-owners": _one_epoch_for_all_owners,
    "ack-before-commit": _ack_before_commit,
    "ask-before-commit": _ask_before_commit,
    "new-bank-key-on-retry": _new_bank_key_on_retry,
    "overlapping-attempts": _overlapping_attempts,
    "no-answer-is-a-refusal": _no_answer_is_a_refusal,
    "impatient-take-over": _impatient_take_over,
    "deadline-by-the-wrong-clock": _deadline_by_the_wrong_clock,
    "no-drain-proof": _no_drain_proof,
    "alone-without-a-wait": _alone_without_a_wait,
    "expiry-by-one-clock": _expiry_by_one_clock,
    "late-write": _late_write,
    "unfenced-reads": _unfenced_reads,
    "take-over-leaves-old-entries": _take_over_leaves_old_entries,
    "keys-without-memory": _keys_without_memory,
    "answers-rendered-again": _answers_rendered_again,
    "sale-captured-last": _sale_captured_last,
    "nobody-adopts": _nobody_adopts,
    "nobody-revives": _nobody_revives,
}
