"""The mock bank as a process: its variables, its cards, its log, its database and its end."""

import dataclasses
import http.client
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from bank.simulator.card import extra_card, is_card_number
from bank.simulator.database import BankDatabaseError, prepare_database
from bank.simulator.settings import BankSettings, BankSettingsError
from support.bank_harness import CALM, RUN, Bank, a_bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]


def test_without_variables_the_settings_are_the_contracts() -> None:
    settings = BankSettings.from_env({})

    assert dataclasses.replace(settings, database_url="") == BankSettings(database_url="")
    assert (settings.host, settings.port, settings.control, settings.extra_cards) == ("127.0.0.1", 8787, False, 0)
    assert psycopg.conninfo.conninfo_to_dict(settings.database_url) == {
        "host": "localhost",
        "port": "5432",
        "user": "postgres",
        "password": "postgres",
        "dbname": "mockbank",
        "sslmode": "disable",
    }


def test_numbers_and_durations_are_read_as_go_reads_them() -> None:
    settings = BankSettings.from_env(
        {
            "SERVER_READ_TIMEOUT": "1h1m1.5s",
            "SERVER_WRITE_TIMEOUT": "50ms",
            "SERVER_IDLE_TIMEOUT": "0",
            "AUTH_EXPIRY_HOURS": "-1",
            "FAILURE_RATE": "5e-1",
            "DB_MAX_OPEN_CONNS": "+3",
            "PENSTOCK_BANK_DATABASE_URL": "postgresql://elsewhere/db",
            "DB_HOST": "ignored",
        }
    )

    assert (settings.read_timeout_s, settings.write_timeout_s, settings.idle_timeout_s) == (3661.5, 0.05, 0)
    assert (settings.auth_expiry_hours, settings.failure_rate, settings.db_max_open_conns) == (-1, 0.5, 3)
    assert settings.database_url == "postgresql://elsewhere/db"
    assert BankSettings.from_env({"FAILURE_RATE": "0x1p-2"}).failure_rate == 0.25
    assert BankSettings.from_env({"FAILURE_RATE": "1e400"}).failure_rate == 0.05


def test_what_does_not_parse_falls_back_without_a_word() -> None:
    nonsense = {
        "SERVER_READ_TIMEOUT": "15",
        "SERVER_WRITE_TIMEOUT": "fast",
        "FAILURE_RATE": "often",
        "MIN_LATENCY_MS": "1_00",
        "MAX_LATENCY_MS": "2.5",
        "AUTH_EXPIRY_HOURS": " 1",
        "DB_PORT": "",
        "PORT": "",
        "DB_MAX_OPEN_CONNS": "9" * 5000,
        "DB_MAX_IDLE_CONNS": "9223372036854775808",
        "SERVER_IDLE_TIMEOUT": "9999999h",
    }

    assert BankSettings.from_env(nonsense) == BankSettings.from_env({})


@pytest.mark.parametrize(
    "environ",
    [
        {"FAILURE_RATE": "1.01"},
        {"FAILURE_RATE": "-0.1"},
        {"MIN_LATENCY_MS": "2001"},
        {"MAX_LATENCY_MS": "99"},
        {"LOG_LEVEL": "INFO"},
        {"PORT": "65536"},
        {"PORT": "-1"},
        {"PORT": "eighty"},
        {"DB_PORT": "five"},
        {"DB_PORT": "70000"},
        {"FAILURE_RATE": "inf"},
        {"FAILURE_RATE": "0x1p1"},
        {"MIN_LATENCY_MS": "-1"},
        {"PENSTOCK_BANK_HANG_UP_CANCELS": "no"},
        {"PENSTOCK_BANK_HANG_UP_LOSES_KEY": "2"},
        {"PENSTOCK_BANK_CONTROL": "yes"},
        {"PENSTOCK_BANK_EXTRA_CARDS": "many"},
        {"PENSTOCK_BANK_EXTRA_CARDS": "-1"},
    ],
)
def test_what_is_out_of_range_is_refused_by_name(environ: dict[str, str]) -> None:
    with pytest.raises(BankSettingsError, match=next(iter(environ))):
        BankSettings.from_env(environ)


def test_extra_cards_pass_luhn_never_repeat_and_never_change() -> None:
    cards = [extra_card(i) for i in (*range(2000), 10**9 - 1)]

    assert all(is_card_number(card) and len(card) == 16 for card in cards)
    assert len(set(cards)) == len(cards)
    assert (cards[0], cards[1]) == ("4000000000000002", "4000000000000010")
    with pytest.raises(ValueError, match="extra card"):
        extra_card(10**9)


def test_the_seeded_accounts_are_the_contracts(bank_postgres: str) -> None:
    dsn = f"{bank_postgres} dbname=seeded"
    prepare_database(dsn, extra_cards=0)
    prepare_database(dsn, extra_cards=1)

    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT account_number, cvv, expiry_month, expiry_year, balance_cents, available_balance_cents"
            " FROM accounts ORDER BY account_number"
        ).fetchall()
        [off] = connection.execute("SHOW synchronous_commit").fetchall()
    assert rows[1:] == [
        ("4111111111111111", "123", 12, 2030, 1_000_000, 1_000_000),
        ("4242424242424242", "456", 6, 2030, 50_000, 50_000),
        ("5105105105105100", "321", 3, 2020, 500_000, 500_000),
        ("5555555555554444", "789", 9, 2030, 0, 0),
    ]
    assert rows[0][:2] == (extra_card(0), "123")
    assert off == ("off",)


