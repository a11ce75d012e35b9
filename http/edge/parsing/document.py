"""A JSON document from a request: bytes to one plain object, refusing what different readers would read differently.

orjson already refuses NaN, Infinity, invalid UTF-8 and lone surrogates. Here: names that appear twice (which of the two
would be charged?), nesting that only an attacker needs, and NUL characters, which Postgres cannot store. The common
case costs two counts over the bytes; only a suspicious body is looked at closely.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from unicodedata import normalize
from urllib.parse import unquote

import orjson

from engine.errors import FieldError, Rejected

DEPTH_MAX = 32
_ERRORS_MAX = 20

_END_OF_NAME = re.compile(rb'"[ \t\r\n]*:')
_LONG_NUMBER = re.compile(r"\d(?:[\W_]{0,3}\d){11,}")
_NAME_CHARACTERS_MAX = 64
_NAME_LOOKED_AT = 256  # a number of 19 digits that begins in what is shown ends in this, percent-encoded and spaced too


def parse(body: bytes) -> dict[str, object]:
    """The object in these bytes. Raises Rejected: malformed_json (400), validation_failed for NUL characters (422)."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected("malformed_json", _explain(body, str(error))) from None
    if type(document) is not dict:
        raise Rejected("malformed_json", "The body must be one JSON object, as in {...}; it is another JSON value.")
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX:
        _refuse_depth(document)
    names = _names(document)
    if body.count(b":") != names and len(_END_OF_NAME.findall(body)) != names:
        _refuse_duplicates(body)
    if b"\\u0000" in body:
        _refuse_nul(document)
    return document


def shown(name: str) -> str:
    """A client's own name for something, fit to be repeated to it: short, and never a card number."""
    name = name[:_NAME_LOOKED_AT]
    decoded = normalize("NFKC", unquote(name))
    masked = "…" if _LONG_NUMBER.search(decoded) and decoded != name else _LONG_NUMBER.sub("…", name)
    return masked if len(masked) <= _NAME_CHARACTERS_MAX else masked[:_NAME_CHARACTERS_MAX] + "…"


def pointer(path: tuple[str | int, ...]) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + shown(str(step)).replace("~", "~0").replace("/", "~1") for step in path)


def _explain(body: bytes, error: str) -> str:
    if not body.strip():
        return "The body is empty. Send one JSON object."
    reason = "a string holds half of a surrogate pair" if "surrogate in" in error else error
    return f"The body is not valid JSON: {reason}. Send one complete JSON object in UTF-8."


def _names(value: dict[str, object] | list[object]) -> int:
    """How many names all objects in this value have together; called only on what is not too deep."""
    total, items = (len(value), value.values()) if type(value) is dict else (0, value)
    for item in items:
        if type(item) is dict or type(item) is list:
            total += _names(item)
    return total


def _refuse_depth(document: dict[str, object]) -> None:
    level: list[object] = [document]
    for _ in range(DEPTH_MAX):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise Rejected("malformed_json", f"The body is nested deeper than {DEPTH_MAX} levels. Send a flatter object.")


def _children(value: object) -> Iterator[object]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (item for item in items if isinstance(item, dict | list))


def _refuse_duplicates(body: bytes) -> None:
    """Only here the standard library reads the body again: it shows each object's names before they are merged."""

    def once(pairs: list[tuple[str, object]]) -> None:
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise Rejected("malformed_json", f'The name "{shown(name)}" appears twice in one object. Send it once.')
            seen.add(name)

    # Numbers are of no interest here, and huge ones would raise.
    json.loads(body, object_pairs_hook=once, parse_int=len, parse_float=len)


def _refuse_nul(document: dict[str, object]) -> None:
    found = tuple(
        FieldError(pointer=where, detail="must not contain NUL characters")
        for where in islice(_with_nul(document, ()), _ERRORS_MAX)
    )
    if found:
        raise Rejected("validation_failed", f"{found[0].pointer} contains a NUL character. Remove it.", errors=found)


def _with_nul(value: object, path: tuple[str | int, ...]) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield pointer(path)
    elif isinstance(value, dict):
        for name, item in value.items():
            if "\0" in name:
                yield pointer((*path, name.replace("\0", "�")))
            yield from _with_nul(item, (*path, name.replace("\0", "�")))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _with_nul(item, (*path, index))
