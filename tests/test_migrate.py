"""Migrations: applied once, in order, whoever applies them, and never under another number of partitions."""

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from engine.ledger.migrate import MigrationError, migrate, seed_local
from ops.stack.embedded import EmbeddedPostgres
from support.gateway import Gateway

ENGINE_SQL = Path(__file__).parent.parent / "engine" / "ledger" / "migrations"


@pytest.fixture
def missing(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The DSN of a database that is not there yet."""
    name = f"migrate_{uuid4().hex}"
    yield postgres.dsn(name)
    rows(postgres.dsn("postgres"), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the engine's SQL to change."""
    return Path(shutil.copytree(ENGINE_SQL, tmp_path / "sql"))


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_missing_database_is_created_and_becomes_an_installation(missing: str) -> None:
    migrate(missing, 4)

    [(installation, partitions)] = rows(missing, "SELECT id, partitions FROM installation")
    assert len(bytes.fromhex(installation)) == 16
    assert partitions == 4
    assert rows(missing, "SELECT id, epoch FROM partitions ORDER BY id") == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_every_numbered_file_is_remembered_with_its_digest(database: str) -> None:
    expected = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in ENGINE_SQL.glob("[0-9]*.sql")}

    assert dict(rows(database, "SELECT name, sha256 FROM schema_migrations")) == expected


def test_migrating_again_changes_nothing(database: str) -> None:
    everything = "SELECT i.id, i.created_at, m.name, m.applied_at FROM installation i, schema_migrations m ORDER BY 3"
    before = rows(database, everything)

    migrate(database, 16)

    assert rows(database, everything) == before


def test_migrations_at_once_make_one_installation(missing: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(migrate, missing, 16) for _ in range(6)]

    assert [each.result() for each in done] == [None] * 6
    assert rows(missing, "SELECT count(*) FROM installation") == [(1,)]
    assert rows(missing, "SELECT count(*) FROM partitions") == [(16,)]


def test_a_new_file_is_applied_to_an_old_database(database: str, folder: Path) -> None:
    (folder / "9000_colour.sql").write_text("CREATE TABLE colour (name text)")

    migrate(database, 16, folder)

    assert rows(database, "SELECT * FROM colour") == []


def test_a_file_that_was_changed_after_it_was_applied_is_refused(database: str, folder: Path) -> None:
    with (folder / "0001_ledger.sql").open("a") as file:
        file.write("-- edited\n")
    (folder / "9000_colour.sql").write_text("CREATE TABLE colour (name text)")

    with pytest.raises(MigrationError, match=r"0001_ledger.sql was changed after it was applied"):
        migrate(database, 16, folder)

    assert rows(database, "SELECT to_regclass('colour')") == [(None,)]


def test_a_database_of_a_newer_version_is_refused(database: str, folder: Path) -> None:
    (folder / "0002_commit.sql").unlink()

    with pytest.raises(MigrationError, match=r"newer Penstock: 0002_commit.sql"):
        migrate(database, 16, folder)


def test_another_number_of_partitions_is_refused_before_anything_changes(database: str, folder: Path) -> None:
    (folder / "9000_colour.sql").write_text("CREATE TABLE colour (name text)")

    with pytest.raises(MigrationError, match="initialised with 16 partitions, not 8"):
        migrate(database, 8, folder)

    assert rows(database, "SELECT to_regclass('colour')") == [(None,)]


@pytest.mark.parametrize("partitions", [0, -1, 1025])
def test_an_impossible_number_of_partitions_is_refused(missing: str, partitions: int) -> None:
    with pytest.raises(MigrationError, match="1 to 1024 partitions"):
        migrate(missing, partitions)


def test_a_file_that_fails_leaves_nothing_of_itself_and_keeps_those_before_it(missing: str, folder: Path) -> None:
    (folder / "9000_half.sql").write_text("CREATE TABLE half (name text); SELECT 1/0")

    with pytest.raises(MigrationError, match=r"9000_half.sql failed and was rolled back: division by zero"):
        migrate(missing, 16, folder)

    assert rows(missing, "SELECT to_regclass('half')") == [(None,)]
    (folder / "9000_half.sql").write_text("CREATE TABLE half (name text)")
    migrate(missing, 16, folder)
    assert rows(missing, "SELECT * FROM half") == []


def test_receipts_that_share_a_bank_s_id_stop_the_migration_with_their_names_and_what_to_do(
    missing: str, folder: Path
) -> None:
    text = (folder / "0013_bank_ids.sql").read_text()
    for later in folder.glob("[0-9]*.sql"):
        if later.name >= "0013":
            later.unlink()
    migrate(missing, 16, folder)
    for number, hold in enumerate(("auth_1", "auth_1", "auth_2", None, None)):
        rows(missing, a_receipt(f"pay_{number}", hold))
    (folder / "0013_bank_ids.sql").write_text(text)

    with pytest.raises(MigrationError) as refused:
        migrate(missing, 16, folder)
    rows(missing, "UPDATE payments SET authorization_id = 'auth_1#wrong' WHERE id = 'pay_1'")
    migrate(missing, 16, folder)

    words = str(refused.value)
    assert "auth_1 in pay_0 and pay_1" in words and "auth_2" not in words
    assert "0013_bank_ids.sql says how to mend them" in words
    with pytest.raises(psycopg.errors.UniqueViolation, match="authorization_is_one_receipts"):
        rows(missing, a_receipt("pay_9", "auth_2"))


