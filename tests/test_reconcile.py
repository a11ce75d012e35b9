"""Ledger against bank: what agrees is said to agree, and each way of differing is found and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from bank.simulator.statement import migrations
from ops.audit.reconcile import Comparison, compare, opening_balances
from ops.stack.embedded import EmbeddedPostgres

CARD = "4111111111111111"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PREFIXES = {"authorize": "auth_", "capture": "cap_", "void": "void_", "refund": "ref_"}
STATES = {"authorize": "authorized", "capture": "captured", "void": "voided", "refund": "refunded"}
BANK_EFFECTS = {
    "authorize": ("AUTH_HOLD", 0, -1),
    "capture": ("CAPTURE", -1, 0),
    "void": ("VOID", 0, 1),
    "refund": ("REFUND", 1, 1),
}
_serial = count(1)


@dataclass(frozen=True, kw_only=True)
class Books:
    """Both sides' books, written by hand."""

    ledger: str
    bank: str
    openings: dict[str, int]

    def compare(self) -> Comparison:
        return compare(self.ledger, self.bank, self.openings)

    def write(self, statement: str, *parameters: object, bank: bool = False) -> None:
        with psycopg.connect(self.bank if bank else self.ledger, autocommit=True) as connection:
            connection.execute(statement, parameters)

    def at_bank(self, verb: str, amount: int, reference: str | None = None) -> str:
        """One effect with its moves of the account; its uuid."""
        kind, balance, available = BANK_EFFECTS[verb]
        uuid = str(uuid4())
        self.write(
            "INSERT INTO transactions (id, account_id, type, amount_cents, reference_id, status) "
            "SELECT %s, id, %s, %s, %s, 'COMPLETED' FROM accounts WHERE account_number = %s",
            *(uuid, kind, amount, reference, CARD),
            bank=True,
        )
        self.write(
            "UPDATE accounts SET balance_cents = balance_cents + %s, "
            "available_balance_cents = available_balance_cents + %s WHERE account_number = %s",
            *(balance * amount, available * amount, CARD),
            bank=True,
        )
        return uuid

    def in_ledger(self, amount: int, uuids: dict[str, str | None], *, without: str | None = None) -> str:
        """A payment whose last verb made its state, with its succeeded operations; `without` one of these."""
        payment = f"pay_{next(_serial):026d}"
        ids = {verb: uuid and PREFIXES[verb] + uuid for verb, uuid in uuids.items()}
        row: dict[str, Any] = {
            **{"id": payment, "partition": 0, "merchant": "mer_local", "amount": amount, "currency": "USD"},
            **{"order_id": f"order-{payment[-2:]}", "customer_id": "c", "metadata": "{}", "method": "{}"},
            **{"connector": "ficmart_bank", "state": STATES[list(uuids)[-1]], "version": 1, "sequence": 1},
            **{"amount_captured": amount if "capture" in ids else 0, "amount_refunded": amount * ("refund" in ids)},
            **{"authorization_id": ids["authorize"], "capture_id": ids.get("capture"), "void_id": ids.get("void")},
            **{"refund_id": ids.get("refund"), "operation_id": "op", "journal_head": "", "write_id": ""},
            **dict.fromkeys(("created_at", "authorized_at", "captured_at", "voided_at", "refunded_at"), NOW),
        }
        self._insert("payments", row)
        for order, verb in enumerate(uuids):
            if verb != without:
                self.operation(payment, verb, amount, "succeeded", order)
        return payment

    def may_share_ids(self) -> None:
        """As in a ledger from before the bank's ids were unique there."""
        with psycopg.connect(self.ledger, autocommit=True) as connection:
            connection.execute("DROP INDEX authorization_is_one_receipts")

    def operation(self, payment: str, verb: str, amount: int, status: str, order: int = 0) -> None:
        row: dict[str, Any] = {
            **{"id": f"op_{next(_serial)}", "payment": payment, "merchant": "mer_local", "partition": 0, "verb": verb},
            **{"key": "k", "sale": False, "amount": amount, "fingerprint": "{}", "accept_order": order},
            **{"status": status, "attempts": 1, "request_id": "r", "created_at": NOW},
            "settled_at": NOW if status == "succeeded" else None,
        }
        self._insert("operations", row)

    def both(self, amount: int, *verbs: str) -> dict[str, str | None]:
        """A payment of these verbs on both sides; the uuids."""
        uuids: dict[str, str | None] = {}
        for verb in verbs:
            reference = uuids.get("capture" if verb == "refund" else "authorize")
            uuids[verb] = self.at_bank(verb, amount, reference)
        self.in_ledger(amount, uuids)
        return uuids

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        places = sql.SQL(", ").join(sql.Placeholder() * len(row))
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), names, places)
        with psycopg.connect(self.ledger, autocommit=True) as connection:
            connection.execute(statement, list(row.values()))


