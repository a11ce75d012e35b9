"""A verification: the whole journal, or one payment's, read as of one moment, in bounded memory; payments go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter

import psycopg
from psycopg.rows import class_row

from engine.domain.journal import Journal
from engine.errors import Broken
from engine.ledger.session import connect
from ops.audit.anchor import Anchor, Draft, Head
from ops.audit.chain import ChainFault, ChainReceipt, Finding, Row, walk
from ops.audit.snapshot import one_moment
from ops.statement import statement

_ROWS_AT_ONCE = 5_000
_FINDINGS_KEPT = 100_000  # beyond, they are only counted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored(Row):
    rows_known: int | None
    head: str | None


@dataclass(slots=True, kw_only=True)
class Verification:
    """What was seen. `wrong` counts all findings; `anchored`, the heads of the anchor that were compared."""

    at: datetime
    rows: int = 0
    payments: int = 0
    verified: int = 0
    wrong: int = 0
    anchored: int = 0
    took_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def found(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.wrong += 1
            if len(self.findings) < _FINDINGS_KEPT:
                self.findings.append(finding)


def verify(
    dsn: str,
    journal: Journal,
    *,
    payment: str | None = None,
    anchor: Anchor | None = None,
    draft: Draft | None = None,
    tell: Callable[[int, int], None] = lambda rows, of: None,
) -> Verification:
    """Walk every chain; compare with `anchor`; write the heads into `draft` and seal it when nothing is wrong.

    `tell` hears how many rows of how many are done. Raises Broken when not one row verifies, which is a matter of the
    key, or when the anchor is another installation's; psycopg.Error.
    """
    began, given = time.monotonic(), {"payment": payment}
    with connect(dsn) as connection, one_moment(connection, by_index=False):
        connection.execute(statement("journal/in_utc"))  # macs are over times as we write them
        try:
            row = connection.execute(statement("journal/count"), given).fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        total, installation, at = row if row is not None else (0, None, None)
        if installation is None or at is None:
            raise Broken("this database is no installation: run `penstock migrate`, or name the right one")
        if anchor is not None and anchor.installation != installation:
            raise Broken(f"{anchor.path} is of another installation: {anchor.installation}, not {installation}")
        seen = Verification(at=at)
        for rows in _payments(connection, payment):
            last, receipt = rows[-1], _receipt(rows[-1])
            walked = walk(journal, rows, receipt)
            seen.found(walked.findings)
            seen.rows += len(rows)
            seen.payments += 1
            seen.verified += walked.verified
            if draft is not None:
                draft.add(Head(payment=last.payment, sequence=last.sequence, mac=last.mac))
            tell(seen.rows, total)
        if seen.rows and not seen.verified:
            raise Broken(
                "not one row of the journal verifies under this key: PENSTOCK_FINGERPRINT_KEY is that of another "
                "installation, or the whole journal was written anew by somebody without it"
            )
        for name, known in connection.execute(statement("journal/without_rows"), given).fetchall():
            detail = f"all {known} rows of its journal are gone"
            seen.found([Finding(payment=name, sequence=None, fault=ChainFault.MISSING, detail=detail)])
        if anchor is not None:
            heads = (head for head in anchor.heads() if payment is None or head.payment == payment)
            while some := list(islice(heads, _ROWS_AT_ONCE)):
                seen.anchored += len(some)
                seen.found(_differing(connection, some))
        if draft is not None and not seen.wrong:
            draft.seal(installation=installation, taken_at=at)
    seen.took_s = time.monotonic() - began
    return seen


def _payments(connection: psycopg.Connection, payment: str | None) -> Iterator[list[_Stored]]:
    with connection.cursor("journal", row_factory=class_row(_Stored)) as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(statement("journal/rows"), {"payment": payment})
        for _, rows in groupby(cursor, attrgetter("payment")):
            yield list(rows)


def _receipt(row: _Stored) -> ChainReceipt | None:
    if row.rows_known is None:
        return None
    return ChainReceipt(sequence=row.rows_known, head=row.head or "")


def _differing(connection: psycopg.Connection, heads: list[Head]) -> Iterator[Finding]:
    given = {
        "payments": [head.payment for head in heads],
        "sequences": [head.sequence for head in heads],
        "macs": [head.mac for head in heads],
    }
    for payment, sequence, gone in connection.execute(statement("journal/differing"), given).fetchall():
        if gone:
            detail = "the anchor has this row, and it is gone"
            yield Finding(payment=payment, sequence=sequence, fault=ChainFault.MISSING, detail=detail)
        else:
            detail = "the anchor has another mac: the journal up to here was written anew"
            yield Finding(payment=payment, sequence=sequence, fault=ChainFault.REWRITTEN, detail=detail)
