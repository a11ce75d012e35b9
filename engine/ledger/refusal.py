"""Why Postgres cannot be used, in words, from what psycopg or the system raised."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.resilience.store_refusal import REFUSE, WAIT, StoreRefusal, refusal_of_store, row_for, words_of

_LEDGER = "PENSTOCK_DATABASE_URL"
# fmt: off
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


def postgres_place(dsn: str) -> str:
    """The store by name, as in: Postgres at db.internal:5432/penstock, user penstock."""
    read = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value}
    hosts, ports = read.get("host", "").split(","), read.get("port", "").split(",")
    where = ",".join(
        f"{host or 'localhost'}:{port or '5432'}"
        for host, port in zip(hosts, ports if len(ports) == len(hosts) else ports * len(hosts), strict=False)
    )
    return f"Postgres at {where}/{read.get('dbname', '')}" + (f", user {read['user']}" if "user" in read else "")


def postgres_refusal(error: Exception, dsn: str | None = None) -> StoreRefusal:
    """Of what psycopg or the system raised. Of several hosts the worst answer counts."""
    place, said = postgres_place(dsn) if dsn else "Postgres", words_of(error)
    found = [row_for(_OF_POSTGRES, line) for line in str(error).splitlines()]
    rows = sorted((row for row in found if row is not None), key=lambda row: row[0])  # REFUSE first
    if rows:
        return refusal_of_store(place, rows[0][0], said, rows[0][1])
    if not isinstance(error, psycopg.OperationalError) or error.sqlstate is not None or dsn is None:
        return refusal_of_store(place, REFUSE, said, "")
    # Its words may be in another language. libpq tells by itself a server that is starting from one that refuses.
    state = psycopg.pq.PGconn.ping(make_conninfo(dsn, connect_timeout=2).encode())
    return refusal_of_store(place, state in (psycopg.pq.Ping.REJECT, psycopg.pq.Ping.NO_RESPONSE), said, "")
