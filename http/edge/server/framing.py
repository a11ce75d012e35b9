"""Where a request begins and ends, and for whom it is: what RFC 9112 leaves no choice about, and the parser lets pass.

llhttp already refuses bare LF, folded lines, NUL, spaces before a colon, lengths that are no plain number or come
twice, and a length beside a transfer coding. Here is refused what another server on the way could still read in another
way: two readings of one request are how a request is smuggled past a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADERS_MAX = 100  # lines of a head, as in other servers; honest clients with their proxies send 10 to 30

_TARGETS = (b"/", b"http://", b"https://")
_ONCE = frozenset((b"host", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?\Z")


class Unsound(Exception):
    """A head that is refused: a code of the catalogue (engine/problem.py), and what is wrong, for the client."""

    def __init__(self, detail: str, code: str = "malformed_request") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


def check(version: str, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the client wants to be told to send its body (Expect: 100-continue). Raises Unsound.

    Names are in lower case, values without white space around them.
    """
    if version != "1.1" and version != "1.0":
        raise Unsound("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if len(headers) > HEADERS_MAX:
        raise Unsound(f"The head has more than {HEADERS_MAX} lines.")
    if method == b"CONNECT":
        raise Unsound("CONNECT is for proxies, and this is none. Send another method.")
    if b"#" in target or not target.startswith(_TARGETS):
        raise Unsound("The request target must be a path, or a whole http:// or https:// URL, without a fragment.")
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONCE:
            if name in found:
                raise Unsound(f"{name.decode().title()} was sent more than once. Send it once.")
            found[name] = value
    host = found.pop(b"host", None)
    if host is None:
        if version == "1.1":
            raise Unsound("Host is missing (RFC 9112, section 3.2).")
    elif _HOST.match(host) is None:
        raise Unsound("Host is not the name of a host.")
    return bool(found) and _expects(version, found)


def _expects(version: str, found: dict[bytes, bytes]) -> bool:
    coding = found.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        raise Unsound("Transfer-Encoding must be `chunked`, alone, in HTTP/1.1.")
    expectation = found.get(b"expect")
    if expectation is None or version == "1.0":  # where it is ignored (RFC 9110, 10.1.1)
        return False
    if expectation.lower() != b"100-continue":
        raise Unsound("The only expectation that is met here is 100-continue.", "expectation_failed")
    return True


def size(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """How many bytes of a head are not punctuation."""
    return len(target) + sum(len(name) + len(value) for name, value in headers)
