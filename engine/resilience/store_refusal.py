"""A store that cannot be used, in words: which one, its own words, what to grant or set, and whether to wait for it.

One table of rows for each store; the first row whose pattern is in the error's text counts. What no row knows is told
in the server's words and not waited for. No text of ours or theirs has a password in it: of a URL only host, port,
database and user are shown.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from redis.exceptions import AuthenticationError, ResponseError

from engine.errors import Broken, PenstockError, Unavailable
from engine.streams.peek import Listener, look_at
from engine.streams.permission import granting
from engine.streams.scripts import refusal_of

WAIT, REFUSE = True, False
_REDIS, _LEDGER = "PENSTOCK_REDIS_URL", "PENSTOCK_DATABASE_URL"
_SAID_MAX = 400
CLUSTER = (
    "it is a node of a Redis Cluster, which Penstock does not support yet: use a Redis that is not in cluster mode, "
    "with replicas if need be"
)
SENTINEL = f"it is a Sentinel, which keeps no data: put the address of the Redis that it watches into {_REDIS}"
REPLICA = f"it is a read-only replica: put the address of its primary into {_REDIS}"

# fmt: off
_OF_REDIS: tuple[tuple[str, bool, str], ...] = (
    # its text has                              and
    (r"without any password configured",        REFUSE, f"it has no password: leave user and password out of {_REDIS}"),
    (r"WRONGPASS|invalid (username|password)",  REFUSE, f"it refuses our credentials: correct user and password in {_REDIS}"),
    (r"NOAUTH",                                 REFUSE, f"it wants credentials: redis://USER:PASSWORD@HOST in {_REDIS}"),
    (r"NOPERM",                                 REFUSE, "{grant}"),
    (r"DB index is out of range",               REFUSE, f"this Redis has no database of the number in {_REDIS}: choose another"),
    (r"cluster mode|cluster support|MOVED|\bASK\b|TRYAGAIN|CROSSSLOT|CLUSTERDOWN", REFUSE, CLUSTER),
    (r"READONLY",                               REFUSE, REPLICA),
    (r"DENIED|protected mode",                  REFUSE, "it is in protected mode: give it a password (requirepass), or set protected-mode no "
                                                        "where only trusted machines reach it"),
    (r"unknown command",                        REFUSE, "Penstock needs Redis or Valkey 7.0 or newer, and no command renamed"),
    (r"LOADING",                                WAIT,   "it is loading its data"),
    (r"MASTERDOWN",                             WAIT,   "it is a replica without its primary"),
    (r"BUSY",                                   WAIT,   "it is busy with a script"),
    (r"NOREPLICAS|MISCONF|OOM",                 WAIT,   "it takes no writes"),
    (r"max number of clients",                  WAIT,   "it has too many clients: raise its maxclients"),
)
_TLS_OF_REDIS: tuple[tuple[str, str], ...] = (
    (r"expired",                                "its certificate has expired: renew it"),
    (r"not yet valid",                          "its certificate is not valid yet: correct the clocks"),
    (r"[Hh]ostname mismatch|IP address mismatch|doesn't match", f"its certificate is for another name: put that name into {_REDIS}"),
    (r"self.signed|unable to get|verify failed", f"its certificate is not trusted here: name its CA with ?ssl_ca_certs=FILE in {_REDIS}"),
    (r"certificate required|handshake failure", f"it wants a certificate of ours: ?ssl_certfile=FILE&ssl_keyfile=FILE in {_REDIS}"),
    (r"WRONG_VERSION|record layer|EOF|unknown protocol", f"it does not speak TLS: use redis:// in {_REDIS}"),
)
_OF_POSTGRES: tuple[tuple[str, bool, str], ...] = (
    (r"password authentication failed|no password supplied|authentication failed|SASL|empty password",
                                                REFUSE, f"it refuses our credentials: correct user and password in {_LEDGER}"),
    (r'database ".*" does not exist|no such database', REFUSE, "create the database first: `penstock migrate` does it where its user may"),
    (r'role ".*" does not exist|no such user',  REFUSE, f"correct the user in {_LEDGER}, or make it: CREATE ROLE ... LOGIN"),
    (r"not permitted to log in",                REFUSE, "ALTER ROLE ... LOGIN"),
    (r"permission denied for database",         REFUSE, "GRANT CONNECT ON DATABASE ... TO ..."),
    (r"permission denied|must be owner",        REFUSE, "grant it: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ..., and "
                                                        "USAGE ON SCHEMA public; `penstock migrate` needs the owner's role"),
    (r"no pg_hba.conf entry.*no encryption|SSL required|no encryption|requires SSL", REFUSE, f"it takes no plain connections: put ?sslmode=verify-full into {_LEDGER}"),
    (r"pg_hba.conf",                            REFUSE, "let this machine, user and database in, in its pg_hba.conf"),
    (r"certificate has expired|certificate expired", REFUSE, "its certificate has expired: renew it"),
    (r"does not match host name",               REFUSE, f"its certificate is for another name: put that name into {_LEDGER}"),
    (r"root certificate file",                  REFUSE, f"name its CA with sslrootcert=FILE, or sslrootcert=system, in {_LEDGER}"),
    (r"certificate verify failed|self.signed|signature failure", REFUSE, f"its certificate is not trusted here, or has expired: name its CA with sslrootcert=FILE in {_LEDGER}, or renew it"),
    (r"does not support SSL",                   REFUSE, f"turn TLS on there, or take sslmode out of {_LEDGER}"),
    (r"SSL error|certificate",                  REFUSE, f"correct the TLS options in {_LEDGER}"),
    (r"unsupported startup parameter",          REFUSE, f"a pooler is in front of it that takes no such options: leave options out of {_LEDGER} and PGOPTIONS"),
    (r"prepared statement .* (already exists|does not exist)", REFUSE, "a pooler in transaction mode is in front of it: use Postgres' own address"),
    (r"invalid response|expected authentication request|invalid message", REFUSE, f"that is no Postgres: correct host and port in {_LEDGER}"),
    (r"(translate host name|resolve host).*(Temporary|try again)", WAIT, "the name cannot be looked up now"),
    (r"translate host name|resolve host",                    REFUSE, f"there is no such host: correct {_LEDGER}"),
    (r"starting up|shutting down|recovery mode|not (yet )?accepting connections", WAIT, "it is starting or stopping"),
    (r"too many (clients|connections)|connection slots|no more connections allowed|max_client_conn", WAIT, "it has too many connections: raise its max_connections"),
    (r"session is (not )?read.only|hot standby mode|is not in hot standby", WAIT, "no server of the URL is what target_session_attrs asks for"),
    (r"read.only transaction|read-only",        REFUSE, f"it takes no writes: put the address of the primary into {_LEDGER}"),
    (r"Connection refused|No such file or directory", WAIT, f"is {_LEDGER} right?"),
    (r"timeout expired|timed out|unreachable|No route|unexpectedly|reset by peer|query_wait_timeout|administrator command|pgbouncer cannot connect|server (conn|login)", WAIT, "it does not answer"),
)
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a store cannot be used. `passes`: it may end by itself."""

    words: str
    passes: bool

    @property
    def error(self) -> PenstockError:
        """To raise: Unavailable when it may pass, else Broken."""
        return Unavailable("store_unavailable", self.words) if self.passes else Broken(self.words)


