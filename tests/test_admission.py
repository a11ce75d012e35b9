"""The door: too much is refused before it is read, one merchant's flood is its own, and what is let in is ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.server.admission import Admission, AdmissionLimits, Rate
from engine.contracts.gateway import RequestContext
from engine.errors import Unavailable
from support.edge_stand import OTHER, Stand, assert_refused, running_edge, running_postgres
from support.gateway import eventually

Held = Callable[..., list[Future[httpx.Response]]]
SMALL = AdmissionLimits(in_flight_max=4, waiting_max=2, merchant_rate_per_s=10_000)
SLOW = AdmissionLimits(merchant_rate_per_s=3)


@given(st.integers(1, 50), st.lists(st.floats(0, 0.5), max_size=300))
def test_no_second_has_more_than_twice_the_rate_and_the_long_run_no_more_than_it(per_s: int, gaps: list[float]) -> None:
    now = 0.0
    rate = Rate(per_s, lambda: now)
    passed = []
    for gap in gaps:
        now += gap
        if not rate.wait_s("m"):
            passed.append(now)

    for first, began in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= per_s * (passed[last] - began) + per_s + 1e-6


@given(st.integers(1, 50), st.floats(0, 3))
def test_who_waits_as_long_as_told_may_pass(per_s: int, gap: float) -> None:
    now = 0.0
    rate = Rate(per_s, lambda: now)
    while not (wait_s := rate.wait_s("m")):
        now += gap / per_s / 4  # faster than the rate

    now += wait_s + 1e-9

    assert rate.wait_s("m") == 0


def test_a_merchants_rate_is_its_own() -> None:
    rate = Rate(2, lambda: 0.0)
    assert [rate.wait_s("flood") > 0 for _ in range(5)] == [False, False, True, True, True]

    assert rate.wait_s("other") == 0


def test_a_merchant_takes_half_of_a_lane_and_all_together_the_whole() -> None:
    admission = Admission(SMALL)
    flood = [admission.admit("flood", "POST") for _ in range(2)]

    assert _refusal(admission, "flood", "POST") == "rate_limited"
    others = [admission.admit(name, "POST") for name in "ab"]
    assert _refusal(admission, "c", "POST") == "overloaded"
    assert admission.admit("c", "GET"), "reads have a lane of their own"

    for place in (*flood, *others):
        with place:
            pass
    assert admission.lanes["write"].taken == 0
    assert admission.admit("flood", "POST")


def test_who_waits_makes_room_for_new_work() -> None:
    admission = Admission(SMALL)
    first, second = admission.admit("m", "POST"), admission.admit("m", "POST")

    assert [first.wait(), second.wait()] == [True, False]
    assert [admission.lanes[name].taken for name in ("write", "wait")] == [1, 1]
    admission.admit("m", "POST")


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def slow(dsn: str) -> Iterator[Stand]:
    """An edge that lets three calls a second pass."""
    with running_edge(dsn, limits=SLOW) as stand:
        yield stand


@pytest.fixture(scope="module")
def small(dsn: str) -> Iterator[Stand]:
    """An edge with four places and room for two who wait."""
    with running_edge(dsn, limits=SMALL) as stand:
        yield stand


def test_a_flood_is_told_when_to_come_back_and_others_pass(slow: Stand) -> None:
    answers = [slow.post() for _ in range(12)]
    other = slow.post(headers={"X-API-Key": OTHER})
    read = slow.get("/v1/payments?order_id=order-1")

    refused = [answer for answer in answers if answer.status_code != 202]
    assert len(refused) >= 3
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "rate_limited")}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert (other.status_code, read.status_code) == (202, 200)


def test_a_refused_call_is_not_even_read(slow: Stand) -> None:
    while slow.post().status_code == 202:
        pass
    slow.engine.forget()

    refused = slow.post(body=b"{" * 1000)

    assert_refused(slow, refused, 429, "rate_limited")


@pytest.fixture
def held() -> Iterator[Held]:
    """Sends calls that the engine hears and does not answer until its gate is set; returns once it has heard them. They
    are new payments, or read what is at `path`."""
    with ThreadPoolExecutor(8) as pool:

        def hold(edge: Stand, count: int, *, path: str = "", **arguments: Any) -> list[Future[httpx.Response]]:
            edge.engine.gate.clear()
            expected = len(edge.engine.asked) + count
            send = partial(edge.get, path) if path else edge.post
            calls = [pool.submit(send, **arguments) for _ in range(count)]
            eventually(lambda: len(edge.engine.asked) == expected, "the engine has heard of them")
            return calls

        yield hold


def test_a_full_edge_refuses_and_ends_what_it_had(small: Stand, held: Held) -> None:
    small.engine.forget()
    ours, theirs = held(small, 2), held(small, 2, headers={"X-API-Key": OTHER})

    refused, refused_too = small.post(), small.post(headers={"X-API-Key": OTHER})
    read = small.get("/v1/payments?order_id=order-1")
    small.engine.gate.set()

    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "rate_limited", "1")
    assert (refused_too.status_code, read.status_code) == (429, 200)
    assert {call.result().status_code for call in (*ours, *theirs)} == {202}
    assert small.post().status_code == 202


def test_beyond_those_who_may_wait_nobody_is_made_to(small: Stand, held: Held) -> None:
    small.engine.forget()
    waiting = held(small, 1, headers={"Prefer": "wait=5"})
    not_waiting = held(small, 1, headers={"Prefer": "wait=5"})
    small.engine.gate.set()

    assert {call.result().status_code for call in (*waiting, *not_waiting)} == {202}
    origins = [asked[1] for asked in small.engine.asked]
    assert [origin.wait_s for origin in origins if isinstance(origin, RequestContext)] == [5, 0]


def test_who_waits_for_events_takes_no_place_of_those_who_read(small: Stand, held: Held) -> None:
    small.engine.forget()
    waiting = held(small, 1, path="/v1/events", headers={"Prefer": "wait=5"})
    not_waiting = held(small, 1, path="/v1/events", headers={"Prefer": "wait=5"})

    read = small.get("/v1/payments?order_id=order-1")
    small.engine.gate.set()

    assert read.status_code == 200
    assert [call.result().headers.get("preference-applied") for call in (*waiting, *not_waiting)] == ["wait=5", None]


def test_a_client_that_goes_away_leaves_no_place_taken(small: Stand, held: Held) -> None:
    small.engine.forget()
    small.engine.gate.clear()
    for _ in range(2):
        with pytest.raises(httpx.TimeoutException):
            small.post(timeout=0.2)
    small.engine.gate.set()

    answers = eventually(lambda: [small.post().status_code for _ in range(3)] == [202] * 3, "there is room again")

    assert answers


def _refusal(admission: Admission, merchant: str, method: str) -> str:
    with pytest.raises(Unavailable) as refusal:
        admission.admit(merchant, method)
    return refusal.value.code
