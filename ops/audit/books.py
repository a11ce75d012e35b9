"""The ledger against the bank's own books, while payments go on; holds that no receipt names, each with its key.

The ledger is read first: an effect that it knows must be at the bank, one that it does not know may be under way, and
is then young, or of an unsettled operation. A hold that is neither keeps a customer's money for nothing: an orphan. The
bank's promise is that a key it has answered is never executed again; an orphan was placed in breach of it where the
authorization was asked more than once and the bank's own table of keys does not know that hold: it had lost the key, or
never stored it (I5, I7). One that was given back by an audited release (ops/audit/holds.py) is explained by that act.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from ops.audit.breach import Breach, breach
from ops.audit.reconcile import (
    Account,
    BankTransaction,
    LedgerEffect,
    accounts_of,
    effects_of,
    moved,
    reconcile,
    transactions_of,
)
from ops.audit.snapshot import one_moment
from ops.statement import statement

_ASKED_AT_ONCE = 5_000
_CLOCKS_DIFFER = timedelta(minutes=1)  # between the bank and us, at most
_VERBS = {"CAPTURE": "capture", "VOID": "void", "REFUND": "refund"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BankAuthorization:
    """Ours, asked more than once or unanswered. `id` is the bank key; `hold` is the one the receipt names."""

    id: str
    payment: str
    attempts: int
    amount: int
    last4: str
    hold: str | None
    open: bool
    begun_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What the ledger says at one moment."""

    effects: Sequence[LedgerEffect]
    authorizations: Sequence[BankAuthorization]
    open_ends: frozenset[tuple[str, str]]  # verb, and the bank's id of what it refers to
    releases: frozenset[str] = frozenset()  # holds that an operator's act gave back, as the bank writes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """What the bank says, at a later moment. Ages are by its own clock."""

    transactions: Sequence[BankTransaction]
    accounts: Sequence[Account]
    made_at: dict[str, datetime]
    age_s: dict[str, float]
    holds_of_keys: dict[str, str]  # as the bank writes them, auth_<uuid>
    kept_at: dict[str, datetime]

    @property
    def keys_of_holds(self) -> dict[str, str]:
        """By uuid."""
        return {hold.partition("_")[2]: key for key, hold in self.holds_of_keys.items()}


def read_ledger(ledger: psycopg.Connection) -> Ours:
    """Within the caller's transaction."""
    with ledger.cursor(row_factory=class_row(BankAuthorization)) as cursor:
        authorizations = cursor.execute(statement("audit/authorizations_asked_again")).fetchall()
    ends = ledger.execute(statement("audit/unsettled_ends")).fetchall()
    releases = ledger.execute(statement("audit/released_holds")).fetchall()
    return Ours(
        effects=effects_of(ledger),
        authorizations=authorizations,
        open_ends=frozenset((row[0], row[1]) for row in ends),
        releases=frozenset(row[0] for row in releases),
    )


