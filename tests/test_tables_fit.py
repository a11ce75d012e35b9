"""Tables on a terminal of 80 columns, with the longest values there are: no line is wider, and ids can be copied."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from engine.domain.payment import PaymentState, Status, Verb
from ops.audit.backlog import PartitionBacklog, print_backlog
from ops.audit.breach import Breach, InvariantResult, Report
from ops.audit.chain import Finding
from ops.audit.invariant import INVARIANTS
from ops.audit.ledger_view import Unsettled
from ops.audit.report import print_report
from ops.audit.verification import Verification
from ops.cli import payment_view
from ops.cli.dead_letters import print_letter, print_letters
from ops.cli.holds import print_holds
from ops.cli.journal import _print as print_verification
from ops.cli.master_key_store import Holder, MasterKey
from ops.cli.master_keys import _print as print_keys
from ops.cli.partitions import print_partitions
from ops.cli.settings_help import print_settings
from ops.cli.stack import _COLUMNS
from ops.terminal import print_table

AT = "2031-05-04T12:00:00.123456Z"
MOMENT = datetime(2031, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)
PAYMENT, OPERATION, EVENT, ENDPOINT = (f"{prefix}_{'W' * 26}" for prefix in ("pay", "op", "evt", "whe"))
BANK_ID = "auth_2f1c6f0e-8f0b-4c5e-9a43-0d6a2b1c7e55"
LETTER = "dl_1023-1935734400000-18446744073709551615"
MERCHANT = f"mer_{'m' * 60}"
OWNER = "penstock-worker-7d9f8b6c5d-x2x4z-12345-a1b2c3"
REASON = "the bank answered with something that nobody had ever seen before, in words that go on and on " * 2
LONGEST = {each: max(each, key=len).value for each in (PaymentState, Status, Verb)}  # type: ignore[call-overload]
BANK = {"authorization_id": BANK_ID, "capture_id": BANK_ID, "void_id": None, "refund_id": BANK_ID, "auth_code": "A1"}

# fmt: off
RECEIPT = {
    "id": PAYMENT, "created_at": AT, "status": LONGEST[PaymentState], "in_doubt": True, "amount": 10**12,
    "amount_captured": 10**12, "amount_refunded": 10**12, "currency": "USD", "order_id": "o" * 128,
    "customer_id": "c" * 128, "merchant": MERCHANT, "payment_method": {"brand": "mastercard", "last4": "1111"},
    "bank": BANK, "operation": {"verb": LONGEST[Verb], "status": LONGEST[Status]}, "failure": {"message": REASON},
    "authorized_at": AT, "expires_at": AT,
}
COMMAND = {
    "type": "command", "at": AT, "operation_id": OPERATION, "verb": LONGEST[Verb], "status": LONGEST[Status],
    "attempts": 10_000, "next_attempt_at": AT, "response_status": 409, "idempotency_key": "k" * 255,
}
TIMELINE = {"data": [
    COMMAND,
    {"type": "bank_attempt", "at": AT, "operation_id": OPERATION, "answer": "approved", "attempt": 10_000,
     "deadline": None, "evidence": {"authorization_id": BANK_ID, "auth_code": "A1", "expires_at": AT}},
    {"type": "transition", "at": AT, "operation_id": OPERATION, "event": "authorization_refused",
     "from": LONGEST[PaymentState], "to": LONGEST[PaymentState], "evidence": {"authorization_id": BANK_ID}},
    {"type": "operator_act", "at": AT, "operation_id": OPERATION, "act": "resolve", "result": None,
     "actor": "key_0123456789abcdef", "reason": REASON},
    {"type": "webhook_attempt", "at": AT, "event_id": EVENT, "event": "payment.authorized", "status": 503,
     "error": None, "attempt": 12, "endpoint_id": ENDPOINT, "outcome": "failed", "next_attempt_at": AT},
]}
PARTITIONS = [PartitionBacklog(
    partition=1023, stream="penstock:{p1023}:commands", backlog=1_000_000, pending=1_000_000, lag=1_000_000,
    owner=OWNER, lease_ms=15_000, dead_letters=100_000,
)]
DEAD = {
    "object": "dead_letter", "id": LETTER, "payment_id": PAYMENT, "operation_id": OPERATION, "cause": "exception",
    "reason": REASON, "died_at": AT, "requeueable": False, "history": [{"at": AT, "error": REASON}],
    "entry": {"body": "x" * 2000, "operation": OPERATION},
}
BREACHES = [(each, Breach(invariant=each, payment=PAYMENT, operation=OPERATION, at=MOMENT, detail=REASON))
            for each in INVARIANTS]
REPORT = Report(
    at=MOMENT, took_s=1.0, payments=None, whole=True, unsettled=Unsettled(kinds=()),
    found=tuple(InvariantResult(invariant=each, more=True, breaches=(breach,) * 20) for each, breach in BREACHES),
)
VERIFICATION = Verification(
    at=MOMENT, payments=10**9, rows=10**9, verified=10**9, anchored=10**9, wrong=1,
    findings=[Finding(payment=PAYMENT, sequence=1000, fault="prev_mac", detail=f"{REASON} {'f' * 64}")],
)
HOLD = {"hold": BANK_ID, "made_at": MOMENT.isoformat(), "amount": 10**12, "card": "…1111", "key": OPERATION,
        "payment": PAYMENT}
HOLDERS = [Holder(kind="dispatcher", name=OWNER, current="0123abcd", keys=("0123abcd",) * 8, silent_s=86_400.0)]
KEYS = [MasterKey(id="0123abcd", seals=True, first_seen_at=MOMENT, sealed_until=None, may_go=False,
                  sealed={"card": 10**9, "secret": 10**6, "answer": 10**6})]
PARTS = [("dispatcher-64", "http://[2001:db8:85a3:8d3:1319:8a2e:370:7348]:65535", "4194304"),
         ("postgres", f"postgresql://postgres@/penstock?host=/home/{'a/very/long/path/' * 5}postgres", "elsewhere")]

# What prints it, and the ids that must be whole.
TABLES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "payment list": (lambda: payment_view.print_page({"data": [RECEIPT], "has_more": True, "next_cursor": PAYMENT}),
                     (PAYMENT, AT)),
    "payment show": (lambda: payment_view.print_payment(RECEIPT, [COMMAND]), (PAYMENT, OPERATION, BANK_ID)),
    "payment timeline": (lambda: payment_view.print_timeline(TIMELINE), (OPERATION, EVENT, BANK_ID, ENDPOINT, AT)),
    "partitions": (lambda: print_partitions(PARTITIONS, {1023: 2**31}), ("1023", "1000000", str(2**31), "15000")),
    "streams": (lambda: print_backlog(PARTITIONS), ("penstock:{p1023}:commands", "1000000")),
    "dead-letters list": (lambda: print_letters({"data": [DEAD], "has_more": True, "next_cursor": LETTER}),
                          (LETTER, PAYMENT)),
    "dead-letters show": (lambda: print_letter(DEAD), (LETTER, PAYMENT, OPERATION)),
    "holds list": (lambda: print_holds([HOLD]), (BANK_ID, PAYMENT, OPERATION)),
    "audit": (lambda: print_report(REPORT), (PAYMENT, OPERATION)),
    "verify-journal": (lambda: print_verification(VERIFICATION, None, None, 100), (PAYMENT,)),
    "master-key status": (lambda: print_keys(KEYS, HOLDERS), ("0123abcd",)),
    "up": (lambda: print_table(_COLUMNS, PARTS), ("4194304",)),
    **{f"{name} --help": (lambda name=name: print_settings(name), ("PENSTOCK_",))  # type: ignore[misc]
       for name in ("edge", "worker", "dispatcher", "auditor", "migrate", "bank")},
}
# fmt: on


def too_wide(text: str, width: int) -> list[str]:
    """Lines of tables, which begin with a space; sentences are the terminal's to fold."""
    return [line for line in text.splitlines() if line[:1] == " " and line[:3] != "  *" and cell_len(line) > width]


