"""The audit of operators' acts: each is written down before it is done, and a key that asks again finds its act.

Keeps that no act is without a reason (a constraint) and that nothing is done twice for one key (a unique index).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from engine.domain.operator_action import ActionOrder, OperatorAction
from engine.errors import Unavailable
from engine.ledger.database import Away, borrowed
from engine.ledger.statement import statement

_PATIENCE_S = 5.0
_LOOK_AGAIN_S = 0.1  # acts are rare, and their actor looks for them about once a second


class AuditLog:
    """All methods raise Unavailable when Postgres is away."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def under_key(self, order: ActionOrder) -> OperatorAction | None:
        """The act that this order's key asked for before."""
        if order.key is None:
            return None
        scope = {"merchant": order.merchant, "act": order.act, "subject": order.subject, "key": order.key}
        return await self._one("act_under_key", scope)

    async def begin(
        self, order: ActionOrder, *, partition: int | None, payment: str | None, operation: str | None
    ) -> tuple[OperatorAction, bool]:
        """The act, written down, and whether it is new: at the same moment the same key may have asked elsewhere."""
        row = {
            "actor": order.actor,
            "act": order.act,
            "subject": order.subject,
            "reason": order.reason,
            "detail": Jsonb(dict(order.detail)),
            "partition": partition,
            "payment": payment,
            "operation": operation,
            "merchant": order.merchant,
            "key": order.key,
            "request_id": order.request_id,
        }
        begun = await self._one("act_begin", row)
        if begun is not None:
            return begun, True
        known = await self.under_key(order)
        if known is None:
            raise Unavailable("store_unavailable", "The audit does not show what it was just told. Try again.")
        return known, False

    async def finish(self, act: OperatorAction, result: str) -> OperatorAction:
        """How it ended, unless that is known already."""
        return await self._one("act_finish", {"id": act.id, "result": result}) or act

    async def outcome(self, act: OperatorAction, wait_s: float) -> OperatorAction:
        """The act once it is done, or as it is after `wait_s`."""
        with anyio.move_on_after(wait_s):
            while act.result is None:
                await anyio.sleep(_LOOK_AGAIN_S)
                act = await self._one("act_by_id", {"id": act.id}) or act
        return act

    async def was_anothers(self, act: OperatorAction) -> bool:
        """Whether another act about the same dead letter was carried out."""
        row = await self._row("act_of_another", {"subject": act.subject, "id": act.id})
        return bool(row and row["done"])

    async def _one(self, name: str, parameters: Mapping[str, object]) -> OperatorAction | None:
        row = await self._row(name, parameters)
        return None if row is None else OperatorAction(**row)

    async def _row(self, name: str, parameters: Mapping[str, object]) -> dict[str, Any] | None:
        async with _patiently(self._pool) as cursor:
            await cursor.execute(statement(name), parameters)
            return await cursor.fetchone()


@asynccontextmanager
async def _patiently(pool: AsyncConnectionPool) -> AsyncIterator[psycopg.AsyncCursor[dict[str, Any]]]:
    try:
        with anyio.fail_after(_PATIENCE_S):
            async with borrowed(pool, _PATIENCE_S) as connection:
                yield connection.cursor(row_factory=dict_row)
    except (TimeoutError, *Away) as error:
        raise Unavailable("store_unavailable", f"Postgres: {type(error).__name__}") from error
