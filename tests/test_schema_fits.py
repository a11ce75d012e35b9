"""New code on an old schema and old code on a new one refuse, name the migrations, and are never ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import psycopg
import pytest

from engine.errors import Broken
from engine.ledger.schema import migrations, misfit
from engine.ledger.session import connect, prepare
from ops.audit.ledger_view import read_epochs
from support.gateway import Gateway, Running, eventually

NEWER = "9999_from_the_future.sql"
LATEST = max(migrations())
FORGET = "DELETE FROM schema_migrations WHERE name = %s"
REMEMBER = "INSERT INTO schema_migrations (name, sha256) VALUES (%s, 'x')"


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    environ = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_KEY_HOLDER_S": "1"}
    running = Gateway(
        database=database, redis_url=redis_url, bank_url="http://127.0.0.1:1", folder=tmp_path, environ=environ
    )
    yield running
    running.close()


def ready(gateway: Gateway, running: Running) -> tuple[int, str]:
    answer = gateway.http.get(f"http://127.0.0.1:{running.port}/readyz")
    return answer.status_code, answer.text


@pytest.mark.parametrize("role", ["edge", "worker", "dispatcher"])
def test_a_process_refuses_a_schema_that_is_not_its_own_by_the_names_of_the_migrations(
    gateway: Gateway, role: str
) -> None:
    gateway.sql(FORGET, LATEST)
    on_an_old_one = gateway.launch(role)
    old = (on_an_old_one.died(), on_an_old_one.log.read_text())
    gateway.sql(REMEMBER, LATEST)
    gateway.sql(REMEMBER, NEWER)
    on_a_new_one = gateway.launch(role)
    new = (on_a_new_one.died(), on_a_new_one.log.read_text())

    assert old[0] == 1 and LATEST in old[1] and "`penstock migrate`" in old[1]
    assert new[0] == 1 and NEWER in new[1] and LATEST not in new[1]


def test_a_schema_that_changes_under_running_processes_makes_them_not_ready_until_it_is_theirs_again(
    gateway: Gateway,
) -> None:
    running = [gateway.start(role) for role in ("edge", "worker", "dispatcher")]

    gateway.sql(REMEMBER, NEWER)
    for each in running:
        eventually(lambda each=each: ready(gateway, each)[0] == 503, f"the {each.role} is not ready")
    said = [ready(gateway, each)[1] for each in running]
    eventually(lambda: gateway.owned().get(running[1].pid) == [], "the worker owns nothing")
    gateway.sql(FORGET, NEWER)
    gateway.wait_for(*running)

    assert all(NEWER in text for text in said)
    assert gateway.pay("4111111111111111", wait=10).status_code == 201


def test_commands_refuse_it_too(database: str) -> None:
    with connect(database, autocommit=True) as ledger:
        ledger.execute(FORGET, (LATEST,))

    with pytest.raises(Broken, match=LATEST):
        read_epochs(database)


def test_a_new_connection_to_a_database_that_changed_meanwhile_is_not_used(database: str) -> None:
    async def prepared() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await prepare(connection)

    anyio.run(prepared)
    for change in (REMEMBER, FORGET):
        with psycopg.connect(database, autocommit=True) as ledger:
            ledger.execute(change, (NEWER if change is REMEMBER else LATEST,))
        with pytest.raises(Broken, match=NEWER):
            anyio.run(prepared)


def test_both_directions_are_told_apart_and_the_newer_one_comes_first() -> None:
    known = migrations()

    assert misfit(known) is None
    assert "newer Penstock (9999_a.sql" in str(misfit({*known, "9999_a.sql"} - {LATEST}))
    assert f"lacks {LATEST}" in str(misfit(known - {LATEST}))
