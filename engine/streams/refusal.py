"""Why Redis cannot be used, in words, from what redis-py or the system raised."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from redis.exceptions import AuthenticationError, ResponseError

from engine.resilience.store_refusal import REFUSE, WAIT, StoreRefusal, refusal_of_store, row_for, words_of
from engine.streams.peek import ListenerKind, look_at
from engine.streams.permission import granting
from engine.streams.scripts import refusal_of

_REDIS = "PENSTOCK_REDIS_URL"
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
# fmt: on


def redis_place(url: str) -> str:
    """The store by name, as in: Redis at 10.0.0.7:6379, user penstock."""
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
    return f"Redis at {where}" + (f", user {unquote(parts.username)}" if parts.username else "")


def redis_user(url: str) -> str:
    return unquote(urlsplit(url).username or "default")


def redis_refusal(error: Exception, url: str) -> StoreRefusal:
    """Of what redis-py or the system raised. Looks at the address when that tells nothing: a second or two."""
    chain, said = list(_causes(error)), _said_by_redis(error)
    for each in chain:
        if isinstance(each, ssl.SSLError):
            return _of_redis(url, REFUSE, words_of(each), _tls_advice(str(each)))
        if (passes := _of_network(each, url)) is not None:
            advice = f"is {_REDIS} right?" if passes else f"correct {_REDIS}"
            return _of_redis(url, passes, said, advice)
    row = row_for(_OF_REDIS, said)
    if row is None and not isinstance(error, ResponseError):
        return _of_listener(url, said)
    passes, advice = row or (REFUSE, "")
    return _of_redis(url, passes, said, advice)


def _of_listener(url: str, said: str) -> StoreRefusal:
    """It hung up or was silent, or what it says is not Redis' protocol: a look tells why."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _of_redis(url, WAIT, said, f"correct {_REDIS}, if that is no Redis")
    listener, words = look_at(parts.hostname or "localhost", parts.port or 6379)
    match parts.scheme, listener:
        case "redis", ListenerKind.TLS:
            return _of_redis(url, REFUSE, said, f"it speaks TLS there: use rediss:// in {_REDIS}")
        case "rediss", ListenerKind.REDIS:
            return _of_redis(url, REFUSE, said, f"it does not speak TLS: use redis:// in {_REDIS}")
        case _, ListenerKind.OTHER:
            return _of_redis(url, REFUSE, said, f"that is no Redis: correct {_REDIS}")
    passes, advice = row_for(_OF_REDIS, words) or (WAIT, "it does not answer")
    return _of_redis(url, passes, words if words and not words.startswith("PONG") else said, advice)


def _of_redis(url: str, passes: bool, said: str, advice: str) -> StoreRefusal:
    return refusal_of_store(redis_place(url), passes, said, advice.format(grant=granting(redis_user(url))))


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
    text = words_of(error)
    word = refusal_of(error)
    if isinstance(error, AuthenticationError):
        word = "NOAUTH" if "required" in text else "WRONGPASS"
    return text if word is None or word in text else f"{word} {text}"
