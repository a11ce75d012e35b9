"""Brings a database to the schema this version needs, and makes it an installation.

The files engine/ledger/migrations/NNNN_*.sql are applied in order under an advisory lock, each in its own transaction,
and remembered with their digests: several processes may migrate at once, and a file that was edited after it was
applied is noticed. An installation's id and number of partitions are fixed here for its life: every derived id and
partition rests on them.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import closing
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.errors import Broken, PenstockError, Unavailable
from engine.ledger.refusal import postgres_refusal
from engine.ledger.schema import MIGRATION
from engine.ledger.session import connect
from engine.ledger.statement import statement

_PARTITIONS_MAX = 1024  # the CHECK of the table installation
_CONNECT_TIMEOUT_S = 10
_MERCHANTS = (("mer_local", "Local shop"), ("mer_other", "Other shop"))
_KEYS = (
    ("key_local_merchant", "mer_local", "merchant", "sk_local_merchant"),
    ("key_local_other", "mer_other", "merchant", "sk_local_other"),
    ("key_local_operator", "mer_local", "operator", "ok_local_operator"),
)


class MigrationError(PenstockError):
    """The database cannot be brought to this version; the message says why, and what to do."""


def migrate(dsn: str, partitions: int, folder: Path | None = None) -> None:
    """Creates the database if need be, applies what is missing, and opens the installation. Raises MigrationError.

    `folder` holds the migrations; the engine's own by default.
    """
    if not 1 <= partitions <= _PARTITIONS_MAX:
        raise MigrationError(f"an installation has 1 to {_PARTITIONS_MAX} partitions, not {partitions}")
    migrations = _migrations(folder or files("engine.ledger").joinpath("migrations"))
    try:
        with closing(_connect(dsn)) as connection:
            connection.execute(statement("migration_lock"))
            connection.execute(statement("schema_migrations"))
            applied: dict[str, str] = dict(connection.execute(statement("migrations_applied")).fetchall())
            _check_history(applied, migrations)
            if applied:  # A refusal comes before the first change.
                _check_partitions(connection, partitions)
            for name, text in migrations.items():
                if name not in applied:
                    _apply(connection, name, text)
            _renumber(connection)
            connection.execute(statement("open_installation"), {"id": secrets.token_hex(16), "partitions": partitions})
            _check_partitions(connection, partitions)
    except (Broken, Unavailable) as fault:
        raise MigrationError(getattr(fault, "detail", str(fault))) from fault
    except psycopg.Error as error:
        raise MigrationError(postgres_refusal(error, dsn).words) from error


def seed_local(dsn: str) -> None:
    """The local stack's merchants and their well-known keys; what is already there stays. Raises MigrationError."""
    try:
        with connect(dsn, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            for merchant, name in _MERCHANTS:
                connection.execute(statement("seed_merchant"), {"id": merchant, "name": name})
            for key_id, merchant, scope, key in _KEYS:
                digest = hashlib.sha256(key.encode()).digest()
                row = {"id": key_id, "merchant": merchant, "scope": scope, "digest": digest, "hint": key[-4:]}
                connection.execute(statement("seed_key"), row)
    except psycopg.Error as error:
        words = postgres_refusal(error, dsn).words
        raise MigrationError(f"the local merchants could not be written: {words}") from error


def _migrations(folder: Traversable) -> dict[str, bytes]:
    found = {file.name: file.read_bytes() for file in folder.iterdir() if MIGRATION.fullmatch(file.name)}
    return dict(sorted(found.items()))


def _connect(dsn: str) -> psycopg.Connection:
    try:
        return connect(dsn, any_schema=True, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S)
    except (Broken, Unavailable) as refused:
        # libpq does not say which refusal it met, so the server is asked whether the database is missing.
        if not isinstance(refused.__cause__, psycopg.OperationalError):
            raise
        created, reason = _create_missing(dsn), refused
    try:
        return connect(dsn, any_schema=True, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S)
    except (Broken, Unavailable) as again:  # the first may have come while another migration was creating it
        raise again if created else reason from again


def _create_missing(dsn: str) -> bool:
    """Whether the database was missing and is there now."""
    name = conninfo_to_dict(dsn).get("dbname")
    try:
        server = psycopg.connect(
            make_conninfo(dsn, dbname="postgres"), autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S
        )
    except psycopg.OperationalError:
        return False
    with closing(server):
        if name is None or server.execute(statement("database_exists"), {"name": name}).fetchone() is not None:
            return False
        try:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(str(name))))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            pass  # Another migration was faster.
        except psycopg.errors.InsufficientPrivilege as refused:
            raise MigrationError(
                f"there is no database {name!r}, and this user may not create it: create it first"
            ) from refused
    return True


def _check_history(applied: dict[str, str], migrations: dict[str, bytes]) -> None:
    for name, digest in sorted(applied.items()):
        if name not in migrations:
            raise MigrationError(f"this database was migrated by a newer Penstock: {name} is not known to this one")
        if digest != hashlib.sha256(migrations[name]).hexdigest():
            raise MigrationError(
                f"{name} was changed after it was applied: restore it, and put the change in a new file"
            )


def _check_partitions(connection: psycopg.Connection, partitions: int) -> None:
    row = connection.execute(statement("installation")).fetchone()
    if row is not None and row[1] != partitions:
        raise MigrationError(
            f"this database was initialised with {row[1]} partitions, not {partitions}: the number is fixed for the "
            f"life of an installation, so set PENSTOCK_PARTITIONS={row[1]} or use another database"
        )


def _renumber(connection: psycopg.Connection) -> None:
    """A restored database may have tables and no sequences: events go on behind those that are there."""
    row = connection.execute(statement("events_renumber")).fetchone()
    if row is not None and row[0]:
        with connection.transaction():
            connection.execute(statement("renumber_events"))


def _apply(connection: psycopg.Connection, name: str, text: bytes) -> None:
    try:
        with connection.transaction():
            connection.execute(text)
            row = {"name": name, "sha256": hashlib.sha256(text).hexdigest()}
            connection.execute(statement("migration_applied"), row)
    except psycopg.Error as error:
        raise MigrationError(f"{name} failed and was rolled back: {str(error).strip()}") from error
