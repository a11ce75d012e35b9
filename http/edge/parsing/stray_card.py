"""A card number outside its field: typed into an order's name, a description or a key, it would be kept in clear.

Only the number that the request pays with is looked for, in any spelling that a person or a form makes of it: with
spaces, dashes or dots, percent-encoded, in other widths or scripts. A number is never refused because it passes Luhn:
one order number in ten does. The number is repeated nowhere (I9). What requests without a card hold is for the audit to
find (no_card_is_in_text).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote

from edge.parsing.document import pointer
from edge.parsing.payment_bodies import refused
from edge.server.request import Request
from engine.contracts.gateway import RequestContext
from engine.errors import FieldError, Rejected

_METHOD = "payment_method"
_DIGITS_MIN = 12  # shorter ones identify nobody, and would be found in anything
_ENCODED_TWICE = 3  # percent-encoding inside percent-encoding, as forwarded forms have it
_NOISE = bytes(set(range(256)) - set(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
_APART = "x"  # between fields: not a digit, and no noise

Path = tuple[str | int, ...]


def refuse(call: Request, origin: RequestContext, document: dict[str, object]) -> RequestContext:
    """The origin without ids that hold the document's card number. Raises Rejected where the key or a field does.

    A request id or a trace is replaced and not refused: it may be made by machines that no client sees.
    """
    number = _number(document)
    if number is None:
        return origin
    texts = [origin.key, origin.request_id, origin.traceparent or ""]
    for name, item in document.items():
        if name != _METHOD:
            texts.append(name)
            if type(item) is str:
                texts.append(item)
            elif type(item) is not int:
                _gather(item, texts)
    if not _holds(_APART.join(texts), number):  # nearly always: what follows may take its time
        return origin
    if _holds(call.request_id, number):
        call.rename()  # before all else: it is part of each refusal
        origin = replace(origin, request_id=call.request_id)
    if origin.traceparent is not None and _holds(origin.traceparent, number):
        origin = replace(origin, traceparent=None)
    if _holds(origin.key, number):
        detail = "Idempotency-Key holds the card number of this payment, and keys are kept in clear. Send another one."
        raise Rejected("idempotency_key_invalid", detail)
    found = dict.fromkeys(map(pointer, _places(document, (), number)))
    if found:
        detail = "must not hold the card number of this payment, which is kept nowhere in clear"
        raise refused([FieldError(pointer=where, detail=detail) for where in found])
    return origin


def _number(document: dict[str, object]) -> str | None:
    method = document.get(_METHOD)
    number = method.get("number") if isinstance(method, dict) else None
    if not isinstance(number, str):
        return None
    digits = number if number.isdecimal() and number.isascii() else _bare(number)
    return digits if len(digits) >= _DIGITS_MIN and digits.isdigit() else None


def _gather(value: object, texts: list[str]) -> None:
    if type(value) is str:
        texts.append(value)
    elif type(value) is dict:
        texts.extend(value)
        for item in value.values():
            _gather(item, texts)
    elif type(value) is list:
        for item in value:
            _gather(item, texts)


def _places(value: object, path: Path, number: str) -> Iterator[Path]:
    """Where in a document, but for its payment method, the number stands; never with a name that holds it. Looks at
    each string once."""
    if isinstance(value, str):
        if _holds(value, number):
            yield path
    elif isinstance(value, dict):
        for name, item in value.items():
            if not path and name == _METHOD:
                continue
            if _holds(name, number):
                yield path
            else:
                yield from _places(item, (*path, name), number)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _places(item, (*path, place), number)


def _holds(text: str, number: str) -> bool:
    for _ in range(_ENCODED_TWICE):
        if number in _bare(text):
            return True
        decoded = unquote(text) if "%" in text else text
        if decoded == text:
            return False
        text = decoded
    return number in _bare(text)


def _bare(text: str) -> str:
    """Letters and digits alone; digits of any script as ASCII."""
    if not text.isascii():
        # Marks are put in order by NFKC, in a time that grows with the square of how many follow each other.
        unmarked = "".join(character for character in text if not unicodedata.combining(character))
        text = "".join(_ascii(character) for character in unicodedata.normalize("NFKC", unmarked))
    return text.encode().translate(None, _NOISE).decode()


def _ascii(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)
