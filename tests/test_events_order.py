"""The order of events is final up to a mark, and nothing but a writer of events moves the mark."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from engine.ledger.statement import statement
from support.event_stand import a_payment_id, tell
from support.gateway import eventually

MERCHANT = "mer_local"
DRAWN = "SELECT last_value FROM outbox_id_seq"


@pytest.fixture
def reader(database: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        yield connection


def one(connection: psycopg.Connection, sql: str, *given: object) -> object:
    row = connection.execute(sql.encode(), given).fetchone()
    assert row is not None
    return row[0]


def readable(reader: psycopg.Connection) -> list[str]:
    """Every event, as a feed's first page and as the fan-out see them; both must agree."""
    given = {"merchants": [MERCHANT], "ids": [0], "types": [None], "limits": [1000], "scan": 1000}
    rows = reader.execute(statement("events_pages"), given).fetchall()
    return [row[5] for row in rows if row[5] is not None]


def news(connection: psycopg.Connection) -> str:
    return tell(connection, MERCHANT, a_payment_id(), 1)


def test_an_event_waits_for_those_with_smaller_ids_and_for_no_others(database: str, reader: psycopg.Connection) -> None:
    with psycopg.connect(database) as slow, psycopg.connect(database) as fast:
        before = news(fast)
        fast.commit()
        early = news(slow)
        late = news(fast)
        fast.commit()
        while_slow = eventually(lambda: readable(reader), "what was before is readable")
        slow.commit()

    assert while_slow == [before]
    assert eventually(lambda: len(readable(reader)) == 3 and readable(reader), "all") == [before, early, late]


def test_a_mark_is_older_than_every_id_of_its_transaction(database: str, reader: psycopg.Connection) -> None:
    with psycopg.connect(database) as writer:
        for _ in range(3):
            news(writer)
        ids = [row[0] for row in writer.execute("SELECT id FROM outbox ORDER BY id")]
        marks = writer.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        low = one(reader, "SELECT low FROM events_readable()")
        counted = marks.fetchone()

    assert low == ids[0] - 1
    assert counted == (1,), "one for a transaction, however much it inserts"


def test_an_insert_after_a_savepoint_was_given_up_takes_its_mark_again(
    database: str, reader: psycopg.Connection
) -> None:
    with psycopg.connect(database) as slow, psycopg.connect(database) as fast:
        slow.execute("SAVEPOINT s")
        news(slow)
        slow.execute("ROLLBACK TO s")
        early = news(slow)
        late = news(fast)
        fast.commit()
        while_slow = readable(reader)
        slow.commit()

    assert while_slow == []
    assert eventually(lambda: len(readable(reader)) == 2 and readable(reader), "both") == [early, late]


def test_a_setting_that_a_session_was_left_with_takes_no_mark_away(database: str, reader: psycopg.Connection) -> None:
    with psycopg.connect(database) as slow, psycopg.connect(database) as fast:
        news(slow)
        slow.execute("SELECT set_config('penstock.marked', pg_current_xact_id()::text, false)")
        slow.commit()
        news(slow)
        news(fast)
        fast.commit()

        assert len(readable(reader)) == 1


def test_transactions_without_events_hold_nothing_back(database: str, reader: psycopg.Connection) -> None:
    elsewhere = database.rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(elsewhere) as stranger, psycopg.connect(database) as neighbour:
        for connection in (stranger, neighbour):
            connection.execute("CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT pg_current_xact_id()")
        with psycopg.connect(database) as writer:
            event = news(writer)

        assert eventually(lambda: readable(reader), "it is readable") == [event]


def test_other_advisory_locks_are_no_marks(database: str, reader: psycopg.Connection) -> None:
    elsewhere = database.rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(database) as other, psycopg.connect(elsewhere) as stranger:
        other.execute("SELECT pg_advisory_xact_lock(event_mark(0)), pg_advisory_xact_lock_shared(7)")
        stranger.execute("SELECT pg_advisory_xact_lock_shared(20563::bigint << 48)")

        assert one(reader, "SELECT low FROM events_readable()") is None


def test_events_are_not_read_under_an_isolation_that_could_skip_some(reader: psycopg.Connection) -> None:
    reader.execute("SET default_transaction_isolation = 'repeatable read'")

    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED only"):
        readable(reader)
    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED only"):
        reader.execute("SELECT * FROM fan_out_events(10)")


