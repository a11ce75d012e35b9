"""The archive: the ledger as an edge reads it, coalesced, with a bound on patience. Postgres decides (I6).

Raises Unavailable when Postgres does not answer in time, and for a moment after that at once, so that accepting goes on
at full speed while Postgres is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from engine.coalescer import Coalescer
from engine.errors import Unavailable
from engine.payment import Operation, Payment
from engine.postgres import Away, borrowed
from engine.rows import operation_of, payment_of
from engine.statement import statement

_BATCH_MAX = 500
_PATIENCE_S = 2.0  # a healthy look-up takes milliseconds; a client's Prefer: wait is at most 30 s
_AWAY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
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


class Archive:
    """Run `run` for life."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._operations: Coalescer[str, Operation | None] = Coalescer(self._operations_by_id, _BATCH_MAX)
        self._receipts: Coalescer[str, Receipt | None] = Coalescer(self._receipts_by_id, _BATCH_MAX)
        self._away_until = 0.0

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._operations.run)
            tasks.start_soon(self._receipts.run)

    async def operation(self, operation: str) -> Operation | None:
        return await self._operations(operation)

    async def receipt(self, payment: str) -> Receipt | None:
        return await self._receipts(payment)

    async def unsettled(self, payment: str) -> list[Operation]:
        """The payment's operations that are not answered yet."""
        rows = await self._rows("operations_of_payments", {"payments": [payment], "ids": []})
        return [operation for operation in map(operation_of, rows) if operation.settled_at is None]

    async def page(self, merchant: str, page: Page) -> list[Receipt]:
        """Newest first; at most `limit` + 1, the extra one telling that there is more."""
        at, payment = page.before or (None, None)
        rows = await self._rows(
            "receipts_page",
            {
                "merchant": merchant,
                "order_id": page.order_id,
                "customer_id": page.customer_id,
                "status": page.status,
                "before_at": at,
                "before_id": payment,
                "limit": page.limit + 1,
            },
        )
        return [_receipt(row) for row in rows]

    async def operations_under(self, merchant: str, key: str) -> list[Operation]:
        return [operation_of(row) for row in await self._rows("operations_by_key", {"merchant": merchant, "key": key})]

    async def ping(self) -> None:
        """Raises Unavailable when Postgres does not answer."""
        await self._rows("installation", {})

    async def _operations_by_id(self, ids: Sequence[str]) -> list[Operation | None]:
        found = {row["id"]: operation_of(row) for row in await self._rows("operations_by_id", {"ids": list(set(ids))})}
        return [found.get(operation) for operation in ids]

    async def _receipts_by_id(self, ids: Sequence[str]) -> list[Receipt | None]:
        found = {row["id"]: _receipt(row) for row in await self._rows("receipts_by_id", {"ids": list(set(ids))})}
        return [found.get(payment) for payment in ids]

    async def _rows(self, name: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        async with self._patiently() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(statement(name), parameters)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _patiently(self) -> AsyncIterator[psycopg.AsyncConnection]:
        if anyio.current_time() < self._away_until:
            raise Unavailable("store_unavailable", "Postgres is away")
        try:
            with anyio.fail_after(_PATIENCE_S):
                async with borrowed(self._pool, _PATIENCE_S) as connection:
                    yield connection
        except (TimeoutError, *Away) as error:
            self._away_until = anyio.current_time() + _AWAY_S
            raise Unavailable("store_unavailable", f"Postgres: {type(error).__name__}") from error


def _receipt(row: Mapping[str, Any]) -> Receipt:
    return Receipt(payment=payment_of(row), shown=operation_of(row["shown"]))
