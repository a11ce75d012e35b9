"""URLs of stores and of the bank, judged before anybody parses them: what a parser would guess at is refused in words.

A password with a reserved character in it moves the borders of a URL: part of it becomes a host, a database or nothing,
and is then printed in errors. So each URL is read strictly, and no message repeats a piece of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from engine.errors import Broken
from ops.secret_file import variables

_REDIS_OPTIONS = {
    "": frozenset({"db", "username", "password", "client_name", "max_connections", "health_check_interval"}),
    "s": frozenset(
        {"ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
    ),
}
_NUMBERS = frozenset({"max_connections", "health_check_interval"})
_DATABASES_MAX = 1_000_000  # of Redis: how many there are, only the server knows
_PORT_MAX = 65_535
_RESERVED = "write / as %2F, @ as %40, # as %23, ? as %3F, % as %25, : as %3A, [ as %5B, ] as %5D and a space as %20"
_ENCODE = f"a user name or password with reserved characters is percent-encoded: {_RESERVED}"
_NUMBER = re.compile(r"[0-9]{1,7}")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9_.-]+)?\]|[A-Za-z0-9._%-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locations:
    """Where the stores are. Without the bank's database, nothing is reconciled."""

    ledger: str
    redis: str
    bank: str | None = None


def given_url(variable: str) -> str | None:
    """The URL in a variable, or in the file that it names, for who needs no other setting. Raises Broken."""
    url = variables().get(variable)
    judge: Callable[[str], str] = _JUDGES.get(variable, judged_postgres)
    try:
        return judge(url) if url else None
    except ValueError as error:
        raise Broken(f"{variable}: {error}") from None


def judged_redis(url: str) -> str:
    """The URL, when redis-py reads it as it is meant. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError("use redis://host:port/db, rediss:// for TLS, or unix:///path")
    authority, path, query = _parts(rest)
    databases = [value for name, value in query if name == "db"]
    if scheme == "unix":
        if not path.strip("/") or (authority and not authority.endswith("@")):
            raise ValueError("use unix:///path/of/the/socket?db=0")
    else:
        _judge_hosts(authority, many=False)
        if path not in ("", "/"):
            databases.append(unquote(path.removeprefix("/")))
    if len(set(databases)) > 1 or not all(_NUMBER.fullmatch(each) and int(each) < _DATABASES_MAX for each in databases):
        raise ValueError("the part behind the host is the number of a database of Redis, as in redis://host:6379/0")
    allowed = _REDIS_OPTIONS[""] | (_REDIS_OPTIONS["s"] if scheme == "rediss" else frozenset())
    if not all(_NUMBER.fullmatch(value) for name, value in query if name in _NUMBERS):
        raise ValueError(f"{' and '.join(sorted(_NUMBERS))} are numbers")
    if not {name for name, _ in query} <= allowed:
        raise ValueError(f"it has an option that is not for here; known are {', '.join(sorted(allowed))}")
    return url


def judged_postgres(url: str) -> str:
    """The URL, when libpq reads it as it is meant. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres"):
        raise ValueError("use postgresql://user@host:port/database")
    authority, path, _ = _parts(rest)
    _judge_hosts(authority, many=True)
    try:
        read = conninfo_to_dict(url)
    except psycopg.Error:  # its text would show the URL
        raise ValueError(f"libpq cannot read it, or does not know one of its options; {_ENCODE}") from None
    ports = str(read.get("port") or "").split(",")
    if not all(_is_port(port) for port in ports if port):
        raise ValueError(f"a port is a number up to {_PORT_MAX}; {_ENCODE}")
    if path.count("/") > 1:
        raise ValueError(f"the name of the database has a / in it; {_ENCODE}")
    return url


def judged_dsn(text: str) -> str:
    """A URL of Postgres, or libpq's own words for one (host=... dbname=...). Raises ValueError."""
    if "://" in text:
        return judged_postgres(text)
    try:
        conninfo_to_dict(text)
    except psycopg.Error:  # its text would show the DSN
        raise ValueError("use postgresql://user@host:port/database, or libpq's host=... user=... dbname=...") from None
    return text


def judged_http(url: str) -> str:
    """The base URL of a service. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https"):
        raise ValueError("use http://host:port or https://host:port")
    if "?" in url:
        raise ValueError(f"a base URL ends before the ?; {_ENCODE}")
    authority, _, _ = _parts(rest)
    if not authority.rpartition("@")[2]:
        raise ValueError("the host is missing: use http://host:port")
    _judge_hosts(authority, many=False)
    return url


_JUDGES: Mapping[str, Callable[[str], str]] = {
    "PENSTOCK_REDIS_URL": judged_redis,
    "PENSTOCK_BANK_URL": judged_http,
    "PENSTOCK_BANK_DATABASE_URL": judged_dsn,  # the bank's own setting, which its own process reads the same way
}


def _parts(rest: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Authority, path and options of what is behind the scheme. Raises ValueError where a reserved character stands
    that must not."""
    if not rest.isascii() or not rest.isprintable() or " " in rest or _PERCENT.search(rest):
        raise ValueError(f"it holds a space, a sign outside of ASCII, or a % that encodes nothing: {_ENCODE}")
    if "#" in rest:
        raise ValueError(f"a # would end the URL: {_ENCODE}")
    head, _, options = rest.partition("?")
    authority, slash, path = head.partition("/")
    if set("[]") & set(authority.rpartition("@")[0]):
        raise ValueError(f"a user name or password has a bracket in it: {_ENCODE}")
    if "@" in path or "@" in options or authority.count("@") > 1:
        raise ValueError(f"it has an @ too many, or one behind a / or ?: {_ENCODE}")
    return authority, slash + path, parse_qsl(options, keep_blank_values=True)


def _judge_hosts(authority: str, *, many: bool) -> None:
    """Raises ValueError."""
    _, _, hosts = authority.rpartition("@")
    for each in hosts.split(",") if many else [hosts]:
        host, port = _split(each)
        if host and not _HOST.fullmatch(host):
            raise ValueError(f"the host cannot be one; {_ENCODE}")
        if port is not None and not _is_port(port):
            raise ValueError(f"a port is a number up to {_PORT_MAX}; {_ENCODE}")


def _split(host: str) -> tuple[str, str | None]:
    """Host and port, if there is one. An IPv6 address has brackets."""
    if host.startswith("["):
        address, bracket, port = host.partition("]")
        return address + bracket, port.removeprefix(":") if port.startswith(":") else (port or None)
    name, colon, port = host.partition(":")
    return name, port if colon else None


def _is_port(text: str) -> bool:
    return text == "" or (_NUMBER.fullmatch(text) is not None and 1 <= int(text) <= _PORT_MAX)
