"""The bank's own database: made if it is missing, migrated, seeded. Done once, before anything is served."""

import logging

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bank.simulator.card import extra_card
from bank.simulator.statement import migrations, statement

MAINTENANCE_DATABASE = "postgres"
SEED_BATCH_CARDS = 10_000
CONNECT_TIMEOUT_S = 10

logger = logging.getLogger(__name__)


class BankDatabaseError(RuntimeError):
    """The database cannot be reached, made or migrated; the text says which and why."""


def prepare_database(database_url: str, *, extra_cards: int) -> None:
    """Leave the database ready to serve from; raises BankDatabaseError. Several at once wait for each other."""
    try:
        try:
            connection = _connect(database_url)
        except psycopg.OperationalError as away:
            _create_if_missing(database_url, away)
            connection = _connect(database_url)
    except psycopg.Error as error:
        raise BankDatabaseError(f"cannot connect to the bank's database: {error}") from error
    try:
        with connection:
            _migrate(connection)
            _seed(connection, extra_cards)
    except psycopg.Error as error:
        raise BankDatabaseError(f"cannot migrate the bank's database: {error}") from error


def _connect(database_url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(
        database_url, cursor_factory=psycopg.RawCursor, connect_timeout=CONNECT_TIMEOUT_S, application_name="bank"
    )


def _create_if_missing(database_url: str, away: psycopg.OperationalError) -> None:
    """Make the database if that is what was wrong; if its server cannot be asked, the first complaint stands."""
    name = str(conninfo_to_dict(database_url).get("dbname") or "")
    try:
        connection = _connect(make_conninfo(database_url, dbname=MAINTENANCE_DATABASE))
    except psycopg.OperationalError:
        raise away from None
    connection.autocommit = True  # A database cannot be made inside a transaction.
    with connection:
        connection.execute(statement("create_database_lock"))
        if connection.execute(statement("database_exists"), (name,)).fetchone() is None:
            connection.execute(sql.SQL(statement("create_database")).format(name=sql.Identifier(name)))
            logger.info("bank_database_created", extra={"database": name})


def _migrate(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    with connection.transaction():
        connection.execute(statement("migrations_lock"))
        connection.execute(statement("migrations_table"))
        applied = {row[0] for row in connection.execute(statement("migrations_applied"))}
        for name, text in migrations():
            if name not in applied:
                connection.execute(text)
                connection.execute(statement("migrations_record"), (name,))
                logger.info("bank_migrated", extra={"migration": name})


def _seed(connection: "psycopg.Connection[tuple[object, ...]]", extra_cards: int) -> None:
    for start in range(0, extra_cards, SEED_BATCH_CARDS):
        numbers = [extra_card(i) for i in range(start, min(start + SEED_BATCH_CARDS, extra_cards))]
        connection.execute(statement("seed_extra_cards"), (numbers,))