def test_a_database_that_cannot_be_had_is_told(bank_postgres: str) -> None:
    with pytest.raises(BankDatabaseError, match="cannot connect"):
        prepare_database("host=127.0.0.1 port=1 dbname=nowhere connect_timeout=2", extra_cards=0)


def test_several_banks_may_prepare_one_database_at_once(bank_postgres: str) -> None:
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda _: prepare_database(f"{bank_postgres} dbname=crowd", extra_cards=10), range(5)))

    with psycopg.connect(f"{bank_postgres} dbname=crowd") as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (4 + 10,)


def test_the_control_api_is_off_unless_asked_for(bank_postgres: str) -> None:
    with a_bank(bank_postgres, LOG_LEVEL="debug") as bank:
        answers = [bank.http.get("/control/faults"), bank.http.post("/control/faults", json={"kind": "drop_key"})]
        bank.process.send_signal(signal.SIGINT)
        out, _ = bank.process.communicate(timeout=10)

    assert {(answer.status_code, answer.text) for answer in answers} == {(404, "404 page not found\n")}
    lines = [json.loads(line) for line in out.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in requests] == [
        ("GET", "/control/faults", 404),
        ("POST", "/control/faults", 404),
    ]
    assert lines[-1]["event"] == "bank_stopped"
    assert bank.process.returncode == 0


def test_requests_in_hand_are_finished_after_a_signal(bank_postgres: str) -> None:
    with a_bank(bank_postgres, MIN_LATENCY_MS="400", MAX_LATENCY_MS="400") as bank:
        asked = http.client.HTTPConnection("127.0.0.1", bank.port, timeout=10)
        headers = {"Idempotency-Key": "in hand when the signal came"}
        asked.request("POST", "/api/v1/authorizations", json.dumps(a_card_request()), headers)
        bank.http.get("/health")  # Answered after the connection made before it was taken in hand.
        bank.process.send_signal(signal.SIGTERM)

        assert asked.getresponse().status == 200
        asked.close()
        assert bank.process.wait(timeout=10) == 0


def test_connections_that_the_database_cut_cost_no_request(bank: Bank) -> None:
    bank.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    answers = [bank.authorize(key) for key in ("cut", "cut", "cut again", "cut again")]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.content for answer in answers}) == 2


def test_a_bank_that_cannot_start_says_so_and_fails(bank_postgres: str) -> None:
    environ: dict[str, Any] = {**CALM, "PENSTOCK_BANK_DATABASE_URL": f"{bank_postgres} dbname=x user=nobody_at_all"}

    ended = subprocess.run([sys.executable, "-c", RUN], env=environ, capture_output=True, text=True, timeout=20)

    assert ended.returncode != 0
    assert "BankDatabaseError: cannot connect" in ended.stderr
    [line] = map(json.loads, ended.stdout.splitlines())
    assert (line["event"], line["level"]) == ("bank_failed_to_start", "error")
    assert line["error"].startswith("failed to start: cannot connect")


def test_a_database_that_is_away_is_told_at_once_and_nothing_was_begun(bank_postgres: str) -> None:
    with a_bank(bank_postgres, "leaving", PENSTOCK_BANK_CONTROL="1", DB_MAX_OPEN_CONNS="3") as bank:
        auth, key = bank.authorized(), "while the database was away"
        with psycopg.connect(f"{bank_postgres} dbname=postgres", autocommit=True) as connection:
            connection.execute("ALTER DATABASE leaving ALLOW_CONNECTIONS false")
            connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'leaving'")
            refused = [bank.authorize(key) for _ in range(20)]
            refused += [bank.post("captures", {"authorization_id": auth, "amount": 5000}, key) for _ in range(20)]
            lost = [bank.http.get(f"/api/v1/authorizations/{auth}") for _ in range(20)]
            unhealthy = bank.http.get("/health")
            connection.execute("ALTER DATABASE leaving ALLOW_CONNECTIONS true")
        back = bank.authorize(key), bank.http.get(f"/api/v1/authorizations/{auth}"), bank.http.get("/health")

    assert {(answer.status_code, answer.json()["error"]) for answer in refused} == {(400, "internal_error")}
    assert all(answer.json()["message"].startswith("failed to start transaction: ") for answer in refused)
    assert {answer.status_code for answer in lost} == {404}
    assert (unhealthy.status_code, unhealthy.json()) == (503, {"status": "unhealthy"})
    assert [answer.status_code for answer in back] == [200] * 3
    assert "x-idempotent-replayed" not in back[0].headers


def test_a_connection_between_two_requests_is_closed_after_the_idle_timeout(bank_postgres: str) -> None:
    with a_bank(bank_postgres, SERVER_IDLE_TIMEOUT="0", SERVER_READ_TIMEOUT="150ms") as bank:
        kept = http.client.HTTPConnection("127.0.0.1", bank.port, timeout=10)
        kept.request("GET", "/health")
        assert kept.getresponse().read() == b'{"status":"healthy"}\n'

        assert kept.sock.recv(1) == b""
        kept.close()
