"""The audit of the bank's books: what is under way is no difference, all else is named, and what the bank broke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from ops.audit.books import BankAuthorization, Ours, Theirs, compared
from ops.audit.reconcile import Account, BankTransaction, LedgerEffect

CARD = "4111111111111111"
OPENING = 1_000_000
NOW = datetime.now(UTC)
OLD_S = 3600.0
GRACE_S = 60.0
ATTEMPT_S = timedelta(seconds=12)


@dataclass(kw_only=True)
class Books:
    """One payment of 50.00 on both sides: authorized at the third attempt, an hour ago."""

    effects: list[LedgerEffect] = field(default_factory=list)
    authorizations: list[BankAuthorization] = field(default_factory=list)
    open_ends: set[tuple[str, str]] = field(default_factory=set)
    releases: set[str] = field(default_factory=set)
    transactions: list[BankTransaction] = field(default_factory=list)
    age_s: dict[str, float] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    moved: list[int] = field(default_factory=lambda: [0, 0])

    def owns(self, verb: str, uuid: str, reference: str | None = None) -> None:
        prefix = {"authorize": "auth_", "capture": "cap_", "void": "void_", "refund": "ref_"}[verb]
        self.effects.append(
            LedgerEffect(
                payment="pay_1", order_id="o", state="authorized", verb=verb, operation=f"op_{verb}", amount=5000,
                bank_id=prefix + uuid, reference=reference, receipt_amount=5000,
            )
        )  # fmt: skip

    def did(
        self, kind: str, uuid: str, reference: str | None = None, *, age_s: float = OLD_S, amount: int = 5000
    ) -> None:
        self.transactions.append(
            BankTransaction(id=uuid, kind=kind, amount=amount, reference=reference, status="COMPLETED", card=CARD)
        )
        self.age_s[uuid] = age_s
        self.moved[0] += {"CAPTURE": -amount, "REFUND": amount}.get(kind, 0)
        self.moved[1] += {"AUTH_HOLD": -amount, "VOID": amount, "REFUND": amount}.get(kind, 0)

    def asked(self, **changes: object) -> None:
        usual = BankAuthorization(
            id="op_authorize", payment="pay_1", attempts=3, amount=5000, last4="1111", hold="auth_b", open=False,
            begun_at=NOW - timedelta(seconds=OLD_S + 5), ended_at=NOW - timedelta(seconds=OLD_S - 5),
        )  # fmt: skip
        self.authorizations.append(replace(usual, **changes))  # type: ignore[arg-type]

    def found(self) -> Iterator[tuple[str, str]]:
        ours = Ours(
            effects=self.effects,
            authorizations=self.authorizations,
            open_ends=frozenset(self.open_ends),
            releases=frozenset(self.releases),
        )
        made_at = {uuid: NOW - timedelta(seconds=age) for uuid, age in self.age_s.items()}
        shown = Account(card=CARD, balance=OPENING + self.moved[0], available=OPENING + self.moved[1])
        theirs = Theirs(
            transactions=sorted(self.transactions, key=lambda each: made_at[each.id]),
            accounts=[shown],
            made_at=made_at,
            age_s=self.age_s,
            holds_of_keys=self.kept,
            kept_at={},
        )
        for each in compared(ours, theirs, grace_s=GRACE_S):
            yield each.invariant.name, each.detail


def authorized() -> Books:
    books = Books()
    books.owns("authorize", "b")
    books.did("AUTH_HOLD", "b")
    books.kept["op_authorize"] = "auth_b"
    books.asked()
    return books


def test_one_effect_on_both_sides_is_all_there_is_to_say() -> None:
    assert list(authorized().found()) == []


def a_young_hold(books: Books) -> None:
    books.did("AUTH_HOLD", "c", age_s=GRACE_S - 1, amount=700)


def a_young_capture(books: Books) -> None:
    books.did("CAPTURE", "c", "b", age_s=1)


def a_capture_in_doubt(books: Books) -> None:
    books.open_ends.add(("capture", "auth_b"))
    books.did("CAPTURE", "c", "b")


def a_hold_in_doubt(books: Books) -> None:
    books.asked(id="op_2", attempts=1, amount=700, hold=None, open=True)
    books.did("AUTH_HOLD", "c", amount=700)


@pytest.mark.parametrize("under_way", [a_young_hold, a_young_capture, a_capture_in_doubt, a_hold_in_doubt])
def test_what_may_be_under_way_is_no_difference(under_way: Callable[[Books], None]) -> None:
    books = authorized()

    under_way(books)

    assert list(books.found()) == []


def test_a_hold_whose_key_the_bank_never_stored_is_a_promise_that_the_bank_broke() -> None:
    books = authorized()
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1)  # before the one whose key it kept

    (found,) = books.found()

    assert found[0] == "bank_broke_promise"
    assert "hold auth_a of 5000 on card …1111, under key op_authorize, beside auth_b" in found[1]


def test_holds_are_promises_that_the_bank_broke_when_the_bank_lost_the_key() -> None:
    books = authorized()
    books.kept.clear()
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1)
    books.did("AUTH_HOLD", "c", age_s=OLD_S - 1)

    assert [name for name, _ in books.found()] == ["bank_broke_promise", "bank_broke_promise"]


def test_a_hold_of_an_authorization_that_was_then_declined_is_a_promise_that_the_bank_broke() -> None:
    books = Books()
    books.asked(hold=None)
    books.did("AUTH_HOLD", "a")

    assert [name for name, _ in books.found()] == ["bank_broke_promise"]


def test_the_second_hold_of_an_authorization_in_doubt_is_a_promise_that_the_bank_broke() -> None:
    books = Books()
    books.asked(hold=None, open=True)
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1)
    books.did("AUTH_HOLD", "b")

    assert [name for name, _ in books.found()] == ["bank_broke_promise"]


def placed_after_the_key_was_kept(books: Books) -> None:
    books.did("AUTH_HOLD", "c", age_s=OLD_S - 1)


def placed_without_an_attempt(books: Books) -> None:
    books.authorizations.clear()  # asked once, so there is nothing to ask for again
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1)


def more_than_attempts(books: Books) -> None:
    books.kept.clear()
    for uuid in ("a", "c", "d"):
        books.did("AUTH_HOLD", uuid, age_s=OLD_S + 1)


def placed_under_a_key_that_names_it(books: Books) -> None:
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1)
    books.kept["op_authorize"] = "auth_a"


def placed_at_another_time(books: Books) -> None:
    books.kept.clear()
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 3600)


def placed_on_another_amount(books: Books) -> None:
    books.kept.clear()
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1, amount=5001)


@pytest.mark.parametrize(
    "doubled",
    [
        placed_after_the_key_was_kept,
        placed_without_an_attempt,
        more_than_attempts,
        placed_under_a_key_that_names_it,
        placed_at_another_time,
        placed_on_another_amount,
    ],
)
def test_a_hold_that_the_bank_cannot_be_blamed_for_is_a_breach(doubled: Callable[[Books], None]) -> None:
    books = authorized()

    doubled(books)

    assert any(name == "holds_have_a_receipt" and "no owner" in detail for name, detail in books.found())


def test_an_effect_that_the_bank_lacks_is_a_breach() -> None:
    books = authorized()
    books.owns("capture", "c", "auth_b")

    assert [name for name, _ in books.found()] == ["bank_agrees"]


def test_money_that_moved_by_itself_is_a_breach_though_effects_are_set_aside() -> None:
    books = authorized()
    a_capture_in_doubt(books)
    a_young_hold(books)
    books.moved[1] -= 1

    (found,) = books.found()

    assert found[0] == "bank_agrees"
    assert "card …1111" in found[1]


def a_doubled_hold() -> Books:
    books = authorized()
    books.did("AUTH_HOLD", "a", age_s=OLD_S + 1)
    return books


def test_a_hold_that_an_audited_act_gave_back_is_explained() -> None:
    books = a_doubled_hold()
    books.releases.add("auth_a")
    books.did("VOID", "v", "a")

    assert list(books.found()) == []


def test_a_hold_is_not_given_back_before_the_bank_shows_it() -> None:
    books = a_doubled_hold()
    books.releases.add("auth_a")

    assert [name for name, _ in books.found()] == ["bank_broke_promise"]


def test_a_hold_that_was_captured_instead_of_given_back_is_a_breach() -> None:
    books = a_doubled_hold()
    books.releases.add("auth_a")
    books.did("CAPTURE", "c", "a")

    assert {name for name, _ in books.found()} == {"bank_broke_promise", "bank_agrees"}


def test_a_hold_that_somebody_voided_without_an_act_of_the_audit_is_a_breach() -> None:
    books = a_doubled_hold()
    books.did("VOID", "v", "a")

    assert {name for name, _ in books.found()} == {"bank_broke_promise", "bank_agrees"}


def test_the_release_of_one_hold_explains_no_other() -> None:
    books = a_doubled_hold()
    books.did("AUTH_HOLD", "c", age_s=OLD_S + 1)
    books.releases.add("auth_c")
    books.did("VOID", "v", "c")

    (found,) = books.found()

    assert "auth_a" in found[1]
