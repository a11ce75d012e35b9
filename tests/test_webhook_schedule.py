"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.webhooks import EVENT_TYPES, AttemptOutcome, DeadReason, DeliveryState
from engine.webhooks.delivery import SCHEDULE_S, ClaimedDelivery, EndpointReply, body_for, judge, retry_delay_s

FAILURES = [AttemptOutcome.REFUSED, AttemptOutcome.TIMEOUT, AttemptOutcome.UNREACHABLE, AttemptOutcome.FORBIDDEN]


def a_claim(*, failures: int = 0, schedule: tuple[int, ...] | None = None) -> ClaimedDelivery:
    return ClaimedDelivery(
        endpoint="whe_1", payment="pay_1", sequence=1, attempt=failures + 1, failures=failures, merchant="mer_local",
        url="http://shop.example", by_payment=False, ordered=False, schedule=schedule, event_id="evt_1",
        event_type="payment.created", body=b"{}", happened_at=datetime.now(UTC), traceparent=None,
    )  # fmt: skip


@given(st.integers(1, len(SCHEDULE_S)), st.randoms())
def test_the_default_schedule_has_jitter_of_a_fifth(failures: int, draw: random.Random) -> None:
    delay_s = retry_delay_s(failures, None, None, draw)

    assert delay_s is not None
    assert 0.8 * SCHEDULE_S[failures - 1] <= delay_s <= 1.2 * SCHEDULE_S[failures - 1]


def test_the_default_schedule_is_the_documented_one_and_ends() -> None:
    assert SCHEDULE_S == (1, 2, 4, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert retry_delay_s(len(SCHEDULE_S) + 1, None, None, random.Random(1)) is None


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(60, 60, 60), (0, 0.8, 1.2), (10**9, 86_400, 86_400)])
def test_retry_after_is_honoured_up_to_a_day_and_brings_nothing_forward(
    asked_s: float, least_s: float, most_s: float
) -> None:
    delay_s = retry_delay_s(1, None, asked_s, random.Random(1))

    assert delay_s is not None
    assert least_s <= delay_s <= most_s


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failure_comes_back_until_the_endpoints_own_schedule_has_no_place_left(outcome: AttemptOutcome) -> None:
    first = judge(a_claim(schedule=(7,)), EndpointReply(outcome=outcome), random.Random(1))
    last = judge(a_claim(schedule=(7,), failures=1), EndpointReply(outcome=outcome), random.Random(1))

    assert first.state is DeliveryState.PENDING
    assert first.retry_s is not None and 5.6 <= first.retry_s <= 8.4
    assert (last.state, last.retry_s, last.dead_reason) == (DeliveryState.DEAD, None, DeadReason.EXHAUSTED)


def test_success_and_gone_end_a_delivery_at_once() -> None:
    delivered = judge(a_claim(), EndpointReply(outcome=AttemptOutcome.DELIVERED), random.Random(1))
    gone = judge(a_claim(), EndpointReply(outcome=AttemptOutcome.GONE), random.Random(1))

    assert (delivered.state, delivered.retry_s) == (DeliveryState.DELIVERED, None)
    assert (gone.state, gone.dead_reason) == (DeliveryState.DEAD, DeadReason.ENDPOINT_GONE)


def test_only_an_endpoint_with_a_filter_is_told_what_it_got_before() -> None:
    assert body_for('{"sequence":3}', None) == b'{"sequence":3}'
    assert body_for('{"sequence":3}', 1) == b'{"sequence":3,"previous_sequence":1}'


def test_every_change_of_a_payment_has_an_event_type() -> None:
    assert {
        "payment.created", "payment.authorized", "payment.declined", "payment.failed", "payment.captured",
        "payment.capture_refused", "payment.voided", "payment.void_refused", "payment.refunded",
        "payment.refund_refused", "payment.expired", "payment.in_doubt", "payment.review", "payment.expiring",
        "webhook_endpoint.disabled",
    } <= EVENT_TYPES  # fmt: skip
