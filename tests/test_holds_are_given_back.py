"""A hold that no payment has keeps a customer's money: the audit fails, and an audited act gives it back, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from engine.domain.ids import release_key
from ops.cli.main import app
from ops.errors import in_words
from support.bank_harness import Bank, a_bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

OPENING = 1_000_000_000_000  # of a fresh card


@pytest.fixture
def own_bank(bank_postgres: str) -> Iterator[Bank]:
    """A bank that nobody else uses, so that its books can be compared whole."""
    with a_bank(bank_postgres, f"holds_{uuid4().hex}", PENSTOCK_BANK_CONTROL="1") as bank:
        yield bank


@pytest.fixture
def gateway(
    database: str, redis_url: str, own_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(database, redis_url, f"http://127.0.0.1:{own_bank.port}", folder) as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Done:
    code: int
    said: str


@dataclass(frozen=True, kw_only=True)
class Office:
    """An operator at a terminal, with both houses' books."""

    gateway: Gateway
    bank: Bank

    def penstock(self, *arguments: str, **environ: str) -> Done:
        stores = {
            "PENSTOCK_DATABASE_URL": self.gateway.database,
            "PENSTOCK_REDIS_URL": self.gateway.redis_url,
            "PENSTOCK_BANK_URL": self.gateway.bank_url,
            "PENSTOCK_BANK_DATABASE_URL": self.bank.dsn,
        }
        result = CliRunner().invoke(app, list(arguments), env={**stores, **environ})
        words = in_words(result.exception) if isinstance(result.exception, Exception) else None
        return Done(code=result.exit_code, said=words or result.output)

    def audit(self) -> Done:
        return self.penstock("audit", "--grace-s", "0")

    def holds(self) -> list[dict[str, Any]]:
        return list(json.loads(self.penstock("holds", "list", "--grace-s", "0", "--json").said))

    def release(self, hold: str, **environ: str) -> Done:
        return self.penstock("holds", "release", hold, "--reason", "placed twice", **environ)

    def effects(self, card: str) -> list[str]:
        statement = """SELECT t.type FROM transactions t JOIN accounts a ON a.id = t.account_id
                       WHERE a.account_number = %s ORDER BY t.created_at"""
        return [kind for (kind,) in self.bank.sql(statement, card)]

    def acts(self) -> list[tuple[Any, ...]]:
        return self.gateway.sql("SELECT subject, result FROM audit WHERE act = 'hold.release' ORDER BY id")


@pytest.fixture
def office(gateway: Gateway, own_bank: Bank) -> Office:
    return Office(gateway=gateway, bank=own_bank)


def doubled(office: Office) -> tuple[str, str, str]:
    """The card, the payment and the left-over hold of an authorization whose key the bank lost."""
    card = next(fresh_cards)
    office.bank.fault("drop_key_and_response", card_number=card, operation="authorize", times=1)
    shown = office.gateway.pay(card, wait=20).json()
    office.gateway.settled()
    (orphan,) = office.holds()
    assert orphan["hold"] != shown["bank"]["authorization_id"]
    return card, shown["id"], orphan["hold"]


def an_orphan(office: Office, amount: int = 777) -> tuple[str, str]:
    """A card, and a hold on it that nobody can explain: the bank lost its key."""
    card = next(fresh_cards)
    hold = office.bank.authorized(card_number=card, amount=amount)
    office.bank.sql("DELETE FROM idempotency_keys WHERE response_body::json ->> 'authorization_id' = %s", hold)
    return card, hold


def test_a_doubled_hold_fails_the_audit_with_its_id_amount_and_key_until_it_is_given_back(office: Office) -> None:
    card, payment, hold = doubled(office)
    key = office.gateway.sql("SELECT id FROM operations WHERE payment = %s", payment)[0][0]

    before, listed = office.audit(), office.holds()
    released, after, again = office.release(hold), office.audit(), office.release(hold)

    assert before.code == 1
    for words in ("bank_broke_promise", hold, "5000", key, "penstock holds release"):
        assert words in before.said
    assert [(each["hold"], each["amount"], each["key"], each["payment"]) for each in listed] == [
        (hold, 5000, key, payment)
    ]
    assert released.code == 0 and f"{hold} released: void_" in released.said
    assert after.code == 0, after.said
    assert again.code == 0 and "known before" in again.said
    assert office.holds() == []
    assert office.effects(card) == ["AUTH_HOLD", "AUTH_HOLD", "VOID"]
    assert office.bank.balances(card) == (OPENING, OPENING - 5000)
    assert office.gateway.post(f"/v1/payments/{payment}/capture", wait=10).json()["status"] == "captured"
    ((subject, actor, reason, bank_key),) = office.gateway.sql(
        "SELECT subject, actor, reason, detail ->> 'bank_key' FROM audit WHERE act = 'hold.release'"
    )
    installation = office.gateway.sql("SELECT id FROM installation")[0][0]
    assert (subject, reason, bank_key) == (hold, "placed twice", release_key(installation, hold)) and actor


def test_a_hold_that_nobody_can_explain_is_a_breach_and_is_given_back_too(office: Office) -> None:
    card, hold = an_orphan(office)

    before = office.audit()
    released, after = office.release(hold), office.audit()

    assert before.code == 1 and "holds_have_a_receipt" in before.said
    assert f"hold {hold} of 777 on card …{card[-4:]}, the bank keeps no key of it" in before.said
    assert (released.code, after.code) == (0, 0), after.said
    assert office.bank.balances(card) == (OPENING, OPENING)


