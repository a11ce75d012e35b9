"""Ledger against bank: is each effect in one the effect in the other, one to one, and does the money add up?

Matched by the bank's own ids (a prefix and the uuid of its transaction), then by amount and by what it refers to.
Reads both databases and changes nothing. It compares what is settled: an operation still open counts as unsettled, not
as a difference, though the two can only be said to agree when there is none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import class_row

from engine.ledger.session import connect
from ops.statement import statement

# fmt: off
KINDS: Mapping[str, tuple[str, str]] = {
    # our verb     the bank's kind  prefix of the bank's id
    "authorize":   ("AUTH_HOLD",    "auth_"),
    "capture":     ("CAPTURE",      "cap_"),
    "void":        ("VOID",         "void_"),
    "refund":      ("REFUND",       "ref_"),
}
# What one effect of this kind does to an account: (balance, available balance), in amounts.
MOVES: Mapping[str, tuple[int, int]] = {
    "AUTH_HOLD": ( 0, -1),
    "CAPTURE":   (-1,  0),
    "VOID":      ( 0, +1),
    "REFUND":    (+1, +1),
}
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEffect:
    """What the ledger says was done. `operation` or `bank_id` may be missing; each is a difference then."""

    payment: str
    order_id: str
    state: str
    verb: str
    operation: str | None
    bank_id: str | None
    reference: str | None
    amount: int
    receipt_amount: int

    @property
    def kind(self) -> str:
        return KINDS[self.verb][0]

    @property
    def name(self) -> str:
        return f"{self.verb} of {self.payment} (order {self.order_id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BankTransaction:
    """What the bank says was done. Amounts in cents."""

    id: str
    kind: str
    amount: int
    reference: str | None
    status: str
    card: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.id} of {self.amount} on card …{self.card[-4:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    card: str
    balance: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many, and how much in minor units."""

    number: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BankCard:
    """One account's arithmetic: what it began with, what the ledger moved, what the bank shows."""

    card: str
    opening: int
    expected: Account
    shown: Account

    @property
    def agrees(self) -> bool:
        return self.expected == self.shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The two sides, pairs first; `differences` are sentences, each naming what differs."""

    matched: tuple[tuple[LedgerEffect, BankTransaction], ...]
    ledger: Mapping[str, Count]  # by the bank's kind
    bank: Mapping[str, Count]
    cards: tuple[BankCard, ...]
    differences: tuple[str, ...]
    unsettled: int

    @property
    def agrees(self) -> bool:
        return not self.differences and not self.unsettled


@dataclass(slots=True)
class _Match:
    """Pairs found so far, and what is left at the bank."""

    left: dict[str, BankTransaction]
    pairs: list[tuple[LedgerEffect, BankTransaction]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def compare(ledger_dsn: str, bank_dsn: str, openings: Mapping[str, int] | None = None) -> Comparison:
    """Reads both sides. `openings`: what accounts held before (`opening_balances`); else it is worked out backwards."""
    with connect(ledger_dsn) as ledger:
        effects = effects_of(ledger)
        row = ledger.execute(statement("unsettled")).fetchone()
    with psycopg.connect(bank_dsn) as bank:
        transactions, accounts = transactions_of(bank), accounts_of(bank)
    return reconcile(effects, transactions, accounts, openings or {}, unsettled=int(row[0]) if row else 0)


def effects_of(ledger: psycopg.Connection) -> list[LedgerEffect]:
    """What the ledger says was done."""
    with ledger.cursor(row_factory=class_row(LedgerEffect)) as cursor:
        return cursor.execute(statement("ledger_effects")).fetchall()


def transactions_of(bank: psycopg.Connection) -> list[BankTransaction]:
    """What the bank did, oldest first."""
    with bank.cursor(row_factory=class_row(BankTransaction)) as cursor:
        return cursor.execute(statement("bank_transactions")).fetchall()


def accounts_of(bank: psycopg.Connection) -> list[Account]:
    """All accounts as the bank shows them."""
    with bank.cursor(row_factory=class_row(Account)) as cursor:
        return cursor.execute(statement("bank_accounts")).fetchall()


def opening_balances(bank_dsn: str) -> dict[str, int]:
    """What each card holds now; taken before the first payment."""
    with psycopg.connect(bank_dsn) as bank:
        return {account.card: account.balance for account in accounts_of(bank)}


def reconcile(
    effects: Sequence[LedgerEffect],
    transactions: Sequence[BankTransaction],
    accounts: Iterable[Account],
    openings: Mapping[str, int],
    *,
    unsettled: int = 0,
) -> Comparison:
    """The comparison itself, without a store."""
    match = _Match(left={transaction.id: transaction for transaction in transactions})
    for effect in effects:
        _take(match, effect)
    for transaction in match.left.values():
        match.differences.append(f"the bank has a {transaction.name}, and the ledger has no owner for it")
    used = {transaction.card for transaction in transactions}
    touched = [account for account in accounts if account.card in used]
    cards = tuple(_card(account, transactions, match.pairs, openings) for account in touched)
    match.differences.extend(_imbalance(card) for card in cards if not card.agrees)
    return Comparison(
        matched=tuple(match.pairs),
        ledger=_counts((effect.kind, effect.amount) for effect in effects),
        bank=_counts((transaction.kind, transaction.amount) for transaction in transactions),
        cards=cards,
        differences=tuple(match.differences),
        unsettled=unsettled,
    )


def _take(match: _Match, effect: LedgerEffect) -> None:
    """Find the one transaction of this effect, and say what differs between them."""
    transaction = _found(match, effect)
    if effect.operation is None:
        match.differences.append(f"the receipt names {effect.bank_id}, but no {effect.name} succeeded")
    if transaction is None:
        known = effect.bank_id or "no bank id"
        match.differences.append(f"the ledger has the {effect.name} as {known}, and the bank does not")
        return
    del match.left[transaction.id]
    match.pairs.append((effect, transaction))
    for what, ours, theirs in (
        ("kind", effect.kind, transaction.kind),
        ("amount", effect.amount, transaction.amount),
        ("amount on the receipt", effect.receipt_amount, transaction.amount),
        ("reference", _uuid(effect.reference), transaction.reference),
    ):
        if ours != theirs:
            match.differences.append(f"the {effect.name}: its {what} is {ours} in the ledger and {theirs} at the bank")


def _found(match: _Match, effect: LedgerEffect) -> BankTransaction | None:
    if effect.bank_id is not None:
        uuid = _uuid(effect.bank_id)
        named = effect.bank_id.startswith(KINDS[effect.verb][1])
        return match.left.get(uuid) if named and uuid is not None else None
    # A void whose answer was lost is known to have happened, but not its id: there is one a hold at most.
    alike = (
        transaction
        for transaction in match.left.values()
        if transaction.kind == effect.kind == "VOID" and transaction.reference == _uuid(effect.reference)
    )
    return next(alike, None)


def _uuid(bank_id: str | None) -> str | None:
    return bank_id.partition("_")[2] if bank_id is not None else None


def _card(
    account: Account,
    transactions: Sequence[BankTransaction],
    pairs: Sequence[tuple[LedgerEffect, BankTransaction]],
    openings: Mapping[str, int],
) -> BankCard:
    opening = openings.get(account.card)
    if opening is None:
        ours = (
            (transaction.kind, transaction.amount) for transaction in transactions if transaction.card == account.card
        )
        opening = account.balance - moved(ours)[0]
    balance, available = moved(
        (effect.kind, effect.amount) for effect, transaction in pairs if transaction.card == account.card
    )
    expected = Account(card=account.card, balance=opening + balance, available=opening + available)
    return BankCard(card=account.card, opening=opening, expected=expected, shown=account)


def moved(effects: Iterable[tuple[str, int]]) -> tuple[int, int]:
    """What effects, each a kind and an amount, do to an account's balance and available balance."""
    balance = available = 0
    for kind, amount in effects:
        balance, available = balance + MOVES[kind][0] * amount, available + MOVES[kind][1] * amount
    return balance, available


def _imbalance(card: BankCard) -> str:
    return (
        f"card …{card.card[-4:]}: by the ledger its balance is {card.expected.balance} and {card.expected.available} "
        f"available; the bank shows {card.shown.balance} and {card.shown.available}"
    )


def _counts(effects: Iterable[tuple[str, int]]) -> dict[str, Count]:
    numbers: Counter[str] = Counter()
    totals: defaultdict[str, int] = defaultdict(int)
    for kind, amount in effects:
        numbers[kind] += 1
        totals[kind] += amount
    return {kind: Count(number=numbers[kind], total=totals[kind]) for kind, _ in KINDS.values()}
