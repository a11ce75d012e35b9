"""The verdict: what the shop was promised against the ledger, and the ledger against the bank's own tables. Pure.

Lost: accepted, and neither ended nor visibly in review (also not after the shop repeated its key). Doubled: two effects
at the bank for one operation. A hold that is doubled only because the bank lost its own key is a breach too, of the
bank's promise, unless an audited act gave it back. Effects behind a review, which a person will resolve, and what was
given back are set aside with their money; everything else must be in bijection, and add up on each card.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ops.audit.reconcile import KINDS, Account, BankTransaction, moved, reconcile
from ops.bench.load import percentiles
from ops.chaos.books import Books, Done
from ops.chaos.double_holds import DoubleHolds
from ops.chaos.history import OrderHistory, PurchaseStage

Span = tuple[float, float]
VERBS = {kind: verb for verb, (kind, _) in KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPromise:
    """A promise that did not hold, with the ids that show it."""

    promise: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`counts` in the order of the table; `bank_broke_promise` are sentences about what the bank did, and breaches too.

    Of orders that were lost with Redis, percentiles: how long before the loss they had been asked for (`lost_age_s`),
    and how long after their acceptance they were accepted again (`revived_age_s`).
    """

    counts: dict[str, int]
    breaches: tuple[BrokenPromise, ...]
    bank_broke_promise: tuple[str, ...]
    lost_age_s: dict[str, float]
    revived_age_s: dict[str, float]

    @property
    def clean(self) -> bool:
        return not self.breaches


def judge(
    orders: Sequence[OrderHistory], books: Books, losses: Sequence[Span] = (), left_over: Sequence[str] = ()
) -> Verdict:
    """`losses`: from and to when Redis lost something (Unix time). `left_over`: processes that should be gone."""
    by_key = {done.key: done for done in books.operations if done.parent is None}
    in_review = {done.payment for done in books.operations if done.status == "review"}
    accepted = [order for order in orders if order.accepted_at is not None]
    lost = [sentence for order in accepted if (sentence := _lost(order, by_key.get(order.key), in_review))]
    revived = list(_revivals(accepted, by_key))
    broken = [str(found) for found in books.twice if found.excuse and _is_kept(found, books)]
    doubled = [*_doubled(books), *(str(found) for found in books.twice if not found.excuse)]
    breaches: dict[str, Iterable[str]] = {
        "lost": lost,
        "doubled": doubled,
        "bank_broke_promise": broken,
        "ledger and bank differ": _differences(books),
        "vanished": _vanished(accepted, by_key, losses),
        "other bytes": _other_bytes(orders, by_key),
        "gaps": books.gaps,
        "not drained": books.undrained,
        "dead letters": books.dead_letters,
        "left running": left_over,
    }
    counts = {
        "orders": len(orders),
        "accepted": len(accepted),
        "ended": sum(by_key[order.key].settled for order in accepted if order.key in by_key),
        "in review": sum(_is_reviewed(by_key.get(order.key), in_review) for order in accepted),
        "lost": len(lost),
        "doubled": len(doubled),
        "bank_broke_promise": len(broken),
        "given back": len(_given_back(books)) // 2,
        "revived keys": len(revived),
        "effects at the bank": len(books.transactions),
    }
    return Verdict(
        counts=counts,
        breaches=tuple(
            BrokenPromise(promise=name, evidence=text) for name, texts in breaches.items() for text in texts
        ),
        bank_broke_promise=tuple(broken),
        lost_age_s=percentiles([age for order, again in revived for age in _ages(order, again, losses)]),
        revived_age_s=percentiles([again - (order.accepted_at or again) for order, again in revived]),
    )


def _is_reviewed(done: Done | None, in_review: set[str]) -> bool:
    return done is not None and not done.settled and done.payment in in_review


def _lost(order: OrderHistory, done: Done | None, in_review: set[str]) -> str | None:
    """Why this accepted order is lost, if it is."""
    if done is None:
        return f"{order.key} ({order.payment}) was accepted, and the ledger does not know it"
    if not done.settled and done.payment not in in_review:
        return f"{order.key} ({done.id} of {done.payment}) is still {done.status} after {done.attempts} attempts"
    return None


def _revivals(accepted: Iterable[OrderHistory], by_key: dict[str, Done]) -> Iterator[tuple[OrderHistory, float]]:
    """Orders whose acceptance in the ledger is later than the one the shop was told of, and that later moment."""
    for order in accepted:
        done = by_key.get(order.key)
        if done is not None and order.accepted_at is not None and done.accepted_s > order.accepted_at:
            yield order, done.accepted_s


