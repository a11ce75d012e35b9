"""A pooler in front of Postgres, the real PgBouncer: session mode is like Postgres itself, transaction mode is refused
in words before anything is changed there, however its pool turns."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.errors import Broken, Unavailable
from engine.ledger.migrate import MigrationError, migrate
from engine.ledger.session import connect
from ops.stack.embedded import EmbeddedRedis
from support.store_rows import Place, a_bouncer, bouncer

pytestmark = pytest.mark.skipif(
    bouncer() is None and "CI" not in os.environ and os.geteuid() != 0,
    reason="pgbouncer is not installed: apt-get install pgbouncer",
)
NO_REDIS = EmbeddedRedis(Path("never-started"))


@pytest.fixture
def place(database: str, tmp_path: Path) -> Iterator[Place]:
    yield Place(folder=tmp_path, database=database, redis=NO_REDIS)


def session_locks(place: Place) -> int:
    with psycopg.connect(place.database) as ledger:
        row = ledger.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ignore_startup_parameters": "options,extra_float_digits"},
        {"server_round_robin": 1, "min_pool_size": 2, "default_pool_size": 2},
        {"server_round_robin": 1, "min_pool_size": 5},
        {"default_pool_size": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pool_that_shares_sessions_is_seen_however_it_turns(
    place: Place, mode: str, settings: dict[str, object]
) -> None:
    with a_bouncer(place, mode, **settings) as url:
        for _ in range(5):
            with pytest.raises(Broken, match="pool_mode=session"):
                connect(url)


def test_migrate_is_refused_there_and_leaves_no_lock_that_hangs_the_next_one(place: Place) -> None:
    with a_bouncer(place, "transaction") as url:
        for _ in range(3):
            with pytest.raises(MigrationError, match="a pooler gives each transaction another session"):
                migrate(url, 16)
        left = session_locks(place)
        migrate(place.database, 16)

    assert left == 0


def test_migrate_works_through_a_pool_of_sessions_as_often_as_one_likes(place: Place) -> None:
    with a_bouncer(place, "session") as url:
        for _ in range(3):
            migrate(url, 16)

    assert session_locks(place) == 0


def test_settings_of_a_refused_session_are_not_left_to_others_in_the_pool(place: Place) -> None:
    with a_bouncer(place, "transaction", default_pool_size=1) as url:
        with pytest.raises(Broken):
            connect(url, settings={"statement_timeout": "1234"})
        with psycopg.connect(url, autocommit=True) as other:
            row = other.execute("SHOW statement_timeout").fetchone()

    assert row == ("0",)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_whose_postgres_is_away_or_full_is_told_within_seconds(place: Place, mode: str) -> None:
    away = Place(folder=place.folder, database=place.ledger_at(1), redis=NO_REDIS)
    with a_bouncer(away, mode, server_login_retry=1) as url, pytest.raises(Unavailable) as told:
        connect(url)
    with a_bouncer(place, "session", default_pool_size=1) as url, psycopg.connect(url) as hold:
        hold.execute("SELECT 1")
        with pytest.raises(Unavailable, match="default_pool_size"):
            connect(url)

    assert "127.0.0.1" in told.value.detail


def test_commands_refuse_it_with_exit_code_1(place: Place) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    with a_bouncer(place, "transaction") as url:
        words = [sys.executable, "-P", "-m", "ops.cli.main", "merchant", "list"]
        done = subprocess.run(words, env={**plain, "PENSTOCK_DATABASE_URL": url}, capture_output=True, text=True)

    assert done.returncode == 1 and "pool_mode=session" in done.stderr and "Traceback" not in done.stderr
