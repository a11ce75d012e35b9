"""What was delivered, what came of it, and delivering it again: one, what failed, or a stretch of time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from edge.openapi import webhook_schemas as shapes
from edge.openapi.timeline_schemas import Timeline
from engine.contracts.webhooks import REDELIVERIES_MAX
from engine.webhooks.delivery_log import _ATTEMPTS_SHOWN
from ops.cli.main import app
from ops.stack.embedded import EmbeddedRedis
from support.event_stand import ENDPOINTS, OTHER, a_payment_id, an_edge, an_endpoint, ask, merchant_of, tell
from support.gateway import Gateway

HOUR = timedelta(hours=1)
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def gateway(
    module_database: str, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with an_edge(module_database, redis_server, tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest.fixture
def endpoint(gateway: Gateway) -> str:
    return str(an_endpoint(gateway)["id"])


def delivered(
    gateway: Gateway,
    endpoint: str,
    state: str = "delivered",
    *,
    sequence: int = 1,
    age: timedelta = HOUR * 0,
    payment: str = "",
    failures: int = 0,
) -> str:
    """An event and its delivery, as a dispatcher leaves them. The delivery's id."""
    payment = payment or a_payment_id()
    at = datetime.now(UTC) - age
    with psycopg.connect(gateway.database) as connection:
        tell(connection, merchant_of(gateway), payment, sequence)
        connection.execute(
            "UPDATE outbox SET created_at = %s WHERE payment = %s AND sequence = %s", (at, payment, sequence)
        )
        connection.execute(
            "INSERT INTO deliveries (payment, endpoint, sequence, state, due_at, attempts, failures, created_at,"
            " finished_at, dead_reason, claimed_until) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                payment,
                endpoint,
                sequence,
                state,
                at + HOUR,
                max(failures, 1),
                failures,
                at,
                at if state in ("delivered", "dead") else None,
                "exhausted" if state == "dead" else None,
                at + HOUR if state == "sending" else None,
            ),
        )
    return f"dlv_{payment}_{sequence}"


def a_payment(gateway: Gateway) -> str:
    """A payment with one operation, and no event told yet."""
    payment, merchant = a_payment_id(), merchant_of(gateway)
    gateway.sql(
        "INSERT INTO payments SELECT (json_populate_record(NULL::payments, %s::json)).*", _a_receipt(payment, merchant)
    )
    gateway.sql(
        "INSERT INTO operations SELECT (json_populate_record(NULL::operations, %s::json)).*",
        _an_operation(payment, merchant),
    )
    return payment


def attempted(gateway: Gateway, endpoint: str, delivery: str, number: int, outcome: str, status: int | None) -> None:
    _, _, rest = delivery.partition("_")
    payment, _, sequence = rest.rpartition("_")
    gateway.sql(
        "INSERT INTO delivery_attempts VALUES (%s, %s, %s, %s, now(), 12, %s, %s, %s, %s)",
        payment,
        endpoint,
        int(sequence),
        number,
        outcome,
        status,
        None if status else "connection refused",
        "ünwell" if status else None,
    )


def log(gateway: Gateway, endpoint: str, query: str = "") -> dict[str, Any]:
    answer = ask(gateway, "GET", f"{ENDPOINTS}/{endpoint}/deliveries?{query}")
    assert answer.status_code == 200, answer.text
    shapes.DeliveryList.model_validate_json(answer.content)
    return dict(answer.json())


def ids(found: dict[str, Any]) -> list[str]:
    return [each["id"] for each in found["data"]]


def states(gateway: Gateway, endpoint: str) -> dict[str, str]:
    return {each["id"]: each["status"] for each in log(gateway, endpoint, "limit=100")["data"]}


def redeliver(gateway: Gateway, endpoint: str, **wanted: object) -> Any:
    return ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/redeliver", {"since": LONG_AGO, **wanted})


def test_the_log_tells_each_attempt_with_time_status_duration_and_answer(gateway: Gateway, endpoint: str) -> None:
    delivery = delivered(gateway, endpoint)
    attempted(gateway, endpoint, delivery, 1, "unreachable", None)
    attempted(gateway, endpoint, delivery, 2, "refused", 503)

    one = ask(gateway, "GET", f"{ENDPOINTS}/{endpoint}/deliveries/{delivery}")
    attempts = one.json()["attempts"]

    shapes.Delivery.model_validate_json(one.content)
    assert log(gateway, endpoint)["data"] == [one.json()]
    assert [(each["attempt"], each["outcome"], each["status"], each["duration_ms"]) for each in attempts] == [
        (2, "refused", 503, 12),
        (1, "unreachable", None, 12),
    ]
    assert (attempts[0]["response_body"], attempts[1]["error"]) == ("ünwell", "connection refused")
    assert attempts[0]["at"].endswith("Z")


