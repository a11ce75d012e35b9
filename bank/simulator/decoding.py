"""Reading a request body the way the contract's bank does, which is Go's streaming JSON decoder.

Unknown fields are ignored, names match in any case, a missing or null field is zero, a null body is an empty one,
and whatever follows the first JSON value is not looked at. Everything else is a BadBody, told in plain text.
Objects are read as tuples of pairs and arrays as lists, so that a name given twice is seen twice, in order.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
JSON_WHITESPACE = " \t\n\r"
SURROGATE = re.compile("[\ud800-\udfff]")
GO_KIND = {bool: "bool", str: "string", list: "array", tuple: "object"}
GO_TYPE = {int: "int64", str: "string"}


class BadBody(Exception):
    """The body cannot be read into the request; the text says why."""


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's.


_decoder = json.JSONDecoder(object_pairs_hook=tuple, parse_float=str.encode, parse_constant=_no_constant)


def read_body(body: bytes, request: str, fields: Mapping[str, type[int] | type[str]]) -> dict[str, Any]:
    """The named fields, each an int within 64 bits or a str as `fields` says; raises BadBody."""
    value = _first_value(body)
    read: dict[str, Any] = {name: kind() for name, kind in fields.items()}
    if value is None:
        return read
    if not isinstance(value, tuple):
        raise BadBody(f"json: cannot unmarshal {_go_kind(value)} into Go value of type {request}")
    for given_name, given in value:
        name = given_name if given_name in fields else given_name.lower()
        if name in fields and given is not None:
            read[name] = _typed(given, fields[name], f"{request}.{name}")
    return read


def _typed(given: Any, kind: type[int] | type[str], field: str) -> int | str:
    if kind is str and isinstance(given, str):
        return SURROGATE.sub("\ufffd", given)
    if kind is int and type(given) is int and INT64_MIN <= given <= INT64_MAX:
        return given
    raise BadBody(f"json: cannot unmarshal {_go_kind(given)} into Go struct field {field} of type {GO_TYPE[kind]}")


def _first_value(body: bytes) -> Any:
    text = body.decode("utf-8", "replace").lstrip(JSON_WHITESPACE)
    if not text:
        raise BadBody("EOF")
    try:
        return _decoder.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        # A value that breaks off is told from one that goes wrong; Python points at the start of an open string.
        if error.pos >= len(text.rstrip(JSON_WHITESPACE)) or error.msg.startswith("Unterminated string"):
            raise BadBody("unexpected EOF") from error
        raise BadBody(f"invalid character {text[error.pos]!r} in JSON at {error.pos}: {error.msg}") from error
    except ValueError as error:
        raise BadBody(f"invalid number: {error}") from error
    except RecursionError as error:
        raise BadBody("exceeded max depth") from error


def _go_kind(value: Any) -> str:
    if isinstance(value, bytes):
        return f"number {value.decode()}"
    return GO_KIND.get(type(value)) or f"number {value}"
