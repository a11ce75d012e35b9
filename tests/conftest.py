"""Real stores for the tests: one Postgres and one Redis a session, a database of its own for each test."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from redis import Redis

from engine.ledger.migrate import migrate, seed_local
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis

PARTITIONS = 16
_TEMPLATE = "penstock_template"
# How long an example takes is the machine's affair; what is slow is measured by the bench.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")
_serial = count(1)


# Names by which a test's module starts programs of its own: a gateway, a bank, servers, commands.
_PROGRAMS = {
    "a_gateway",
    "Gateway",
    "a_bank",
    "subprocess",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "NURSERY",
    "own_stack",
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test is slow when its module starts programs. No list can go stale, and few others need the marker."""
    if isinstance(item, pytest.Function) and _PROGRAMS & vars(item.module).keys():
        item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first: the last of them would be waited for alone."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def store_folder() -> Iterator[Path]:
    """A folder that other accounts reach: run by root, Postgres is `nobody`."""
    with tempfile.TemporaryDirectory(prefix="penstock-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(store_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A running server."""
    server = EmbeddedPostgres(store_folder / "session-postgres")
    server.start()
    yield server
    server.kill()  # its data goes with it


@pytest.fixture(scope="session")
def redis_server(store_folder: Path) -> Iterator[EmbeddedRedis]:
    """A running server."""
    server = EmbeddedRedis(store_folder / "session-redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a database that is migrated and seeded, to copy from."""
    migrate(postgres.dsn(_TEMPLATE), PARTITIONS)
    seed_local(postgres.dsn(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The DSN of a fresh ledger with the local merchants; gone afterwards, whoever is still connected."""
    with _a_ledger(postgres, template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def module_database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The same for tests of one module that can share a ledger."""
    with _a_ledger(postgres, template) as dsn:
        yield dsn


@contextmanager
def _a_ledger(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"ledger_{next(_serial)}"
    ours, source = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(ours, source))
    with psycopg.connect(postgres.dsn(name)) as connection:
        # Installations that share a bank must not share their keys there.
        connection.execute("UPDATE installation SET id = %s", (token_hex(16),))
    yield postgres.dsn(name)
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(ours))


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """An empty Redis. Not the database that a module shares: a Redis belongs to one installation."""
    with Redis(port=redis_server.port, db=1) as client:
        client.flushdb()
    return f"redis://127.0.0.1:{redis_server.port}/1"


@pytest.fixture(scope="module")
def module_redis_url(redis_server: EmbeddedRedis) -> str:
    """The same for tests of one module that can share it: without it, leases that others left would still be held."""
    with Redis(port=redis_server.port) as client:
        client.flushdb()
    return f"redis://127.0.0.1:{redis_server.port}/0"