@pytest.mark.parametrize(
    "verbs", [(), ("capture",), ("capture", "refund"), ("void",)], ids=lambda verbs: "-".join(verbs)
)
def test_a_hold_that_a_payment_has_is_not_given_back(office: Office, verbs: tuple[str, ...]) -> None:
    card = next(fresh_cards)
    shown = office.gateway.pay(card, wait=10).json()
    for verb in verbs:
        office.gateway.post(f"/v1/payments/{shown['id']}/{verb}", wait=10)
    before = office.effects(card)

    refused = office.release(shown["bank"]["authorization_id"])

    assert refused.code == 1 and f"payment {shown['id']} has it" in refused.said
    assert office.effects(card) == before
    assert office.acts()[0][1].startswith("refused: ")
    assert office.audit().code == 0


def test_a_hold_that_an_authorization_without_an_answer_may_have_placed_is_not_given_back_before_that_ends(
    office: Office,
) -> None:
    card = next(fresh_cards)
    office.bank.fault("internal_error_after", card_number=card, operation="authorize", times=1)
    payment = office.gateway.pay(card, amount=4321).json()["id"]
    eventually(lambda: office.gateway.get(payment)["operation"]["status"] == "review", "it is in review")
    hold = f"auth_{office.bank.sql('SELECT id FROM transactions')[0][0]}"
    _, other = an_orphan(office, amount=4322)

    early, another = office.release(hold), office.release(other)
    office.penstock("payment", "resolve", payment, "--outcome", "refused", "--reason", "the customer left")
    late = office.release(hold)

    assert early.code == 1 and f"of payment {payment}, of the same amount, is review" in early.said
    assert another.code == 0, another.said
    assert late.code == 0 and "released: void_" in late.said
    assert office.audit().code == 0


@pytest.mark.parametrize(
    ("fault", "ended"), [("drop_response", "released: void_"), ("drop_key_and_response", "over: ")], ids=str
)
def test_a_release_whose_answer_is_lost_is_asked_again_and_happens_once(office: Office, fault: str, ended: str) -> None:
    card, hold = an_orphan(office)
    office.bank.fault(fault, operation="void", times=1)

    released = office.release(hold)

    assert released.code == 0 and ended in released.said
    assert office.effects(card) == ["AUTH_HOLD", "VOID"]
    assert office.audit().code == 0


def test_a_release_that_was_cut_off_is_repeated_under_the_same_key(office: Office) -> None:
    card, hold = an_orphan(office)
    nowhere = office.release(hold, PENSTOCK_BANK_URL="http://127.0.0.1:1")
    installation = office.gateway.sql("SELECT id FROM installation")[0][0]
    key = release_key(installation, hold)
    office.gateway.sql(
        """INSERT INTO audit (actor, act, subject, reason, detail)
           VALUES ('ada', 'hold.release', %s, 'cut off', jsonb_build_object('bank_key', %s::text))""",
        *(hold, key),
    )
    office.bank.post("voids", {"authorization_id": hold}, key)  # the attempt whose answer nobody heard

    open_ended, released = office.audit(), office.release(hold)

    assert nowhere.code == 1 and "try again" in nowhere.said
    assert open_ended.code == 1 and "acts_are_carried_out" in open_ended.said
    assert released.code == 0 and "released: void_" in released.said
    assert office.effects(card) == ["AUTH_HOLD", "VOID"]
    assert [result.partition(":")[0] for _, result in office.acts()] == ["refused", "released"]
    assert office.audit().code == 0


def test_a_hold_that_was_captured_by_somebody_is_told_by_the_audit_whatever_the_act_came_to(office: Office) -> None:
    card, hold = an_orphan(office)
    office.bank.post("captures", {"authorization_id": hold, "amount": 777})

    ended, audit = office.release(hold), office.audit()

    assert "over: the bank says authorization_already_used" in ended.said
    assert audit.code == 1 and "holds_have_a_receipt" in audit.said and "CAPTURE" in audit.said
    assert office.effects(card) == ["AUTH_HOLD", "CAPTURE"]


def test_a_hold_that_was_given_back_is_no_payment_s_any_more(office: Office) -> None:
    card = next(fresh_cards)
    _, hold = an_orphan(office, amount=5000)
    assert office.release(hold).code == 0
    office.bank.fault("internal_error_after", card_number=card, operation="authorize", times=1)
    payment = office.gateway.pay(card).json()["id"]
    eventually(lambda: office.gateway.get(payment)["operation"]["status"] == "review", "it is in review")

    refused = office.penstock(
        *("payment", "resolve", payment, "--outcome", "approved", "--reference", hold, "--reason", "line 12")
    )

    assert refused.code == 1 and "its release, act_" in refused.said


def test_what_is_no_hold_at_the_bank_is_refused(office: Office) -> None:
    _, hold = an_orphan(office)

    nobody, shouted = office.release(f"auth_{uuid4()}"), office.release("auth_" + hold[5:].upper())
    strange, wordless = office.release("cap_1"), office.penstock("holds", "release", hold)

    assert nobody.code == 1 and "is no hold at the bank" in nobody.said
    assert shouted.code == 1 and f"the bank writes this id as {hold}" in shouted.said
    assert (strange.code, wordless.code) == (2, 2)
    assert [each["hold"] for each in office.holds()] == [hold]
