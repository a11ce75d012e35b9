"""Sessions of the ledger, all made here: each has the settings that our statements are written for, and is judged.

Whatever the server, the database, the role, the DSN or a variable like PGDATESTYLE says, engine/ledger/sql/session.sql
has the last word. What cannot be set is refused in words: an encoding other than UTF8, tables in another schema, a
schema that is not this code's, and a pooler that gives each transaction another session. A server that cannot be
reached or used is told in its own words, with what to do (store_refusal.py). Options given in the DSN or in PGOPTIONS
stay.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from engine.errors import Broken, Unavailable
from engine.ledger.refusal import postgres_place, postgres_refusal
from engine.ledger.schema import misfit
from engine.ledger.statement import statement

_CONNECT_TIMEOUT_S = 10
_FIRST_ANSWERS_S = 5.0
_VERSION_MIN = 150_000  # UNIQUE NULLS NOT DISTINCT
NO_TABLES = "the database has no Penstock tables yet: run `penstock migrate` first"
_POOLED = (
    "a pooler gives each transaction another session there (PgBouncer's pool_mode=transaction), and Penstock keeps "
    "its sessions: put Postgres' own address, or that of a pool with pool_mode=session, into PENSTOCK_DATABASE_URL"
)


def conninfo(dsn: str) -> str:
    """The DSN, to speak UTF-8."""
    return make_conninfo(dsn, client_encoding="UTF8")


async def prepare(connection: psycopg.AsyncConnection[Any], settings: Mapping[str, str] | None = None) -> None:
    """A new connection of a pool, in autocommit. Raises Broken when this code cannot work with what is there."""
    cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
    await cursor.execute(statement("session"))
    _judge_database(await cursor.fetchone())
    if settings:
        await cursor.execute(statement("session_settings"), _columns(settings))
    try:
        applied = await (await cursor.execute(statement("migrations"))).fetchall()
    except psycopg.errors.UndefinedTable:
        raise Broken(NO_TABLES) from None
    _judge_schema(applied)


def connect(
    dsn: str, *, settings: Mapping[str, str] | None = None, any_schema: bool = False, **more: Any
) -> psycopg.Connection[Any]:
    """A connection for a command. Raises Broken likewise, and Unavailable when the server may yet come; `any_schema` is
    for who is about to migrate."""
    timeout_s = more.pop("connect_timeout", _CONNECT_TIMEOUT_S)
    autocommit = more.pop("autocommit", False)
    try:
        connection = psycopg.connect(conninfo(dsn), autocommit=True, connect_timeout=timeout_s, **more)
        try:
            with _answering(connection, dsn):
                _judge_server(connection, dsn, timeout_s)
                cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
                _judge_database(cursor.execute(statement("session")).fetchone())
                if settings:
                    cursor.execute(statement("session_settings"), _columns(settings))
                if not any_schema:
                    _judge_schema(cursor.execute(statement("migrations")).fetchall())
            connection.autocommit = autocommit
        except BaseException:
            connection.close()
            raise
    except psycopg.errors.UndefinedTable:
        raise Broken(NO_TABLES) from None
    except psycopg.Error as error:
        raise postgres_refusal(error, dsn).error from error
    return connection


def _columns(settings: Mapping[str, str]) -> dict[str, list[str]]:
    return {"names": list(settings), "values": list(settings.values())}


def _judge_server(connection: psycopg.Connection[Any], dsn: str, timeout_s: int) -> None:
    """Raises Broken for one that is too old, and for a pooler that keeps no sessions: before anything is set there."""
    version = connection.info.server_version
    if version < _VERSION_MIN:
        raise Broken(f"{postgres_place(dsn)} is version {version // 10_000}: Penstock needs 15 or newer")
    mine = [_backend(connection)]
    if mine[0] == connection.info.backend_pid:
        return
    # There is a pooler. In session mode each of two connections has a server process of its own, and keeps it.
    another = psycopg.connect(conninfo(dsn), autocommit=True, connect_timeout=timeout_s)
    with another, _answering(another, dsn):
        others = {_backend(another), _backend(another)}
        mine.append(_backend(connection))
    if len(set(mine)) > 1 or len(others) > 1 or others & set(mine):
        raise Broken(f"{postgres_place(dsn)} cannot be used: {_POOLED}")


def _backend(connection: psycopg.Connection[Any]) -> int:
    cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
    row = cursor.execute(statement("backend_pid")).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _answering(connection: psycopg.Connection[Any], dsn: str) -> Iterator[None]:
    """Inside, a server that took the connection and does not answer is hung up on. Raises Unavailable."""
    cut = threading.Event()

    def hang_up() -> None:
        cut.set()
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_FIRST_ANSWERS_S, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg.OperationalError as error:
        if not cut.is_set():
            raise
        raise Unavailable(
            "store_unavailable",
            f"{postgres_place(dsn)} takes connections and does not answer within {_FIRST_ANSWERS_S:.0f} s: a pooler in "
            "front of it may have no connection left (default_pool_size), or its own server is away",
        ) from error
    finally:
        timer.cancel()


def _judge_database(row: tuple[Any, ...] | None) -> None:
    """Raises Broken."""
    *_, may_look, encoding, schemas = row or (None, None, None)
    if encoding != "UTF8":
        raise Broken(
            f"the ledger's database is encoded in {encoding}, in which not every name can be written: make one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name it in PENSTOCK_DATABASE_URL"
        )
    if schemas and "public" not in schemas:
        raise Broken(
            f"Penstock's tables are in the schema {', '.join(schemas)} of this database, and belong in public: "
            "move them there with ALTER TABLE ... SET SCHEMA public"
        )
    if may_look is False:
        raise Broken(
            "our user may not look into the schema of the ledger's database: GRANT USAGE ON SCHEMA public TO ..."
        )


def _judge_schema(applied: Sequence[tuple[str]]) -> None:
    """Raises Broken."""
    if fault := misfit(name for (name,) in applied):
        raise Broken(fault)