def redis_place(url: str) -> str:
    """The store by name, as in: Redis at 10.0.0.7:6379, user penstock."""
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
    return f"Redis at {where}" + (f", user {unquote(parts.username)}" if parts.username else "")


def redis_user(url: str) -> str:
    return unquote(urlsplit(url).username or "default")


def postgres_place(dsn: str) -> str:
    """The store by name, as in: Postgres at db.internal:5432/penstock, user penstock."""
    read = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value}
    hosts, ports = read.get("host", "").split(","), read.get("port", "").split(",")
    where = ",".join(
        f"{host or 'localhost'}:{port or '5432'}"
        for host, port in zip(hosts, ports if len(ports) == len(hosts) else ports * len(hosts), strict=False)
    )
    return f"Postgres at {where}/{read.get('dbname', '')}" + (f", user {read['user']}" if "user" in read else "")


def redis_refusal(error: Exception, url: str) -> Refusal:
    """Of what redis-py or the system raised. Looks at the address when that tells nothing: a second or two."""
    chain, said = list(_causes(error)), _said_by_redis(error)
    for each in chain:
        if isinstance(each, ssl.SSLError):
            return _of_redis(url, REFUSE, _said(each), _tls_advice(str(each)))
        if (passes := _of_network(each, url)) is not None:
            advice = f"is {_REDIS} right?" if passes else f"correct {_REDIS}"
            return _of_redis(url, passes, said, advice)
    row = _row(_OF_REDIS, said)
    if row is None and not isinstance(error, ResponseError):
        return _of_listener(url, said)
    passes, advice = row or (REFUSE, "")
    return _of_redis(url, passes, said, advice)


