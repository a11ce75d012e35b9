"""Stores that we did not set up, one row each: how it is made, and whether it works, or the words in which it does not.

docs/stores.md shows these rows; tests/test_store_matrix.py holds them, on real servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ops.stack.address import any_free_port
from ops.stack.embedded import EmbeddedRedis, _bundled_server
from support.tls_front import a_front, an_authority

SECRET = "Xylo+Phon"  # a password that no message shows
REDIS, LEDGER = "PENSTOCK_REDIS_URL", "PENSTOCK_DATABASE_URL"
GRANTED = ("~penstock:*", "&penstock:*", "+@all", "-@dangerous", "+info")


class Outcome(StrEnum):
    WORKS = "works"
    REFUSED = "refused at the start"
    WAITS = "waited for, up to 30 s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row is set up: a folder, a ledger that is migrated, and a Redis that is empty."""

    folder: Path
    database: str
    redis: EmbeddedRedis

    @property
    def postgres_port(self) -> int:
        return int(str(conninfo_to_dict(self.database)["port"]))

    @property
    def name(self) -> str:
        return str(conninfo_to_dict(self.database)["dbname"])

    def ledger_at(self, port: int, *, host: str = "127.0.0.1", options: str = "") -> str:
        password = conninfo_to_dict(self.database)["password"]
        return f"postgresql://postgres:{password}@{host}:{port}/{self.name}{options}"

    def user(self, *rules: str) -> dict[str, str]:
        """A user of Redis with a password and these rules."""
        with self.admin() as client:
            client.execute_command("ACL", "SETUSER", "pen", "on", f">{SECRET}", *rules)
        return {REDIS: f"redis://pen:{quote(SECRET)}@127.0.0.1:{self.redis.port}/0"}

    def admin(self) -> redis.Redis:
        return redis.Redis(port=self.redis.port)

    def role(self, *grants: str) -> dict[str, str]:
        """A user of Postgres with a password and these rights, in words behind GRANT and before TO."""
        role = sql.Identifier(f"pen_{self.name}")
        with psycopg.connect(self.database, autocommit=True) as ledger:
            ledger.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
            ledger.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(SECRET)))
            for grant in grants:
                ledger.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), role))  # type: ignore[arg-type]
        user = f"pen_{self.name}:{quote(SECRET)}"
        return {LEDGER: f"postgresql://{user}@127.0.0.1:{self.postgres_port}/{self.name}"}

    def drop_role(self) -> None:
        role = sql.Identifier(f"pen_{self.name}")
        with psycopg.connect(self.database, autocommit=True) as ledger:
            ledger.execute(sql.SQL("DROP OWNED BY {}").format(role))
            ledger.execute(sql.SQL("DROP ROLE {}").format(role))


