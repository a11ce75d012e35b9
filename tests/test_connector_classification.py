"""The table of answers: a refusal only where the bank provably did nothing, everything else in doubt (I7)."""

from __future__ import annotations

import itertools

import pytest

from bank.classification import CLASSIFICATION, MESSAGES, NO_WORD, TEXT, Doubt, Verdict, classify
from engine.domain.bank_answer import Refusal
from engine.domain.payment import DeclineCode, Verb

A, C, V, R = Verb.AUTHORIZE, Verb.CAPTURE, Verb.VOID, Verb.REFUND

# The bank's contract, sections 6, 7 and 15, written out once more and independently of the table.
REFUSED: dict[tuple[Verb, int, str], Verdict] = {
    (A, 400, "invalid_card"): DeclineCode.INVALID_CARD,
    (A, 400, "invalid_cvv"): DeclineCode.INVALID_CVV,
    (A, 400, "card_expired"): DeclineCode.CARD_EXPIRED,
    (A, 402, "insufficient_funds"): DeclineCode.INSUFFICIENT_FUNDS,
    (A, 400, "invalid_amount"): Refusal.MISTAKE,
    (C, 400, "authorization_not_found"): Refusal.UNKNOWN_REFERENCE,
    (C, 400, "authorization_already_used"): Refusal.ALREADY_DONE,
    (C, 400, "authorization_expired"): Refusal.EXPIRED,
    (C, 400, "already_captured"): Refusal.ALREADY_DONE,
    (C, 400, "already_voided"): Refusal.ALREADY_DONE,
    (C, 400, "amount_mismatch"): Refusal.MISTAKE,
    (C, 400, "invalid_amount"): Refusal.MISTAKE,
    (V, 400, "authorization_not_found"): Refusal.UNKNOWN_REFERENCE,
    (V, 400, "authorization_already_used"): Refusal.ALREADY_DONE,
    (V, 400, "already_captured"): Refusal.ALREADY_DONE,
    (V, 400, "already_voided"): Refusal.ALREADY_DONE,
    (R, 400, "capture_not_found"): Refusal.UNKNOWN_REFERENCE,
    (R, 400, "already_refunded"): Refusal.ALREADY_DONE,
    (R, 400, "amount_mismatch"): Refusal.MISTAKE,
    (R, 400, "invalid_amount"): Refusal.MISTAKE,
}
CODES = sorted({code for _, _, code in REFUSED})
OTHER_WORDS = ["internal_error", "not_found", "refund_not_found", "account_not_found", "brand_new_code", TEXT, NO_WORD]
STATUSES = [
    101,
    300,
    301,
    304,
    307,
    400,
    401,
    402,
    403,
    404,
    405,
    408,
    409,
    413,
    418,
    422,
    425,
    429,
    499,
    500,
    502,
    503,
]


def is_refusal_to(verb: Verb, status: int, word: str) -> bool:
    """What the contract allows to be a refusal, in one place."""
    declined_by_status = verb is A and status == 402 and word not in (TEXT, NO_WORD, "internal_error")
    return (verb, status, word) in REFUSED or (status in (400, 404, 405) and word == TEXT) or declined_by_status


@pytest.mark.parametrize(("answer", "verdict"), REFUSED.items())
def test_each_refusal_of_the_contract_is_known(answer: tuple[Verb, int, str], verdict: Verdict) -> None:
    assert classify(*answer) == verdict


def test_nothing_but_the_contracts_refusals_is_a_refusal() -> None:
    for verb, status, word in itertools.product(Verb, STATUSES, CODES + OTHER_WORDS):
        refused = not isinstance(classify(verb, status, word), Doubt)

        assert refused == is_refusal_to(verb, status, word), (verb, status, word)


def test_an_authorization_is_asked_again_only_where_the_bank_cannot_place_a_second_hold() -> None:
    for status, word in itertools.product(STATUSES, CODES + OTHER_WORDS):
        verdict = classify(A, status, word)
        spoken_by_the_bank_itself = 400 <= status < 500 and word not in (TEXT, NO_WORD)

        if isinstance(verdict, Doubt):
            assert (verdict is Doubt.REVIEW) == spoken_by_the_bank_itself, (status, word)


@pytest.mark.parametrize("verb", [C, V, R])
def test_what_the_banks_unique_rows_guard_is_always_asked_again(verb: Verb) -> None:
    verdicts = {classify(verb, status, word) for status, word in itertools.product(STATUSES, CODES + OTHER_WORDS)}

    assert Doubt.REVIEW not in verdicts


@pytest.mark.parametrize("status", [400, 402, 404, 500, 503])
@pytest.mark.parametrize("verb", Verb)
def test_an_internal_error_is_in_doubt_whatever_its_status(verb: Verb, status: int) -> None:
    assert isinstance(classify(verb, status, "internal_error"), Doubt)


def test_a_402_with_an_unknown_code_is_still_a_decline() -> None:
    assert classify(A, 402, "do_not_honor") is DeclineCode.PROVIDER_DECLINED


def test_every_refusal_has_words_of_ours() -> None:
    verdicts = {verdict for *_, verdict in CLASSIFICATION if not isinstance(verdict, Doubt)}

    assert verdicts <= MESSAGES.keys()


def test_every_row_is_needed() -> None:
    answers = [*itertools.product(Verb, STATUSES, [*CODES, *OTHER_WORDS, "missing_idempotency_key"])]
    first = set()
    for verb, status, word in answers:
        coded = word not in (TEXT, NO_WORD)
        for number, (verbs, statuses, expected, _) in enumerate(CLASSIFICATION):
            fits = expected in (word, "any/word") or (expected == "any/code" and coded)
            if fits and verb in verbs and status in statuses:
                first.add(number)
                break

    assert first == set(range(len(CLASSIFICATION)))
