"""A Postgres in memory behind psycopg's pool, as far as the engine uses it: one behaviour for each statement by name.

The engine's own Ledger and Archive run on it unchanged. A statement is one transaction (the pool is in autocommit), and
happens at one moment; faults on the way (the connection lost before or after the commit) are the Link's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any, Self

import anyio
from psycopg.rows import dict_row
from psycopg_pool import PoolTimeout
from simulated_commit import Batch, Partition, Row, Tables, decoded, ledger_commit
from simulated_network import Link

Parameters = Mapping[str, Any]
Witness = Callable[[str, Batch, set[str]], None]
Tell = Callable[..., None]

_NAMES = {
    file.read_bytes(): file.name.removesuffix(".sql")
    for file in files("engine").joinpath("sql").iterdir()
    if file.name.endswith(".sql")
}
_NEVER = datetime.max.replace(tzinfo=UTC)


class PostgresServer:
    """`witness` is told of every commit and by whom, `tell` of every other statement."""

    def __init__(self, link: Link, partitions: int, witness: Witness, tell: Tell) -> None:
        self.link, self._witness, self._tell = link, witness, tell
        self.tables = Tables(partitions={number: Partition() for number in range(partitions)})
        self.acquired_by: dict[int, str] = {}

    def run(self, client: str, text: bytes, parameters: Parameters) -> list[Row]:
        """What a statement returns. Raises psycopg's errors."""
        name = _NAMES[text]
        if name == "commit":
            batch = decoded(parameters)
            rows, won = ledger_commit(self.tables, batch)
            self._witness(client, batch, won)
            return rows
        rows = STATEMENTS[name](self.tables, parameters)
        if name == "acquire_partitions":
            self.acquired_by.update(dict.fromkeys((row["id"] for row in rows), client))
        self._tell("postgres", name, client, parameters, "->", len(rows), "rows")
        return rows


def _acquire(tables: Tables, wanted: Parameters) -> list[Row]:
    seen = dict(zip(wanted["ids"], wanted["epochs"], strict=True))
    taken = {number: epoch + 1 for number, epoch in seen.items() if tables.partitions[number].epoch == epoch}
    for number, epoch in taken.items():
        tables.partitions[number].epoch = epoch
        tables.partitions[number].owner = wanted["owner"]
    return [{"id": number, "epoch": epoch} for number, epoch in taken.items()]


def _release(tables: Tables, wanted: Parameters) -> list[Row]:
    for number, epoch in zip(wanted["ids"], wanted["epochs"], strict=True):
        if tables.partitions[number].epoch == epoch:
            tables.partitions[number].owner = None
    return []


def _epochs(tables: Tables, wanted: Parameters) -> list[Row]:
    return [{"id": number, "epoch": known.epoch, "owner": known.owner} for number, known in tables.partitions.items()]


def _unfinished(tables: Tables, wanted: Parameters) -> list[Row]:
    worked_on = [row for row in _worked_on(tables) if row["partition"] == wanted["partition"]]
    return [{"payment": payment} for payment in dict.fromkeys(row["payment"] for row in worked_on)][: wanted["limit"]]


def _due(tables: Tables, wanted: Parameters) -> list[Row]:
    now, expiring_by, expired_by = wanted["now"], wanted["expiring_by"], wanted["expired_by"]
    due = [
        (row["partition"], row["payment"]) for row in _worked_on(tables) if (row["next_attempt_at"] or _NEVER) <= now
    ]
    for row in tables.payments.values():
        if row["state"] != "authorized" or not row["expires_at"]:
            continue
        untold = row["expiring_at"] is None and now < row["expires_at"] <= expiring_by
        if (untold or row["expires_at"] <= expired_by) and not _has_unsettled(tables, row["id"]):
            due.append((row["partition"], row["id"]))
    found = [key for key in dict.fromkeys(due) if key[0] in wanted["partitions"]]
    return [{"partition": partition, "payment": payment} for partition, payment in found[: wanted["limit"]]]


def _worked_on(tables: Tables) -> list[Row]:
    rows = tables.operations.values()
    return [row for row in rows if row["settled_at"] is None and row["status"] in ("accepted", "sent", "in_doubt")]


def _has_unsettled(tables: Tables, payment: str) -> bool:
    rows = tables.operations.values()
    return any(row["payment"] == payment and row["settled_at"] is None for row in rows)


def _payments_by_id(tables: Tables, wanted: Parameters) -> list[Row]:
    return [tables.payments[payment] for payment in wanted["ids"] if payment in tables.payments]


def _operations_by_id(tables: Tables, wanted: Parameters) -> list[Row]:
    return [tables.operations[operation] for operation in wanted["ids"] if operation in tables.operations]


def _operations_of_payments(tables: Tables, wanted: Parameters) -> list[Row]:
    return [
        row
        for row in tables.operations.values()
        if row["id"] in wanted["ids"]
        or (row["payment"] in wanted["payments"] and (row["settled_at"] is None or row["attempts"] > 0))
    ]


def _receipts_by_id(tables: Tables, wanted: Parameters) -> list[Row]:
    return [{**row, "shown": tables.operations[row["operation_id"]]} for row in _payments_by_id(tables, wanted)]


def _installation(tables: Tables, wanted: Parameters) -> list[Row]:
    return [{"id": "simulated", "partitions": len(tables.partitions)}]


STATEMENTS: dict[str, Callable[[Tables, Parameters], list[Row]]] = {
    "acquire_partitions": _acquire,
    "acts_of_payments": lambda tables, wanted: [],  # no operator lives here
    "release_partitions": _release,
    "epochs": _epochs,
    "installation": _installation,
    "unfinished": _unfinished,
    "due": _due,
    "payments_by_id": _payments_by_id,
    "operations_by_id": _operations_by_id,
    "operations_of_payments": _operations_of_payments,
    "receipts_by_id": _receipts_by_id,
}


class PostgresPool:
    """psycopg_pool.AsyncConnectionPool of one process."""

    def __init__(self, server: PostgresServer, client: str, patience_s: float) -> None:
        self._server, self._client, self._patience_s = server, client, patience_s

    async def check(self) -> None:
        """No connection of before an outage is left."""

    def connection(self, timeout: float | None = None) -> _Connection:
        return _Connection(self._server, self._client, timeout or self._patience_s)


class _Connection:
    """Borrowed, and given back at the end of its block."""

    def __init__(self, server: PostgresServer, client: str, patience_s: float) -> None:
        self._server, self._client, self._patience_s = server, client, patience_s

    async def __aenter__(self) -> Self:
        if self._server.link.weather.away:
            await anyio.sleep(self._patience_s)
            raise PoolTimeout("no connection could be made")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Given back; nothing to do."""

    async def close(self) -> None:
        """Not given back; nothing to do."""

    def cursor(self, row_factory: Any = None) -> _Cursor:
        return _Cursor(self._server, self._client, as_dicts=row_factory is dict_row)

    async def execute(self, text: bytes, parameters: Parameters | None = None, **options: Any) -> _Cursor:
        cursor = self.cursor()
        await cursor.execute(text, parameters)
        return cursor


class _Cursor:
    def __init__(self, server: PostgresServer, client: str, *, as_dicts: bool) -> None:
        self._server, self._client, self._as_dicts = server, client, as_dicts
        self._rows: list[Row] = []

    async def execute(self, text: bytes, parameters: Parameters | None = None, **options: Any) -> None:
        self._rows = await self._server.link.exchange(partial(self._server.run, self._client, text, parameters or {}))

    async def fetchall(self) -> list[Any]:
        return self._rows if self._as_dicts else [tuple(row.values()) for row in self._rows]
