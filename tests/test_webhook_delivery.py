"""Webhooks reach those who want them: signed, once each, on their schedule, by a real dispatcher to a real server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from support.gateway import Gateway, eventually
from support.webhook_stand import Ledger, Shop, a_shop, dispatchers, silent_port


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with a_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def running(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with dispatchers(module_database, "redis://127.0.0.1:9", tmp_path_factory.mktemp("hooks")) as gateway:
        yield gateway


@pytest.fixture
def ledger(running: Gateway) -> Ledger:
    ledger = Ledger(dsn=running.database)
    ledger.forget_endpoints()
    return ledger


def test_an_event_arrives_signed_as_the_published_library_verifies_it(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/signed"))

    payment = ledger.happen("payment.created")
    (one,) = eventually(lambda: shop.of(payment), "it arrives")

    assert endpoint.verify(one)["sequence"] == 1


def test_an_event_reaches_each_endpoint_of_its_merchant_that_wants_it_and_no_other(ledger: Ledger, shop: Shop) -> None:
    ledger.register(shop.url("/all"))
    ledger.register(shop.url("/captures"), events=["payment.captured", "payment.refunded"])
    ledger.register(shop.url("/other"), merchant="mer_other")

    payment = ledger.happen("payment.created", "payment.authorized", "payment.captured", "payment.refunded")
    eventually(lambda: len([one for one in shop.of(payment) if one.path in ("/all", "/captures")]) == 6, "all arrive")

    got = {one.path: [] for one in shop.received}
    for one in shop.of(payment):
        got[one.path].append((one.event["sequence"], one.event.get("previous_sequence")))
    assert sorted(got["/all"]) == [(1, None), (2, None), (3, None), (4, None)]
    assert sorted(got["/captures"]) == [(3, 0), (4, 3)]
    assert "/other" not in got


def test_previous_sequence_goes_on_where_the_last_fan_out_ended(ledger: Ledger, shop: Shop) -> None:
    ledger.register(shop.url("/few"), events=["payment.created", "payment.captured"])
    payment = ledger.happen("payment.created", "payment.authorized")
    eventually(lambda: "/few" in [one.path for one in shop.of(payment)], "the first arrives")

    ledger.happen("payment.captured", payment=payment, first=3)
    last = eventually(
        lambda: [one for one in shop.of(payment) if one.path == "/few" and one.event["sequence"] == 3], "it arrives"
    )[0]

    assert last.event["previous_sequence"] == 1


def test_both_secrets_verify_during_a_rotation_and_a_lapsed_one_does_not(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/rotated"))
    newer = ledger.rotate(endpoint, overlap="1 hour")

    payment = ledger.happen("payment.created")
    one = eventually(lambda: [one for one in shop.of(payment) if one.path == "/rotated"], "it arrives")[0]
    ledger.rotate(newer, overlap="0 seconds")
    later = ledger.happen("payment.created")
    other = eventually(lambda: [one for one in shop.of(later) if one.path == "/rotated"], "it arrives")[0]

    assert endpoint.verify(one) == newer.verify(one)
    with pytest.raises(WebhookVerificationError):
        newer.verify(other)


def test_an_asymmetric_signature_stands_beside_the_symmetric_one(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/v1a"), v1a=True)

    payment = ledger.happen("payment.created")
    one = eventually(lambda: [one for one in shop.of(payment) if one.path == "/v1a"], "it arrives")[0]

    signatures = dict(word.split(",", 1) for word in one.headers["webhook-signature"].split(" "))
    [published] = ledger.sql(
        "SELECT public_key FROM webhook_secrets WHERE endpoint = %s AND scheme = 'v1a'", endpoint.id
    )
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(published[0].removeprefix("whpk_")))
    signed = f"{one.id}.{one.headers['webhook-timestamp']}.".encode() + one.body
    public.verify(base64.b64decode(signatures["v1a"]), signed)
    assert endpoint.verify(one)["sequence"] == 1


def test_a_payments_own_url_gets_its_events_signed_with_the_merchants_default_secret(
    ledger: Ledger, shop: Shop
) -> None:
    payment = ledger.pay(webhook_url=shop.url("/order/17?a=b"))

    ledger.happen("payment.created", payment=payment)
    one = eventually(lambda: [one for one in shop.of(payment) if one.path == "/order/17?a=b"], "it arrives")[0]

    secret = ledger.default_secret("mer_local")
    assert Webhook(secret).verify(one.body, dict(one.headers))["sequence"] == 1
    assert ledger.sql("SELECT count(*) FROM webhook_endpoints WHERE kind = 'payment_url'") == [(1,)]


def test_a_failed_delivery_comes_again_on_its_schedule_under_the_same_id(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/flaky"), retry_schedule=[1, 1, 1])
    answers = iter([500, 302, 404, 200])
    shop.answers["/flaky"] = lambda event: next(answers)

    payment = ledger.happen("payment.created")
    eventually(lambda: ledger.delivery(payment, endpoint)["state"] == "delivered", "it is delivered", 15)

    tries = [one for one in shop.of(payment) if one.path == "/flaky"]
    pauses = [later.at - earlier.at for earlier, later in pairwise(tries)]
    assert len({(one.id, one.body) for one in tries}) == 1
    assert [endpoint.verify(one)["sequence"] for one in tries] == [1] * 4
    assert all(
        least <= pause < least / 0.8 * 1.2 + 1.2 for least, pause in zip((0.8, 0.8, 0.8), pauses, strict=True)
    ), pauses
    log = [(each["attempt"], each["outcome"], each["status"]) for each in ledger.attempts(payment, endpoint)]
    assert log == [(1, "refused", 500), (2, "refused", 302), (3, "refused", 404), (4, "delivered", 200)]


def test_a_delivery_whose_schedule_is_used_up_is_dead_and_undoes_nothing(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/never"), retry_schedule=[1])
    shop.answers["/never"] = lambda event: (500, {}, b"no\x00 thanks")

    payment = ledger.happen("payment.created")
    dead = eventually(lambda: _when(ledger.delivery(payment, endpoint), "dead"), "it is given up")

    assert (dead["dead_reason"], dead["attempts"], dead["failures"]) == ("exhausted", 2, 2)
    assert [each["body"] for each in ledger.attempts(payment, endpoint)] == ["no� thanks"] * 2


def test_retry_after_moves_the_next_attempt_and_is_bounded(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/later"), retry_schedule=[1, 1])
    shop.answers["/later"] = lambda event: (429, {"retry-after": "999999999"}, b"")

    payment = ledger.happen("payment.created")
    eventually(lambda: ledger.attempts(payment, endpoint), "it was tried")

    [(wait_s,)] = ledger.sql(
        "SELECT extract(epoch FROM due_at - now())::float FROM deliveries WHERE payment = %s AND endpoint = %s",
        payment, endpoint.id,
    )  # fmt: skip
    assert 86_000 < wait_s <= 86_400


def test_an_endpoint_that_is_gone_is_disabled_and_its_merchant_is_told(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/gone"), merchant="mer_other")
    ledger.register(shop.url("/notices"), merchant="mer_other", events=["webhook_endpoint.disabled"])
    shop.answers["/gone"] = lambda event: 410

    payment = ledger.happen("payment.created", merchant="mer_other")
    notice = eventually(lambda: [one for one in shop.received if one.path == "/notices"], "the notice arrives")[0]

    assert notice.event["type"] == "webhook_endpoint.disabled"
    assert notice.event["data"] | {"disabled_at": None} == {
        "object": "webhook_endpoint", "id": endpoint.id, "url": shop.url("/gone"), "status": "disabled",
        "disabled_reason": "gone", "disabled_at": None,
    }  # fmt: skip
    assert ledger.delivery(payment, endpoint)["dead_reason"] == "endpoint_gone"


def test_an_endpoint_that_only_fails_for_days_is_disabled_and_what_waits_is_given_up(
    ledger: Ledger, shop: Shop
) -> None:
    endpoint = ledger.register(shop.url("/failing"), retry_schedule=[3600])
    shop.answers["/failing"] = lambda event: 500
    waiting = ledger.happen("payment.created")
    eventually(lambda: ledger.delivery(waiting, endpoint).get("failures"), "it has failed once")
    assert ledger.status(endpoint) == ("enabled", None)

    ledger.sql(
        """UPDATE webhook_endpoints SET failing_since = now() - interval '6 days', failures_counted = 4,
               failure_counted_at = now() - interval '1 day' WHERE id = %s""",
        endpoint.id,
    )
    ledger.happen("payment.created")
    eventually(lambda: ledger.status(endpoint) == ("disabled", "failing"), "it is disabled")

    dead = eventually(lambda: _when(ledger.delivery(waiting, endpoint), "dead"), "what waited is given up")
    notices = ledger.sql("SELECT type, sequence FROM outbox WHERE payment = %s", endpoint.id)
    assert dead["dead_reason"] == "endpoint_disabled"
    assert notices == [("webhook_endpoint.disabled", 1)]


def test_a_success_forgets_the_failures_before_it(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(shop.url("/mended"))
    ledger.sql("UPDATE webhook_endpoints SET failing_since = now() - interval '6 days' WHERE id = %s", endpoint.id)

    payment = ledger.happen("payment.created")
    eventually(lambda: ledger.delivery(payment, endpoint)["state"] == "delivered", "it is delivered")

    assert ledger.sql("SELECT failing_since FROM webhook_endpoints WHERE id = %s", endpoint.id) == [(None,)]
    assert ledger.status(endpoint) == ("enabled", None)


@pytest.mark.parametrize("state", ["delivered", "dead"])
def test_a_redelivery_arrives_at_once_under_the_same_id(ledger: Ledger, shop: Shop, state: str) -> None:
    path = f"/again/{state}"
    endpoint = ledger.register(shop.url(path), retry_schedule=[1])
    shop.answers[path] = lambda event: 200 if state == "delivered" else 500
    payment = ledger.happen("payment.created")
    before = eventually(lambda: _when(ledger.delivery(payment, endpoint), state), "it ended")
    shop.answers[path] = lambda event: 200

    ledger.redeliver(payment, endpoint)
    again = eventually(
        lambda: _when(ledger.delivery(payment, endpoint), "delivered", attempts=before["attempts"] + 1),
        "it comes again",
    )

    assert len(set(shop.ids(path))) == 1
    assert again["failures"] == 0


def test_an_event_whose_commit_is_late_is_not_skipped(ledger: Ledger, shop: Shop) -> None:
    ledger.register(shop.url("/late"))

    with psycopg.connect(ledger.dsn) as slow:
        late = ledger.happen("payment.created", connection=slow)
        early = ledger.happen("payment.created")  # a larger id, committed first
        [(order,)] = ledger.sql("SELECT count(*) FROM outbox WHERE payment = %s", early)
        [(since,)] = ledger.sql("SELECT clock_timestamp()")
        looked = """SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'
                    AND query LIKE '%%fan_out_events%%' AND query_start > %s"""
        eventually(lambda: ledger.sql(looked, since), "the dispatcher looks, and must not pass the one before")
        slow.commit()

    eventually(
        lambda: {late, early} <= {one.event["data"]["id"] for one in shop.received if one.path == "/late"}, "both"
    )
    assert order == 1


def test_a_dead_endpoint_with_thousands_due_delays_no_other(ledger: Ledger, shop: Shop) -> None:
    with silent_port() as dead:
        endpoint = ledger.register(f"http://127.0.0.1:{dead.getsockname()[1]}/")
        ledger.sql(
            """INSERT INTO deliveries (payment, endpoint, sequence, due_at)
               SELECT 'pay_' || n, %s, 1, now() - interval '1 hour' FROM generate_series(1, 5000) AS n""",
            endpoint.id,
        )
        ledger.sql(
            """INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
               SELECT 'evt_' || n, 'pay_' || n, 1, 'mer_nobody', 'payment.created', '{}', now()
               FROM generate_series(1, 5000) AS n"""
        )
        ledger.register(shop.url("/lively"))
        tried = "SELECT DISTINCT outcome FROM delivery_attempts WHERE endpoint = %s"
        assert eventually(lambda: ledger.sql(tried, endpoint.id), "it is dead") == [("timeout",)]

        payments = [ledger.happen("payment.created") for _ in range(20)]
        eventually(lambda: len(shop.ids("/lively")) == 20, "the others get theirs", 5)

        took_s = ledger.sql(
            """SELECT max(extract(epoch FROM d.finished_at - d.created_at))::float FROM deliveries d
               JOIN webhook_endpoints e ON e.id = d.endpoint WHERE e.url LIKE %s AND d.payment = ANY(%s)""",
            "%/lively", payments,
        )[0][0]  # fmt: skip
        ledger.sql("UPDATE webhook_endpoints SET status = 'deleted' WHERE id = %s", endpoint.id)
    assert took_s < 2
    eventually(
        lambda: (
            ledger.sql("SELECT count(*) FROM deliveries WHERE endpoint = %s AND state = 'dead'", endpoint.id)
            == [(5000,)]
        ),
        "what waited for the deleted one is given up",
    )


def test_an_endpoint_inside_our_network_is_never_called(ledger: Ledger, shop: Shop) -> None:
    endpoint = ledger.register(f"http://localhost.:{shop.port}/inside")
    ledger.sql("UPDATE webhook_endpoints SET url = 'http://169.254.169.254/latest' WHERE id = %s", endpoint.id)

    payment = ledger.happen("payment.created")
    tried = eventually(lambda: ledger.attempts(payment, endpoint), "it was tried")[0]

    assert (tried["outcome"], tried["status"]) == ("forbidden", None)


def test_the_metrics_tell_what_became_of_webhooks(ledger: Ledger, shop: Shop, running: Gateway) -> None:
    measured = ledger.register(shop.url("/measured"))
    refusing = ledger.register(shop.url("/refusing"), retry_schedule=[3600])
    shop.answers["/refusing"] = lambda event: 500
    off = ledger.register(shop.url("/off"), status="disabled", disabled_reason="failing", disabled_at=datetime.now(UTC))
    before = _metrics(running)

    payment = ledger.happen("payment.created")
    eventually(lambda: ledger.delivery(payment, measured)["state"] == "delivered", "it is delivered")
    eventually(lambda: ledger.delivery(payment, refusing).get("failures"), "it is refused")
    ledger.sql("UPDATE deliveries SET created_at = now() - interval '1 hour' WHERE endpoint = %s", refusing.id)

    def told() -> bool:
        now = _metrics(running)
        grown = {name for name, value in now.items() if value == before[name] + 1}
        return (
            grown >= {
                'penstock_webhook_attempts_total{outcome="delivered"}',
                'penstock_webhook_attempts_total{outcome="refused"}',
                'penstock_webhook_deliveries_total{state="delivered"}',
                "penstock_webhook_delivery_seconds_count",
            }
            and now["penstock_webhook_events_waiting"] == 0
            and now["penstock_webhook_deliveries_waiting"] >= 1
            and now["penstock_webhook_oldest_undelivered_seconds"] >= 3600
            and now['penstock_webhook_endpoints_disabled{reason="failing"}'] >= 1
        )  # fmt: skip

    eventually(told, "attempts at once, and what waits within some seconds")
    assert ledger.status(off) == ("disabled", "failing")


def _metrics(running: Gateway) -> dict[str, float]:
    lines = httpx.get(f"http://127.0.0.1:{running.processes[0].port}/metrics").text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def _when(delivery: dict[str, Any], state: str, attempts: int | None = None) -> dict[str, Any] | None:
    """The delivery once it is in this state, after so many attempts."""
    return delivery if delivery["state"] == state and attempts in (None, delivery["attempts"]) else None