@pytest.mark.parametrize("columns", [None, 80, 100, 200])
@pytest.mark.parametrize("name", TABLES)
def test_no_table_is_wider_than_the_terminal_and_its_ids_are_whole(
    name: str, columns: int | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    show, ids = TABLES[name]

    show()

    shown = capsys.readouterr().out
    table = shown if name != "audit" else shown[: shown.index("What to do")].rpartition("\n\n")[0]
    assert too_wide(table, columns or 80) == []
    assert [each for each in ids if each not in shown] == []
    assert "…" not in shown.replace("…1111", ""), "nothing is cut"


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_is_filled_and_not_overrun(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    payment_view.print_timeline(TIMELINE)

    shown = capsys.readouterr().out
    assert all(cell_len(line) <= width for line in shown.splitlines())
    assert OPERATION in re.sub(r"\s", "", shown)


def test_a_row_is_a_line_where_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")

    print_table(("payment", "operation", "key", "why"), [(PAYMENT, OPERATION, "k" * 60, "word " * 12)])

    rows = [line for line in capsys.readouterr().out.splitlines() if PAYMENT in line]
    assert len(rows) == 1 and OPERATION in rows[0] and "k" * 60 in rows[0]


def test_control_characters_of_a_value_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("\x1b[2Jgone", "bell\x07\x9b31m")])

    shown = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    assert "gone" in shown


def test_every_table_of_the_commands_is_tried_here() -> None:
    ops = Path(payment_view.__file__).parent.parent
    elsewhere = {"chaos/flush.py", "chaos/report.py", "chaos/takeover.py", "bench/bare.py", "terminal.py"}
    elsewhere |= {
        "cli/merchants.py",
        "cli/deployment_status.py",
    }  # test_merchant_keys.py, test_status_of_deployments.py
    users = {str(path.relative_to(ops)) for path in ops.rglob("*.py") if "print_table(" in path.read_text()}

    tried = "audit/report audit/backlog cli/dead_letters cli/holds cli/journal cli/master_keys cli/partitions"
    tried += " cli/payment_view cli/settings_help cli/stack"
    assert users - elsewhere == {f"{name}.py" for name in tried.split()}
