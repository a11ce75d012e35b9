"""Sessions of the ledger, all made here: each has the settings that our statements are written for, and is judged.

Whatever the server, the database, the role, the DSN or a variable like PGDATESTYLE says, engine/ledger/sql/session.sql
has the last word. What cannot be set is refused in words: an encoding other than UTF8, tables in another schema, and a
schema that is not this code's. Options given in the DSN or in PGOPTIONS stay, before ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.errors import Broken
from engine.ledger.schema import misfit
from engine.ledger.statement import statement

_CONNECT_TIMEOUT_S = 10
NO_TABLES = "the database has no Penstock tables yet: run `penstock migrate` first"


def conninfo(dsn: str, *options: str) -> str:
    """The DSN, to speak UTF-8, with these options (as in "statement_timeout=1500") behind its own."""
    given = conninfo_to_dict(dsn).get("options") or os.environ.get("PGOPTIONS") or ""
    ours = " ".join(f"-c {option}" for option in options)
    return make_conninfo(dsn, options=f"{given} {ours}".strip(), client_encoding="UTF8")


async def prepare(connection: psycopg.AsyncConnection[Any]) -> None:
    """A new connection of a pool, in autocommit. Raises Broken when this code cannot work with what is there."""
    cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
    await cursor.execute(statement("session"))
    _judge_database(await cursor.fetchone())
    try:
        applied = await (await cursor.execute(statement("migrations"))).fetchall()
    except psycopg.errors.UndefinedTable:
        raise Broken(NO_TABLES) from None
    _judge_schema(applied)


def connect(dsn: str, *, options: Sequence[str] = (), any_schema: bool = False, **more: Any) -> psycopg.Connection[Any]:
    """A connection for a command. Raises Broken likewise; `any_schema` is for who is about to migrate."""
    timeout_s = more.pop("connect_timeout", _CONNECT_TIMEOUT_S)
    autocommit = more.pop("autocommit", False)
    connection = psycopg.connect(conninfo(dsn, *options), autocommit=True, connect_timeout=timeout_s, **more)
    try:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        _judge_database(cursor.execute(statement("session")).fetchone())
        if not any_schema:
            _judge_schema(cursor.execute(statement("migrations")).fetchall())
        connection.autocommit = autocommit
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.errors.UndefinedTable):
            raise Broken(NO_TABLES) from None
        raise
    return connection


def _judge_database(row: tuple[Any, ...] | None) -> None:
    """Raises Broken."""
    *_, encoding, schemas = row or (None, None)
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


def _judge_schema(applied: Sequence[tuple[str]]) -> None:
    """Raises Broken."""
    if fault := misfit(name for (name,) in applied):
        raise Broken(fault)
