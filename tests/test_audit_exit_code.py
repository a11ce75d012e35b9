"""`penstock audit` as a script calls it: 0 when all holds, 1 on a breach, 2 when it cannot look; in words, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ops.stack.embedded import EmbeddedPostgres
from support.audit_stand import Ledger
from support.gateway import Gateway, eventually

pytest_plugins = ["support.bank_fixtures", "support.audit_fixtures"]

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
NOWHERE = "127.0.0.1:1"  # nobody listens there


def audit(database: str, redis: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The process, ended by itself."""
    environ = {**PLAIN, "PENSTOCK_DATABASE_URL": database, "PENSTOCK_REDIS_URL": redis}
    command = [sys.executable, "-P", "-m", "ops.cli.main", "audit", *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_where_all_holds_it_is_0(ledger: Ledger) -> None:
    told = audit(ledger.dsn, ledger.redis)

    assert (told.returncode, told.stderr) == (0, "")
    assert "each holds" in told.stdout


def test_a_breach_is_1_with_its_name_what_is_wrong_and_what_to_do(ledger: Ledger) -> None:
    ledger.write("UPDATE transitions SET to_state = 'authorized' WHERE event = 'declined'")

    told, as_json = audit(ledger.dsn, ledger.redis), audit(ledger.dsn, ledger.redis, "--json")

    assert (told.returncode, told.stderr) == (1, "")
    assert "I3 journal_follows_the_table" in told.stdout and "What to do:" in told.stdout
    assert as_json.returncode == 1
    document = json.loads(as_json.stdout)
    found = {each["name"]: each["found"] for each in document["invariants"] if each["found"]}
    assert (document["holds"], found["journal_follows_the_table"]) == (False, 1)


def test_what_is_only_counted_apart_is_0(ledger: Ledger) -> None:
    ledger.write(
        """UPDATE operations SET status = 'review', settled_at = NULL, response_status = NULL, response_body = NULL
           WHERE id = (SELECT id FROM operations WHERE status = 'rejected' LIMIT 1)"""
    )

    told = audit(ledger.dsn, ledger.redis)

    assert "counted apart" in told.stdout and "reviews_are_resolved" in told.stdout
    assert told.returncode == 0


@pytest.mark.parametrize("away", ["Postgres", "Redis", "bank"])
def test_a_store_that_is_away_is_2_and_no_verdict(ledger: Ledger, away: str) -> None:
    lost = f"postgresql://{NOWHERE}/penstock"
    database = lost if away == "Postgres" else ledger.dsn
    redis = f"redis://{NOWHERE}/0" if away == "Redis" else ledger.redis

    told = audit(database, redis, *(("--bank-database", lost) if away == "bank" else ()))

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("penstock: ") and "Traceback" not in told.stderr


def test_a_database_that_is_no_installation_is_2(postgres: EmbeddedPostgres, ledger: Ledger) -> None:
    told = audit(postgres.dsn("postgres"), ledger.redis)

    assert (told.returncode, told.stdout) == (2, "")
    assert "penstock migrate" in told.stderr


def test_an_auditor_that_cannot_look_says_so_is_not_ready_and_goes_on_until_it_is_stopped(
    ledger: Ledger, tmp_path: Path
) -> None:
    gateway = Gateway(database=ledger.dsn, redis_url=f"redis://{NOWHERE}/0", bank_url="http://bank", folder=tmp_path)
    with closing(gateway):
        auditor = gateway.launch("auditor", PENSTOCK_AUDIT_EVERY_S="1")
        eventually(lambda: auditor.log.read_text().count('"event":"audit_failed"') >= 2, "two looks failed", 20)

        assert httpx.get(f"http://127.0.0.1:{auditor.port}/readyz").status_code == 503
        assert auditor.end() == 0