def test_only_the_newest_attempts_of_a_delivery_are_shown(gateway: Gateway, endpoint: str) -> None:
    delivery = delivered(gateway, endpoint)
    for number in range(1, _ATTEMPTS_SHOWN + 4):
        attempted(gateway, endpoint, delivery, number, "refused", 500)

    shown = log(gateway, endpoint)["data"][0]["attempts"]

    assert [each["attempt"] for each in shown] == list(range(_ATTEMPTS_SHOWN + 3, 3, -1))


def test_the_log_of_an_endpoint_is_paged_newest_first_and_filtered(gateway: Gateway, endpoint: str) -> None:
    made = [delivered(gateway, endpoint, age=HOUR * age) for age in (5, 4, 3, 2, 1)]
    dead = delivered(gateway, endpoint, "dead", age=HOUR * 6)

    first = log(gateway, endpoint, "limit=4")
    second = log(gateway, endpoint, f"limit=4&cursor={first['next_cursor']}")

    assert ids(first) + ids(second) == [*made[::-1], dead]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert ids(log(gateway, endpoint, "status=dead")) == [dead]
    assert ids(log(gateway, endpoint, "status=pending")) == []


def test_deliveries_of_one_moment_are_paged_without_loss(gateway: Gateway, endpoint: str) -> None:
    made = [delivered(gateway, endpoint) for _ in range(7)]
    gateway.sql("UPDATE deliveries SET created_at = now() WHERE endpoint = %s", endpoint)

    seen, cursor = [], ""
    while len(seen) < 20:
        got = log(gateway, endpoint, "limit=2" + cursor)
        seen += ids(got)
        if not got["has_more"]:
            break
        cursor = f"&cursor={got['next_cursor']}"

    assert sorted(seen) == sorted(made)


def test_a_payments_deliveries_are_those_to_all_endpoints(gateway: Gateway, endpoint: str) -> None:
    second, payment = an_endpoint(gateway)["id"], a_payment(gateway)
    for sequence in (1, 2):
        delivered(gateway, endpoint, payment=payment, sequence=sequence)
    gateway.sql(
        "INSERT INTO deliveries (payment, endpoint, sequence, due_at) VALUES (%s, %s, 1, now())", payment, second
    )

    where = f"/v1/payments/{payment}/deliveries"
    found = ask(gateway, "GET", where)
    first = ask(gateway, "GET", f"{where}?limit=2").json()
    rest = ask(gateway, "GET", f"{where}?limit=2&cursor={first['next_cursor']}").json()

    shapes.DeliveryList.model_validate_json(found.content)
    assert sorted((each["sequence"], each["endpoint_id"]) for each in found.json()["data"]) == sorted(
        [(1, endpoint), (2, endpoint), (1, second)]
    )
    assert first["data"] + rest["data"] == found.json()["data"]
    assert ask(gateway, "GET", where, by=OTHER).status_code == 404
    assert ask(gateway, "GET", f"/v1/payments/{a_payment_id()}/deliveries").status_code == 404


