"""What is in doubt and in review is in every answer to "is it all in order?": the audit, its metrics, the status."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from ops.audit.auditor import Auditor
from ops.audit.ledger_view import Unsettled, UnsettledKind, read_unsettled_of
from ops.audit.watch import Watch
from ops.cli.main import app
from ops.store_url import Locations
from support.audit_stand import GRACE_S, Ledger

pytest_plugins = ["support.bank_fixtures", "support.audit_fixtures"]

REOPEN = """UPDATE operations SET status = '{status}', settled_at = NULL, response_status = NULL, response_body = NULL,
            first_sent_at = now() - interval '{age}', deadline = NULL, next_attempt_at = now() + interval '1 hour'
            WHERE id IN (SELECT id FROM operations WHERE verb = '{verb}' AND settled_at IS NOT NULL LIMIT {limit})"""


def broken(ledger: Ledger) -> Ledger:
    """With two captures in doubt, for five hours, and a void in review."""
    ledger.write(
        REOPEN.format(status="in_doubt", age="5 hours", verb="capture", limit=2),
        REOPEN.format(status="review", age="9 hours", verb="void", limit=1),
    )
    return ledger


def test_the_audit_counts_them_in_words_and_in_json(ledger: Ledger) -> None:
    stores = {"PENSTOCK_DATABASE_URL": broken(ledger).dsn, "PENSTOCK_REDIS_URL": ledger.redis}

    words = CliRunner().invoke(app, ["audit"], env=stores).stdout
    told = json.loads(CliRunner().invoke(app, ["audit", "--json"], env=stores).stdout)["operations"]

    assert "in doubt: 2 (the oldest for 5 h), in review: 1: " in words
    assert "penstock payment list --in-doubt" in words and "penstock payment list --review" in words
    assert (told["in_doubt"], told["review"]) == (2, 1)
    assert 5 * 3600 <= told["in_doubt_oldest_s"] < 6 * 3600


def test_the_auditor_exports_them_by_connector_and_verb_and_goes_back_to_zero(ledger: Ledger) -> None:
    registry = CollectorRegistry()
    places = Locations(ledger=broken(ledger).dsn, redis=ledger.redis)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"penstock_{name}", labels)

    capture = {"connector": "ficmart_bank", "verb": "capture"}
    with closing(Auditor(places, grace_s=GRACE_S, limit=20)) as auditor:
        watch = Watch(auditor, registry, 1)
        assert value("operations_in_review") == 0
        watch.run_once()
        first = (
            value("operations_in_doubt", **capture),
            value("operations_in_review"),
            value("operations_unsettled", connector="ficmart_bank", verb="void"),
        )
        oldest = value("in_doubt_oldest_seconds", connector="ficmart_bank")
        ledger.write("DELETE FROM operations WHERE settled_at IS NULL")
        watch.run_once()

    assert first == (2, 1, 1)
    assert oldest is not None and 5 * 3600 <= oldest < 6 * 3600
    assert value("operations_in_doubt", **capture) == 0
    assert value("in_doubt_oldest_seconds", connector="ficmart_bank") == 0
    assert value("operations_in_review") == 0


def test_a_ledger_without_doubts_says_so(ledger: Ledger) -> None:
    counts = read_unsettled_of(ledger.dsn)

    assert counts.kinds == ()
    assert counts.in_words() == "in doubt: 0, in review: 0"


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (119, "119 s"), (121, "2 min"), (7100, "118 min"), (90000, "25 h")]
)
def test_an_age_is_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    kind = UnsettledKind(connector="c", verb="capture", unsettled=1, in_doubt=1, in_doubt_oldest_s=seconds, review=0)

    assert f"(the oldest for {words})" in Unsettled(kinds=(kind,)).in_words()
