"""Where a request begins and ends, and for whom it is: what RFC 9112 leaves no choice about, and the parser lets pass.

llhttp already refuses bare LF, folded lines, NUL, spaces before a colon, lengths that are no plain number or come
twice, and a length beside a transfer coding. Here is refused what another server on the way could still read in another
way: two readings of one request are how a request is smuggled past a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADERS_MAX = 100  # lines of a head, as in other servers; honest clients with their proxies send 10 to 30

_ONCE = frozenset((b"host", b"transfer-encoding", b"expect"))
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?\Z")

Refusal = tuple[str, str]
"""A code of the catalogue (engine/problem.py) and what is wrong, for the client."""


def refusal(version: str, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
    """Why this head is refused, or None. Names are in lower case, values without white space around them."""
    if version not in ("1.1", "1.0"):
        return _malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(headers) > HEADERS_MAX:
        return _malformed(f"The head has more than {HEADERS_MAX} lines")
    if method == b"CONNECT":
        return _malformed("CONNECT is for proxies, and this is none")
    if b"#" in target or not target.startswith((b"/", b"http://", b"https://")):
        return _malformed("The request target must be a path, or a whole http:// or https:// URL, without a fragment")
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONCE:
            if name in found:
                return _malformed(f"{name.decode().title()} was sent more than once")
            found[name] = value
    return _of_values(version, found)


def _of_values(version: str, found: dict[bytes, bytes]) -> Refusal | None:
    host = found.get(b"host")
    if host is None and version == "1.1":
        return _malformed("Host is missing (RFC 9112, section 3.2)")
    if host and _HOST.match(host) is None:
        return _malformed("Host is not the name of a host")
    coding = found.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        return _malformed("Transfer-Encoding must be `chunked`, alone, in HTTP/1.1")
    expectation = found.get(b"expect")
    if expectation is not None and version == "1.1" and expectation.lower() != b"100-continue":
        return "expectation_failed", "The only expectation that is met here is 100-continue."
    return None


def _malformed(detail: str) -> Refusal:
    return "malformed_request", f"{detail}. Send HTTP/1.1."
