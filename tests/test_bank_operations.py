"""The mock bank's four operations: what they answer, in which order they refuse, what they leave in the books."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from support.bank_harness import Bank, a_bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
POSTED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z")
NOBODY = f"{uuid4()}"


def outcome(response: Any) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error", "message"}
    return response.status_code, body["error"]


def test_an_authorization_is_200_with_alphabetical_keys_and_a_newline(bank: Bank) -> None:
    response = bank.authorize(amount=1234)

    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert list(body) == ["amount", "authorization_id", "created_at", "currency", "expires_at", "status"]
    assert response.text.endswith("}\n")
    assert (body["amount"], body["currency"], body["status"]) == (1234, "USD", "approved")
    assert re.fullmatch(f"auth_{UUID}", body["authorization_id"])
    assert POSTED_AT.fullmatch(body["created_at"]) and POSTED_AT.fullmatch(body["expires_at"])
    assert "x-idempotent-replayed" not in response.headers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"card_number": "4111111111111112", "cvv": "x", "amount": 0}, (400, "invalid_card")),
        ({"card_number": "411111111111"}, (400, "invalid_card")),
        ({"cvv": "12", "amount": 0}, (400, "invalid_cvv")),
        ({"cvv": "12a"}, (400, "invalid_cvv")),
        ({"card_number": "4012888888881881", "amount": 0}, (400, "invalid_amount")),
        ({"amount": -1}, (400, "invalid_amount")),
        ({"card_number": "4012888888881881"}, (400, "invalid_card")),
        ({"card_number": "4111-1111-1111-1111"}, (400, "invalid_card")),
        ({"card_number": "4111111111111111\0"}, (400, "invalid_card")),
        ({"card_number": "4111111111111111\ud800"}, (400, "invalid_card")),
        ({"card_number": "5105105105105100", "cvv": "999"}, (400, "invalid_cvv")),
        ({"card_number": "5105105105105100", "cvv": "321", "amount": 10**9}, (400, "card_expired")),
        ({"card_number": "5555555555554444", "cvv": "789", "amount": 1}, (402, "insufficient_funds")),
        ({"amount": 2**63 - 1}, (402, "insufficient_funds")),
    ],
)
def test_the_first_rule_that_fails_refuses_an_authorization(bank: Bank, changes: Any, expected: Any) -> None:
    assert outcome(bank.authorize(**changes)) == expected


def test_the_expiry_in_the_request_is_ignored(bank: Bank) -> None:
    assert bank.authorize(expiry_month=99, expiry_year=-1).status_code == 200


def test_capture_void_and_refund_answer_their_own_shapes(bank: Bank) -> None:
    auth, other = bank.authorized(amount=700), bank.authorized(amount=800)

    capture = bank.post("captures", {"authorization_id": auth, "amount": 700}).json()
    void = bank.post("voids", {"authorization_id": other}).json()
    refund = bank.post("refunds", {"capture_id": capture["capture_id"], "amount": 700}).json()

    assert list(capture) == ["amount", "authorization_id", "capture_id", "captured_at", "currency", "status"]
    assert list(void) == ["authorization_id", "status", "void_id", "voided_at"]
    assert list(refund) == ["amount", "capture_id", "currency", "refund_id", "refunded_at", "status"]
    assert re.fullmatch(f"cap_{UUID}", capture["capture_id"])
    assert re.fullmatch(f"void_{UUID}", void["void_id"])
    assert re.fullmatch(f"ref_{UUID}", refund["refund_id"])
    assert (capture["status"], void["status"], refund["status"]) == ("captured", "voided", "refunded")


def test_the_books_follow_every_operation(bank: Bank) -> None:
    card = a_card_request()["card_number"]
    start, _ = bank.balances(card)

    auth = bank.authorized(card_number=card, amount=1000)
    held = bank.balances(card)
    capture = bank.post("captures", {"authorization_id": auth, "amount": 1000}).json()["capture_id"]
    taken = bank.balances(card)
    bank.post("refunds", {"capture_id": capture, "amount": 1000})
    returned = bank.balances(card)
    bank.post("voids", {"authorization_id": bank.authorized(card_number=card, amount=1000)})
    released = bank.balances(card)

    assert [held, taken, returned, released] == [
        (start, start - 1000),
        (start - 1000, start - 1000),
        (start, start),
        (start, start),
    ]
    rows = bank.sql(
        "SELECT type, t.status, currency, expires_at IS NOT NULL FROM transactions t"
        " JOIN accounts a ON a.id = account_id"
        " WHERE account_number = %s ORDER BY t.created_at",
        card,
    )
    assert rows == [
        ("AUTH_HOLD", "COMPLETED", "USD", True),
        ("CAPTURE", "COMPLETED", "USD", False),
        ("REFUND", "COMPLETED", "USD", False),
        ("AUTH_HOLD", "COMPLETED", "USD", True),
        ("VOID", "COMPLETED", "USD", False),
    ]


def test_captures_and_voids_of_unknown_or_wrong_things_are_not_found(bank: Bank) -> None:
    capture = bank.captured()

    for auth in ("", "nonsense", NOBODY, f"auth_{NOBODY}", f"auth_{capture[4:]}", capture):
        for noun in ("captures", "voids"):
            assert outcome(bank.post(noun, {"authorization_id": auth, "amount": 5000})) == (
                400,
                "authorization_not_found",
            )


def test_identifiers_are_read_as_generously_as_go_reads_a_uuid(bank: Bank) -> None:
    for write in (str.upper, "urn:uuid:{}".format, "{{{}}}".format, lambda uuid: uuid.replace("-", "")):
        auth = bank.authorized()

        response = bank.post("captures", {"authorization_id": f"auth_{write(auth[5:])}", "amount": 5000})

        assert response.json()["authorization_id"] == auth


def test_a_used_hold_is_told_before_an_expired_one_and_that_before_a_wrong_amount(bank: Bank) -> None:
    used, expired, fresh = bank.authorized(), bank.authorized(), bank.authorized()
    bank.post("voids", {"authorization_id": used})
    for auth in (used, expired):
        bank.sql("UPDATE transactions SET expires_at = now() - interval '1 s' WHERE id = %s", auth[5:])

    answers = [outcome(bank.post("captures", {"authorization_id": a, "amount": 1})) for a in (used, expired, fresh)]

    assert answers == [
        (400, "authorization_already_used"),
        (400, "authorization_expired"),
        (400, "amount_mismatch"),
    ]


def test_a_hold_is_used_once_by_a_capture_or_a_void(bank: Bank) -> None:
    voided, captured = bank.authorized(), bank.authorized()
    bank.post("voids", {"authorization_id": voided})
    bank.post("captures", {"authorization_id": captured, "amount": 5000})

    for auth in (voided, captured):
        for noun in ("captures", "voids"):
            again = bank.post(noun, {"authorization_id": auth, "amount": 5000})
            assert outcome(again) == (400, "authorization_already_used")


def test_a_capture_is_refunded_once_and_in_full(bank: Bank) -> None:
    capture = bank.captured()

    partial = bank.post("refunds", {"capture_id": capture, "amount": 4999})
    full = bank.post("refunds", {"capture_id": capture, "amount": 5000})
    again = bank.post("refunds", {"capture_id": capture, "amount": 5000})
    of_a_hold = bank.post("refunds", {"capture_id": f"cap_{bank.authorized()[5:]}", "amount": 5000})
    bad = bank.post("refunds", {"capture_id": "cap_x", "amount": 5000})

    assert outcome(partial) == (400, "amount_mismatch")
    assert full.status_code == 200
    assert outcome(again) == (400, "already_refunded")
    assert outcome(of_a_hold) == outcome(bad) == (400, "capture_not_found")
    assert bad.json()["message"] == "invalid capture ID format"


def test_holds_may_be_born_expired_and_can_only_be_voided(bank_postgres: str) -> None:
    with a_bank(bank_postgres, AUTH_EXPIRY_HOURS="-1") as bank:
        card = a_card_request()["card_number"]
        start = bank.balances(card)
        auth = bank.authorized(card_number=card)

        capture = bank.post("captures", {"authorization_id": auth, "amount": 5000})
        reserved = bank.balances(card)
        void = bank.post("voids", {"authorization_id": auth})

        assert outcome(capture) == (400, "authorization_expired")
        assert reserved == (start[0], start[1] - 5000)
        assert (void.status_code, bank.balances(card)) == (200, start)


def test_a_look_up_tells_what_was_done_and_never_what_became_of_it(bank: Bank) -> None:
    posted = bank.authorize().json()
    auth = posted["authorization_id"]
    capture = bank.post("captures", {"authorization_id": auth, "amount": 5000}).json()
    refund = bank.post("refunds", {"capture_id": capture["capture_id"], "amount": 5000}).json()

    found = [
        bank.http.get(f"/api/v1/{path}").json()
        for path in (
            f"authorizations/{auth}",
            f"captures/{capture['capture_id']}",
            f"refunds/{refund['refund_id']}",
        )
    ]

    def to_the_microsecond(body: dict[str, Any]) -> dict[str, Any]:
        return {name: _rounded(value) if name.endswith("_at") else value for name, value in body.items()}

    assert found == [to_the_microsecond(body) for body in (posted, capture, refund)]


def _rounded(instant: str) -> str:
    """As Postgres keeps it and Go prints it: to the nearest microsecond, without zeros at the end."""
    whole, _, fraction = instant.removesuffix("Z").partition(".")
    nearest_us = (int(fraction.ljust(9, "0")) + 500) // 1000
    kept = datetime.fromisoformat(f"{whole}+00:00") + timedelta(microseconds=nearest_us)
    return kept.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def test_a_look_up_of_anything_else_is_not_found(bank: Bank) -> None:
    auth = bank.authorized()

    for path in (
        f"authorizations/auth_{NOBODY}",
        "authorizations/x",
        f"captures/cap_{auth[5:]}",
        f"captures/{auth}",
        f"refunds/ref_{NOBODY}",
    ):
        assert outcome(bank.http.get(f"/api/v1/{path}")) == (404, "not_found")


@pytest.mark.parametrize("round_", range(20))
def test_of_ten_captures_and_ten_voids_at_once_one_wins(bank: Bank, round_: int) -> None:
    card = a_card_request()["card_number"]
    auth = bank.authorized(card_number=card)
    start = bank.balances(card)[0]

    with ThreadPoolExecutor(20) as threads:
        body = {"authorization_id": auth, "amount": 5000}
        answers = list(threads.map(lambda noun: bank.post(noun, body), ["captures", "voids"] * 10))

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {a.json()["error"] for a in answers if a.status_code == 400} == {"authorization_already_used"}
    captured = answers[0].status_code == 200 or any("capture_id" in a.json() for a in answers)
    assert bank.balances(card) == ((start - 5000,) * 2 if captured else (start,) * 2)


def test_holds_of_one_card_at_once_never_exceed_its_funds(bank: Bank) -> None:
    card = a_card_request()["card_number"]
    bank.sql("UPDATE accounts SET available_balance_cents = 25000 WHERE account_number = %s", card)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: bank.authorize(card_number=card), range(12)))

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [402] * 7
    assert bank.balances(card)[1] == 0


def test_a_failing_database_is_told_as_the_contract_tells_it(bank_postgres: str) -> None:
    with a_bank(bank_postgres, "broken") as bank:
        held, capture = bank.authorized(), bank.captured()
        hold_body, refund_body = {"authorization_id": held, "amount": 5000}, {"capture_id": capture, "amount": 5000}

        bank.sql("ALTER TABLE transactions ADD CONSTRAINT broken CHECK (amount_cents < 0) NOT VALID")
        insert_fails = [
            bank.authorize(),
            bank.post("captures", hold_body),
            bank.post("voids", hold_body),
            bank.post("refunds", refund_body),
        ]
        bank.sql("ALTER TABLE transactions DROP CONSTRAINT broken")
        bank.sql("ALTER TABLE accounts ADD CONSTRAINT broken CHECK (balance_cents < 0) NOT VALID")
        update_fails = [bank.authorize(), bank.post("captures", hold_body), bank.post("refunds", refund_body)]
        bank.sql("ALTER TABLE accounts DROP CONSTRAINT broken")
        bank.sql("ALTER TABLE transactions RENAME TO gone")
        bank.sql("ALTER TABLE accounts RENAME TO gone_too")
        find_fails = [bank.authorize(), bank.post("captures", hold_body), bank.post("refunds", refund_body)]
        look_up_fails = bank.http.get(f"/api/v1/authorizations/{held}")

        assert [outcome(answer) for answer in insert_fails] == [
            (400, "internal_error"),
            (500, "internal_error"),
            (500, "internal_error"),
            (500, "internal_error"),
        ]
        assert {outcome(answer) for answer in update_fails} == {(400, "internal_error")}
        assert "violates check constraint" in update_fails[0].json()["message"]
        assert [outcome(answer)[1] for answer in find_fails] == [
            "invalid_card",
            "authorization_not_found",
            "capture_not_found",
        ]
        assert outcome(look_up_fails) == (404, "not_found")


def test_every_refusal_has_the_contracts_words(bank: Bank) -> None:
    card = a_card_request()["card_number"]
    auth, capture = bank.authorized(amount=77), bank.captured(amount=78)
    bank.post("refunds", {"capture_id": capture, "amount": 78})
    used = bank.authorized()
    bank.post("voids", {"authorization_id": used})

    def words(noun: str, **body: Any) -> str:
        return str(bank.post(noun, body).json()["message"])

    refused = {
        "invalid card number length: must be 13-19 digits": bank.authorize(card_number="4111"),
        "invalid card number: failed Luhn check": bank.authorize(card_number="4111111111111112"),
        "invalid CVV: must be 3 or 4 digits": bank.authorize(cvv="12"),
        "invalid CVV: must contain only digits": bank.authorize(cvv="12a"),
        "invalid amount: must be greater than 0": bank.authorize(amount=0),
        "card not found or invalid": bank.authorize(card_number="6011000990139424"),
        "CVV does not match": bank.authorize(card_number=card, cvv="999"),
        "card expired: year 2020 is in the past": bank.authorize(card_number="5105105105105100", cvv="321"),
        "insufficient funds": bank.authorize(amount=2**60),
    }
    assert {answer.json()["message"]: answer for answer in refused.values()} == refused
    assert words("captures", authorization_id=auth, amount=1) == "capture amount does not match authorized amount"
    done = "authorization has already been completed or cancelled"
    assert words("captures", authorization_id=used, amount=5000) == words("voids", authorization_id=used) == done
    nobodys = str(uuid4())
    assert words("voids", authorization_id=f"auth_{nobodys}") == "authorization not found"
    assert words("refunds", capture_id=f"cap_{nobodys}", amount=1) == "capture not found"
    assert words("refunds", capture_id=capture, amount=1) == "refund amount (1) must equal capture amount (78)"
    assert words("refunds", capture_id=capture, amount=78) == "capture has already been refunded"


def test_a_card_expired_this_year_is_told_its_month(bank: Bank) -> None:
    card, now = a_card_request()["card_number"], datetime.now(UTC)
    bank.sql("UPDATE accounts SET expiry_month = 1, expiry_year = %s WHERE account_number = %s", now.year, card)
    bank.fault("clock_offset", clock_offset_s=0 if now.month > 1 else 31 * 86_400, times=1)

    assert bank.authorize(card_number=card).json()["message"] == f"card expired: 01/{now.year}"


def test_what_is_read_later_is_what_was_told_rounded_to_the_microsecond(bank: Bank) -> None:
    for _ in range(40):
        told = bank.authorize().json()
        read = bank.http.get(f"/api/v1/authorizations/{told['authorization_id']}").json()

        for name in ("created_at", "expires_at"):
            assert read[name] == _rounded(told[name])
