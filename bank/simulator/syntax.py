"""The syntax of a JSON text as Go's scanner sees it: where a value ends, and how it says that none does.

It only looks at what Python's decoder refused: a text that is wrong, or one too deeply nested. It knows no recursion,
so it goes as deep as Go does.
"""

import re

DEPTH_MAX = 10_000
SPACE = re.compile(rb"[ \t\r\n]*")
STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')  # Up to its end, or to what is wrong.
HEX_DIGITS = re.compile(rb"[0-9a-fA-F]{0,4}")
NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
QUOTED = {b"'": r"'\''", b'"': "'\"'"}
CLOSER = {b"{": b"}", b"[": b"]"}
EVEN_DEEPER = 2  # A container at this depth is a field's value; what it holds is nobody's.


class SyntaxFault(ValueError):
    """The text holds no value; the text of the error is Go's."""


def flatten(text: bytes) -> bytes:
    """The first value of the text without what its fields' own containers hold; raises SyntaxFault."""
    kept, since, open_at, at = [], 0, [], _space(text, 0)
    if at == len(text):
        raise SyntaxFault("EOF")
    while True:
        byte = text[at : at + 1]
        if byte in CLOSER:
            open_at.append(byte)
            if len(open_at) > DEPTH_MAX:
                raise _invalid(text, at, "exceeded max depth")
            if len(open_at) == EVEN_DEEPER:
                kept.append(text[since : at + 1])
            at = _space(text, at + 1)
            if text[at : at + 1] != CLOSER[byte]:
                at = _key(text, at) if byte == b"{" else at
                continue
        else:
            at = _space(text, _scalar(text, at))
        while open_at:  # A value has ended, and it was inside another.
            container, byte = open_at[-1], text[at : at + 1]
            if byte == b",":
                at = _space(text, at + 1)
                at = _key(text, at) if container == b"{" else at
                break
            if byte != CLOSER[container]:
                raise _invalid(text, at, "after object key:value pair" if container == b"{" else "after array element")
            if len(open_at) == EVEN_DEEPER:
                since = at
            open_at.pop()
            at = _space(text, at + 1)
        else:
            return b"".join([*kept, text[since:at]])


def _space(text: bytes, at: int) -> int:
    return SPACE.match(text, at).end()  # type: ignore[union-attr]  # It matches everywhere.


def _key(text: bytes, at: int) -> int:
    """Past a key and its colon, to where its value begins."""
    if text[at : at + 1] != b'"':
        raise _invalid(text, at, "looking for beginning of object key string")
    at = _space(text, _string(text, at))
    if text[at : at + 1] != b":":
        raise _invalid(text, at, "after object key")
    return _space(text, at + 1)


def _scalar(text: bytes, at: int) -> int:
    first = text[at : at + 1]
    if first == b'"':
        return _string(text, at)
    if first in LITERALS:
        return _literal(text, at, LITERALS[first])
    if first == b"-" or first.isdigit():
        return _number(text, at)
    raise _invalid(text, at, "looking for beginning of value")


def _string(text: bytes, at: int) -> int:
    end = STRING.match(text, at).end()  # type: ignore[union-attr]  # The quote is there.
    wrong = text[end : end + 1]
    if wrong == b'"':
        return end + 1
    if wrong != b"\\":
        raise _invalid(text, end, "in string literal")
    if text[end + 1 : end + 2] == b"u":
        raise _invalid(text, HEX_DIGITS.match(text, end + 2).end(), r"in \u hexadecimal character escape")  # type: ignore[union-attr]
    raise _invalid(text, end + 1, "in string escape code")


def _number(text: bytes, at: int) -> int:
    number = NUMBER.match(text, at)
    if number is None:
        raise _invalid(text, at + 1, "in numeric literal")
    fraction, exponent = number.groups()
    end = number.end()
    following = text[end : end + 1]
    if following == b"." and fraction is None and exponent is None:
        raise _invalid(text, end + 1, "after decimal point in numeric literal")
    if following in (b"e", b"E") and exponent is None:
        signed = text[end + 1 : end + 2] in (b"+", b"-")
        raise _invalid(text, end + 1 + signed, "in exponent of numeric literal")
    return end


def _literal(text: bytes, at: int, literal: bytes) -> int:
    for offset in range(1, len(literal)):
        if text[at + offset : at + offset + 1] != literal[offset : offset + 1]:
            expected = f"in literal {literal.decode()} (expecting '{chr(literal[offset])}')"
            raise _invalid(text, at + offset, expected)
    return at + len(literal)


def _invalid(text: bytes, at: int, context: str) -> SyntaxFault:
    if at >= len(text):
        return SyntaxFault("unexpected EOF")
    byte = text[at : at + 1]
    return SyntaxFault(f"invalid character {QUOTED.get(byte) or _quoted(byte)} {context}")


def _quoted(byte: bytes) -> str:
    """The byte as a rune in single quotes, the way strconv.Quote escapes one."""
    escapes = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r", 92: r"\\"}
    code = byte[0]
    if code in escapes:
        return f"'{escapes[code]}'"
    if code < 0x20 or code == 0x7F:
        return f"'\\x{code:02x}'"
    return f"'\\u{code:04x}'" if 0x80 <= code <= 0xA0 or code == 0xAD else f"'{chr(code)}'"
