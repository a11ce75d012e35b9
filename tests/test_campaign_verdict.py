"""The verdict of a campaign: each way of breaking a promise is found and named, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from ops.audit.reconcile import Account, BankTransaction, LedgerEffect
from ops.chaos import double_holds as twice
from ops.chaos.books import Books, Done
from ops.chaos.check import Verdict, judge
from ops.chaos.double_holds import AuthorizationRow, Hold
from ops.chaos.history import OrderHistory, PurchaseStage

CARD, OPENING, AMOUNT = "4000000000000000", 100_000, 5000
BODY = b'{"id":"pay_1"}'
ACCEPTED_AT = 1_000_000.0
HOLD = BankTransaction(id="h1", kind="AUTH_HOLD", amount=AMOUNT, reference=None, status="COMPLETED", card=CARD)
CAPTURE = BankTransaction(id="c1", kind="CAPTURE", amount=AMOUNT, reference="h1", status="COMPLETED", card=CARD)


def an_order(step: str, path: str) -> OrderHistory:
    order = OrderHistory(key=f"k-{step}", path=path, body=None, verb=step, amount=AMOUNT)
    order.accept("pay_1", ACCEPTED_AT)
    order.accepted_at = ACCEPTED_AT + 0.01
    order.end(201, BODY)
    return order


def done(verb: str, **changes: object) -> Done:
    usual = Done(
        id=f"op_{verb}",
        key=f"k-{verb}",
        payment="pay_1",
        verb=verb,
        status="succeeded",
        attempts=1,
        parent=None,
        settled=True,
        answer=201,
        digest=sha256(BODY).hexdigest(),
        accept_order=int(ACCEPTED_AT * 1000) * 1_000_000,
        amount=AMOUNT,
        state="captured",
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def effect(verb: str, bank_id: str, reference: str | None) -> LedgerEffect:
    return LedgerEffect(
        payment="pay_1",
        order_id="order-1",
        state="captured",
        verb=verb,
        operation=f"op_{verb}",
        bank_id=bank_id,
        reference=reference,
        amount=AMOUNT,
        receipt_amount=AMOUNT,
    )


ORDERS = [an_order("authorize", "/v1/payments"), an_order("capture", "/v1/payments/pay_1/capture")]
BOOKS = Books(
    operations=(done("authorize"), done("capture")),
    effects=(effect("authorize", "auth_h1", None), effect("capture", "cap_c1", "auth_h1")),
    transactions=(HOLD, CAPTURE),
    accounts=(Account(card=CARD, balance=OPENING - AMOUNT, available=OPENING - AMOUNT),),
    openings={CARD: OPENING},
    twice=(),
    gaps=(),
    undrained=(),
    dead_letters=(),
)


def promises(verdict: Verdict) -> set[str]:
    return {breach.promise for breach in verdict.breaches}


def test_a_captured_payment_in_both_books_is_clean() -> None:
    verdict = judge(ORDERS, BOOKS)

    assert verdict.clean
    assert (verdict.counts["accepted"], verdict.counts["ended"], verdict.counts["lost"]) == (2, 2, 0)


def test_a_row_that_the_bank_does_not_have_is_a_breach() -> None:
    books = replace(BOOKS, transactions=(HOLD,))

    assert promises(judge(ORDERS, books)) == {"ledger and bank differ"}


def test_a_capture_that_the_bank_has_twice_is_a_breach() -> None:
    books = replace(BOOKS, transactions=(HOLD, CAPTURE, replace(CAPTURE, id="c2")))

    assert promises(judge(ORDERS, books)) == {"doubled", "ledger and bank differ"}


def test_a_hold_that_was_captured_and_voided_is_a_breach() -> None:
    books = replace(BOOKS, transactions=(HOLD, CAPTURE, replace(CAPTURE, id="v1", kind="VOID")))

    assert "doubled" in promises(judge(ORDERS, books))


def test_money_that_does_not_add_up_on_a_card_is_a_breach() -> None:
    books = replace(BOOKS, accounts=(Account(card=CARD, balance=OPENING, available=OPENING - AMOUNT),))

    assert promises(judge(ORDERS, books)) == {"ledger and bank differ"}


def test_what_was_accepted_and_is_not_in_the_ledger_is_lost() -> None:
    books = replace(BOOKS, operations=(done("authorize"),))

    verdict = judge(ORDERS, books)

    assert promises(verdict) == {"lost"}
    assert verdict.counts["lost"] == 1


def test_what_never_ends_is_lost_unless_a_person_is_asked() -> None:
    waiting = {"settled": False, "answer": None, "digest": None}
    order = an_order("capture", "/")
    order.stage = PurchaseStage.OPEN
    stuck = replace(BOOKS, operations=(done("authorize"), done("capture", status="in_doubt", **waiting)))
    reviewed = replace(BOOKS, operations=(done("authorize"), done("capture", status="review", **waiting)))

    assert "lost" in promises(judge([ORDERS[0], order], stuck))
    verdict = judge([ORDERS[0], order], replace(reviewed, effects=BOOKS.effects[:1]))

    assert verdict.clean  # the bank's capture is set aside with its money: a person will resolve it
    assert verdict.counts["in review"] == 1


def test_other_bytes_under_one_key_are_a_breach() -> None:
    order = an_order("authorize", "/v1/payments")
    order.end(201, b"other bytes")

    assert promises(judge([order, ORDERS[1]], BOOKS)) == {"other bytes"}


def test_bytes_that_the_ledger_does_not_store_are_a_breach() -> None:
    books = replace(BOOKS, operations=(done("authorize", digest="00"), done("capture")))

    assert promises(judge(ORDERS, books)) == {"other bytes"}


def test_an_order_may_be_unknown_only_when_redis_lost_something() -> None:
    order = an_order("authorize", "/v1/payments")
    order.unknown_at = [ACCEPTED_AT + 3]

    lost_before = [(ACCEPTED_AT - 2, ACCEPTED_AT - 1)]
    lost_since = [(ACCEPTED_AT + 1, ACCEPTED_AT + 2)]

    assert promises(judge([order, ORDERS[1]], BOOKS, lost_before)) == {"vanished"}
    assert judge([order, ORDERS[1]], BOOKS, lost_since).clean


def test_an_order_that_was_accepted_anew_is_a_revived_key_and_its_ages_are_told() -> None:
    again = int((ACCEPTED_AT + 4) * 1000) * 1_000_000
    books = replace(BOOKS, operations=(done("authorize", accept_order=again), done("capture")))

    verdict = judge(ORDERS, books, [(ACCEPTED_AT + 1, ACCEPTED_AT + 1)])

    assert verdict.clean
    assert verdict.counts["revived keys"] == 1
    assert (verdict.lost_age_s["max"], verdict.revived_age_s["max"]) == (1, 3.99)


def test_gaps_remains_dead_letters_and_processes_are_breaches() -> None:
    books = replace(BOOKS, gaps=("pay_1",), undrained=("stream",), dead_letters=("entry",))

    verdict = judge(ORDERS, books, left_over=["process 7"])

    assert promises(verdict) == {"gaps", "not drained", "dead letters", "left running"}


FIRST, LAST = Hold(amount=AMOUNT, id="h1", card=CARD), Hold(amount=AMOUNT, id="h2", card=CARD)
OURS = AuthorizationRow(id="op_1", attempts=2, amount=AMOUNT)


def excuse(
    kept: dict[str, str | None], ours: AuthorizationRow | None = OURS, overlapping: frozenset[str] = frozenset()
) -> str:
    [found] = twice.judge((FIRST, LAST), [ours] if ours else [], kept, overlapping)
    return found.excuse


def test_one_hold_for_each_authorization_is_no_finding() -> None:
    assert twice.judge([FIRST], [OURS], {}) == []


def test_a_bank_that_kept_no_key_or_only_the_last_one_broke_its_promise() -> None:
    assert excuse({})
    assert excuse({"op_1": "auth_h2"})


def test_a_second_hold_after_the_key_was_kept_is_our_own_doing() -> None:
    assert not excuse({"op_1": "auth_h1"})


def test_more_holds_than_attempts_are_our_own_doing() -> None:
    assert not excuse({}, replace(OURS, attempts=1))
    assert not excuse({}, None)


@pytest.mark.parametrize("kept", [{}, {"op_1": "auth_h2"}])
def test_a_key_that_was_under_way_twice_excuses_nothing(kept: dict[str, str | None]) -> None:
    assert excuse(kept, overlapping=frozenset({"op_2"}))
    assert not excuse(kept, overlapping=frozenset({"op_1"}))


def test_the_keys_under_way_twice_are_read_from_the_log_of_the_bank(tmp_path: Path) -> None:
    lines = [
        '{"event":"bank_listening","port":1}',
        '{"event":"key_under_way_twice","path":"/api/v1/voids","key":"op_1"}',
        "Traceback (most recent call last):",
        '{"event":"key_under_way_twice","path":"/api/v1/authorizations","key":"op_2"}',
        '{"event":"key_under_way_twice","pa',
    ]
    (tmp_path / "bank.log").write_text("\n".join(lines))

    assert twice.under_way_twice(tmp_path / "bank.log") == {"op_1", "op_2"}


def a_broken_promise() -> Books:
    """The bank held twice for one authorization, having lost its key; the first hold has no receipt."""
    extra = replace(HOLD, id="h0")
    broken = twice.judge([replace(FIRST, id="h0"), FIRST], [OURS], {"op_1": "auth_h1"})
    account = Account(card=CARD, balance=OPENING - AMOUNT, available=OPENING - 2 * AMOUNT)
    return replace(BOOKS, transactions=(extra, HOLD, CAPTURE), accounts=(account,), twice=broken)


def given_back(books: Books) -> Books:
    void = replace(CAPTURE, id="v0", kind="VOID", reference="h0")
    (account,) = books.accounts
    account = replace(account, available=account.available + AMOUNT)
    return replace(books, transactions=(*books.transactions, void), accounts=(account,), released=frozenset({"h0"}))


def test_a_hold_of_a_broken_promise_is_a_breach_of_that_and_of_nothing_else() -> None:
    verdict = judge(ORDERS, a_broken_promise())

    assert promises(verdict) == {"bank_broke_promise"}
    assert verdict.counts["bank_broke_promise"] == 1


def test_a_hold_of_a_broken_promise_that_was_given_back_is_clean_and_its_money_adds_up() -> None:
    verdict = judge(ORDERS, given_back(a_broken_promise()))

    assert verdict.clean
    assert (verdict.counts["bank_broke_promise"], verdict.counts["given back"]) == (0, 1)


def test_a_release_that_the_bank_does_not_show_gives_nothing_back() -> None:
    assert promises(judge(ORDERS, replace(a_broken_promise(), released=frozenset({"h0"})))) == {"bank_broke_promise"}


def test_a_hold_that_we_doubled_is_a_breach_whether_it_was_given_back_or_not() -> None:
    books = a_broken_promise()
    ours = replace(books, twice=[replace(books.twice[0], excuse="")])

    assert "doubled" in promises(judge(ORDERS, ours))
    assert promises(judge(ORDERS, given_back(ours))) == {"doubled"}
