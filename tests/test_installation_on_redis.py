"""A Redis belongs to one installation: whoever comes from another refuses it, accepts nothing and touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from redis import Redis

from engine.ledger.migrate import migrate
from engine.streams import keys
from ops.audit.auditor import Auditor
from ops.stack.embedded import EmbeddedPostgres
from ops.store_url import Locations
from support.gateway import Gateway, Running, a_gateway, eventually

CARD = "4111111111111111"
OTHER = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    environ = {"PENSTOCK_CONNECTOR": "instant"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=1, **environ) as running:
        yield running


@pytest.fixture
def other_ledger(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The ledger of another installation, migrated and empty."""
    dsn = postgres.dsn("another_installation")
    migrate(dsn, 16)
    yield dsn
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as server:
        server.execute(f"DROP DATABASE {conninfo_to_dict(dsn)['dbname']} WITH (FORCE)")  # type: ignore[arg-type]


def ours(gateway: Gateway) -> str:
    return str(gateway.sql("SELECT id FROM installation")[0][0])


def readiness(gateway: Gateway, running: Running) -> tuple[int, str]:
    answer = gateway.http.get(f"http://127.0.0.1:{running.port}/readyz")
    return answer.status_code, answer.text


@pytest.mark.parametrize("role", ["edge", "worker"])
def test_a_process_with_another_ledger_refuses_to_start_and_says_whose_redis_it_is(
    gateway: Gateway, other_ledger: str, role: str
) -> None:
    stranger = gateway.launch(role, PENSTOCK_DATABASE_URL=other_ledger)

    code, said = stranger.died(), stranger.log.read_text()

    assert code == 1
    assert ours(gateway) in said and "PENSTOCK_REDIS_URL" in said
    assert gateway.pay(CARD, wait=10).status_code == 201


def test_nothing_is_accepted_into_a_redis_that_became_another_s_not_even_through_a_new_connection(
    gateway: Gateway,
) -> None:
    assert gateway.pay(CARD, wait=10).status_code == 201
    edge, worker = gateway.processes
    redis = gateway.redis
    with redis.pipeline() as swap:  # what a fail-over to a stranger looks like
        swap.set(keys.INSTALLATION, OTHER)
        swap.client_kill_filter(_type="normal", skipme=True)
        swap.execute()

    answers = [gateway.pay(CARD) for _ in range(3)]
    eventually(lambda: readiness(gateway, edge)[0] == 503, "the edge is not ready")
    eventually(lambda: readiness(gateway, worker)[0] == 503, "the worker is not ready")
    eventually(lambda: gateway.owned().get(worker.pid) == [], "the worker owns nothing")

    assert {answer.status_code for answer in answers} == {503}
    assert gateway.backlog() == 0
    assert all(OTHER in readiness(gateway, each)[1] for each in (edge, worker))
    assert redis.get(keys.INSTALLATION) == OTHER.encode()

    redis.delete(keys.INSTALLATION)
    gateway.wait_for(edge, worker)

    assert redis.get(keys.INSTALLATION) == ours(gateway).encode()
    assert gateway.pay(CARD, wait=10).status_code == 201


def test_an_edge_that_notices_only_by_looking_again_answers_503_and_a_worker_gives_its_partitions_up(
    gateway: Gateway,
) -> None:
    edge, worker = gateway.processes
    gateway.redis.set(keys.INSTALLATION, OTHER)  # connections stay as they are

    eventually(lambda: readiness(gateway, edge)[0] == 503, "the edge noticed")
    answers = {gateway.pay(CARD).status_code for _ in range(10)}
    eventually(lambda: gateway.owned().get(worker.pid) == [], "the worker owns nothing")
    log = edge.log.read_text() + worker.log.read_text()

    assert answers == {503} and gateway.backlog() == 0
    assert log.count('"does_not_fit"') == 2


def test_a_redis_that_lost_its_memory_is_ours_again_before_the_next_look(gateway: Gateway) -> None:
    gateway.redis.flushall()

    eventually(lambda: gateway.redis.get(keys.INSTALLATION) == ours(gateway).encode(), "it is claimed again")

    assert eventually(lambda: gateway.pay(CARD, wait=10).status_code == 201, "payments go on")


def test_what_is_no_installation_s_id_is_refused_in_words(gateway: Gateway) -> None:
    with gateway.redis.pipeline() as at_once:  # or a process that looks in between writes the right one
        at_once.delete(keys.INSTALLATION)
        at_once.rpush(keys.INSTALLATION, "by hand")
        at_once.execute()

    late = gateway.launch("edge")

    assert late.died() == 1
    assert keys.INSTALLATION in late.log.read_text()


def test_the_audit_names_a_redis_of_another_installation(gateway: Gateway) -> None:
    places = Locations(ledger=gateway.database, redis=gateway.redis_url)
    with closing(Auditor(places, grace_s=60, limit=10)) as auditor:
        before = {each.invariant.name for each in auditor.run_once().found if each.breaches}
        Redis.from_url(gateway.redis_url).set(keys.INSTALLATION, OTHER)
        after = {each.invariant.name for each in auditor.run_once().found if each.breaches}

    assert after - before == {"redis_is_this_installations"}


def test_operators_commands_refuse_the_redis_of_another_installation(gateway: Gateway) -> None:
    gateway.redis.set(keys.INSTALLATION, OTHER)
    environ = {**os.environ, "PENSTOCK_DATABASE_URL": gateway.database, "PENSTOCK_REDIS_URL": gateway.redis_url}

    words = [sys.executable, "-m", "ops.cli.main", "dead-letters", "list"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True)

    assert done.returncode == 1 and "another installation" in done.stderr and "Traceback" not in done.stderr