def look(
    ours: Ours, bank_dsn: str, are_known: Callable[[Iterable[str]], set[str]], *, grace_s: float
) -> Iterator[Breach]:
    """What stands against the bank's books. `are_known` tells which operations the ledger has by now; effects younger
    than `grace_s` may be under way, or later than what was read of the ledger."""
    theirs = read_bank(bank_dsn)
    asked = list(theirs.kept_at)
    for begin in range(0, len(asked), _ASKED_AT_ONCE):
        some = asked[begin : begin + _ASKED_AT_ONCE]
        for key in sorted(set(some) - are_known(some)):
            yield breach("calls_are_known", f"the bank was asked under key {key}", at=theirs.kept_at[key])
    yield from compared(ours, theirs, grace_s=grace_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A hold at the bank that no receipt names. `key` is the one that the bank kept for it; `whose` authorization it
    was that the bank carried out in breach of its promise, None where nobody can tell."""

    hold: BankTransaction
    key: str | None
    whose: BankAuthorization | None
    made_at: datetime

    @property
    def reference(self) -> str:
        """As the bank writes it."""
        return f"auth_{self.hold.id}"


def compared(ours: Ours, theirs: Theirs, *, grace_s: float) -> Iterator[Breach]:
    """The comparison itself, without a store."""
    found, aside = orphans(ours, theirs, grace_s=grace_s)
    for orphan in found:
        yield _orphaned(orphan) if orphan.whose is None else _promise_broken(orphan, orphan.whose, theirs)
    for difference in _differences(ours, theirs, aside):
        yield breach("bank_agrees", difference)


def orphans(ours: Ours, theirs: Theirs, *, grace_s: float) -> tuple[list[Orphan], set[str]]:
    """The holds that no receipt names, and all that is set aside: these, what may be under way, what was released."""
    owned = {_uuid(effect.bank_id) for effect in ours.effects}
    voided = {_uuid(effect.reference) for effect in ours.effects if effect.verb == "void" and effect.bank_id is None}
    released = _released(ours, theirs)
    aside: set[str] = set()
    found: list[Orphan] = []
    left = {each.id: each.attempts - (each.hold is not None) for each in ours.authorizations}
    keys_of_holds = theirs.keys_of_holds
    for transaction in theirs.transactions:
        if transaction.id in owned or (transaction.kind == "VOID" and transaction.reference in voided):
            continue
        if theirs.age_s[transaction.id] < grace_s or _is_open_end(ours, transaction) or transaction.id in released:
            aside.add(transaction.id)
        elif transaction.kind == "AUTH_HOLD":
            key = keys_of_holds.get(transaction.id)
            whose = _whose(ours, theirs, transaction, key, left)
            aside.add(transaction.id)
            if whose is not None:
                first_of_an_open_one = whose.open and whose.hold is None and left[whose.id] == whose.attempts
                left[whose.id] -= 1
                if first_of_an_open_one:
                    continue
            found.append(Orphan(hold=transaction, key=key, whose=whose, made_at=theirs.made_at[transaction.id]))
    return found, aside


def _released(ours: Ours, theirs: Theirs) -> set[str]:
    """Holds that an audited act gave back, and their voids; only where the bank shows that void."""
    voids = {each.reference: each.id for each in theirs.transactions if each.kind == "VOID"}
    ended = {hold for hold in map(_uuid, ours.releases) if hold in voids}
    return {each for hold in ended if hold is not None for each in (hold, voids[hold])}


def _is_open_end(ours: Ours, transaction: BankTransaction) -> bool:
    """Whether it may be the effect of an operation that the ledger has not settled."""
    verb = _VERBS.get(transaction.kind)
    return any((verb, f"{prefix}{transaction.reference}") in ours.open_ends for prefix in ("auth_", "cap_"))


def _whose(
    ours: Ours, theirs: Theirs, hold: BankTransaction, named: str | None, left: dict[str, int]
) -> BankAuthorization | None:
    """The authorization that placed this hold, where that excuses it: `named` by the bank's key, else alike."""
    made_at = theirs.made_at[hold.id]
    for each in ours.authorizations:
        alike = each.amount == hold.amount and hold.card.endswith(each.last4)
        in_time = each.begun_at - _CLOCKS_DIFFER <= made_at <= each.ended_at + _CLOCKS_DIFFER
        if not (alike and in_time and left[each.id] > 0) or (named is not None and named != each.id):
            continue
        if named == each.id:
            return each if each.open and each.hold is None else None  # the key was kept, and names a hold we do not
        kept = theirs.holds_of_keys.get(each.id)
        if kept is None or made_at <= theirs.made_at.get(kept.partition("_")[2], made_at):
            return each
    return None


def _promise_broken(orphan: Orphan, whose: BankAuthorization, theirs: Theirs) -> Breach:
    kept = theirs.holds_of_keys.get(whose.id)
    why = "keeps no key of it" if kept is None else "had not kept the key of it when it was asked again"
    return breach(
        "bank_broke_promise",
        f"{_told(orphan)}, under key {whose.id}, beside {whose.hold or 'another'}: the bank {why}",
        payment=whose.payment,
        operation=whose.id,
        at=orphan.made_at,
    )


def _orphaned(orphan: Orphan) -> Breach:
    under = "the bank keeps no key of it" if orphan.key is None else f"under key {orphan.key}"
    return breach(
        "holds_have_a_receipt", f"{_told(orphan)}, {under}: the ledger has no owner for it", at=orphan.made_at
    )


def _told(orphan: Orphan) -> str:
    return f"hold {orphan.reference} of {orphan.hold.amount} on card …{orphan.hold.card[-4:]}"


def _differences(ours: Ours, theirs: Theirs, aside: set[str]) -> Sequence[str]:
    """What the reconciliation says of the rest. The money of what is set aside is taken out of the cards."""
    money: dict[str, list[tuple[str, int]]] = {}
    for transaction in theirs.transactions:
        if transaction.id in aside:
            money.setdefault(transaction.card, []).append((transaction.kind, transaction.amount))
    accounts = []
    for account in theirs.accounts:
        balance, available = moved(money.get(account.card, ()))
        accounts.append(replace(account, balance=account.balance - balance, available=account.available - available))
    rest = [transaction for transaction in theirs.transactions if transaction.id not in aside]
    return reconcile(ours.effects, rest, accounts, {}).differences


def read_bank(dsn: str) -> Theirs:
    """Raises psycopg's errors."""
    with psycopg.connect(dsn, autocommit=True) as bank, one_moment(bank, by_index=False):
        aged = bank.execute(statement("audit/bank_transactions_aged")).fetchall()
        kept = bank.execute(statement("audit/bank_keys")).fetchall()
        return Theirs(
            transactions=transactions_of(bank),
            accounts=accounts_of(bank),
            made_at={row[0]: row[1] for row in aged},
            age_s={row[0]: row[2] for row in aged},
            holds_of_keys={row[0]: row[1] for row in kept if row[1] is not None},
            kept_at={row[0]: row[2] for row in kept},
        )


def _uuid(bank_id: str | None) -> str | None:
    return bank_id.partition("_")[2] if bank_id is not None else None
