"""The ledger as the worker sees it: group-committed writes, coalesced reads, partition epochs. Postgres decides.

Keeps I1 and I4 (a caller goes on only after its commit), I2 (every batch is fenced by epoch, stale partitions are left
out), I8 (one commit for receipt, operations, journal and events). When Postgres is away, writes wait and are tried
again until it is back or the partition is lost; a batch whose connection died in COMMIT is repeated and knows itself by
`write_id`. Reading for clients is queries.py's.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

import anyio
import orjson
import structlog
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from engine.batching import Batcher
from engine.domain.changeset import ActionResult, ChangeSet
from engine.domain.operator_rules import WaitingAction
from engine.domain.payment import Operation, Payment
from engine.errors import Broken, Taken
from engine.failpoint import UNARMED, Failpoints
from engine.ledger.database import Away, borrowed, is_of_the_rows
from engine.ledger.rows import (
    answered_row,
    entry_rows,
    intervention_of,
    is_known,
    operation_of,
    operation_row,
    payment_of,
    payment_row,
    read,
)
from engine.ledger.statement import statement
from engine.resilience.retry_budget import Room

log = structlog.get_logger()

Answer = TypeVar("Answer")

_BANK_IDS = frozenset(f"{name}_is_one_receipts" for name in ("authorization", "capture", "void", "refund"))
_LOADS_MAX = 500  # payments a load asks for at once: a screenful for the planner, milliseconds for Postgres
_PATIENCE_S = 5.0  # for what is asked between two heartbeats
_DURING_COMMIT_S = 0.001  # of a failpoint: sent, and on most disks not yet synced
_WORDS_MAX = 300
_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)  # Postgres away: soon at first, then once a second, which burns nothing


class CommitVerdict(StrEnum):
    COMMITTED = "committed"
    STALE = "stale"  # the partition has a newer owner
    CONFLICT = "conflict"  # the receipt is at another version than we thought


class FencingToken(Struct, frozen=True):
    """What an acquisition of a partition left there, and what each write for it must match (I2).

    The epoch orders the owners. The token tells two of them apart to whom a failed-over Postgres gave the same epoch.
    """

    epoch: int
    token: str


class Write(Struct, frozen=True, kw_only=True):
    """One payment's step, fenced as its partition was acquired."""

    step: ChangeSet
    fence: FencingToken
    write_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTerms:
    """The durations by which the ledger's clock tells what is due."""

    expiry_notice: timedelta
    expiry_grace: timedelta
    lost_after: timedelta  # from an attempt's deadline: its owner has written the outcome long before
    farthest: timedelta  # no schedule and no deadline reaches further ahead


class Loaded(Struct, frozen=True, kw_only=True):
    """What the ledger knows of a payment: unsettled and ever-sent operations in accept order, and one asked for.

    `acts` are those that wait to be carried out; they are read when no operation is asked for.
    """

    payment: Payment | None
    operations: tuple[Operation, ...]
    asked: Operation | None
    acts: tuple[WaitingAction, ...] = ()


