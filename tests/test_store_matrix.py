"""Stores that we did not set up: each row of docs/stores.md works, or is refused in words that say what to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Broken, PenstockError, Unavailable
from ops.assembly.settings import load_settings
from ops.assembly.store_checks import check_postgres, check_redis
from ops.errors import in_words
from ops.stack.address import any_free_port
from ops.stack.embedded import EmbeddedRedis
from support.gateway import FINGERPRINT_KEY, MASTER_KEY, a_gateway, eventually
from support.store_rows import LEDGER, REDIS, ROWS, SECRET, Outcome, Place, Row, bouncer

pytestmark = pytest.mark.slow
CARD = "4111111111111111"
PAGE = Path(__file__).parent.parent / "docs" / "stores.md"
_HALVES = re.split(r"\W", SECRET)
WAITING = '"waiting_for_store"'
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PG"))}


@pytest.fixture
def place(database: str, tmp_path: Path) -> Iterator[Place]:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    yield Place(folder=tmp_path, database=database, redis=server)
    server.kill()


def environment(place: Place, given: dict[str, str]) -> dict[str, str]:
    return {
        **PLAIN,
        "PENSTOCK_MASTER_KEY": MASTER_KEY,
        "PENSTOCK_FINGERPRINT_KEY": FINGERPRINT_KEY,
        "PENSTOCK_CONNECTOR": "instant",
        "PENSTOCK_EDGE_PORT": str(any_free_port()),
        REDIS: f"redis://127.0.0.1:{place.redis.port}/0",
        LEDGER: place.database,
        **given,
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "ops.cli.main", *words]


def _needs(row: Row) -> None:
    if "PgBouncer" in row.store and bouncer() is None:
        reason = "pgbouncer is not installed: apt-get install pgbouncer"
        assert "CI" not in os.environ and os.geteuid() != 0, reason
        pytest.skip(reason)


def _row(store: str) -> Row:
    (found,) = [row for row in ROWS if row.store == store]
    return found


def _rows(outcome: Outcome) -> list[Row]:
    return [row for row in ROWS if row.outcome is outcome]


def _said_well(text: str) -> None:
    """In words, without what is nobody's business."""
    assert "Traceback" not in text
    assert not any(half in text for half in _HALVES)


@pytest.mark.parametrize("row", _rows(Outcome.WORKS), ids=lambda row: row.store)
def test_a_store_that_works_takes_payments(place: Place, row: Row) -> None:
    _needs(row)
    with row.setup(place) as given:
        given = {REDIS: f"redis://127.0.0.1:{place.redis.port}/0", LEDGER: place.database, **given}
        urls = given.pop(LEDGER), given.pop(REDIS)
        with a_gateway(*urls, "http://127.0.0.1:1", place.folder, PENSTOCK_CONNECTOR="instant", **given) as gateway:
            gateway.start("dispatcher")
            answers = [gateway.pay(CARD, wait=10).status_code for _ in range(20)]
            captured = gateway.post(f"/v1/payments/{gateway.pay(CARD, wait=10).json()['id']}/capture", wait=10)
            codes = [running.end() for running in gateway.processes]
            log = "\n".join(running.log.read_text() for running in gateway.processes)

    assert answers == [201] * 20 and captured.json()["status"] == "captured"
    assert codes == [0, 0, 0]
    assert row.words in log
    assert '"loop_failed"' not in log
    assert not any(half in log for half in _HALVES)


def opened(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> PenstockError:
    """What ends a process that opens these stores, or makes it wait."""
    monkeypatch.setenv("HOME", environ.pop("HOME", os.environ["HOME"]))
    settings = load_settings({name: value for name, value in environ.items() if name.startswith("PENSTOCK_")})

    with pytest.raises(PenstockError) as fault:
        check_postgres(settings)
        check_redis(settings)
    return fault.value


@pytest.mark.parametrize("row", [*_rows(Outcome.REFUSED), *_rows(Outcome.WAITS)], ids=lambda row: row.store)
def test_a_store_that_cannot_be_used_is_told_in_words(place: Place, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    _needs(row)
    with row.setup(place) as given:
        fault = opened(environment(place, given), monkeypatch)
    said = in_words(fault) or ""

    assert row.words in said
    assert isinstance(fault, Broken if row.outcome is Outcome.REFUSED else Unavailable)
    assert "Redis at" in said or "Postgres at" in said or "database" in said, "it says which"
    _said_well(said)


@pytest.mark.parametrize("store", ["nothing where Redis should be", "nothing where Postgres should be"])
def test_a_store_that_may_come_is_waited_for_and_that_is_told_at_once(place: Place, store: str) -> None:
    log = place.folder / "edge.log"
    with _row(store).setup(place) as given, log.open("wb") as sink:
        process = subprocess.Popen(command("edge"), env=environment(place, given), stdout=sink, stderr=sink)
        try:
            eventually(lambda: WAITING in log.read_text(), "the wait is told", 20)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)

    assert log.read_text().count(WAITING) == 1
    assert _row(store).words in log.read_text()
    _said_well(log.read_text())


_NO_REDIS = ("dispatcher", "migrate", "merchant", "master-key")


@pytest.mark.parametrize(
    "words",
    [
        ("edge",),
        ("worker",),
        ("dispatcher",),
        ("auditor",),
        ("migrate",),
        ("streams",),
        ("partitions",),
        ("audit",),
        ("merchant", "list"),
        ("payment", "show", "pay_00000000000000000000000000"),
        ("dead-letters", "list"),
        ("master-key", "status"),
    ],
    ids=lambda words: words[0],
)
def test_every_process_and_command_says_which_store_refuses_it(place: Place, words: tuple[str, ...]) -> None:
    row = _row("Postgres, wrong password" if words[0] in _NO_REDIS else "Redis, wrong password")
    with row.setup(place) as given:
        environ = environment(place, given)
        done = subprocess.run(command(*words), env=environ, capture_output=True, text=True, timeout=100)
    said = done.stdout + done.stderr

    assert done.returncode == (2 if words[0] == "audit" else 1)
    assert row.words in said
    assert WAITING not in said
    _said_well(said)


def table() -> str:
    """The rows as docs/stores.md shows them."""
    lines = ["| store | | in its words |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.store} | {row.outcome} | {row.words} |" for row in ROWS)])


def test_the_page_on_stores_shows_these_rows() -> None:
    assert table() in PAGE.read_text(), "python tests/test_store_matrix.py prints them"


if __name__ == "__main__":
    print(table())
