"""Addresses of the local stack: ports that are free, and URLs in their variations."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from engine.errors import Broken

_ANY_HOST = {"", "0.0.0.0", "::"}
_PORTS = range(10_000, 32_768)  # below those that Linux and macOS hand out by themselves
_PASSWORD = re.compile(r"(//[^:/@]*):[^@/]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A wanted port, 0 for any free one. `given` says that somebody named it, so no other will do."""

    number: int
    given: bool


def chosen_port(wanted: Port, option: str, say: Callable[[str], None], *, not_this: int = 0) -> int:
    """The wanted port if it is free; else another with a note, or Broken when it was asked for by name."""
    if wanted.number == 0:
        return any_free_port()
    if wanted.number != not_this and _is_free(wanted.number):
        return wanted.number
    if wanted.given:
        raise Broken(f"port {wanted.number} is taken by another program: stop that, or choose another with {option}")
    other = any_free_port()
    say(f"port {wanted.number} is taken by another program: using {other} instead (choose with {option})")
    return other


def any_free_port() -> int:
    """A port nobody listens on right now, and that no outgoing connection is given before its server has it."""
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if _is_free(port):
            return port


def loopback(host: str | None) -> str:
    """Where to reach, from this machine, a server that listens on `host`."""
    if host is None or host in _ANY_HOST:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def beside(dsn: str, database: str) -> str:
    """The DSN of another database of the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


def shown(url: str) -> str:
    """A URL fit for a terminal: without its password."""
    return _PASSWORD.sub(r"\1:***@", url)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
