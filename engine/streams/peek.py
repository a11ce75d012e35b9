"""A look at what listens at an address, when a client library can only tell that it was hung up on.

Some servers speak before they are asked and then close (protected mode, too many clients), one that speaks TLS closes
on plain bytes, and one that does not waits for more of a TLS hello. A few bytes tell these apart and change nothing.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from enum import StrEnum

_PATIENCE_S = 1.0
_UNASKED_S = 0.2  # a server that refuses at once does it within that
_BYTES_MAX = 300


class ListenerKind(StrEnum):
    REDIS = "redis"  # speaks Redis' protocol in plain text
    TLS = "tls"
    OTHER = "other"
    NOBODY = "nobody"  # nothing listens, or it hangs up without a word


def look_at(host: str, port: int) -> tuple[ListenerKind, str]:
    """What listens there, and its words when it is a Redis that refuses. Takes some seconds at most; raises nothing."""
    said = _said(host, port)
    if said.startswith((b"-", b"+PONG")):
        return ListenerKind.REDIS, said.partition(b"\r\n")[0].decode(errors="replace").lstrip("-+")
    if _shakes_hands(host, port):
        return ListenerKind.TLS, ""
    return (ListenerKind.OTHER if said else ListenerKind.NOBODY), ""


def _said(host: str, port: int) -> bytes:
    """The first bytes that come unasked, else the answer to PING."""
    with suppress(OSError), socket.create_connection((host, port), _PATIENCE_S) as there:
        there.settimeout(_UNASKED_S)
        with suppress(TimeoutError):
            return there.recv(_BYTES_MAX)
        there.settimeout(_PATIENCE_S)
        there.sendall(b"PING\r\n")
        return there.recv(_BYTES_MAX)
    return b""


def _shakes_hands(host: str, port: int) -> bool:
    """Whether it speaks TLS, whoever signed its certificate: nothing is told to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError), socket.create_connection((host, port), _PATIENCE_S) as there, context.wrap_socket(there):
        return True
    return False