@pytest.fixture
def books(database: str, postgres: EmbeddedPostgres) -> Iterator[Books]:
    """An empty ledger beside a bank with its four cards."""
    name = f"books_{next(_serial)}"
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with psycopg.connect(postgres.dsn(name), autocommit=True) as bank:
            for _, text in migrations():
                bank.execute(text)
        yield Books(ledger=database, bank=postgres.dsn(name), openings=opening_balances(postgres.dsn(name)))
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_the_same_effects_on_both_sides_agree_to_the_cent(books: Books) -> None:
    books.both(5000, "authorize", "capture", "refund")
    books.both(700, "authorize", "void")
    books.both(42, "authorize", "capture")

    comparison = books.compare()

    assert comparison.agrees
    assert len(comparison.matched) == 7
    assert {kind: (one.number, one.total) for kind, one in comparison.ledger.items()} == {
        **{"AUTH_HOLD": (3, 5742), "CAPTURE": (2, 5042)},
        **{"VOID": (1, 700), "REFUND": (1, 5000)},
    }
    assert comparison.bank == comparison.ledger
    assert [(card.opening, card.shown.balance, card.shown.available) for card in comparison.cards] == [
        (1_000_000, 999_958, 999_958)
    ]


def test_empty_books_agree(books: Books) -> None:
    assert books.compare().agrees


def test_a_hold_without_an_owner_is_a_difference(books: Books) -> None:
    books.both(5000, "authorize")
    orphan = books.at_bank("authorize", 5000)

    differences = books.compare().differences

    assert any("no owner" in each and orphan in each for each in differences)
    assert any("5000" in each for each in differences)


def test_an_effect_that_the_bank_lacks_is_a_difference(books: Books) -> None:
    payment = books.in_ledger(5000, {"authorize": str(uuid4())})

    (difference,) = books.compare().differences

    assert payment in difference
    assert "the bank does not" in difference


@pytest.mark.parametrize("verb", ["capture", "refund"])
def test_a_wrong_amount_is_a_difference(books: Books, verb: str) -> None:
    uuids = books.both(5000, "authorize", "capture", "refund")
    books.write("UPDATE transactions SET amount_cents = 4999 WHERE id = %s", uuids[verb], bank=True)

    differences = books.compare().differences

    assert any("amount is 5000 in the ledger and 4999" in each for each in differences)


def test_a_capture_of_another_hold_is_a_difference(books: Books) -> None:
    other = books.both(5000, "authorize")["authorize"]
    hold = books.at_bank("authorize", 5000)
    books.in_ledger(5000, {"authorize": hold, "capture": books.at_bank("capture", 5000, other)})

    (difference,) = books.compare().differences

    assert "reference" in difference
    assert str(other) in difference


def test_two_payments_that_claim_one_hold_are_a_difference(books: Books) -> None:
    books.may_share_ids()
    uuids = books.both(5000, "authorize")
    books.in_ledger(5000, uuids)

    assert len(books.compare().matched) == 1
    assert not books.compare().agrees


def test_a_receipt_whose_operation_did_not_succeed_is_a_difference(books: Books) -> None:
    hold = books.at_bank("authorize", 5000)
    books.in_ledger(5000, {"authorize": hold}, without="authorize")

    (difference,) = books.compare().differences

    assert "no authorize" in difference
    assert hold in difference


def test_a_void_whose_id_was_lost_is_found_by_its_hold(books: Books) -> None:
    hold = books.at_bank("authorize", 5000)
    books.at_bank("void", 5000, hold)
    books.in_ledger(5000, {"authorize": hold, "void": None})

    assert books.compare().agrees


def test_a_capture_without_its_id_is_a_difference(books: Books) -> None:
    hold = books.at_bank("authorize", 5000)
    books.at_bank("capture", 5000, hold)
    books.in_ledger(5000, {"authorize": hold, "capture": None})

    differences = books.compare().differences

    assert any("no bank id" in each for each in differences)


def test_money_that_moved_without_a_transaction_is_a_difference(books: Books) -> None:
    books.both(5000, "authorize", "capture")
    books.write("UPDATE accounts SET balance_cents = balance_cents - 1 WHERE account_number = %s", CARD, bank=True)

    (difference,) = books.compare().differences

    assert "…1111" in difference
    assert "995000" in difference
    assert "994999" in difference


def test_balances_are_checked_against_each_other_without_knowing_how_they_began(books: Books) -> None:
    books.both(5000, "authorize", "capture")
    before = compare(books.ledger, books.bank)
    books.write("UPDATE accounts SET available_balance_cents = 0 WHERE account_number = %s", CARD, bank=True)

    assert before.agrees
    assert not compare(books.ledger, books.bank).agrees


def test_an_open_operation_keeps_the_two_from_agreeing(books: Books) -> None:
    books.both(5000, "authorize")
    payment = books.in_ledger(5000, {"authorize": books.at_bank("authorize", 5000)})
    books.operation(payment, "capture", 5000, "in_doubt")

    comparison = books.compare()

    assert (comparison.differences, comparison.unsettled, comparison.agrees) == ((), 1, False)
