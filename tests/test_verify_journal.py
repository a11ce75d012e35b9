"""Who edits, removes, adds or moves a row of the journal is found and the row named; an anchor shows the rest."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.domain.journal import Journal
from engine.errors import Broken
from ops.audit.anchor import Draft, Head, read
from ops.audit.verification import Verification, verify
from ops.stack.embedded import EmbeddedPostgres
from support.audit_stand import Ledger
from support.gateway import FINGERPRINT_KEY

pytest_plugins = ["support.bank_fixtures", "support.audit_fixtures"]

COLUMNS = "from_state, to_state, event, operation, at, evidence, mac"
JOURNAL = Journal(base64.b64decode(FINGERPRINT_KEY))
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


def seen(ledger: Ledger, **options: Any) -> Verification:
    return verify(ledger.dsn, JOURNAL, **options)


def faults(ledger: Ledger, **options: Any) -> list[tuple[str, int | None, str]]:
    return [(each.payment, each.sequence, each.fault.value) for each in seen(ledger, **options).findings]


def refunded(ledger: Ledger) -> str:
    """A payment with four rows at least, the last of which is its refund."""
    return ledger.one(
        "SELECT payment FROM transitions WHERE event = 'refunded' AND sequence > 3 ORDER BY payment LIMIT 1"
    )


def anchored(ledger: Ledger, path: Path) -> Path:
    with Draft(path) as draft:
        assert not seen(ledger, draft=draft).wrong
    return path


def test_a_journal_that_nobody_touched_verifies_row_by_row(ledger: Ledger) -> None:
    whole = seen(ledger)

    assert (whole.findings, whole.wrong) == ([], 0)
    assert whole.verified == whole.rows == int(ledger.one("SELECT count(*) FROM transitions")) > 10
    assert whole.payments == int(ledger.one("SELECT count(*) FROM payments"))


@pytest.mark.parametrize(
    "change",
    [
        "from_state = 'voided'",
        "to_state = 'voided'",
        "event = 'captured_by_hand'",
        "operation = 'op_' || operation",
        "at = at + interval '1 microsecond'",
        "at = 'infinity'",
        """evidence = '{"reference": "another"}'""",
        "evidence = '123456789012345678901234567890'",
        r"""evidence = '"\ud800"'""",
    ],
)
def test_an_edited_row_is_named_and_no_other(ledger: Ledger, change: str) -> None:
    payment = refunded(ledger)

    ledger.write(f"UPDATE transitions SET {change} WHERE payment = '{payment}' AND sequence = 3")

    assert faults(ledger) == [(payment, 3, "edited")]


def test_a_mac_that_was_altered_is_told_from_an_edited_row(ledger: Ledger) -> None:
    payment = refunded(ledger)

    ledger.write(f"UPDATE transitions SET mac = repeat('0', 64) WHERE payment = '{payment}' AND sequence = 2")

    assert faults(ledger) == [(payment, 2, "mac_edited")]


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_row_that_is_gone_is_named(ledger: Ledger, gone: int) -> None:
    payment = refunded(ledger)

    ledger.write(f"DELETE FROM transitions WHERE payment = '{payment}' AND sequence = {gone}")

    assert faults(ledger) == [(payment, gone, "missing")]


def test_rows_that_are_gone_from_the_end_are_missed_by_the_receipt(ledger: Ledger) -> None:
    payment = refunded(ledger)
    rows = int(ledger.one(f"SELECT sequence FROM payments WHERE id = '{payment}'"))

    ledger.write(f"DELETE FROM transitions WHERE payment = '{payment}' AND sequence >= {rows - 1}")

    assert faults(ledger) == [(payment, rows - 1, "missing"), (payment, rows, "missing")]


def test_two_rows_that_were_exchanged_are_both_named_with_their_places(ledger: Ledger) -> None:
    payment = refunded(ledger)

    ledger.write(
        f"UPDATE transitions SET sequence = sequence + 100 WHERE payment = '{payment}' AND sequence IN (2, 3)",
        f"UPDATE transitions SET sequence = 105 - sequence WHERE payment = '{payment}' AND sequence > 100",
    )

    found = seen(ledger).findings
    assert [(each.sequence, each.fault.value) for each in found] == [(2, "moved"), (3, "moved")]
    assert "row 3" in found[0].detail and "row 2" in found[1].detail


def test_a_row_from_another_payment_is_named(ledger: Ledger) -> None:
    payment = refunded(ledger)
    other = ledger.one(f"SELECT payment FROM transitions WHERE sequence = 2 AND payment <> '{payment}' LIMIT 1")

    ledger.write(
        f"DELETE FROM transitions WHERE payment = '{payment}' AND sequence = 2",
        f"INSERT INTO transitions SELECT '{payment}', sequence, {COLUMNS}"
        f" FROM transitions WHERE payment = '{other}' AND sequence = 2",
    )

    assert (payment, 2, "edited") in faults(ledger)


def test_a_row_that_was_added_behind_the_last_is_named(ledger: Ledger) -> None:
    payment = refunded(ledger)
    rows = int(ledger.one(f"SELECT sequence FROM payments WHERE id = '{payment}'"))

    ledger.write(
        f"INSERT INTO transitions SELECT payment, sequence + 1, {COLUMNS}"
        f" FROM transitions WHERE payment = '{payment}' AND sequence = {rows}"
    )

    assert faults(ledger) == [(payment, rows + 1, "moved"), (payment, rows + 1, "extra")]


def test_receipts_without_journals_and_journals_without_receipts_are_named(ledger: Ledger) -> None:
    first = refunded(ledger)
    second = ledger.one(f"SELECT max(id) FROM payments WHERE id <> '{first}'")

    ledger.write(
        f"DELETE FROM transitions WHERE payment = '{first}'",
        f"SET session_replication_role = replica; DELETE FROM payments WHERE id = '{second}'",
    )

    assert sorted(faults(ledger)) == sorted([(first, None, "missing"), (second, None, "receipt_missing")])


def test_a_receipt_that_knows_another_head_is_named(ledger: Ledger) -> None:
    payment = refunded(ledger)

    ledger.write(f"UPDATE payments SET journal_head = repeat('a', 64) WHERE id = '{payment}'")

    assert [(name, fault) for name, _, fault in faults(ledger)] == [(payment, "head_differs")]


def test_another_key_is_no_breach_but_no_answer_either(ledger: Ledger) -> None:
    with pytest.raises(Broken, match="PENSTOCK_FINGERPRINT_KEY"):
        verify(ledger.dsn, Journal(b"x" * 32))


def test_an_anchor_shows_a_journal_that_was_cut_together_with_its_receipt(ledger: Ledger, tmp_path: Path) -> None:
    payment, anchor = refunded(ledger), read(anchored(ledger, tmp_path / "today.anchor"))
    rows = int(ledger.one(f"SELECT sequence FROM payments WHERE id = '{payment}'"))

    ledger.write(
        f"DELETE FROM transitions WHERE payment = '{payment}' AND sequence = {rows}",
        f"UPDATE payments p SET sequence = t.sequence, journal_head = t.mac FROM transitions t"
        f" WHERE p.id = '{payment}' AND t.payment = p.id AND t.sequence = {rows - 1}",
    )

    assert faults(ledger) == []
    assert faults(ledger, anchor=anchor) == [(payment, rows, "missing")]


def test_an_anchor_shows_a_payment_that_was_removed_whole(ledger: Ledger, tmp_path: Path) -> None:
    payment, anchor = refunded(ledger), read(anchored(ledger, tmp_path / "today.anchor"))
    rows = int(ledger.one(f"SELECT sequence FROM payments WHERE id = '{payment}'"))

    ledger.write(
        f"DELETE FROM transitions WHERE payment = '{payment}'",
        f"SET session_replication_role = replica; DELETE FROM payments WHERE id = '{payment}'",
    )

    assert faults(ledger) == []
    assert faults(ledger, anchor=anchor) == [(payment, rows, "missing")]


def test_an_anchor_shows_what_somebody_with_the_key_wrote_anew(ledger: Ledger, tmp_path: Path) -> None:
    payment, anchor = refunded(ledger), read(anchored(ledger, tmp_path / "today.anchor"))
    rows = int(ledger.one(f"SELECT sequence FROM payments WHERE id = '{payment}'"))

    with psycopg.connect(ledger.dsn) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        row = connection.execute(
            "SELECT payment, sequence, from_state, to_state, event, operation, at FROM transitions"
            " WHERE payment = %s AND sequence = %s",
            (payment, rows),
        ).fetchone()
        head = connection.execute(
            "SELECT mac FROM transitions WHERE payment = %s AND sequence = %s", (payment, rows - 1)
        ).fetchone()
        assert row is not None and head is not None
        forged = JOURNAL.mac(head[0], (*row, {"reference": "forged"}))
        connection.execute(
            'UPDATE transitions SET evidence = \'{"reference": "forged"}\', mac = %s'
            " WHERE payment = %s AND sequence = %s",
            (forged, payment, rows),
        )
        connection.execute("UPDATE payments SET journal_head = %s WHERE id = %s", (forged, payment))

    assert faults(ledger) == []
    assert faults(ledger, anchor=anchor) == [(payment, rows, "rewritten")]


def test_payments_that_went_on_since_an_anchor_are_in_order(ledger: Ledger, tmp_path: Path) -> None:
    payment = refunded(ledger)
    earlier = [
        Head(payment=payment, sequence=number, mac=ledger.one(
            f"SELECT mac FROM transitions WHERE payment = '{payment}' AND sequence = {number}"
        ))
        for number in (1, 2)
    ]  # fmt: skip
    with Draft(tmp_path / "then.anchor") as draft:
        for head in earlier:
            draft.add(head)
        installation = ledger.one("SELECT id FROM installation")
        anchor = draft.seal(installation=installation, taken_at=seen(ledger).at)

    assert (faults(ledger, anchor=anchor), seen(ledger, anchor=anchor).anchored) == ([], 2)


def test_an_anchor_of_another_installation_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    anchor = read(anchored(ledger, tmp_path / "today.anchor"))

    ledger.write("UPDATE installation SET id = repeat('0', 32)")

    with pytest.raises(Broken, match="another installation"):
        seen(ledger, anchor=anchor)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _edited(path: Path) -> None:
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text.replace(b" 2 ", b" 3 ", 1)))


def _a_line_less(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).split(b"\n", 1)[1]))


@pytest.mark.parametrize(
    "spoil",
    [
        _cut,
        _edited,
        _a_line_less,
        lambda path: path.write_text("something else"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(gzip.compress(b"[]\n")),
        lambda path: path.write_bytes(gzip.compress(b"{}\n")),
        lambda path: path.write_bytes(gzip.compress(10_000_000 * b"x")),
    ],
    ids=["cut", "edited", "a line less", "no gzip", "empty", "a list", "an object", "one long line"],
)
def test_an_anchor_that_is_not_whole_is_refused_in_words(ledger: Ledger, tmp_path: Path, spoil: Any) -> None:
    path = anchored(ledger, tmp_path / "today.anchor")

    spoil(path)

    with pytest.raises(Broken, match=r"today\.anchor"):
        read(path)


def test_of_a_journal_that_is_not_in_order_no_anchor_is_left(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(f"UPDATE transitions SET event = 'voided' WHERE payment = '{refunded(ledger)}' AND sequence = 1")

    with Draft(tmp_path / "today.anchor") as draft:
        assert seen(ledger, draft=draft).wrong == 1

    assert list(tmp_path.iterdir()) == []


def command(ledger: Ledger, *options: str, key: str | None = FINGERPRINT_KEY) -> subprocess.CompletedProcess[str]:
    """The process, ended by itself."""
    environ = {
        **PLAIN,
        "PENSTOCK_DATABASE_URL": ledger.dsn,
        **({} if key is None else {"PENSTOCK_FINGERPRINT_KEY": key}),
    }
    words = [sys.executable, "-P", "-m", "ops.cli.main", "verify-journal", *options]
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)


def test_the_command_exports_compares_and_tells(ledger: Ledger, tmp_path: Path) -> None:
    payment, path = refunded(ledger), str(tmp_path / "today.anchor")

    exported = command(ledger, "--export", path)
    compared = command(ledger, "--anchor", path, "--json")
    again = command(ledger, "--export", path)
    ledger.write(f"UPDATE transitions SET event = 'voided' WHERE payment = '{payment}' AND sequence = 3")
    breached = command(ledger, "--anchor", path)
    as_json = command(ledger, "--payment", payment, "--json")

    assert (exported.returncode, exported.stderr) == (0, "")
    digest = read(Path(path)).digest
    assert "each chain holds" in exported.stdout and digest in exported.stdout and "cannot see" in exported.stdout
    told = json.loads(compared.stdout)
    assert (compared.returncode, told["holds"], told["anchor"]["digest"]) == (0, True, digest)
    assert told["anchor"]["compared"] == told["anchor"]["payments"] == told["payments"] > 3
    assert again.returncode == 2 and "--force" in again.stderr
    assert breached.returncode == 1 and payment in breached.stdout and "What to do" in breached.stdout
    assert as_json.returncode == 1
    assert [each["fault"] for each in json.loads(as_json.stdout)["findings"]] == ["edited"]


@pytest.mark.parametrize(
    ("options", "key", "said"),
    [
        ((), None, "PENSTOCK_FINGERPRINT_KEY"),
        ((), "no base64", "openssl rand"),
        ((), base64.b64encode(b"x" * 32).decode(), "PENSTOCK_FINGERPRINT_KEY"),
        (("--anchor", "there-is-none.anchor"), FINGERPRINT_KEY, "there-is-none.anchor"),
        (("--export", "no-such-folder/today.anchor"), FINGERPRINT_KEY, "no-such-folder"),
        (("--export", "today.anchor", "--payment", "pay_1"), FINGERPRINT_KEY, "--payment"),
    ],
)
def test_what_cannot_be_told_is_2_in_words(
    ledger: Ledger, options: tuple[str, ...], key: str | None, said: str
) -> None:
    told = command(ledger, *options, key=key)

    assert (told.returncode, told.stdout) == (2, "")
    assert said in told.stderr and "Traceback" not in told.stderr


def test_a_database_that_is_no_installation_is_2(postgres: EmbeddedPostgres) -> None:
    told = command(Ledger(dsn=postgres.dsn("postgres"), redis=""))

    assert (told.returncode, told.stdout) == (2, "")
    assert "penstock migrate" in told.stderr
