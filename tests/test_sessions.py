"""Sessions have the settings that our statements are written for, whoever set others; what cannot be set is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import psycopg
import pytest
from msgspec.structs import replace
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from engine.domain.changeset import ChangeSet
from engine.errors import Broken
from engine.ledger.database import is_of_the_rows
from engine.ledger.migrate import MigrationError, migrate
from engine.ledger.session import connect, conninfo, prepare
from engine.ledger.writer import CommitVerdict, FencingToken, LedgerWriter
from engine.security.encryption import Vault
from ops.stack.embedded import EmbeddedPostgres
from support.gateway import Gateway, a_gateway
from test_unable_worker import an_authorization

CARD = "4111111111111111"
HOSTILE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "search_path": "elsewhere, public",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
}
OURS = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "search_path": "public, pg_temp",
    "client_encoding": "UTF8",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
}


@pytest.fixture
def hostile(postgres: EmbeddedPostgres, database: str) -> str:
    """A ledger whose database has every setting otherwise, and a schema before ours with tables of the same names."""
    name = sql.Identifier(str(conninfo_to_dict(database)["dbname"]))
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as server:
        for setting, value in HOSTILE.items():
            words = sql.SQL(", ").join(sql.Literal(word) for word in value.split(", "))
            server.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), words))
    with psycopg.connect(database, autocommit=True) as ledger:
        ledger.execute("CREATE SCHEMA elsewhere")
        for table in ("payments", "operations", "outbox", "partitions", "schema_migrations"):
            ledger.execute(sql.SQL("CREATE TABLE elsewhere.{} (id text)").format(sql.Identifier(table)))
    return database


def settings_of(connection: psycopg.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT lower(name), setting FROM pg_settings").fetchall()
    return {name: setting for name, setting in rows if name in OURS}


def test_a_command_s_session_has_our_settings_whatever_database_and_variables_say(
    hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("PGDATESTYLE", "German"), ("PGTZ", "Asia/Tokyo"), ("PGCLIENTENCODING", "LATIN2")):
        monkeypatch.setenv(variable, value)

    with connect(hostile) as connection:
        assert settings_of(connection) == OURS
        connection.rollback()
        assert settings_of(connection) == OURS, "also after a rollback"


def test_options_of_the_dsn_and_of_pgoptions_stay(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")
    with connect(database, settings={"statement_timeout": "1234"}) as connection:
        by_variable = [connection.execute(f"SHOW {name}").fetchone() for name in ("work_mem", "statement_timeout")]  # type: ignore[arg-type]
    with connect(
        make_conninfo(database, options="-c work_mem=6MB"), settings={"statement_timeout": "1234"}
    ) as connection:
        by_dsn = [connection.execute(f"SHOW {name}").fetchone() for name in ("work_mem", "statement_timeout")]  # type: ignore[arg-type]

    assert by_variable == [("5MB",), ("1234ms",)]
    assert by_dsn == [("6MB",), ("1234ms",)]


def test_a_gateway_works_on_a_database_with_every_setting_otherwise(
    hostile: str, redis_url: str, tmp_path: Path
) -> None:
    environ = {"PENSTOCK_CONNECTOR": "instant", "PGDATESTYLE": "SQL, DMY"}
    with a_gateway(hostile, redis_url, "http://127.0.0.1:1", tmp_path, workers=1, **environ) as gateway:
        paid = [gateway.pay(CARD, wait=10, order_id=name) for name in ("Łódź", "日本", "plain")]
        payment = paid[0].json()["id"]
        captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)
        paths = (f"/v1/payments/{payment}", f"/v1/payments/{payment}/timeline", "/v1/payments?order_id=plain")
        reads = [gateway.request("GET", path).status_code for path in (*paths, "/v1/events?limit=5")]
        log = gateway.logs()

    assert [answer.status_code for answer in paid] == [201] * 3
    assert captured.json()["status"] == "captured"
    assert reads == [200] * 4
    assert "Traceback" not in log


@pytest.fixture
def latin(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database in which not every name can be written."""
    name = sql.Identifier(f"latin_{uuid4().hex}")
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as server:
        options = "ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        server.execute(sql.SQL("CREATE DATABASE {} " + options).format(name))
        yield postgres.dsn(name.as_string().strip('"'))
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_a_database_in_another_encoding_is_refused_at_migrate_and_at_the_start(
    latin: str, redis_url: str, tmp_path: Path
) -> None:
    with pytest.raises(MigrationError, match="LATIN1") as refused:
        migrate(latin, 16)
    gateway = Gateway(database=latin, redis_url=redis_url, bank_url="http://127.0.0.1:1", folder=tmp_path)
    edge = gateway.launch("edge")

    assert edge.died() == 1
    assert "UTF8" in str(refused.value) and "LATIN1" in edge.log.read_text()


def test_tables_in_another_schema_are_named_and_no_second_installation_is_begun_beside_them(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as ledger:
        ledger.execute("ALTER SCHEMA public RENAME TO mine")
        ledger.execute("CREATE SCHEMA public")

    with pytest.raises(Broken, match="schema mine"):
        connect(database)
    with pytest.raises(MigrationError, match="schema mine"):
        migrate(database, 16)


def test_a_row_that_cannot_be_written_down_fails_alone(database: str) -> None:
    def opened(number: int, order_id: str) -> ChangeSet:
        payment, operation = an_authorization(Vault([b"m" * 32]), "bank")
        terms = replace(payment.terms, order_id=order_id)
        payment = replace(payment, id=f"pay_{number}", terms=terms, version=1, operation_id=f"op_{number}")
        return ChangeSet(
            payment=payment, operations=(replace(operation, id=f"op_{number}", payment=payment.id),), opened=True
        )

    results: dict[str, object] = {}

    async def commit_all() -> None:
        async with (
            AsyncConnectionPool(
                conninfo(database), min_size=1, kwargs={"autocommit": True}, configure=prepare, open=False
            ) as pool,
            anyio.create_task_group() as life,
        ):
            ledger = LedgerWriter(pool, 100)
            life.start_soon(ledger.run)

            async def one(number: int, order_id: str) -> None:
                try:
                    results[order_id] = await ledger.commit(opened(number, order_id), FencingToken(0, ""))
                except Broken as fault:
                    results[order_id] = str(fault)

            async with anyio.create_task_group() as writes:
                for number, order_id in enumerate(("fine", "half \ud800 of a pair", "nul \x00 inside", "Łódź")):
                    writes.start_soon(one, number, order_id)
            life.cancel_scope.cancel()

    anyio.run(commit_all)

    assert results["fine"] is results["Łódź"] is CommitVerdict.COMMITTED
    assert "the ledger refused pay_1" in str(results["half \ud800 of a pair"])
    assert "the ledger refused pay_2" in str(results["nul \x00 inside"])


@pytest.mark.parametrize(
    ("error", "its_own"),
    [
        (psycopg.errors.UntranslatableCharacter(), True),
        (psycopg.errors.ProgramLimitExceeded(), True),
        (psycopg.errors.RaiseException(), True),
        (psycopg.DataError("a NUL"), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), True),
        (psycopg.errors.ReadOnlySqlTransaction(), False),
        (psycopg.errors.DiskFull(), False),
        (psycopg.errors.UndefinedFunction(), False),
        (psycopg.errors.InsufficientPrivilege(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.QueryCanceled(), False),
        (psycopg.OperationalError("the connection is lost"), False),
        (ConnectionResetError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_a_row_s_own_fault_is_told_from_what_may_pass(error: Exception, its_own: bool) -> None:
    assert is_of_the_rows(error) is its_own
