"""The group commit in Python: what engine/ledger/migrations/0002_commit.sql does with a batch, on tables in memory.

All or nothing, like the function: a broken constraint raises psycopg's own error and leaves the tables as they were.
Which constraints there are, and which bug each prevents, stands in engine/ledger/migrations/0001_ledger.sql. That both
do the same is shown by tests/test_simulated_postgres_conforms.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import orjson
from psycopg.errors import CheckViolation, UniqueViolation

Row = dict[str, Any]
"""Never changed once stored: a new version is a new row, so whoever read the old one keeps it."""


@dataclass(kw_only=True)
class Partition:
    epoch: int = 0
    token: str = ""
    owner: str | None = None

    @property
    def fence(self) -> tuple[int, str]:
        return self.epoch, self.token


@dataclass(kw_only=True)
class Tables:
    """The ledger. `journal` and `outbox` are the rows of each payment, in the order of their commits."""

    partitions: dict[int, Partition]
    payments: dict[str, Row] = field(default_factory=dict)
    operations: dict[str, Row] = field(default_factory=dict)
    journal: dict[str, list[Row]] = field(default_factory=dict)
    outbox: dict[str, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The arguments of ledger_commit as rows with proper values."""

    fences: dict[int, tuple[int, str]]  # epoch and token
    opened: list[Row]
    changed: list[Row]
    operations: list[Row]
    answered: list[Row]
    entries: list[Row]


_MOMENTS = frozenset(
    "created_at authorized_at captured_at voided_at refunded_at declined_at failed_at expired_at expires_at "
    "expiring_at first_sent_at send_by deadline next_attempt_at doubted_at settled_at at".split()
)
_NEVER_CHANGES = {
    "payments": frozenset(
        "id partition merchant amount currency order_id customer_id description statement_descriptor metadata method "
        "connector webhook_url created_at".split()
    ),
    "operations": frozenset(
        "id payment merchant partition verb key parent sale amount fingerprint accept_order request_id traceparent "
        "created_at".split()
    ),
}
_ENTRY_OF_OUTBOX = ("event_id", "payment", "sequence", "merchant", "payload")
_ENTRY_OF_JOURNAL = (
    "payment", "sequence", "from_state", "to_state", "event", "operation", "at", "evidence", "mac",
)  # fmt: skip


def decoded(arguments: Mapping[str, Any]) -> Batch:
    """The one place that knows in which form the ledger hands its batch over."""
    rows = {name: [_proper(row) for row in orjson.loads(text)] for name, text in arguments.items()}
    fences = {fence["id"]: (fence["epoch"], fence["token"]) for fence in rows.pop("fences")}
    return Batch(fences=fences, **rows)


def _proper(row: Row) -> Row:
    for name, value in row.items():
        if value is not None and name in _MOMENTS:
            row[name] = datetime.fromisoformat(value)
        elif value is not None and name == "response_body":
            row[name] = value.encode()
    return row


def ledger_commit(tables: Tables, batch: Batch) -> tuple[list[Row], set[str]]:
    """The rows that the function returns, and the ids of the payments it wrote."""
    live = {partition for partition, fence in batch.fences.items() if tables.partitions[partition].fence == fence}
    payments = _payments(tables, batch, live)
    operations = _operations(tables, batch, payments)
    entries = [entry for entry in batch.entries if entry["payment"] in payments]
    for row in payments.values():
        _check(_PAYMENT_CHECKS, row)
    for row in operations.values():
        _check(_OPERATION_CHECKS, row)
    _check_bank_ids(tables, payments)
    _check_one_success(tables, operations)
    _check_sequences(tables, entries)
    # From here on nothing fails.
    tables.payments.update(payments)
    tables.operations.update(operations)
    for entry in entries:
        tables.journal.setdefault(entry["payment"], []).append({name: entry[name] for name in _ENTRY_OF_JOURNAL})
        event = {name: entry[name] for name in _ENTRY_OF_OUTBOX}
        tables.outbox.setdefault(entry["payment"], []).append({**event, "type": f"payment.{entry['event']}"})
    return _refused(tables, batch, live, payments.keys()), set(payments)


def _payments(tables: Tables, batch: Batch, live: set[int]) -> dict[str, Row]:
    """Receipts as they will be: opened if there was none, changed if nobody else did since."""
    written: dict[str, Row] = {}
    for row in batch.opened:
        if row["partition"] in live and row["id"] not in tables.payments:
            written[row["id"]] = row
    for row in batch.changed:
        known = tables.payments.get(row["id"])
        if known is not None and known["version"] == row["version"] - 1 and row["partition"] in live:
            written[row["id"]] = _changed("payments", known, row)
    return written


def _operations(tables: Tables, batch: Batch, payments: Mapping[str, Row]) -> dict[str, Row]:
    """Operations as they will be. An answer once stored is never rewritten (I6)."""
    written: dict[str, Row] = {}
    for row in batch.operations:
        known = tables.operations.get(row["id"])
        if row["payment"] in payments and known is None:
            written[row["id"]] = row
        elif row["payment"] in payments and known is not None and known["settled_at"] is None:
            written[row["id"]] = _changed("operations", known, row)
    for row in batch.answered:
        known = written.get(row["id"]) or tables.operations.get(row["id"])
        if row["payment"] in payments and known is not None and known["settled_at"] is None:
            written[row["id"]] = _changed("operations", known, row)
    return written


