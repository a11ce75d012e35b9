"""A Postgres in memory behind psycopg's pool, as far as the engine uses it: one behaviour for each statement by name.

The engine's own Ledger and Archive run on it unchanged. A statement is one transaction (the pool is in autocommit), and
happens at one moment; faults on the way (the connection lost before or after the commit) are the Link's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import Any, Self

import anyio
from psycopg.rows import dict_row
from psycopg_pool import PoolTimeout

from simulation.simulated_commit import Batch, Partition, Row, Tables, decoded, ledger_commit
from simulation.simulated_network import Link

_BY_THE_CLOCK = frozenset({"due", "unanswered", "ledger_time"})
Parameters = Mapping[str, Any]
Witness = Callable[[str, Batch, set[str]], None]
Tell = Callable[..., None]

_NAMES = {
    file.read_bytes(): file.name.removesuffix(".sql")
    for file in files("engine.ledger").joinpath("sql").iterdir()
    if file.name.endswith(".sql")
}


class PostgresServer:
    """`witness` is told of every commit and by whom, `tell` of every other statement."""

    def __init__(
        self, link: Link, partitions: int, clock: Callable[[], datetime], witness: Witness, tell: Tell
    ) -> None:
        self.link, self.clock, self._witness, self._tell = link, clock, witness, tell
        self.tables = Tables(partitions={number: Partition() for number in range(partitions)})
        self.acquired_by: dict[int, str] = {}

    def run(self, client: str, text: bytes, parameters: Parameters) -> list[Row]:
        """What a statement returns. Raises psycopg's errors."""
        name, parameters = _NAMES[text], self.timed(text, parameters)
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

    def timed(self, text: bytes, parameters: Parameters) -> Parameters:
        """With this server's clock, for a statement that asks the clock of its server."""
        return {**parameters, "now": self.clock()} if _NAMES[text] in _BY_THE_CLOCK else parameters


def _acquire(tables: Tables, wanted: Parameters) -> list[Row]:
    taken: list[Row] = []
    for number, epoch, token in zip(wanted["ids"], wanted["epochs"], wanted["tokens"], strict=True):
        partition = tables.partitions[number]
        if partition.epoch == epoch:
            partition.epoch, partition.token, partition.owner = epoch + 1, token, wanted["owner"]
            taken.append({"id": number, "epoch": epoch + 1})
    return taken


def _release(tables: Tables, wanted: Parameters) -> list[Row]:
    for number, epoch, token in zip(wanted["ids"], wanted["epochs"], wanted["tokens"], strict=True):
        if tables.partitions[number].fence == (epoch, token):
            tables.partitions[number].owner = None
    return []


def _fences(tables: Tables, wanted: Parameters) -> list[Row]:
    return [
        {"id": number, "epoch": known.epoch, "token": known.token, "owner": known.owner}
        for number, known in tables.partitions.items()
    ]


def _unfinished(tables: Tables, wanted: Parameters) -> list[Row]:
    worked_on = [row for row in _worked_on(tables) if row["partition"] == wanted["partition"]]
    return [{"payment": payment} for payment in dict.fromkeys(row["payment"] for row in worked_on)][: wanted["limit"]]


def _due(tables: Tables, wanted: Parameters) -> list[Row]:
    now: datetime = wanted["now"]
    farthest = now + wanted["farthest"]
    parked = [row for row in _worked_on(tables) if row["next_attempt_at"] and row["partition"] in wanted["partitions"]]
    parked.sort(key=lambda row: (row["next_attempt_at"], row["id"]))
    due: list[tuple[int, str]] = []
    for limit, in_doubt in (("unsent", False), ("doubt", True)):
        alike = [row for row in parked if (row["status"] == "in_doubt") is in_doubt]
        for come in (
            [row for row in alike if row["next_attempt_at"] <= now],
            [row for row in alike if row["next_attempt_at"] > farthest],
        ):
            due += [(row["partition"], row["payment"]) for row in come[: wanted[limit]]]
    for row in tables.payments.values():
        if row["state"] != "authorized" or not row["expires_at"]:
            continue
        untold = row["expiring_at"] is None and now < row["expires_at"] <= now + wanted["expiry_notice"]
        if (untold or row["expires_at"] <= now - wanted["expiry_grace"]) and not _has_unsettled(tables, row["id"]):
            due.append((row["partition"], row["id"]))
    return _in_partitions(due, wanted)


def _unanswered(tables: Tables, wanted: Parameters) -> list[Row]:
    now: datetime = wanted["now"]
    earliest, farthest = now - wanted["lost_after"], now + wanted["farthest"]
    found = [
        (row["partition"], row["payment"])
        for row in _worked_on(tables)
        if row["attempts"] and row["next_attempt_at"] is None and not earliest < row["deadline"] <= farthest
    ]
    return _in_partitions([key for key in found if key], wanted)


def _in_partitions(found: list[tuple[int, str]], wanted: Parameters) -> list[Row]:
    mine = [key for key in dict.fromkeys(found) if key[0] in wanted["partitions"]]
    return [{"partition": partition, "payment": payment} for partition, payment in mine[: wanted["limit"]]]


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
    "fences": _fences,
    "installation": _installation,
    "unfinished": _unfinished,
    "due": _due,
    "unanswered": _unanswered,
    "hold_retries": lambda tables, wanted: [],  # for the auditor, who does not live here either
    "ledger_time": lambda tables, wanted: [{"at": wanted["now"]}],
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

    async def fetchone(self) -> Any:
        return (await self.fetchall() or [None])[0]
