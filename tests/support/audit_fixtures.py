"""Fixtures of the audit's tests: one ledger with traffic for the whole session, and copies of it to break."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from secrets import token_hex

import psycopg
import pytest

from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from support.audit_stand import Ledger, a_database, every_kind
from support.bank_harness import Bank
from support.gateway import a_gateway

_serial = count(1)


@pytest.fixture(scope="session")
def traffic(
    postgres: EmbeddedPostgres,
    template: str,
    redis_server: EmbeddedRedis,
    calm_bank: Bank,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The name of a database in which payments of every kind have ended; nobody is connected to it."""
    name = f"traffic_{next(_serial)}"
    with a_database(postgres, name, template):
        with psycopg.connect(postgres.dsn(name)) as connection:
            connection.execute("UPDATE installation SET id = %s", (token_hex(16),))
        redis = f"redis://127.0.0.1:{redis_server.port}/5"  # not the one that other tests flush: they do that to all
        bank = f"http://127.0.0.1:{calm_bank.port}"
        with a_gateway(postgres.dsn(name), redis, bank, tmp_path_factory.mktemp("traffic")) as gateway:
            every_kind(gateway)
            gateway.settled()
        yield name


@pytest.fixture
def ledger(postgres: EmbeddedPostgres, traffic: str, redis_url: str) -> Iterator[Ledger]:
    """A copy of it, beside an empty Redis."""
    name = f"copy_{next(_serial)}"
    with a_database(postgres, name, traffic):
        yield Ledger(dsn=postgres.dsn(name), redis=redis_url)
