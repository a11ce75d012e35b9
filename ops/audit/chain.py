"""The chain of one payment's journal, walked from its first row to the receipt, which knows the last (I8).

Each row's mac covers the row and the mac before it, so what does not follow is named: the row, and what was done to it
as far as that can be told. A row whose own mac was altered is told apart from the innocent one behind it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import orjson

from engine.domain.journal import Journal

_SEARCHED_MAX = 64  # rows of a payment among which a moved one is looked for; a payment has about ten


class ChainFault(StrEnum):
    """What was done to a row, or to a payment as a whole when the finding names no row."""

    EDITED = "edited"
    MAC_EDITED = "mac_edited"
    MOVED = "moved"
    MISSING = "missing"
    EXTRA = "extra"
    HEAD_DIFFERS = "head_differs"
    RECEIPT_MISSING = "receipt_missing"
    REWRITTEN = "rewritten"  # told by an anchor alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row as it is stored. `at` is None where no time of ours can be; `evidence` is the text of its JSON."""

    payment: str
    sequence: int
    from_state: str | None
    to_state: str
    event: str
    operation: str
    at: datetime | None
    evidence: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReceipt:
    """How many rows a payment has, and the mac of the last."""

    sequence: int
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; `sequence` is the row's, None when it is the payment as a whole."""

    payment: str
    sequence: int | None
    fault: ChainFault
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What a walk along one payment's rows showed. `verified`: rows that follow from the one before."""

    verified: int
    findings: tuple[Finding, ...]


def walk(journal: Journal, rows: Sequence[Row], receipt: ChainReceipt | None) -> Walk:
    """The rows of one payment, at least one, by their sequence; `receipt` is None when there is none any more."""
    payment, findings, verified = rows[0].payment, list[Finding](), 0
    expected, heads = 1, [""]
    for row in rows:
        if row.sequence < expected:
            findings.append(_finding(payment, row.sequence, ChainFault.EXTRA, "there is no such place in a journal"))
            continue
        if row.sequence > expected:
            findings.extend(_missing(payment, expected, row.sequence - 1))
            if expected == 1:
                heads = []
        if row.sequence > expected or not heads:  # what it is chained to is gone, so nothing can be said of it
            heads = [row.mac]
        else:
            fault = _fault(journal, row, rows, heads)
            verified += fault is None
            findings.extend([fault] if fault else [])
            heads = _heads(journal, row, rows, heads, fault)
        expected = row.sequence + 1
    findings.extend(_against(receipt, payment, expected - 1, heads[0]))
    return Walk(verified=verified, findings=tuple(findings))


def _fault(journal: Journal, row: Row, rows: Sequence[Row], heads: Sequence[str]) -> Finding | None:
    """None when the row follows. `heads`: the stored mac of the row before, and what it should be."""
    if any(_follows(journal, head, row, row.sequence) for head in heads):
        return None
    place = _place(journal, row, rows[:_SEARCHED_MAX])
    if place is not None:
        detail = f"this is row {place} of the payment, in another's place"
        return _finding(row.payment, row.sequence, ChainFault.MOVED, detail)
    following = next((other for other in rows if other.sequence == row.sequence + 1), None)
    if following is not None:
        # The next row was chained to the mac that this row had: does that of the row as it stands fit it?
        for head in heads:
            own = _mac(journal, head, row, row.sequence)
            if own is not None and _follows(journal, own, following, following.sequence):
                detail = "its mac was altered; the row itself is as it was written"
                return _finding(row.payment, row.sequence, ChainFault.MAC_EDITED, detail)
    detail = "it does not follow from the row before it: altered, or brought here from another journal"
    return _finding(row.payment, row.sequence, ChainFault.EDITED, detail)


def _heads(journal: Journal, row: Row, rows: Sequence[Row], heads: Sequence[str], fault: Finding | None) -> list[str]:
    """What the next row may be chained to; the stored mac first. What was done here is not held against the next."""
    if fault is None:
        return [row.mac]
    if fault.fault is ChainFault.MOVED:  # the mac that it had to follow went with the row that was here
        return list(dict.fromkeys([row.mac, *(other.mac for other in rows[:_SEARCHED_MAX])]))
    macs = [_mac(journal, head, row, row.sequence) for head in heads]
    return [row.mac, *(mac for mac in macs if mac is not None)]


def _place(journal: Journal, row: Row, rows: Sequence[Row]) -> int | None:
    """Where in this payment's journal the row was written, if it is whole and only stands elsewhere."""
    heads = ["", *(other.mac for other in rows)]
    places = [other.sequence for other in rows if other.sequence != row.sequence]
    return next((place for place in places for head in heads if _follows(journal, head, row, place)), None)


def _against(receipt: ChainReceipt | None, payment: str, last: int, head: str) -> Iterator[Finding]:
    if receipt is None:
        yield _finding(payment, None, ChainFault.RECEIPT_MISSING, "its journal is here and its receipt is gone")
    elif receipt.sequence > last:
        yield from _missing(payment, last + 1, receipt.sequence)
    elif receipt.sequence < last:
        detail = f"the receipt knows of {receipt.sequence} rows only: added by hand, or the receipt was set back"
        yield _finding(payment, last, ChainFault.EXTRA, detail)
    elif not hmac.compare_digest(receipt.head, head):
        detail = "the receipt's journal_head is not its mac: the last row was exchanged, or the receipt was edited"
        yield _finding(payment, last, ChainFault.HEAD_DIFFERS, detail)


def _missing(payment: str, first: int, last: int) -> Iterator[Finding]:
    for sequence in range(first, min(last, first + _SEARCHED_MAX) + 1):
        yield _finding(payment, sequence, ChainFault.MISSING, "the row is gone")


def _follows(journal: Journal, head: str, row: Row, sequence: int) -> bool:
    mac = _mac(journal, head, row, sequence)
    return mac is not None and hmac.compare_digest(mac.encode(), row.mac.encode())


def _mac(journal: Journal, head: str, row: Row, sequence: int) -> str | None:
    """What its mac should be behind this head, at this place; None for a row that we cannot have written."""
    if row.at is None:
        return None
    try:
        evidence = orjson.loads(row.evidence)
        told = (row.payment, sequence, row.from_state, row.to_state, row.event, row.operation, row.at, evidence)
        return journal.mac(head, told)
    except ValueError:  # of orjson: numbers and texts that it would never have written
        return None


def _finding(payment: str, sequence: int | None, fault: ChainFault, detail: str) -> Finding:
    return Finding(payment=payment, sequence=sequence, fault=fault, detail=detail)
