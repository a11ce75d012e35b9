"""The mock bank and clients that hang up: a request costs them its effect until the commit, and then its key."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from bank.simulator.settings import BankSettings
from support.bank_harness import Bank, a_bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]

AUTHORIZATIONS = "/api/v1/authorizations"
LATENCY_MS = 150


@pytest.fixture(scope="module")
def usual_bank(bank_postgres: str) -> Iterator[Bank]:
    """A bank that does with hang-ups what it does when nobody says anything about them."""
    unsaid = {"PENSTOCK_BANK_HANG_UP_CANCELS": "", "PENSTOCK_BANK_HANG_UP_LOSES_KEY": ""}
    with a_bank(bank_postgres, PENSTOCK_BANK_CONTROL="1", **unsaid) as bank:
        yield bank


@pytest.fixture
def hanging(usual_bank: Bank) -> Iterator[Bank]:
    """The same, without faults and with the usual hang-ups afterwards."""
    yield usual_bank
    usual_bank.http.delete("/control/faults")
    usual_bank.http.put("/control/hang-ups", json={"cancel": True, "lose_key": True})


def post(key: str, body: dict[str, Any] | bytes, noun: str = "authorizations", length: int | None = None) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST /api/v1/{noun} HTTP/1.1\r\nHost: bank\r\nIdempotency-Key: {key}\r\n"
    return f"{head}Content-Length: {len(content) if length is None else length}\r\n\r\n".encode() + content


def connected(bank: Bank) -> socket.socket:
    return socket.create_connection(("127.0.0.1", bank.port), timeout=10)


def until(claim: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline_s, f"{what} did not come true"
        time.sleep(0.005)


def waiting(bank: Bank) -> int:
    """How many of the bank's statements wait for a lock."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int(bank.sql(statement)[0][0])


def holds(bank: Bank, request: dict[str, Any]) -> int:
    statement = "SELECT count(*) FROM transactions t JOIN accounts a ON a.id = account_id WHERE account_number = %s"
    return int(bank.sql(statement, request["card_number"])[0][0])


def kept(bank: Bank, key: str) -> bool:
    return bank.sql("SELECT count(*) FROM idempotency_keys WHERE key = %s", key) == [(1,)]


def went_by(bank: Bank) -> None:
    """Whatever was asked before this is decided: its own request sleeps as long, is executed later and stored later."""
    assert bank.authorize().status_code == 200


@contextmanager
def sleeping(bank: Bank, request: bytes) -> Iterator[socket.socket]:
    """The client of a request that sleeps at the bank; it hangs up afterwards. The next request sleeps as long."""
    bank.fault("latency", latency_ms=LATENCY_MS, times=2)
    with connected(bank) as client:
        client.sendall(request)
        until(lambda: bank.http.get("/control/faults").json()["faults"][0]["times"] == 1, "the request sleeps")
        yield client


@contextmanager
def locked(bank: Bank, statement: str, *parameters: object) -> Iterator[None]:
    """Hold what the statement locks."""
    with psycopg.connect(bank.dsn) as connection:
        connection.execute(statement, parameters)
        yield


NO_KEY_IS_STORED = "LOCK TABLE idempotency_keys IN SHARE MODE"
LOCK_ACCOUNT = "SELECT 1 FROM accounts WHERE account_number = %s FOR UPDATE"


def test_without_a_word_a_hang_up_cancels_and_loses_the_key(hanging: Bank) -> None:
    settings = BankSettings.from_env({})

    assert (settings.hang_up_cancels, settings.hang_up_loses_key) == (True, True)
    assert hanging.http.get("/control/hang-ups").json() == {"cancel": True, "lose_key": True}