Setup = Callable[[Place], AbstractContextManager[dict[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`words` are in what is said, as they stand there."""

    store: str
    outcome: Outcome
    setup: Setup
    words: str = ""


ROWS: list[Row] = []


def row(store: str, outcome: Outcome, words: str = "") -> Callable[[Callable[[Place], Iterator[dict[str, str]]]], None]:
    """The row of this set-up, which yields the variables that name the store."""

    def taken(setup: Callable[[Place], Iterator[dict[str, str]]]) -> None:
        ROWS.append(Row(store=store, outcome=outcome, setup=contextmanager(setup), words=words))

    return taken


WORKS, REFUSED, WAITS = Outcome.WORKS, Outcome.REFUSED, Outcome.WAITS


@row("Redis, plain", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: f"redis://127.0.0.1:{place.redis.port}/0"}


@row("Redis with a password", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    with place.admin() as client:
        client.config_set("requirepass", SECRET)
    yield {REDIS: f"redis://:{quote(SECRET)}@127.0.0.1:{place.redis.port}/0"}


@row("Redis, a user with the rights below, without CONFIG", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.user(*GRANTED)


@row("Redis, a user without CONFIG and INFO, PENSTOCK_ALLOW_UNSAFE_REDIS set", WORKS, "cannot be checked")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {**place.user(*GRANTED, "-info"), "PENSTOCK_ALLOW_UNSAFE_REDIS": "true"}


@row("Redis, a user without CONFIG and INFO", REFUSED, "our user may use neither CONFIG GET nor INFO")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.user(*GRANTED, "-info")


@row("Redis, a user without our channels", WORKS, "may not use the channels penstock:reply:*")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.user("~penstock:*", "resetchannels", *GRANTED[2:])


@row("Redis, a user without XADD", REFUSED, "does not permit our user XADD on keys penstock:*")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.user(*GRANTED, "-xadd")


@row("Redis, a user without our keys", REFUSED, "NOPERM: Redis does not permit our user")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.user("~other:*", *GRANTED[1:])


@row("Redis, a user without scripts", REFUSED, "ACL SETUSER pen ~penstock:*")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.user(*GRANTED, "-@scripting")


@row("Redis, wrong password", REFUSED, "it refuses our credentials")
def _(place: Place) -> Iterator[dict[str, str]]:
    place.user(*GRANTED)
    yield {REDIS: f"redis://pen:{quote(SECRET)}x@127.0.0.1:{place.redis.port}/0"}


@row("Redis, unknown user", REFUSED, "it refuses our credentials")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: f"redis://nobody:{quote(SECRET)}@127.0.0.1:{place.redis.port}/0"}


@row("Redis, password missing", REFUSED, "it wants credentials")
def _(place: Place) -> Iterator[dict[str, str]]:
    with place.admin() as client:
        client.config_set("requirepass", SECRET)
    yield {REDIS: f"redis://127.0.0.1:{place.redis.port}/0"}


@row("Redis, a password where none is set", REFUSED, "leave user and password out")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: f"redis://:{quote(SECRET)}@127.0.0.1:{place.redis.port}/0"}


@row("Redis, database number too high", REFUSED, "this Redis has no database of the number in PENSTOCK_REDIS_URL")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: f"redis://127.0.0.1:{place.redis.port}/99"}


@row("Redis over TLS, its CA named", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    authority = an_authority(place.folder / "tls")
    with a_front(place.redis.port, tls=authority.context()) as port:
        yield {REDIS: f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.ca}"}


@row("Redis over TLS, its CA unknown", REFUSED, "its certificate is not trusted here")
def _(place: Place) -> Iterator[dict[str, str]]:
    with a_front(place.redis.port, tls=an_authority(place.folder / "tls").context()) as port:
        yield {REDIS: f"rediss://127.0.0.1:{port}/0"}


@row("Redis over TLS, certificate expired", REFUSED, "its certificate has expired")
def _(place: Place) -> Iterator[dict[str, str]]:
    authority = an_authority(place.folder / "tls")
    with a_front(place.redis.port, tls=authority.context(days=-2)) as port:
        yield {REDIS: f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.ca}"}


@row("Redis over TLS, certificate for another name", REFUSED, "its certificate is for another name")
def _(place: Place) -> Iterator[dict[str, str]]:
    authority = an_authority(place.folder / "tls")
    with a_front(place.redis.port, tls=authority.context(host="redis.internal")) as port:
        yield {REDIS: f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.ca}"}


@row("Redis over TLS, the file of the CA missing", REFUSED, "No such file or directory: correct PENSTOCK_REDIS_URL")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: f"rediss://127.0.0.1:{place.redis.port}/0?ssl_ca_certs={place.folder}/none.pem"}


@row("rediss:// to a plain port", REFUSED, "it does not speak TLS: use redis://")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: f"rediss://127.0.0.1:{place.redis.port}/0"}


@row("redis:// to a TLS port", REFUSED, "it speaks TLS there: use rediss://")
def _(place: Place) -> Iterator[dict[str, str]]:
    with a_front(place.redis.port, tls=an_authority(place.folder / "tls").context()) as port:
        yield {REDIS: f"redis://127.0.0.1:{port}/0"}


@row("Redis at a unix socket", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    with _short_folder() as folder, _a_redis(place.folder / "unix", "--unixsocket", f"{folder}/s"):
        yield {REDIS: f"unix://{folder}/s?db=0"}


@row("Redis, a read-only replica", REFUSED, "it is a read-only replica")
def _(place: Place) -> Iterator[dict[str, str]]:
    with place.admin() as client:
        client.replicaof("127.0.0.1", "1")
    yield {REDIS: f"redis://127.0.0.1:{place.redis.port}/0"}


@row("Redis Cluster", REFUSED, "it is a node of a Redis Cluster, which Penstock does not support yet")
def _(place: Place) -> Iterator[dict[str, str]]:
    with _a_redis(place.folder / "node", "--cluster-enabled", "yes") as node, redis.Redis(port=node.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        yield {REDIS: f"redis://127.0.0.1:{node.port}/0"}


@row("Redis Cluster, half of the slots, a user without CLUSTER and INFO", REFUSED, "it is a node of a Redis Cluster")
def _(place: Place) -> Iterator[dict[str, str]]:
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with _a_redis(place.folder / "node", *options) as node, redis.Redis(port=node.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        client.execute_command("ACL", "SETUSER", "pen", "on", f">{SECRET}", *GRANTED, "-info", "-cluster")
        yield {REDIS: f"redis://pen:{quote(SECRET)}@127.0.0.1:{node.port}/3"}


@row("Redis Sentinel", REFUSED, "it is a Sentinel, which keeps no data")
def _(place: Place) -> Iterator[dict[str, str]]:
    port, config = any_free_port(), place.folder / "sentinel.conf"
    config.write_text("sentinel monitor main 127.0.0.1 1 2\n")
    with _process(_bundled_server(), config, "--sentinel", "--port", str(port), "--bind", "127.0.0.1") as _:
        _listens(port)
        yield {REDIS: f"redis://127.0.0.1:{port}/1"}


@row("Redis that lacks the connections for us", WAITS, "raise its maxclients")
def _(place: Place) -> Iterator[dict[str, str]]:
    with place.admin() as client:
        client.config_set("maxclients", 1)
        client.ping()
        yield {REDIS: f"redis://127.0.0.1:{place.redis.port}/0"}


@row("Redis in protected mode", REFUSED, "it is in protected mode")
def _(place: Place) -> Iterator[dict[str, str]]:
    # It is so only towards other machines, so its first words are said here by us.
    denied = b"-DENIED Redis is running in protected mode because protected mode is enabled.\r\n"
    with _a_speaker(denied) as port:
        yield {REDIS: f"redis://127.0.0.1:{port}/0"}


@row("a web server instead of Redis", REFUSED, "that is no Redis")
def _(place: Place) -> Iterator[dict[str, str]]:
    with _a_speaker(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as port:
        yield {REDIS: f"redis://127.0.0.1:{port}/0"}


@row("nothing where Redis should be", WAITS, "Connection refused")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: "redis://127.0.0.1:1/0"}


@row("a host of Redis that does not exist", REFUSED, "Name or service not known")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {REDIS: "redis://nosuch.invalid:6379/0"}


@row("Postgres, plain", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {LEDGER: place.database}


@row("Postgres over TLS, sslmode=verify-full", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    authority = an_authority(place.folder / "tls")
    with a_front(place.postgres_port, tls=authority.context(), postgres=True) as port:
        yield {LEDGER: place.ledger_at(port, options=f"?sslmode=verify-full&sslrootcert={authority.ca}")}


@row("Postgres over TLS, its CA unknown", REFUSED, "name its CA with sslrootcert=FILE")
def _(place: Place) -> Iterator[dict[str, str]]:
    ours, other = an_authority(place.folder / "tls"), an_authority(place.folder / "other")
    with a_front(place.postgres_port, tls=ours.context(), postgres=True) as port:
        yield {LEDGER: place.ledger_at(port, options=f"?sslmode=verify-full&sslrootcert={other.ca}")}


@row("Postgres over TLS, no CA named", REFUSED, "name its CA with sslrootcert=FILE")
def _(place: Place) -> Iterator[dict[str, str]]:
    with a_front(place.postgres_port, tls=an_authority(place.folder / "tls").context(), postgres=True) as port:
        yield {LEDGER: place.ledger_at(port, options="?sslmode=verify-full"), "HOME": str(place.folder)}


@row("Postgres over TLS, certificate expired", REFUSED, "its certificate is not trusted here, or has expired")
def _(place: Place) -> Iterator[dict[str, str]]:
    authority = an_authority(place.folder / "tls")
    with a_front(place.postgres_port, tls=authority.context(days=-2), postgres=True) as port:
        yield {LEDGER: place.ledger_at(port, options=f"?sslmode=verify-full&sslrootcert={authority.ca}")}


@row("Postgres over TLS, certificate for another name", REFUSED, "its certificate is for another name")
def _(place: Place) -> Iterator[dict[str, str]]:
    authority = an_authority(place.folder / "tls")
    with a_front(place.postgres_port, tls=authority.context(host="db.internal"), postgres=True) as port:
        yield {LEDGER: place.ledger_at(port, options=f"?sslmode=verify-full&sslrootcert={authority.ca}")}


@row("Postgres without TLS, sslmode=require", REFUSED, "turn TLS on there")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {LEDGER: place.ledger_at(place.postgres_port, options="?sslmode=require")}


@row("Postgres at a unix socket", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    with _short_folder() as folder, a_front(place.postgres_port, path=folder / ".s.PGSQL.5432"):
        password = conninfo_to_dict(place.database)["password"]
        yield {LEDGER: f"postgresql://postgres:{password}@/{place.name}?host={folder}"}


@row("Postgres, wrong password", REFUSED, "it refuses our credentials")
def _(place: Place) -> Iterator[dict[str, str]]:
    where = f"127.0.0.1:{place.postgres_port}/{place.name}"
    yield {LEDGER: f"postgresql://postgres:{quote(SECRET)}@{where}"}


@row("Postgres, no such database", REFUSED, "create the database first")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {LEDGER: place.ledger_at(place.postgres_port).rpartition("/")[0] + "/nosuch"}


@row("Postgres, a database without our tables", REFUSED, "run `penstock migrate` first")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {LEDGER: place.ledger_at(place.postgres_port).rpartition("/")[0] + "/postgres"}


_TABLES = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
_SEQUENCES = "SELECT ON ALL SEQUENCES IN SCHEMA public"


@row("Postgres, a user with the rights below", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.role(_TABLES, _SEQUENCES)
    place.drop_role()


@row("Postgres, a user without rights on tables", REFUSED, "permission denied")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.role()
    place.drop_role()


@row("Postgres, a user who may only read", REFUSED, "our user lacks")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield place.role("SELECT ON ALL TABLES IN SCHEMA public", _SEQUENCES)
    place.drop_role()


@row("Postgres, a user without the schema", REFUSED, "GRANT USAGE ON SCHEMA public")
def _(place: Place) -> Iterator[dict[str, str]]:
    given = place.role(_TABLES, _SEQUENCES)
    with psycopg.connect(place.database, autocommit=True) as ledger:
        ledger.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    yield given
    place.drop_role()


@row("Postgres that lacks the connections for us", WAITS, "too many connections")
def _(place: Place) -> Iterator[dict[str, str]]:
    with psycopg.connect(place.database, autocommit=True) as ledger:
        given = place.role(_TABLES, _SEQUENCES)
        ledger.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(sql.Identifier(place.name)))
        yield given
        ledger.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(sql.Identifier(place.name)))
        place.drop_role()


@row("a web server instead of Postgres", REFUSED, "that is no Postgres")
def _(place: Place) -> Iterator[dict[str, str]]:
    with _a_speaker(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as port:
        yield {LEDGER: place.ledger_at(port)}


@row("nothing where Postgres should be", WAITS, "Connection refused")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {LEDGER: place.ledger_at(1)}


@row("a host of Postgres that does not exist", REFUSED, "there is no such host")
def _(place: Place) -> Iterator[dict[str, str]]:
    yield {LEDGER: place.ledger_at(5432, host="nosuch.invalid")}


@row("Postgres behind PgBouncer, pool_mode=session", WORKS)
def _(place: Place) -> Iterator[dict[str, str]]:
    with a_bouncer(place, "session") as url:
        yield {LEDGER: url}


@row("Postgres behind PgBouncer, pool_mode=transaction", REFUSED, "a pooler gives each transaction another session")
def _(place: Place) -> Iterator[dict[str, str]]:
    with a_bouncer(place, "transaction") as url:
        yield {LEDGER: url}


@contextmanager
def a_bouncer(place: Place, mode: str, **settings: object) -> Iterator[str]:
    """A real PgBouncer in front of the ledger; it must not be root."""
    port = any_free_port()
    with _short_folder() as folder:
        folder.chmod(0o777)
        login = conninfo_to_dict(place.database)
        behind = f"host=127.0.0.1 port={place.postgres_port} user=postgres password={login['password']}"
        more = "\n".join(f"{name} = {value}" for name, value in settings.items())
        (folder / "ini").write_text(
            f"[databases]\n{place.name} = {behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\nlogfile = {folder}/log\n{more}\n"
        )
        user = "nobody" if os.geteuid() == 0 else None
        with _process(bouncer() or "pgbouncer", folder / "ini", user=user):
            _listens(port)
            yield f"postgresql://postgres@127.0.0.1:{port}/{place.name}"


def bouncer() -> str | None:
    """The program, if this machine has it."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def _a_redis(folder: Path, *options: str) -> Iterator[EmbeddedRedis]:
    folder.mkdir()
    program = folder / "server"
    words = " ".join(options)
    program.write_text(f'#!/bin/sh\nexec {_bundled_server()} "$@" {words}\n')
    program.chmod(0o755)
    server = EmbeddedRedis(folder / "data", server=str(program))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def _process(*words: str | Path, user: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd="/")
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


@contextmanager
def _a_speaker(words: bytes) -> Iterator[int]:
    """Somebody who says this to whoever comes, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def speak() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(words)

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextmanager
def _short_folder() -> Iterator[Path]:
    """A path to a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="pen-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _listens(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < until, f"nobody listens on {port}"
            time.sleep(0.05)