def _changed(table: str, known: Row, row: Row) -> Row:
    fixed = _NEVER_CHANGES[table]
    return {**known, **{name: value for name, value in row.items() if name not in fixed}}


def _refused(tables: Tables, batch: Batch, live: set[int], won: Any) -> list[Row]:
    refused: list[Row] = []
    for row in (*batch.opened, *batch.changed):
        known = tables.payments.get(row["id"])
        mine = known is not None and (known["version"], known["write_id"]) == (row["version"], row["write_id"])
        if row["id"] not in won and not mine:
            verdict = "conflict" if row["partition"] in live else "stale"
            refused.append({"payment_id": row["id"], "verdict": verdict})
    return refused


Check = Callable[[Row], Any]
_HELD = frozenset({"authorized", "captured", "refunded", "voided", "expired"})
_FINAL = frozenset({"succeeded", "declined", "rejected", "failed"})

# fmt: off
_PAYMENT_CHECKS: Mapping[str, Check] = {
    "state_is_known":           lambda r: r["state"] in _HELD | {"pending", "requires_action", "declined", "failed"},
    "authorized_has_its_proof": lambda r: r["state"] not in _HELD or (r["authorization_id"] and r["authorized_at"]),
    "captured_has_its_proof":   lambda r: r["state"] not in ("captured", "refunded")
                                          or (r["amount_captured"] == r["amount"] and r["captured_at"]),
    "refunded_has_its_proof":   lambda r: r["state"] != "refunded"
                                          or (r["amount_refunded"] == r["amount_captured"] and r["refunded_at"]),
    "voided_has_its_proof":     lambda r: r["state"] != "voided" or r["voided_at"],
    "declined_has_its_proof":   lambda r: r["state"] != "declined" or (r["declined_at"] and r["failure"]),
    "failed_has_its_proof":     lambda r: r["state"] != "failed" or (r["failed_at"] and r["failure"]),
    "amounts_are_ordered":      lambda r: 0 <= r["amount_refunded"] <= r["amount_captured"] <= r["amount"],
}

_OPERATION_CHECKS: Mapping[str, Check] = {
    "sent_has_its_deadline":    lambda r: r["status"] != "sent"
                                          or (r["attempts"] and r["send_by"] and r["deadline"]
                                              and r["deadline"] > r["send_by"]),
    "settled_has_no_card":      lambda r: not r["settled_at"] or r["sealed"] is None,
    "answered_is_whole":        lambda r: (r["response_status"] is None) == (r["response_body"] is None),
    "final_is_final":           lambda r: not r["settled_at"] or r["status"] in _FINAL,
}
# fmt: on


def _check(checks: Mapping[str, Check], row: Row) -> None:
    for name, holds in checks.items():
        if not holds(row):
            raise CheckViolation(f'the row of {row["id"]} violates check constraint "{name}"')


class _Taken(UniqueViolation):
    """Says which constraint it was, as psycopg's own does."""

    def __init__(self, constraint: str) -> None:
        super().__init__(f'duplicate key value violates unique constraint "{constraint}"')
        self._constraint = constraint

    @property
    def diag(self) -> Any:
        return SimpleNamespace(constraint_name=self._constraint)


_BANK_IDS = ("authorization_id", "capture_id", "void_id", "refund_id")


def _check_bank_ids(tables: Tables, written: Mapping[str, Row]) -> None:
    """authorization_is_one_receipts and its like: an id of the bank's is in one receipt (I5)."""
    for name in _BANK_IDS:
        news = {row["id"]: (row["connector"], row[name]) for row in written.values() if row[name] is not None}
        fresh = {id: told for id, told in news.items() if (tables.payments.get(id) or {}).get(name) != told[1]}
        if not fresh:
            continue
        others = [(row["connector"], row[name]) for row in tables.payments.values() if row["id"] not in written]
        if len(set(news.values())) < len(news) or set(fresh.values()) & set(others):
            raise _Taken(name.removesuffix("_id") + "_is_one_receipts")


def _check_one_success(tables: Tables, written: Mapping[str, Row]) -> None:
    """operations_succeed_once: a second success of the same verb would be a double charge (I5)."""
    for row in written.values():
        if row["status"] == "succeeded":
            for known in (*tables.operations.values(), *written.values()):
                other = written.get(known["id"], known)
                same = (other["payment"], other["verb"], other["status"]) == (row["payment"], row["verb"], "succeeded")
                if same and other["id"] != row["id"]:
                    raise UniqueViolation('duplicate key value violates unique constraint "operations_succeed_once"')


def _check_sequences(tables: Tables, entries: list[Row]) -> None:
    """outbox_one_event and the journal's key: one row and one event for each payment and sequence (I8)."""
    known = {
        (entry["payment"], row["sequence"]) for entry in entries for row in tables.journal.get(entry["payment"], ())
    }
    for entry in entries:
        key = (entry["payment"], entry["sequence"])
        if key in known:
            raise UniqueViolation('duplicate key value violates unique constraint "outbox_one_event"')
        known.add(key)
