"""A Postgres that fails over to an older copy: an epoch given twice has one owner, a lost outcome is found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.domain.ids import partition_of
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

TABLES = ("payments", "operations", "transitions", "outbox")


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path) as running:
        yield running


def test_an_owner_whose_epoch_was_given_to_another_commits_nothing(gateway: Gateway) -> None:
    gateway.shared(1)
    payment = gateway.pay(next(fresh_cards), wait=10).json()["id"]
    partition = partition_of(payment, 16)
    before = gateway.sql("SELECT epoch FROM partitions WHERE id = %s", partition)

    # As after a fail-over that lost our acquisition, when another worker has made the same one.
    gateway.sql("UPDATE partitions SET token = 'of another worker' WHERE id = %s", partition)
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=20)

    (worker,) = [running for running in gateway.processes if running.role == "worker"]
    assert captured.status_code == 200, "it takes the partition anew, and goes on"
    assert '"partition_fenced"' in worker.log.read_text()
    assert gateway.sql("SELECT epoch FROM partitions WHERE id = %s", partition) > before


@pytest.mark.slow
def test_an_attempt_whose_outcome_was_lost_is_looked_at_again_by_the_running_owner(
    gateway: Gateway, bank: Bank
) -> None:
    card = next(fresh_cards)
    gateway.shared(1)
    with psycopg.connect(gateway.database, autocommit=True) as ledger:
        # What the copy will have: everything up to the intent, and nothing of the outcome.
        ledger.execute(KEEP_INTENTS)
        paid = gateway.pay(card, wait=10).json()
        payment = paid["id"]
        gateway.settled()
        ledger.execute(GO_BACK)
        ledger.execute("DROP TRIGGER keep_intents ON operations; DROP FUNCTION keep_intent()")
    assert gateway.sql("SELECT status FROM operations WHERE payment = %s", payment) == [("sent",)]

    eventually(lambda: gateway.unsettled() == 0, "the attempt is made again with its key and answered", 60)

    again = gateway.get(payment)
    assert (again["status"], again["bank"]) == ("authorized", paid["bank"])
    assert gateway.sql("SELECT attempts FROM operations WHERE payment = %s", payment) == [(2,)]


KEEP_INTENTS = """
    CREATE TABLE kept_operations (LIKE operations);
    CREATE TABLE kept_payments (LIKE payments);
    CREATE FUNCTION keep_intent() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.status = 'sent' THEN
            INSERT INTO kept_operations SELECT NEW.*;
            INSERT INTO kept_payments SELECT * FROM payments WHERE id = NEW.payment;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER keep_intents AFTER INSERT ON operations FOR EACH ROW EXECUTE FUNCTION keep_intent();
"""
GO_BACK = """
    DELETE FROM deliveries; DELETE FROM outbox WHERE sequence > 1; DELETE FROM transitions WHERE sequence > 1;
    DELETE FROM operations; INSERT INTO operations SELECT DISTINCT ON (id) * FROM kept_operations;
    DELETE FROM payments; INSERT INTO payments SELECT DISTINCT ON (id) * FROM kept_payments ORDER BY id, version;
"""