class LedgerWriter:
    """Run `run` for life; then commit and load from as many tasks as you like."""

    def __init__(self, pool: AsyncConnectionPool, commit_batch_max: int, failpoints: Failpoints = UNARMED) -> None:
        self._pool, self._failpoints = pool, failpoints
        self._commits: Batcher[Write, CommitVerdict] = Batcher(self._commit_batch, commit_batch_max)
        self._loads: Batcher[tuple[str, str], Loaded] = Batcher(self._load_batch, _LOADS_MAX)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._commits.run)
            tasks.start_soon(self._loads.run)

    async def commit(self, step: ChangeSet, fence: FencingToken) -> CommitVerdict:
        """Durable when it returns COMMITTED. Raises Broken when the ledger's constraints refuse the step; Taken where
        another receipt has the bank's id that is in it."""
        return await self._commits(Write(step=step, fence=fence, write_id=secrets.token_hex(8)))

    async def load(self, payment: str, operation: str = "") -> Loaded:
        """A payment and its operations; `operation` is looked up too, however old. Broken: a row cannot be read."""
        return await self._loads((payment, operation))

    async def acquire(self, seen: Mapping[int, FencingToken], owner: str) -> dict[int, FencingToken]:
        """Partition to its new fence, of those that are still at the epoch given; `seen` has the new owner's token
        beside the epoch that it saw. Raises Away."""
        with anyio.fail_after(_PATIENCE_S):
            async with borrowed(self._pool) as connection:
                cursor = await connection.execute(statement("acquire_partitions"), {**_columns(seen), "owner": owner})
                return {row[0]: FencingToken(row[1], seen[row[0]].token) for row in await cursor.fetchall()}

    async def release(self, held: Mapping[int, FencingToken]) -> None:
        with anyio.fail_after(_PATIENCE_S):
            async with borrowed(self._pool) as connection:
                await connection.execute(statement("release_partitions"), _columns(held))

    async def fences(self) -> dict[int, FencingToken]:
        """The current fence of every partition."""
        with anyio.fail_after(_PATIENCE_S):
            async with borrowed(self._pool) as connection:
                rows = await (await connection.execute(statement("fences"))).fetchall()
                return {row[0]: FencingToken(row[1], row[2]) for row in rows}

    async def unfinished(self, partition: int, limit: int) -> list[str]:
        """Payments of a partition with unsettled operations or acts; asked until Postgres answers."""
        arguments = {"partition": partition, "limit": limit}
        return [payment for (payment,) in await _patiently(lambda: self._asked("unfinished", arguments), 1)]

    async def holder(self, connector: str, reference: str) -> str | None:
        """Who has this id of the bank's: a receipt, or the act that released the hold."""
        arguments = {"connector": connector, "reference": reference}
        rows = await _patiently(lambda: self._asked("holder_of_reference", arguments), 1)
        return str(rows[0][0]) if rows else None

    async def is_by_hand(self, payment: str, operation: str) -> bool:
        """Whether an operator's word ended this operation."""
        arguments = {"payment": payment, "operation": operation}
        return bool((await _patiently(lambda: self._asked("resolved_by_hand", arguments), 1))[0][0])

    async def due(
        self, partitions: Sequence[int], terms: DueTerms, limit: int, room: Room | None = None
    ) -> list[tuple[int, str]]:
        """Partition and payment, by the ledger's clock: operations whose time has come, the earliest first and no more
        than there is room for, acts, authorizations that have expired, and those that soon will and of which nobody was
        told. Raises Away."""
        room = room or Room(unsent=limit, doubt=limit)
        arguments = {"partitions": list(partitions), "now": None, "limit": limit, **asdict(room), **asdict(terms)}
        return [(partition, payment) for partition, payment in await self._asked("due", arguments)]

    async def hold_retries(self, partitions: Sequence[int], held: timedelta) -> None:
        """For so long, what is parked in these partitions waits for its bank and not for us. Raises Away."""
        async with borrowed(self._pool) as connection:
            await connection.execute(statement("hold_retries"), {"partitions": list(partitions), "held": held})

    async def unanswered(self, partitions: Sequence[int], terms: DueTerms, limit: int) -> list[tuple[int, str]]:
        """Partition and payment of attempts that are over, by the ledger's clock, without an outcome. Raises Away."""
        arguments = {"partitions": list(partitions), "now": None, "limit": limit, **asdict(terms)}
        return [(partition, payment) for partition, payment in await self._asked("unanswered", arguments)]

    async def _asked(self, name: str, arguments: Mapping[str, object]) -> list[tuple[Any, ...]]:
        async with borrowed(self._pool) as connection:
            return await (await connection.execute(statement(name), arguments)).fetchall()

    async def _commit_batch(self, writes: Sequence[Write]) -> list[CommitVerdict | Exception]:
        try:
            return list(await self._persist(writes))
        except Exception as error:
            if len(writes) == 1:
                if isinstance(error, UniqueViolation) and error.diag.constraint_name in _BANK_IDS:
                    return [Taken(error.diag.constraint_name or "")]
                told = f"{type(error).__name__}: {error}"[:_WORDS_MAX]
                return [Broken(f"the ledger refused {writes[0].step.payment.id}: {told}")]
        # One row that breaks a constraint, or that cannot even be written down, must not hold up everybody else's.
        log.error("commit_refused", payments=len(writes))
        verdicts: list[CommitVerdict | Exception] = []
        for write in writes:
            verdicts += await self._commit_batch([write])
        return verdicts

    async def _persist(self, writes: Sequence[Write]) -> list[CommitVerdict]:
        """Try until Postgres has said something about the batch."""
        newest: dict[int, FencingToken] = {}
        for write in writes:
            known = newest.setdefault(write.step.payment.partition, write.fence)
            if write.fence.epoch >= known.epoch:
                newest[write.step.payment.partition] = write.fence
        current = [write for write in writes if write.fence == newest[write.step.payment.partition]]
        batch = _batch_json(current, newest)
        acts = [(write.step.payment.id, act) for write in current for act in write.step.acts]
        refused = await _patiently(lambda: self._write(batch, acts), len(writes))
        return [
            refused.get(write.step.payment.id, CommitVerdict.COMMITTED)
            if write.fence == newest[write.step.payment.partition]
            else CommitVerdict.STALE
            for write in writes
        ]

    async def _write(self, batch: dict[str, str], acts: Sequence[tuple[str, ActionResult]]) -> dict[str, CommitVerdict]:
        async with borrowed(self._pool) as connection:
            if not acts:
                written = _committed(connection, batch)
                return await self._failpoints.during("during-commit", _DURING_COMMIT_S, written)
            async with connection.transaction():
                refused = await _committed(connection, batch)
                done = [act for payment, act in acts if payment not in refused]
                await connection.execute(
                    statement("finish_acts"),
                    {
                        "ids": [act.id for act in done],
                        "results": [act.result for act in done],
                        "times": [act.done_at for act in done],
                    },
                )
                return refused

    async def _load_batch(self, wanted: Sequence[tuple[str, str]]) -> list[Loaded | Exception]:
        return await _patiently(lambda: self._load_once(wanted), len(wanted))

    async def _load_once(self, wanted: Sequence[tuple[str, str]]) -> list[Loaded | Exception]:
        ids = list(dict.fromkeys(payment for payment, _ in wanted))  # in their order: a history replays exactly
        async with borrowed(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(statement("payments_by_id"), {"ids": ids})
            payments = {row["id"]: read(payment_of, row) for row in await cursor.fetchall()}
            await cursor.execute(
                statement("operations_of_payments"),
                {"payments": ids, "ids": [operation for _, operation in wanted if operation]},
            )
            rows = await cursor.fetchall()
            acts: dict[str, list[WaitingAction]] = {}
            resumed = [payment for payment, operation in wanted if not operation]
            if resumed:
                await cursor.execute(statement("acts_of_payments"), {"payments": resumed})
                for row in await cursor.fetchall():
                    acts.setdefault(row["payment"], []).append(intervention_of(row))
        rows.sort(key=lambda row: (row["accept_order"], row["created_at"]))
        by_id = {row["id"]: read(operation_of, row) for row in rows}
        by_payment: dict[str, list[Operation | Broken]] = {}
        for row in rows:
            by_payment.setdefault(row["payment"], []).append(by_id[row["id"]])
        return [
            _loaded(
                payments.get(payment),
                by_payment.get(payment, ()),
                by_id.get(operation),
                () if operation else acts.get(payment, ()),
            )
            for payment, operation in wanted
        ]


def _loaded(
    payment: Payment | Broken | None,
    operations: Sequence[Operation | Broken],
    asked: Operation | Broken | None,
    acts: Sequence[WaitingAction],
) -> Loaded | Broken:
    """One payment's rows; one that cannot be read spoils only this payment."""
    good: list[Operation] = []
    for operation in operations:
        if isinstance(operation, Broken):
            return operation
        good.append(operation)
    if isinstance(payment, Broken):
        return payment
    if isinstance(asked, Broken):
        return asked
    return Loaded(payment=payment, operations=tuple(good), asked=asked, acts=tuple(acts))


async def _committed(connection: AsyncConnection, batch: dict[str, str]) -> dict[str, CommitVerdict]:
    """Payment to verdict, of those that were not written."""
    cursor = await connection.execute(statement("commit"), batch, prepare=True)
    return {row[0]: CommitVerdict(row[1]) for row in await cursor.fetchall()}


async def _patiently(ask: Callable[[], Awaitable[Answer]], waiting: int) -> Answer:
    """Ask until Postgres answers. Raises only what asking again would raise again."""
    tries = 0
    while True:
        try:
            return await ask()
        except Away as error:
            if is_of_the_rows(error):
                raise
            log.warning("postgres_away", waiting=waiting, error=type(error).__name__)
        await anyio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
        tries += 1


def _columns(fences: Mapping[int, FencingToken]) -> dict[str, list[Any]]:
    """Partitions with their fences, as the statements want them."""
    return {
        "ids": list(fences),
        "epochs": [fence.epoch for fence in fences.values()],
        "tokens": [fence.token for fence in fences.values()],
    }


def _batch_json(writes: Sequence[Write], fences: Mapping[int, FencingToken]) -> dict[str, str]:
    """The arguments of ledger_commit, payments sorted by id (the order in which locks are taken)."""
    writes = sorted(writes, key=lambda write: write.step.payment.id)
    opened: list[dict[str, object]] = []
    changed: list[dict[str, object]] = []
    operations: list[dict[str, object]] = []
    answered: list[dict[str, object]] = []
    entries: list[dict[str, object]] = []
    for write in writes:
        step = write.step
        (opened if step.opened else changed).append(payment_row(step, write.write_id))
        for operation in step.operations:
            if is_known(operation):
                answered.append(answered_row(operation))
            else:
                operations.append(operation_row(operation))
        entries += entry_rows(step)
    arguments = {
        "fences": [
            {"id": partition, "epoch": fence.epoch, "token": fence.token} for partition, fence in fences.items()
        ],
        "opened": opened,
        "changed": changed,
        "operations": operations,
        "answered": answered,
        "entries": entries,
    }
    return {name: orjson.dumps(rows).decode() for name, rows in arguments.items()}