def _of_listener(url: str, said: str) -> Refusal:
    """It hung up or was silent, or what it says is not Redis' protocol: a look tells why."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _of_redis(url, WAIT, said, f"correct {_REDIS}, if that is no Redis")
    listener, words = look_at(parts.hostname or "localhost", parts.port or 6379)
    match parts.scheme, listener:
        case "redis", Listener.TLS:
            return _of_redis(url, REFUSE, said, f"it speaks TLS there: use rediss:// in {_REDIS}")
        case "rediss", Listener.REDIS:
            return _of_redis(url, REFUSE, said, f"it does not speak TLS: use redis:// in {_REDIS}")
        case _, Listener.OTHER:
            return _of_redis(url, REFUSE, said, f"that is no Redis: correct {_REDIS}")
    passes, advice = _row(_OF_REDIS, words) or (WAIT, "it does not answer")
    return _of_redis(url, passes, words if words and not words.startswith("PONG") else said, advice)


def _of_redis(url: str, passes: bool, said: str, advice: str) -> Refusal:
    return _refusal(redis_place(url), passes, said, advice.format(grant=granting(redis_user(url))))


def postgres_refusal(error: Exception, dsn: str | None = None) -> Refusal:
    """Of what psycopg or the system raised. Of several hosts the worst answer counts."""
    place, said = postgres_place(dsn) if dsn else "Postgres", _said(error)
    found = [_row(_OF_POSTGRES, line) for line in str(error).splitlines()]
    rows = sorted((row for row in found if row is not None), key=lambda row: row[0])  # REFUSE first
    if rows:
        return _refusal(place, rows[0][0], said, rows[0][1])
    if not isinstance(error, psycopg.OperationalError) or error.sqlstate is not None or dsn is None:
        return _refusal(place, REFUSE, said, "")
    # Its words may be in another language. libpq tells by itself a server that is starting from one that refuses.
    state = psycopg.pq.PGconn.ping(make_conninfo(dsn, connect_timeout=2).encode())
    return _refusal(place, state in (psycopg.pq.Ping.REJECT, psycopg.pq.Ping.NO_RESPONSE), said, "")


def _row(table: Sequence[tuple[str, bool, str]], text: str) -> tuple[bool, str] | None:
    return next((row[1:] for row in table if re.search(row[0], text)), None)


def _refusal(place: str, passes: bool, said: str, advice: str) -> Refusal:
    words = f"{place} {'cannot be reached' if passes else 'cannot be used'}: {said}"
    return Refusal(words=f"{words}: {advice}" if advice else words, passes=passes)


def _tls_advice(text: str) -> str:
    return next((advice for pattern, advice in _TLS_OF_REDIS if re.search(pattern, text)), "TLS fails with it")


def _of_network(error: BaseException, url: str) -> bool | None:
    """Whether this fault of the network or of a file may pass; None when it is none, or tells too little."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
        return REFUSE
    if isinstance(error, FileNotFoundError):
        return url.startswith("unix:")  # else a certificate that the URL names
    return WAIT if isinstance(error, ConnectionRefusedError) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _said_by_redis(error: Exception) -> str:
    """With the first word, which the client takes off."""
    text = _said(error)
    word = refusal_of(error)
    if isinstance(error, AuthenticationError):
        word = "NOAUTH" if "required" in text else "WRONGPASS"
    return text if word is None or word in text else f"{word} {text}"


def _said(error: BaseException) -> str:
    """Its text on one line."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return (text or type(error).__name__)[:_SAID_MAX].rstrip(". ")