@pytest.mark.parametrize("state", ["delivered", "dead", "pending"])
def test_one_delivery_becomes_due_again_with_its_whole_schedule_ahead(
    gateway: Gateway, endpoint: str, state: str
) -> None:
    delivery = delivered(gateway, endpoint, state, failures=1 if state != "delivered" else 0)

    with psycopg.connect(gateway.database, autocommit=True) as listener:
        listener.execute("LISTEN penstock_deliveries")
        answer = ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/deliveries/{delivery}/redeliver")
        rung = [notice.channel for notice in listener.notifies(timeout=5, stop_after=1)]

    row = gateway.sql(
        "SELECT state, due_at <= now(), failures, finished_at, dead_reason FROM deliveries WHERE endpoint = %s",
        endpoint,
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert row == [("pending", True, 0, None, None)]
    assert rung == ["penstock_deliveries"]


def test_a_delivery_that_is_under_way_is_left_to_it(gateway: Gateway, endpoint: str) -> None:
    delivery = delivered(gateway, endpoint, "sending")

    answer = ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/deliveries/{delivery}/redeliver")

    assert (answer.status_code, answer.json()["status"]) == (200, "sending")


def test_a_repeated_redelivery_under_one_key_is_one(gateway: Gateway, endpoint: str) -> None:
    delivery = delivered(gateway, endpoint)
    where = f"{ENDPOINTS}/{endpoint}/deliveries/{delivery}/redeliver"

    first = ask(gateway, "POST", where, Idempotency_Key=f"once-{endpoint}")
    gateway.sql("UPDATE deliveries SET state = 'delivered', finished_at = now() WHERE endpoint = %s", endpoint)
    again = ask(gateway, "POST", where, Idempotency_Key=f"once-{endpoint}")

    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert states(gateway, endpoint) == {delivery: "delivered"}


def test_what_failed_since_a_time_is_counted_and_then_delivered_again(gateway: Gateway, endpoint: str) -> None:
    old = delivered(gateway, endpoint, "dead", age=HOUR * 9, failures=1)
    dead = delivered(gateway, endpoint, "dead", age=HOUR * 2, failures=1)
    retrying = delivered(gateway, endpoint, "pending", age=HOUR, failures=1)
    fresh = delivered(gateway, endpoint, "pending")
    fine = delivered(gateway, endpoint, age=HOUR)
    since = (datetime.now(UTC) - HOUR * 5).isoformat()

    counted = redeliver(gateway, endpoint, since=since, dry_run=True)
    untouched = states(gateway, endpoint)
    done = redeliver(gateway, endpoint, since=since)

    shapes.RedeliveryDone.model_validate_json(done.content)
    assert (counted.json()["count"], counted.json()["dry_run"]) == (2, True)
    assert (done.json()["count"], done.json()["dry_run"]) == (2, False)
    assert untouched == {old: "dead", dead: "dead", retrying: "pending", fresh: "pending", fine: "delivered"}
    assert states(gateway, endpoint) == untouched | {dead: "pending"}
    due = gateway.sql("SELECT payment FROM deliveries WHERE endpoint = %s AND due_at <= now()", endpoint)
    assert {f"dlv_{row[0]}_1" for row in due} >= {dead, retrying} and fresh not in {f"dlv_{row[0]}_1" for row in due}


def test_a_dry_run_needs_no_key_and_uses_none_up(gateway: Gateway, endpoint: str) -> None:
    delivered(gateway, endpoint, "dead")
    where, key = f"{ENDPOINTS}/{endpoint}/redeliver", f"dry-{endpoint}"

    without = ask(gateway, "POST", where, {"since": LONG_AGO, "dry_run": True}, Idempotency_Key="")
    dry = ask(gateway, "POST", where, {"since": LONG_AGO, "dry_run": True}, Idempotency_Key=key)
    wet = ask(gateway, "POST", where, {"since": LONG_AGO}, Idempotency_Key=key)
    keyless = ask(gateway, "POST", where, {"since": LONG_AGO}, Idempotency_Key="")

    assert [answer.json()["count"] for answer in (without, dry, wet)] == [1, 1, 1]
    assert (keyless.status_code, keyless.json()["code"]) == (400, "idempotency_key_missing")


def test_all_of_a_range_includes_what_was_never_sent_there(gateway: Gateway) -> None:
    about = an_endpoint(gateway, events=["payment.authorized", "payment.captured"])
    endpoint, payment = about["id"], a_payment_id()
    sent = delivered(gateway, endpoint, payment=payment, sequence=2, age=HOUR)
    with psycopg.connect(gateway.database) as connection:
        tell(connection, merchant_of(gateway), payment, 1, "payment.created")
        tell(connection, merchant_of(gateway), payment, 3, "payment.capture_refused")
        tell(connection, merchant_of(gateway), payment, 4, "payment.captured")
        old = tell(connection, merchant_of(gateway), a_payment_id(), 1)
        connection.execute("UPDATE outbox SET created_at = %s WHERE event_id = %s", (LONG_AGO, old))
        connection.execute(
            "UPDATE outbox SET created_at = now() - interval '30 minutes' WHERE payment = %s", (payment,)
        )
    wanted = {
        "deliveries": "all",
        "since": (datetime.now(UTC) - timedelta(minutes=31)).isoformat(),
        "until": (datetime.now(UTC) - timedelta(minutes=29)).isoformat(),
    }

    counted = redeliver(gateway, endpoint, **wanted, dry_run=True)
    done = redeliver(gateway, endpoint, **wanted)

    rows = gateway.sql(
        "SELECT sequence, previous_sequence, state FROM deliveries WHERE endpoint = %s ORDER BY sequence", endpoint
    )
    assert counted.json()["count"] == done.json()["count"] == 2
    assert rows == [(2, None, "pending"), (4, 2, "pending")]
    assert set(states(gateway, endpoint)) == {sent, f"dlv_{payment}_4"}


def test_too_much_at_once_is_refused_and_nothing_is_done(gateway: Gateway, endpoint: str) -> None:
    with psycopg.connect(gateway.database) as connection:
        connection.execute(
            "INSERT INTO deliveries (payment, endpoint, sequence, state, due_at, attempts, finished_at, dead_reason)"
            " SELECT 'filler' || n, %s, 1, 'dead', now(), 1, now(), 'exhausted' FROM generate_series(0, %s) AS n",
            (endpoint, REDELIVERIES_MAX),
        )

    counted = redeliver(gateway, endpoint, dry_run=True)
    refused = redeliver(gateway, endpoint)
    left = gateway.sql("SELECT count(*) FROM deliveries WHERE endpoint = %s AND state = 'dead'", endpoint)[0][0]
    gateway.sql("DELETE FROM deliveries WHERE endpoint = %s AND payment = 'filler0'", endpoint)
    done = redeliver(gateway, endpoint)

    assert counted.json()["count"] == REDELIVERIES_MAX + 1
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/until")
    assert left == REDELIVERIES_MAX + 1
    assert (done.status_code, done.json()["count"]) == (200, REDELIVERIES_MAX)


def test_nothing_is_redelivered_to_an_endpoint_that_is_disabled(gateway: Gateway, endpoint: str) -> None:
    delivery = delivered(gateway, endpoint, "dead")
    ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/disable")

    one = ask(gateway, "POST", f"{ENDPOINTS}/{endpoint}/deliveries/{delivery}/redeliver")
    many = redeliver(gateway, endpoint)

    for answer in (one, many):
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_endpoint_disabled")
    assert redeliver(gateway, endpoint, dry_run=True).json()["count"] == 1


def _a_receipt(payment: str, merchant: str) -> str:
    at = "2030-01-01T00:00:00Z"
    return json.dumps(
        {
            "id": payment, "partition": 0, "merchant": merchant, "amount": 1, "currency": "USD", "order_id": "o",
            "customer_id": "c", "metadata": {}, "connector": "x", "state": "pending", "version": 1, "sequence": 2,
            "method": {"type": "card", "brand": "visa", "last4": "1111", "expiry_month": 1, "expiry_year": 2031},
            "amount_captured": 0, "amount_refunded": 0, "created_at": at, "operation_id": f"op_{payment[4:]}",
            "journal_head": "", "write_id": "",
        }
    )  # fmt: skip


def _an_operation(payment: str, merchant: str) -> str:
    return json.dumps(
        {
            "id": f"op_{payment[4:]}", "payment": payment, "merchant": merchant, "partition": 0, "verb": "authorize",
            "key": "k", "sale": False, "amount": 1, "fingerprint": {}, "accept_order": 1, "status": "accepted",
            "attempts": 0, "request_id": "r", "created_at": "2030-01-01T00:00:00Z",
        }
    )  # fmt: skip


def test_a_payments_timeline_tells_of_each_attempt_and_when_the_next_one_is(gateway: Gateway, endpoint: str) -> None:
    payment = a_payment(gateway)
    delivery = delivered(gateway, endpoint, "pending", payment=payment, failures=2)
    attempted(gateway, endpoint, delivery, 1, "unreachable", None)
    attempted(gateway, endpoint, delivery, 2, "refused", 500)

    answer = ask(gateway, "GET", f"/v1/payments/{payment}/timeline")

    Timeline.model_validate_json(answer.content)
    told = [each for each in answer.json()["data"] if each["type"] == "webhook_attempt"]
    assert [(each["event"], each["attempt"], each["outcome"], each["status"]) for each in told] == [
        ("payment.authorized", 1, "unreachable", None),
        ("payment.authorized", 2, "refused", 500),
    ]
    assert {each["endpoint_id"] for each in told} == {endpoint}
    assert [each["next_attempt_at"] is None for each in told] == [True, False]


def test_the_command_line_shows_them_too(gateway: Gateway, endpoint: str) -> None:
    payment = a_payment(gateway)
    delivery = delivered(gateway, endpoint, "pending", payment=payment, failures=1)
    attempted(gateway, endpoint, delivery, 1, "refused", 500)
    stores = {"PENSTOCK_DATABASE_URL": gateway.database, "PENSTOCK_REDIS_URL": gateway.redis_url, "COLUMNS": "300"}

    table = CliRunner().invoke(app, ["payment", "timeline", payment], env=stores)

    shown = " ".join(table.stdout.split())
    assert "webhook attempt payment.authorized evt_" in shown
    assert f"attempt 1 to {endpoint}: refused (500), again" in shown
