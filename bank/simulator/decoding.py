"""Reading a request body the way the contract's bank does, which is Go's streaming JSON decoder.

Unknown fields are ignored, names match in any case, a missing or null field is zero, a null body is an empty one,
and whatever follows the first JSON value is not looked at. Everything else is a BadBody, told in plain text.
Objects are read as tuples of pairs and arrays as lists, so that a name given twice is seen twice, in order; numbers are
read as bytes, so that no length of one is too long for a field nobody knows.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from bank.simulator.syntax import SyntaxFault, flatten

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
JSON_WHITESPACE = " \t\n\r"
SURROGATE = re.compile("[\ud800-\udfff]")
GO_KIND = {bool: "bool", str: "string", bytes: "number", list: "array", tuple: "object"}
GO_TYPE = {int: "int64", str: "string"}
INTEGER = re.compile(rb"-?[0-9]{1,19}")  # Nothing longer fits, since no number begins with a zero.


class BadBody(Exception):
    """The body cannot be read into the request; the text says why."""


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's.


_decoder = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=str.encode, parse_float=str.encode, parse_constant=_no_constant
)


def read_body(body: bytes, request: str, fields: Mapping[str, type[int] | type[str]]) -> dict[str, Any]:
    """The named fields, each an int within 64 bits or a str as `fields` says; raises BadBody."""
    value = _first_value(body)
    read: dict[str, Any] = {name: kind() for name, kind in fields.items()}
    if value is None:
        return read
    if not isinstance(value, tuple):
        raise BadBody(f"json: cannot unmarshal {GO_KIND[type(value)]} into Go value of type api.{request}")
    for given_name, given in value:
        name = given_name if given_name in fields else given_name.lower()
        if name in fields and given is not None:
            read[name] = _typed(given, fields[name], f"{request}.{name}")
    return read


def _typed(given: Any, kind: type[int] | type[str], field: str) -> int | str:
    if kind is str and isinstance(given, str):
        return SURROGATE.sub("\ufffd", given)
    if kind is int and isinstance(given, bytes) and INTEGER.fullmatch(given) and INT64_MIN <= int(given) <= INT64_MAX:
        return int(given)
    go_type = "int" if field.rpartition(".")[2].startswith("expiry_") else GO_TYPE[kind]
    told = f" {given.decode()}" if kind is int and isinstance(given, bytes) else ""
    raise BadBody(f"json: cannot unmarshal {GO_KIND[type(given)]}{told} into Go struct field {field} of type {go_type}")


def _first_value(body: bytes) -> Any:
    try:
        value = _decode(body)
        if not isinstance(value, bytes):
            return value
    except (ValueError, RecursionError):  # A text that is wrong, or too deep for Python and not yet for Go.
        pass
    try:  # Also a number on its own, of which Python takes as much as makes one.
        return _decode(flatten(body))
    except SyntaxFault as fault:
        raise BadBody(str(fault)) from fault


def _decode(body: bytes) -> Any:
    return _decoder.raw_decode(body.decode("utf-8", "replace").lstrip(JSON_WHITESPACE))[0]
