"""The archive: the ledger as an edge reads it, coalesced, with a bound on patience. Postgres decides (I6).

Raises Unavailable when Postgres does not answer, and from then on at once until it is back (store_outage.py), so that
accepting goes on at full speed while Postgres is away. A statement that is merely slow fails alone: the server ends it
(`statement_timeout`) before our own patience does, and lists, the only slow ones, never take all connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio
from psycopg.errors import FeatureNotSupported
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from engine.batching import Batcher
from engine.domain.payment import Operation, Payment
from engine.errors import Unavailable
from engine.ledger.database import Away, borrowed, is_gone
from engine.ledger.rows import operation_of, payment_of, read
from engine.ledger.statement import statement
from engine.resilience.store_outage import StoreOutage

_BATCH_MAX = 500
_PATIENCE_S = 2.0  # above the statement_timeout of an edge's connections: who is silent for longer is away
_LISTS_MAX = 3  # of the pool's connections; the others are for what accepting needs


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPayment:
    """A payment with the operation it shows."""

    payment: Payment
    shown: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Filters of a list and the position it goes on from."""

    order_id: str | None
    customer_id: str | None
    status: str | None
    limit: int
    before: tuple[datetime, str] | None


class LedgerReader:
    """Run `run` for life."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._operations: Batcher[str, Operation | None] = Batcher(self._operations_by_id, _BATCH_MAX)
        self._receipts: Batcher[str, StoredPayment | None] = Batcher(self._receipts_by_id, _BATCH_MAX)
        self._outage = StoreOutage("Postgres", self._probe)
        self._lists = anyio.Semaphore(_LISTS_MAX)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._operations.run)
            tasks.start_soon(self._receipts.run)
            tasks.start_soon(self._outage.run)

    async def operation(self, operation: str) -> Operation | None:
        return await self._operations(operation)

    async def receipt(self, payment: str) -> StoredPayment | None:
        return await self._receipts(payment)

    async def unsettled(self, payment: str) -> list[Operation]:
        """The payment's operations that are not answered yet."""
        rows = await self._rows("operations_of_payments", {"payments": [payment], "ids": []})
        return [operation for operation in map(operation_of, rows) if operation.settled_at is None]

    async def operations_of(self, payment: str) -> list[Operation]:
        """The payment's operations that are unsettled or were ever sent."""
        return [
            operation_of(row) for row in await self._rows("operations_of_payments", {"payments": [payment], "ids": []})
        ]

    async def page(self, merchant: str, page: Page) -> list[StoredPayment]:
        """Newest first; at most `limit` + 1, the extra one telling that there is more."""
        at, payment = page.before or (None, None)
        wanted = {
            "merchant": merchant,
            "order_id": page.order_id,
            "customer_id": page.customer_id,
            "status": page.status,
            "before_at": at,
            "before_id": payment,
            "limit": page.limit + 1,
        }
        if page.order_id is not None:
            return [receipt_of(row) for row in await self._list("receipts_of_order", wanted)]
        if page.customer_id is not None:
            return [receipt_of(row) for row in await self._list("receipts_of_customer", wanted)]
        return [receipt_of(row) for row in await self._list("receipts_of_merchant", wanted)]

    async def operations_under(
        self, merchant: str, key: str, limit: int, before: tuple[int, str] | None
    ) -> list[Operation]:
        """Newest first; at most `limit` + 1, the extra one telling that there is more."""
        order, operation = before or (None, None)
        wanted = {
            "merchant": merchant,
            "key": key,
            "before_order": order,
            "before_id": operation,
            "limit": limit + 1,
        }
        return [operation_of(row) for row in await self._list("operations_by_key", wanted)]

    async def time(self) -> datetime:
        """The ledger's clock."""
        (row,) = await self._rows("ledger_time", {})
        at: datetime = row["at"]
        return at

    async def about(self, name: str, payment: str, limit: int) -> list[dict[str, Any]]:
        """What a statement of the timeline finds about a payment."""
        return await self._list(name, {"payment": payment, "limit": limit})

    async def ping(self) -> None:
        """Raises Unavailable when Postgres does not answer."""
        await self._rows("installation", {})

    async def _operations_by_id(self, ids: Sequence[str]) -> list[Operation | Exception | None]:
        found = {
            row["id"]: read(operation_of, row) for row in await self._rows("operations_by_id", {"ids": list(set(ids))})
        }
        return [found.get(operation) for operation in ids]

    async def _receipts_by_id(self, ids: Sequence[str]) -> list[StoredPayment | Exception | None]:
        found = {
            row["id"]: read(receipt_of, row) for row in await self._rows("receipts_by_id", {"ids": list(set(ids))})
        }
        return [found.get(payment) for payment in ids]

    async def _list(self, name: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        """Rows of a statement that may be slow."""
        with anyio.move_on_after(_PATIENCE_S) as waiting:
            await self._lists.acquire()
        if waiting.cancelled_caught:
            raise Unavailable("overloaded", "Too many lists are being read. Try again.")
        try:
            return await self._rows(name, parameters)
        finally:
            self._lists.release()

    async def _rows(self, name: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        self._outage.check()
        try:
            with anyio.fail_after(_PATIENCE_S):
                try:
                    return await self._ask(name, parameters)
                except FeatureNotSupported:  # prepared for the columns of before a migration; now unprepared
                    return await self._ask(name, parameters, prepare=False)
        except (TimeoutError, *Away) as error:
            if is_gone(error):
                self._outage.begin()
            raise Unavailable("store_unavailable", f"Postgres: {type(error).__name__}") from error

    async def _ask(
        self, name: str, parameters: Mapping[str, object], *, prepare: bool | None = None
    ) -> list[dict[str, Any]]:
        async with borrowed(self._pool, _PATIENCE_S) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(statement(name), parameters, prepare=prepare)
            return await cursor.fetchall()

    async def _probe(self) -> None:
        """Raises Unavailable while Postgres is away; afterwards no connection of before is left in the pool."""
        try:
            with anyio.fail_after(_PATIENCE_S):
                await self._ask("installation", {})
                await self._pool.check()
        except (TimeoutError, *Away) as error:
            raise Unavailable("store_unavailable", f"Postgres: {type(error).__name__}") from error


def receipt_of(row: Mapping[str, Any]) -> StoredPayment:
    """Out of a row of payments with the operation it shows as `shown`. Raises ValueError for one that is none."""
    return StoredPayment(payment=payment_of(row), shown=operation_of(row["shown"]))
