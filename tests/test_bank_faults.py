"""The mock bank's misbehaviour on request: each fault does exactly what it says, to whom and as often as it says."""

import http.client
import json
import socket
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.bank_harness import EXTRA_CARDS, Bank, a_bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]


def test_fail_before_answers_500_and_nothing_happened(bank: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    start = bank.balances(request["card_number"])
    bank.fault("fail_before", times=1)

    failed = bank.post("authorizations", request, key)

    assert (failed.status_code, failed.json()["error"]) == (500, "internal_error")
    assert bank.balances(request["card_number"]) == start
    assert bank.post("authorizations", request, key).status_code == 200


def test_drop_response_closes_the_connection_without_a_byte_and_keeps_the_key(bank: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    bank.fault("drop_response", times=1)
    body = json.dumps(request)

    with socket.create_connection(("127.0.0.1", bank.port), timeout=5) as connection:
        head = f"POST /api/v1/authorizations HTTP/1.1\r\nHost: bank\r\nIdempotency-Key: {key}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        received = connection.recv(65536)

    again = bank.post("authorizations", request, key)
    assert received == b""
    assert again.headers["x-idempotent-replayed"] == "true"


def test_drop_key_answers_and_forgets(bank: Bank) -> None:
    key = uuid4().hex
    bank.fault("drop_key", times=1)

    first, second, third = bank.authorize(key), bank.authorize(key), bank.authorize(key)

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content != second.content
    assert third.content == second.content


def test_drop_key_and_response_leaves_only_the_effect(bank: Bank) -> None:
    auth, key = bank.authorized(), uuid4().hex
    body = {"authorization_id": auth, "amount": 5000}
    bank.fault("drop_key_and_response", times=1)

    with pytest.raises(httpx.RemoteProtocolError):
        bank.post("captures", body, key)

    again = bank.post("captures", body, key)
    assert (again.status_code, again.json()["error"]) == (400, "authorization_already_used")


def test_internal_error_after_is_400_with_the_effect_done_and_the_key_lost(bank: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    start = bank.balances(request["card_number"])[1]
    bank.fault("internal_error_after", times=1)

    answer = bank.post("authorizations", request, key)

    assert (answer.status_code, answer.json()["error"]) == (400, "internal_error")
    assert bank.balances(request["card_number"])[1] == start - 5000
    assert "x-idempotent-replayed" not in bank.post("authorizations", request, key).headers


def test_an_unreadable_answer_is_half_of_one_and_the_key_keeps_the_whole(bank: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    bank.fault("unreadable_answer", times=1)

    first, again = bank.post("authorizations", request, key), bank.post("authorizations", request, key)

    assert (first.status_code, again.status_code) == (200, 200)
    with pytest.raises(json.JSONDecodeError):
        first.json()
    assert again.content.startswith(first.content)
    assert again.json()["amount"] == request["amount"]


def test_a_mismatched_answer_tells_of_another_amount_or_another_hold_and_goes_on_telling_it(bank: Bank) -> None:
    request, key = a_card_request(), uuid4().hex
    auth = bank.authorized()
    bank.fault("mismatched_answer", times=2)

    held, again = bank.post("authorizations", request, key), bank.post("authorizations", request, key)
    voided = bank.post("voids", {"authorization_id": auth}).json()

    assert held.json()["amount"] == request["amount"] + 1
    assert again.content == held.content
    assert voided["status"] == "voided" and voided["authorization_id"] != auth


def test_latency_delays_and_a_clock_offset_moves_the_clock(bank: Bank) -> None:
    auth = bank.authorized()
    bank.fault("latency", latency_ms=60, times=1)
    bank.fault("clock_offset", clock_offset_s=8 * 86_400, operation="capture")

    began_s = time.monotonic()
    capture = bank.post("captures", {"authorization_id": auth, "amount": 5000})

    assert time.monotonic() - began_s >= 0.06
    assert capture.json()["error"] == "authorization_expired"


def test_a_fault_keeps_to_its_card_and_its_operation_also_through_a_reference(bank: Bank) -> None:
    mine, other = a_card_request()["card_number"], a_card_request()["card_number"]
    capture, other_capture = bank.captured(card_number=mine), bank.captured(card_number=other)
    bank.fault("fail_before", card_number=mine, operation="refund")

    def refund(capture_id: str) -> int:
        return bank.post("refunds", {"capture_id": capture_id, "amount": 5000}).status_code

    assert bank.authorize(card_number=mine).status_code == 200
    assert [refund(capture), refund(other_capture), refund(capture)] == [500, 200, 500]


def test_a_fault_for_after_the_effect_is_not_used_up_by_a_decline(bank: Bank) -> None:
    bank.fault("internal_error_after", times=1)

    declined = bank.authorize(amount=2**60)
    succeeded = bank.authorize()

    assert (declined.status_code, succeeded.json()["error"]) == (402, "internal_error")


def test_faults_are_listed_with_what_is_left_of_them_and_cleared(bank: Bank) -> None:
    bank.fault("fail_before", times=2, operation="authorize")
    bank.authorize()

    [rule] = bank.http.get("/control/faults").json()["faults"]
    cleared = bank.http.delete("/control/faults").json()

    assert (rule["kind"], rule["operation"], rule["times"]) == ("fail_before", "authorize", 1)
    assert cleared == {"cleared": 1}
    assert bank.authorize().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "complaint"),
    [
        ("POST", "/control/faults", b"", "body"),
        ("POST", "/control/faults", b'{"kind": "earthquake"}', "kind"),
        ("POST", "/control/faults", b'{"kind": "drop_key", "times": 0}', "times"),
        ("POST", "/control/faults", b'{"kind": "drop_key", "times": "1"}', "times"),
        ("POST", "/control/faults", b'{"kind": "drop_key", "card": "4"}', "card"),
        ("POST", "/control/faults", b'{"kind": "drop_key", "operation": "settle"}', "operation"),
        ("POST", "/control/faults", b'{"kind": "latency"}', "latency_ms"),
        ("POST", "/control/faults", b'{"kind": "drop_key", "clock_offset_s": 1}', "clock_offset_s"),
        ("PUT", "/control/chaos", b'{"failure_rate": 2, "min_latency_ms": 0, "max_latency_ms": 0}', "failure_rate"),
        ("PUT", "/control/chaos", b'{"failure_rate": 0, "min_latency_ms": 9, "max_latency_ms": 1}', "max_latency_ms"),
        ("PUT", "/control/chaos", b'{"failure_rate": 0}', "min_latency_ms"),
    ],
)
def test_a_bad_control_body_is_told_what_is_wrong(
    bank: Bank, method: str, path: str, body: bytes, complaint: str
) -> None:
    response = bank.http.request(method, path, content=body)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert complaint in response.json()["message"]


def test_chaos_can_be_changed_while_the_bank_runs_and_never_touches_the_controls(bank: Bank) -> None:
    calm: dict[str, Any] = {"failure_rate": 0.0, "min_latency_ms": 0, "max_latency_ms": 0}
    stormy = {**calm, "failure_rate": 1.0}

    assert bank.http.put("/control/chaos", json=stormy).json() == stormy
    assert bank.authorize().status_code == 500
    assert bank.http.get("/control/chaos").json() == stormy
    assert bank.http.put("/control/chaos", json=calm).json() == calm
    assert bank.authorize().status_code == 200


def test_the_ledger_counts_what_the_tables_hold(bank: Bank) -> None:
    before = bank.http.get("/control/ledger").json()
    bank.captured(amount=123)
    after = bank.http.get("/control/ledger").json()

    for kind in ("AUTH_HOLD", "CAPTURE"):
        assert after["transactions"][kind]["count"] == before["transactions"][kind]["count"] + 1
        assert after["transactions"][kind]["amount_cents"] == before["transactions"][kind]["amount_cents"] + 123
    assert after["balance_cents"] == before["balance_cents"] - 123
    assert after["idempotency_keys"] == before["idempotency_keys"] + 2
    assert (after["accounts"], set(after["transactions"])) == (
        EXTRA_CARDS + 4,
        {"AUTH_HOLD", "CAPTURE", "VOID", "REFUND"},
    )


def test_a_write_timeout_below_the_latency_loses_every_answer_after_its_effect(bank_postgres: str) -> None:
    lossy = {"SERVER_WRITE_TIMEOUT": "50ms", "MIN_LATENCY_MS": "80", "MAX_LATENCY_MS": "80"}
    with a_bank(bank_postgres, **lossy) as bank:
        key = uuid4().hex

        with pytest.raises(httpx.RemoteProtocolError):
            bank.authorize(key)

        assert bank.authorize(key).headers["x-idempotent-replayed"] == "true"


@pytest.mark.parametrize("latency_ms", ["0", "250"])
def test_a_body_that_does_not_arrive_in_time_is_refused(bank_postgres: str, latency_ms: str) -> None:
    slow_wire = {"SERVER_READ_TIMEOUT": "100ms", "MIN_LATENCY_MS": latency_ms, "MAX_LATENCY_MS": latency_ms}
    with a_bank(bank_postgres, **slow_wire) as bank:
        slow = http.client.HTTPConnection("127.0.0.1", bank.port, timeout=10)
        slow.putrequest("POST", "/api/v1/authorizations")
        slow.putheader("Idempotency-Key", "slow")
        slow.putheader("Content-Length", "10")
        slow.endheaders(b"{")

        answer = slow.getresponse()
        text = answer.read().decode()
        slow.close()

        assert (answer.status, answer.getheader("connection")) == (400, "close")
        assert text.startswith("can't decode JSON body: read tcp 127.0.0.1:") and text.endswith(": i/o timeout\n")
        assert bank.authorize().status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /api/v1/authorizations HTTP/1.1\r\nHost: bank\r\n"])
def test_a_head_that_does_not_arrive_in_time_is_cut_off(bank_postgres: str, sent: bytes) -> None:
    with (
        a_bank(bank_postgres, SERVER_READ_TIMEOUT="100ms") as bank,
        socket.create_connection(("127.0.0.1", bank.port), timeout=10) as slow,
    ):
        slow.sendall(sent)

        assert slow.recv(1) == b""