def test_a_hang_up_during_the_latency_cancels_and_the_same_key_is_free(hanging: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    with sleeping(hanging, post(key, request)):
        pass
    went_by(hanging)

    assert (holds(hanging, request), kept(hanging, key)) == (0, False)
    assert "x-idempotent-replayed" not in hanging.post("authorizations", request, key).headers
    assert holds(hanging, request) == 1


def test_a_hang_up_during_the_weathers_latency_cancels(bank_postgres: str) -> None:
    slow = {"MIN_LATENCY_MS": str(LATENCY_MS), "MAX_LATENCY_MS": str(LATENCY_MS)}
    with a_bank(bank_postgres, PENSTOCK_BANK_HANG_UP_CANCELS="1", **slow) as bank:
        request, key = a_card_request(), uuid4().hex
        with connected(bank) as client:
            client.sendall(post(key, request))
            time.sleep(LATENCY_MS / 3000)
        went_by(bank)
        went_by(bank)

        assert (holds(bank, request), kept(bank, key)) == (0, False)


@pytest.mark.parametrize("noun", ["captures", "voids"])
def test_a_cancelled_operation_leaves_its_hold_as_it_was(hanging: Bank, noun: str) -> None:
    body = {"authorization_id": hanging.authorized(), **({"amount": 5000} if noun == "captures" else {})}
    with sleeping(hanging, post(uuid4().hex, body, noun)):
        pass
    went_by(hanging)

    assert hanging.post(noun, body).status_code == 200


def test_a_hang_up_while_the_account_is_locked_cancels(hanging: Bank) -> None:
    request, key = a_card_request(), uuid4().hex

    with locked(hanging, LOCK_ACCOUNT, request["card_number"]):
        with connected(hanging) as client:
            client.sendall(post(key, request))
            until(lambda: waiting(hanging), "the account's row is waited for")
        until(lambda: not waiting(hanging), "the statement is given up")
    went_by(hanging)

    assert (holds(hanging, request), kept(hanging, key)) == (0, False)


def test_a_hang_up_between_the_commit_and_the_store_loses_the_key(hanging: Bank) -> None:
    request, key = a_card_request(), uuid4().hex

    with locked(hanging, NO_KEY_IS_STORED):
        with connected(hanging) as client:
            client.sendall(post(key, request))
            until(lambda: waiting(hanging) and holds(hanging, request), "the effect is committed, the key waits")
        until(lambda: not waiting(hanging), "the store is given up")
    went_by(hanging)

    assert (holds(hanging, request), kept(hanging, key)) == (1, False)
    assert "x-idempotent-replayed" not in hanging.post("authorizations", request, key).headers
    assert holds(hanging, request) == 2


def test_keys_that_wait_for_other_keys_are_lost_with_their_clients_alone(hanging: Bank) -> None:
    asked = {uuid4().hex: a_card_request() for _ in range(6)}
    clients = {key: connected(hanging) for key in asked}
    first, *others = clients

    with locked(hanging, NO_KEY_IS_STORED):
        clients[first].sendall(post(first, asked[first]))
        until(lambda: waiting(hanging), "the first key waits for the table")
        for key in others:
            clients[key].sendall(post(key, asked[key]))
        until(lambda: all(holds(hanging, request) for request in asked.values()), "every effect is committed")
        gone, staying = others[:3], [first, *others[3:]]
        for key in gone:
            clients[key].close()
        hanging.http.get("/health")  # Heard after the hang-ups.
    answers = [clients[key].recv(65536) for key in staying]
    for key in staying:
        clients[key].close()
    went_by(hanging)

    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * len(staying)
    assert [kept(hanging, key) for key in staying] == [True] * len(staying)
    assert [kept(hanging, key) for key in gone] == [False] * len(gone)


def test_a_client_that_stays_is_served_although_its_neighbours_hang_up(hanging: Bank) -> None:
    stayer, key = a_card_request(), uuid4().hex

    with connected(hanging) as stays:
        with locked(hanging, LOCK_ACCOUNT, stayer["card_number"]):
            stays.sendall(post(key, stayer))
            until(lambda: waiting(hanging), "the account's row is waited for")
            for _ in range(5):
                with connected(hanging) as leaves:
                    leaves.sendall(post(uuid4().hex, a_card_request()))
            hanging.http.get("/health")  # Heard after the hang-ups.
        answer = stays.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (holds(hanging, stayer), kept(hanging, key)) == (1, True)


def test_an_effect_under_way_together_with_others_is_not_stopped_and_keeps_its_key(hanging: Bank) -> None:
    first, second, stayer, leaver = (a_card_request() for _ in range(4))
    kept_key, stays_key, leaves_key = uuid4().hex, uuid4().hex, uuid4().hex
    hanging.authorize(kept_key)
    stays, leaves, *blocked = (connected(hanging) for _ in range(4))

    with locked(hanging, LOCK_ACCOUNT, first["card_number"]), locked(hanging, LOCK_ACCOUNT, stayer["card_number"]):
        with locked(hanging, LOCK_ACCOUNT, second["card_number"]):
            for number, (client, request) in enumerate(zip(blocked, (first, second), strict=True)):
                client.sendall(post(uuid4().hex, request))
                until(lambda count=number: waiting(hanging) == count + 1, "the account's row is waited for")
            stays.sendall(post(stays_key, stayer))
            leaves.sendall(post(leaves_key, leaver))
            hanging.post("authorizations", b"", kept_key)  # Looked up after theirs: both wait for their effect.
        until(lambda: holds(hanging, second) and waiting(hanging) == 2, "both are under way, in one statement")
        leaves.close()
        hanging.http.get("/health")  # Heard after the hang-up.
    answer = stays.recv(65536)
    until(lambda: kept(hanging, leaves_key), "the key of the one who left is kept")
    for client in (stays, *blocked):
        client.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (holds(hanging, stayer), holds(hanging, leaver)) == (1, 1)


def test_an_effect_that_waits_for_a_connection_to_the_database_is_withdrawn(bank_postgres: str) -> None:
    cancels = {"PENSTOCK_BANK_HANG_UP_CANCELS": "1", "PENSTOCK_BANK_CONTROL": "1", "DB_MAX_OPEN_CONNS": "1"}
    with a_bank(bank_postgres, **cancels) as bank:
        first, leaver = a_card_request(), a_card_request()
        with locked(bank, LOCK_ACCOUNT, first["card_number"]), connected(bank) as stays:
            with sleeping(bank, post(uuid4().hex, leaver)):
                bank.http.delete("/control/faults")
                stays.sendall(post(uuid4().hex, first))
                until(lambda: waiting(bank), "the only connection is taken")
                time.sleep(2 * LATENCY_MS / 1000)
            bank.http.get("/control/faults")
        went_by(bank)

        assert holds(bank, leaver) == 0


@pytest.mark.parametrize("loses_key", [False, True])
def test_an_abandoned_request_can_be_made_to_take_effect_with_its_key_or_without(
    hanging: Bank, loses_key: bool
) -> None:
    request, key = a_card_request(), uuid4().hex
    chosen = {"cancel": False, "lose_key": loses_key}
    assert hanging.http.put("/control/hang-ups", json=chosen).json() == chosen
    with sleeping(hanging, post(key, request)):
        pass
    until(lambda: holds(hanging, request), "the abandoned request is executed")
    went_by(hanging)

    assert kept(hanging, key) is not loses_key


def test_a_client_that_only_stops_sending_has_hung_up_too_and_is_told_so(hanging: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    with sleeping(hanging, post(key, request)) as client:
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "internal_error"
    assert (holds(hanging, request), kept(hanging, key)) == (0, False)


def test_half_a_body_and_no_more_is_told_as_unexpected_end(hanging: Bank) -> None:
    with connected(hanging) as client:
        client.sendall(post(uuid4().hex, b'{"amount": 1', length=100))
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"can't decode JSON body: unexpected EOF\n")


@pytest.mark.parametrize("body", [b"", b'{"cancel": true}', b'{"cancel": 1, "lose_key": true}', b'{"cancelled": true}'])
def test_hang_ups_are_set_both_or_not_at_all(hanging: Bank, body: bytes) -> None:
    refused = hanging.http.put("/control/hang-ups", content=body)

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert hanging.http.get("/control/hang-ups").json() == {"cancel": True, "lose_key": True}
