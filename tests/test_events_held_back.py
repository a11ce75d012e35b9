"""Who keeps events from being read is named: by the dispatcher's log and metric, and by the audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from support.audit_stand import Ledger as Audited
from support.audit_stand import named
from support.gateway import Gateway, eventually
from support.webhook_stand import Ledger, dispatchers

METRIC = "penstock_webhook_events_held_back_seconds"


@pytest.fixture
def ledger(database: str) -> Ledger:
    return Ledger(dsn=database)


@contextmanager
def open_for_long(ledger: Ledger, doing: str) -> Iterator[int]:
    """A session with an open transaction, whose pid is given; it began long enough ago for the alarm."""
    with psycopg.connect(ledger.dsn, application_name="a forgotten shell") as session:
        session.execute(doing.encode())
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        yield int(row[0])
        session.rollback()


def insert(payment: str) -> str:
    return f"""INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
               VALUES ('evt_{payment}', '{payment}', 1, 'mer_local', 'payment.created', '{{}}', now())"""


def metric(gateway: Gateway) -> float:
    port = gateway.processes[0].port
    text = gateway.http.get(f"http://127.0.0.1:{port}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(METRIC)).split()[1])


def logged(gateway: Gateway, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in gateway.processes[0].log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("doing", [insert("pay_slow"), "SELECT * FROM fan_out FOR UPDATE"], ids=["writer", "place"])
def test_the_dispatcher_names_the_session_that_keeps_events_back(
    ledger: Ledger, redis_url: str, tmp_path: Path, doing: str
) -> None:
    with dispatchers(ledger.dsn, redis_url, tmp_path) as gateway:
        with open_for_long(ledger, doing) as pid:
            ledger.happen("payment.created")
            [line] = eventually(lambda: logged(gateway, "events_held_back"), "it is logged", 60)
            eventually(lambda: metric(gateway) > 0, "it is measured", 30)
        eventually(lambda: logged(gateway, "events_no_longer_held_back"), "its end is logged", 30)
        eventually(lambda: metric(gateway) == 0, "and measured", 30)

    assert (line["pid"], line["application"], line["account"]) == (pid, "a forgotten shell", "postgres")
    assert (line["state"], line["events"], line["level"]) == ("idle in transaction", 1, "warning")


@pytest.mark.parametrize("doing", [insert("pay_slow"), "SELECT * FROM fan_out FOR UPDATE"], ids=["writer", "place"])
def test_the_audit_names_the_session_that_keeps_events_back(ledger: Ledger, redis_url: str, doing: str) -> None:
    audited = Audited(dsn=ledger.dsn, redis=redis_url)
    with open_for_long(ledger, doing) as pid:
        quiet = audited.audited(grace_s=0)
        ledger.sql("DELETE FROM outbox")  # an event without a journal row is another breach
        ledger.sql(insert("whe_1").replace("payment.created", "webhook_endpoint.disabled"))
        found, glanced = audited.audited(grace_s=0), audited.glanced_at()

    assert named(quiet) == set(), "nothing waits"
    assert named(found) == {"events_become_readable"}
    assert named(glanced) == set(), "not yet, within the grace"
    (detail,) = [each.detail for one in found.found for each in one.breaches]
    assert f"backend {pid} (application a forgotten shell, account postgres, idle in transaction)" in detail
    assert named(audited.audited(grace_s=0)) == set()


def test_a_transaction_that_holds_nothing_back_is_nobodys_concern(ledger: Ledger, redis_url: str) -> None:
    audited = Audited(dsn=ledger.dsn, redis=redis_url)
    with (
        open_for_long(ledger, "CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT * FROM outbox"),
        closing(psycopg.connect(ledger.dsn)) as neighbour,
    ):
        neighbour.execute("SELECT * FROM fan_out, deliveries")
        ledger.sql(insert("whe_1").replace("payment.created", "webhook_endpoint.disabled"))

        assert named(audited.audited(grace_s=0)) == set()