def _ages(order: OrderHistory, again: float, losses: Sequence[Span]) -> list[float]:
    """How old the order was at the last loss before it was accepted again."""
    return [max(0.0, begin - order.asked_at) for begin, end in losses if end >= order.asked_at and begin <= again][-1:]


def _vanished(accepted: Iterable[OrderHistory], by_key: dict[str, Done], losses: Sequence[Span]) -> list[str]:
    """Orders that were unknown, or had to be accepted twice, though Redis had lost nothing in between."""

    found = []
    for order in accepted:
        first = order.accepted_at or 0.0
        times = [*order.unknown_at, *(again for _, again in _revivals([order], by_key))]
        # Redis had it at some moment between the request and its answer: from the request on, a loss explains it.
        found += [
            f"{order.key} ({order.payment}) was unknown {then - first:.2f} s after its acceptance, no Redis was lost"
            for then in times
            if not any(end >= order.asked_at and begin <= then for begin, end in losses)
        ]
    return found


def _doubled(books: Books) -> list[str]:
    """Effects other than holds, of which the bank has two for one payment, and holds both captured and voided."""
    by_payment: defaultdict[int, list[BankTransaction]] = defaultdict(list)
    over = _given_back(books)
    for transaction in books.transactions:
        if transaction.id not in over:
            by_payment[transaction.amount].append(transaction)
    found = []
    for amount, rows in by_payment.items():
        kinds = Counter(row.kind for row in rows)
        ids = ", ".join(f"{row.kind} {row.id}" for row in rows)
        if any(number > 1 for kind, number in kinds.items() if kind != "AUTH_HOLD"):
            found.append(f"amount {amount}: {ids}")
        ends = Counter(row.reference for row in rows if row.kind in ("CAPTURE", "VOID"))
        if any(number > 1 for number in ends.values()):
            found.append(f"amount {amount}, one hold captured and voided: {ids}")
    return found


def _differences(books: Books) -> list[str]:
    aside = _set_aside(books)
    rest = [transaction for transaction in books.transactions if transaction.id not in aside]
    money: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for transaction in books.transactions:
        if transaction.id in aside:
            money[transaction.card].append((transaction.kind, transaction.amount))
    accounts = []
    for account in books.accounts:
        balance, available = moved(money[account.card])
        accounts.append(
            Account(card=account.card, balance=account.balance - balance, available=account.available - available)
        )
    return list(reconcile(books.effects, rest, accounts, books.openings).differences)


def _set_aside(books: Books) -> set[str]:
    """Effects that the ledger rightly does not own: of operations in review, what was given back, and holds of a broken
    promise, which are told of as that."""
    owned, over = _owned(books), _given_back(books)
    reviewed = {(done.verb, done.amount) for done in books.operations if done.status == "review"}
    broken = {hold.id for found in books.twice if found.excuse for hold in found.holds}
    return {
        transaction.id
        for transaction in books.transactions
        if transaction.id not in owned
        and (transaction.id in broken | over or (VERBS[transaction.kind], transaction.amount) in reviewed)
    }


def _owned(books: Books) -> set[str]:
    return {effect.bank_id.partition("_")[2] for effect in books.effects if effect.bank_id is not None}


def _given_back(books: Books) -> set[str]:
    """Holds that an audited act gave back, and their voids; only where the bank shows that void."""
    voids = {each.reference: each.id for each in books.transactions if each.kind == "VOID"}
    return {id for hold in books.released if hold in voids for id in (hold, voids[hold])}


def _is_kept(found: DoubleHolds, books: Books) -> bool:
    """Whether a hold too many is still there. While its authorization is in review, nobody knows which one that is."""
    reviewed = {done.id for done in books.operations if done.status == "review"}
    if found.authorization is not None and found.authorization.id in reviewed:
        return False
    return bool({hold.id for hold in found.holds} - _owned(books) - _given_back(books))


def _other_bytes(orders: Iterable[OrderHistory], by_key: dict[str, Done]) -> list[str]:
    """Answers under one key that differ from each other, or from what the ledger stores."""
    found = [f"{order.key} ({order.payment}): {complaint}" for order in orders for complaint in order.complaints]
    for order in orders:
        done = by_key.get(order.key)
        if order.stage is not PurchaseStage.ENDED or done is None:
            continue
        told, stored = f"{order.status} {order.digest}", f"{done.answer} {done.digest}"
        if told != stored:
            found.append(f"{order.key} ({done.id}) was answered {told}, and {stored} is stored")
    return found