def test_the_fan_out_and_a_reader_keep_up_with_many_writers_and_skip_nothing(
    database: str, reader: psycopg.Connection
) -> None:
    reader.execute(
        "INSERT INTO webhook_endpoints (id, merchant, url) VALUES ('whe_1', %s, 'http://127.0.0.1:9/')", (MERCHANT,)
    )
    writers, each = 6, 60
    done = threading.Event()

    def write(seed: int) -> set[str]:
        draw, told = random.Random(seed), set[str]()
        with psycopg.connect(database) as connection:
            for _ in range(each):
                fresh = {news(connection) for _ in range(draw.randint(1, 3))}
                if draw.random() < 0.3:
                    time.sleep(draw.uniform(0, 0.01))  # commits overtake each other
                if draw.random() < 0.15:
                    connection.rollback()
                else:
                    connection.commit()
                    told |= fresh
        return told

    def read() -> list[str]:
        seen: list[str] = []
        after = 0
        with closing(psycopg.connect(database, autocommit=True)) as connection:
            while True:
                last = done.is_set()
                given = {"merchants": [MERCHANT], "ids": [after], "types": [None], "limits": [7], "scan": 1000}
                rows = connection.execute(statement("events_pages"), given).fetchall()
                seen += [row[5] for row in rows if row[5] is not None]
                after = rows[-1][4] or after
                handled = connection.execute(statement("fan_out"), {"events_max": 5}).fetchone()
                if last and rows[-1][4] is None and handled is not None and handled[0] == 0:
                    return seen

    with ThreadPoolExecutor(writers + 1) as pool:
        reading = pool.submit(read)
        writing = [pool.submit(write, seed) for seed in range(writers)]
        written = set[str]().union(*(each.result() for each in writing))
        eventually(lambda: one(reader, "SELECT low FROM events_readable()") is None, "no writer is left")
        done.set()
        seen = reading.result(60)

    delivered = reader.execute("SELECT o.event_id FROM deliveries JOIN outbox o USING (payment, sequence)").fetchall()
    assert len(seen) == len(set(seen))
    assert set(seen) == written == {row[0] for row in delivered}


def test_a_page_is_found_by_index_however_few_merchants_there_are(database: str, reader: psycopg.Connection) -> None:
    reader.execute(
        """INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
           SELECT 'evt_' || n, 'pay_' || n, 1, CASE n WHEN 7 THEN 'mer_other' ELSE 'mer_local' END, 'payment.created',
                  '{}', now()
           FROM generate_series(1, 20000) AS n"""
    )
    reader.execute("ANALYZE outbox")
    with closing(psycopg.connect(database, autocommit=True)) as asking:
        before = asking.execute(statement("fan_out"), {"events_max": 20000}).fetchone()
        for _ in range(12):  # a statement is planned for any arguments after some
            for merchant in ("mer_local", "mer_other"):
                for after in (0, None):
                    given = {"merchants": [merchant], "ids": [after], "types": [None], "limits": [10], "scan": 1000}
                    asking.execute(statement("events_pages"), given).fetchall()
            asking.execute(statement("events_news"), {"since": 19990}).fetchall()
            asking.execute(statement("fan_out"), {"events_max": 500}).fetchall()
        asking.execute("SELECT pg_stat_force_next_flush()")
    counted = """SELECT t.seq_scan, i.indexrelname, i.idx_tup_read FROM pg_stat_user_tables t
                 JOIN pg_stat_user_indexes i USING (relid) WHERE t.relname = 'outbox' ORDER BY i.indexrelname"""
    rows = eventually(
        lambda: (found := reader.execute(counted).fetchall()) and sum(row[2] for row in found) and found, "counts"
    )

    read = {name: tuples for _, name, tuples in rows}
    assert before is not None and before[0] == 20000
    assert {scans for scans, _, _ in rows} <= {0, 1}, "one at most, before the planner knew how large it is"
    assert read["outbox_of_merchant"] <= 12 * (11 + 1 + 1 + 1)
    assert read["outbox_pkey"] <= 20000 + 12 * 10 + 100, "the planner looks at the ends of an index, too"
