"""Card numbers: which ones pass, and which ones are seeded for load."""

import re

EXTRA_CARD_CVV = "123"
EXTRA_CARD_PREFIX = "400000"
EXTRA_CARDS_MAX = 10**9  # Nine digits remain between the prefix and the check digit.
NO_DIGIT = re.compile("[^0-9]")
DOUBLED = str.maketrans("0123456789", "0246813579")  # Twice a digit, its digits added up: 7 is 14 is 5.


def is_card_number(text: str) -> bool:
    """Whether the ASCII digits of the text, whatever stands between them, are 13 to 19 and pass Luhn."""
    return wrong_with_card_number(text) is None


def wrong_with_card_number(text: str) -> str | None:
    """The contract's words for a number that is_card_number() refuses."""
    digits = NO_DIGIT.sub("", text)
    if not 13 <= len(digits) <= 19:
        return "invalid card number length: must be 13-19 digits"
    return "invalid card number: failed Luhn check" if _luhn_sum(digits) % 10 else None


def wrong_with_cvv(text: str) -> str | None:
    """The contract's words for anything but three or four ASCII digits. The length is one of bytes."""
    if text.isascii() and text.isdigit() and len(text) in (3, 4):
        return None
    fits = 3 <= len(text.encode()) <= 4
    return "invalid CVV: must contain only digits" if fits else "invalid CVV: must be 3 or 4 digits"


def extra_card(i: int) -> str:
    """The i-th card seeded for load, a 16-digit number that passes Luhn; the same everywhere and for ever.

    Raises ValueError when i is not in 0 .. EXTRA_CARDS_MAX - 1.
    """
    if not 0 <= i < EXTRA_CARDS_MAX:
        raise ValueError(f"extra card {i} is not in 0 .. {EXTRA_CARDS_MAX - 1}")
    body = f"{EXTRA_CARD_PREFIX}{i:09d}"
    return f"{body}{-_luhn_sum(f'{body}0') % 10}"


def _luhn_sum(digits: str) -> int:
    return sum(map(int, digits[::-2])) + sum(map(int, digits[-2::-2].translate(DOUBLED)))