def a_receipt(payment: str, hold: str | None) -> str:
    return f"""INSERT INTO payments (id, partition, merchant, amount, currency, order_id, customer_id, metadata, method,
        connector, state, version, sequence, amount_captured, amount_refunded, authorization_id, created_at,
        operation_id, journal_head, write_id)
        VALUES ('{payment}', 1, 'm', 5, 'USD', 'o', 'c', '{{}}', '{{}}', 'ficmart_bank', 'pending', 1, 1, 0, 0,
        {"NULL" if hold is None else f"'{hold}'"}, now(), 'op_1', '', '')"""


def test_a_server_that_is_not_there_is_named_as_the_reason() -> None:
    with pytest.raises(MigrationError, match=r"Postgres at 127\.0\.0\.1:1/penstock, user postgres cannot be reached"):
        migrate("postgresql://postgres@127.0.0.1:1/penstock", 16)


def test_seeding_again_keeps_what_was_revoked(database: str) -> None:
    rows(database, "UPDATE api_keys SET revoked_at = now() WHERE id = 'key_local_other'")

    seed_local(database)

    keys = rows(database, "SELECT merchant_id, scope, digest, revoked_at IS NULL FROM api_keys")
    assert set(keys) == {
        ("mer_local", "merchant", hashlib.sha256(b"sk_local_merchant").digest(), True),
        ("mer_other", "merchant", hashlib.sha256(b"sk_local_other").digest(), False),
        ("mer_local", "operator", hashlib.sha256(b"ok_local_operator").digest(), True),
    }
    assert set(rows(database, "SELECT id, name, status FROM merchants")) == {
        ("mer_local", "Local shop", "active"),
        ("mer_other", "Other shop", "active"),
    }


def the_order_before(missing: str, folder: Path) -> dict[str, bytes]:
    """A database whose events are in the order of transactions; the files that change that."""
    later = {file.name: file.read_bytes() for file in folder.glob("[0-9]*.sql") if file.name >= "0014"}
    for name in later:
        (folder / name).unlink()
    migrate(missing, 4, folder)
    return later


EVENT = """INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
           VALUES ('evt_{0}', 'pay_{0}', 1, 'mer_local', 'payment.created', '{{}}', now())"""


def test_no_event_is_skipped_when_the_order_of_events_changes(missing: str, folder: Path) -> None:
    later = the_order_before(missing, folder)
    with psycopg.connect(missing) as slow, psycopg.connect(missing) as fast:
        slow.execute("SELECT pg_current_xact_id()")
        for connection, number in ((slow, 1), (fast, 2), (fast, 3)):
            connection.execute(EVENT.format(number).encode())
        fast.commit()
        slow.commit()
        # Handled was the first transaction: event 1. In another cluster since, a transaction of a small id was skipped.
        fast.execute("UPDATE fan_out SET (xid, id) = (SELECT xid, id FROM outbox WHERE event_id = 'evt_1')")
        fast.execute(EVENT.format(4).encode())
        fast.execute("UPDATE outbox SET xid = '5' WHERE event_id = 'evt_4'")
    for name, text in later.items():
        (folder / name).write_bytes(text)

    migrate(missing, 4, folder)

    rows(
        missing,
        """INSERT INTO merchants (id, name) VALUES ('mer_local', 'm');
           INSERT INTO webhook_endpoints (id, merchant, url) VALUES ('whe_1', 'mer_local', 'http://127.0.0.1/')""",
    )
    rows(missing, "SELECT * FROM fan_out_events(100)")
    assert rows(missing, "SELECT payment FROM deliveries ORDER BY 1") == [("pay_2",), ("pay_3",), ("pay_4",)]


@pytest.mark.parametrize("left", ["SELECT setval('outbox_id_seq', 1, false)", "UPDATE fan_out SET id = 40"])
def test_a_restore_that_left_the_sequence_behind_is_set_right_and_nothing_starts_before(
    database: str, redis_url: str, tmp_path: Path, left: str
) -> None:
    for number in (1, 2, 3):
        rows(database, EVENT.format(number))
    rows(database, left)
    with closing(Gateway(database=database, redis_url=redis_url, bank_url="http://127.0.0.1:9", folder=tmp_path)) as it:
        refused = it.launch("dispatcher")
        code = refused.died(30)

    migrate(database, 16)
    rows(database, EVENT.format(4))

    assert (code != 0, "penstock migrate" in refused.log.read_text()) == (True, True)
    [(new, taken)] = rows(database, "SELECT max(id), (SELECT greatest(3, id) FROM fan_out) FROM outbox")
    assert new > taken
