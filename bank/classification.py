"""What a FicMart answer other than a 2xx means: one table, read from the top, the first row that fits decides.

The principle (I7): an answer is a refusal only where the bank provably did nothing. The rows say where that is known
from the bank's contract (sections 6, 7 and 15); all else, also what no contract names (3xx, 403, 418, 429, new codes),
ends in the last two rows as no answer. A 2xx is not for this table: its body tells (dialect.py).

The bank keeps only its 2xx under a key. So an authorization that the bank itself answered with an unknown 4xx must not
be asked again: if the hold was placed, there would be two. Captures, voids and refunds are guarded by the bank's unique
rows; and where a proxy in between answered (no JSON code), the bank has either done nothing or kept its own answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum

from engine.domain.bank_answer import Refusal
from engine.domain.payment import DeclineCode, Verb


class Doubt(StrEnum):
    """Done or not: nobody knows."""

    ASK_AGAIN = "ask_again"
    REVIEW = "review"  # asked again, the bank might do it twice


Verdict = DeclineCode | Refusal | Doubt
"""A DeclineCode is a refusal about the card (Refusal.DECLINED)."""

Row = tuple[AbstractSet[Verb], range, str, Verdict]

# What stands in the column of words, besides the bank's own codes. No code of the bank contains a slash.
TEXT = "text/plain"  # no code, but the plain text with which the bank's router and decoder refuse
NO_WORD = "no/word"  # neither
CODE = "any/code"  # any code at all (matches only)
ANY = "any/word"  # any of these (matches only)

EVERY = frozenset(Verb)
AUTHORIZE, CAPTURE, VOID, REFUND = (frozenset({verb}) for verb in Verb)
S400, S402, S404, S405 = (range(status, status + 1) for status in (400, 402, 404, 405))
S4XX, S5XX, ALL = range(400, 500), range(500, 600), range(1000)

R, D = Refusal, DeclineCode

# fmt: off
CLASSIFICATION: tuple[Row, ...] = (
    # asked     status  the bank's word                   what it means
    (AUTHORIZE, S4XX,   "internal_error",                 Doubt.REVIEW),        # a lost commit? The hold may stand
    (EVERY,     ALL,    "internal_error",                 Doubt.ASK_AGAIN),
    (EVERY,     S5XX,   ANY,                              Doubt.ASK_AGAIN),

    (AUTHORIZE, S400,   "invalid_card",                   D.INVALID_CARD),
    (AUTHORIZE, S400,   "invalid_cvv",                    D.INVALID_CVV),
    (AUTHORIZE, S400,   "card_expired",                   D.CARD_EXPIRED),
    (AUTHORIZE, S402,   "insufficient_funds",             D.INSUFFICIENT_FUNDS),
    (AUTHORIZE, S402,   CODE,                             D.PROVIDER_DECLINED),
    (AUTHORIZE, S400,   "invalid_amount",                 R.MISTAKE),

    (CAPTURE,   S400,   "authorization_not_found",        R.UNKNOWN_REFERENCE),
    (CAPTURE,   S400,   "authorization_already_used",     R.ALREADY_DONE),
    (CAPTURE,   S400,   "already_captured",               R.ALREADY_DONE),
    (CAPTURE,   S400,   "already_voided",                 R.ALREADY_DONE),
    (CAPTURE,   S400,   "authorization_expired",          R.EXPIRED),
    (CAPTURE,   S400,   "amount_mismatch",                R.MISTAKE),
    (CAPTURE,   S400,   "invalid_amount",                 R.MISTAKE),

    (VOID,      S400,   "authorization_not_found",        R.UNKNOWN_REFERENCE),
    (VOID,      S400,   "authorization_already_used",     R.ALREADY_DONE),
    (VOID,      S400,   "already_captured",               R.ALREADY_DONE),
    (VOID,      S400,   "already_voided",                 R.ALREADY_DONE),

    (REFUND,    S400,   "capture_not_found",              R.UNKNOWN_REFERENCE),
    (REFUND,    S400,   "already_refunded",               R.ALREADY_DONE),
    (REFUND,    S400,   "amount_mismatch",                R.MISTAKE),
    (REFUND,    S400,   "invalid_amount",                 R.MISTAKE),

    (EVERY,     S400,   "missing_idempotency_key",        R.MISTAKE),     # declared by the bank, never seen
    (EVERY,     S400,   TEXT,                             R.MISTAKE),     # refused before the handler: header or JSON
    (EVERY,     S404,   TEXT,                             R.MISTAKE),     # no such path: our configuration
    (EVERY,     S405,   TEXT,                             R.MISTAKE),

    (AUTHORIZE, S4XX,   CODE,                             Doubt.REVIEW),
    (EVERY,     ALL,    ANY,                              Doubt.ASK_AGAIN),
)

MESSAGES: Mapping[DeclineCode | Refusal, str] = {
    # In our words: the bank's own message may carry its database errors, or what we sent.
    D.INSUFFICIENT_FUNDS:  "The card has insufficient funds.",
    D.CARD_EXPIRED:        "The card has expired.",
    D.INVALID_CARD:        "The bank does not know this card, or could not look it up; a new key asks anew.",
    D.INVALID_CVV:         "The card's security code is wrong.",
    D.RISK_DENIED:         "The bank declined the payment as too risky.",
    D.PROVIDER_DECLINED:   "The bank declined the payment.",
    R.EXPIRED:             "The authorization has expired.",
    R.ALREADY_DONE:        "The bank says that this, or its opposite, was done before.",
    R.UNKNOWN_REFERENCE:   "The bank does not know the authorization or capture it once confirmed.",
    R.MISTAKE:             "The bank did not accept the form of the request.",
}
# fmt: on


def classify(verb: Verb, status: int, word: str) -> Verdict:
    """The verdict of the first row that fits. `word` is a code of the bank, TEXT or NO_WORD."""
    coded = word not in (TEXT, NO_WORD)
    for verbs, statuses, expected, verdict in CLASSIFICATION:
        fits = expected in (word, ANY) or (expected == CODE and coded)
        if fits and verb in verbs and status in statuses:
            return verdict
    return Doubt.ASK_AGAIN  # Only a status of 1000 and more gets here, and no parser lets one through.
