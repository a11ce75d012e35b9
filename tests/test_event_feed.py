"""The feed has every event once, in an order in which nothing comes in late, and wakes who waits."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from edge.openapi import webhook_schemas as shapes
from engine.pagination import cursor as cursor_of
from engine.webhooks.event_feed import SCAN_MAX
from ops.stack.embedded import EmbeddedRedis
from support.event_stand import MERCHANT, OTHER, a_payment_id, an_edge, ask, merchant_of, tell
from support.gateway import Gateway, eventually


@pytest.fixture(scope="module")
def gateway(
    module_database: str, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with an_edge(module_database, redis_server, tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest.fixture
def merchant(gateway: Gateway) -> str:
    return merchant_of(gateway)


@pytest.fixture
def now(gateway: Gateway) -> str:
    """A cursor behind everything that other tests have told."""
    visible(gateway)
    return str(page(gateway, after="latest")["next_cursor"])


def page(gateway: Gateway, *, by: str = MERCHANT, prefer: str = "", **parameters: object) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    answer = ask(gateway, "GET", f"/v1/events?{query}", by=by, **({"Prefer": prefer} if prefer else {}))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def visible(gateway: Gateway) -> None:
    """Wait until no writer is under way that could hold an event back: one that committed lets go a moment later."""
    eventually(lambda: gateway.sql("SELECT low IS NULL FROM events_readable()")[0][0], "nothing is under way")


def ids(found: dict[str, Any]) -> list[str]:
    return [event["id"] for event in found["data"]]


def every(gateway: Gateway, after: str, **parameters: object) -> list[str]:
    """All events after a cursor, page by page."""
    visible(gateway)
    found: list[str] = []
    while True:
        got = page(gateway, after=after, **parameters)
        found, after = found + ids(got), got["next_cursor"]
        if not got["has_more"]:
            return found


def test_an_event_has_the_payload_of_the_webhook_and_its_id(gateway: Gateway, merchant: str, now: str) -> None:
    payment = a_payment_id()
    with psycopg.connect(gateway.database) as connection:
        event = tell(connection, merchant, payment, 1)
        payload = connection.execute("SELECT payload FROM outbox WHERE event_id = %s", (event,)).fetchone()

    visible(gateway)
    answer = ask(gateway, "GET", f"/v1/events?after={now}")

    assert payload is not None
    assert f'{{"id":"{event}",{payload[0][1:]}' in answer.text
    shapes.EventList.model_validate_json(answer.content)


def test_pages_go_on_where_the_one_before_ended(gateway: Gateway, merchant: str, now: str) -> None:
    told = []
    for number in range(7):
        with psycopg.connect(gateway.database) as connection:
            told += [tell(connection, merchant, a_payment_id(), 1) for _ in range(1 + number % 3)]

    visible(gateway)
    first = page(gateway, after=now, limit=3)

    assert (ids(first), first["has_more"]) == (told[:3], True)
    assert every(gateway, now, limit=3) == every(gateway, now, limit=100) == told


def test_without_a_cursor_the_feed_begins_at_the_beginning(gateway: Gateway, merchant: str) -> None:
    first = gateway.sql("SELECT event_id FROM outbox WHERE merchant = %s ORDER BY id LIMIT 1", merchant)
    with psycopg.connect(gateway.database) as connection:
        event = tell(connection, merchant, a_payment_id(), 1)

    visible(gateway)
    assert ids(page(gateway, limit=1)) == [first[0][0] if first else event]


def test_anothers_events_are_not_in_it(gateway: Gateway, now: str) -> None:
    others = page(gateway, after="latest", by=OTHER)["next_cursor"]
    with psycopg.connect(gateway.database) as connection:
        event = tell(connection, merchant_of(gateway, OTHER), a_payment_id(), 1)

    visible(gateway)
    assert ids(page(gateway, after=now)) == []
    assert every(gateway, others, by=OTHER) == [event]


def test_a_commit_that_comes_late_is_not_skipped(gateway: Gateway, merchant: str, now: str) -> None:
    with psycopg.connect(gateway.database) as slow, psycopg.connect(gateway.database) as fast:
        early = tell(slow, merchant, a_payment_id(), 1)
        late = tell(fast, merchant, a_payment_id(), 1)
        fast.commit()
        while_slow = page(gateway, after=now)
        slow.commit()
    visible(gateway)
    after = page(gateway, after=while_slow["next_cursor"])

    assert ids(while_slow) == []
    assert ids(after) == [early, late]


def test_a_reader_that_keeps_up_with_many_writers_gets_everything_once(
    gateway: Gateway, merchant: str, now: str
) -> None:
    writers, each = 6, 25
    done = threading.Event()

    def write(seed: int) -> list[str]:
        draw, told = random.Random(seed), []
        with psycopg.connect(gateway.database) as connection:
            for number in range(each):
                payment = a_payment_id()
                for sequence in (1, 2):
                    told.append(tell(connection, merchant, payment, sequence))
                time.sleep(draw.uniform(0, 0.02))  # commits overtake each other
                if number % 9 == 8:
                    connection.rollback()
                    del told[-2:]
                connection.commit()
        return told

    def read() -> list[str]:
        seen, after = [], now
        while True:
            last = done.is_set()
            got = page(gateway, after=after, limit=7)
            seen, after = seen + ids(got), got["next_cursor"]
            if last and not got["has_more"] and not got["data"]:
                return seen

    with ThreadPoolExecutor(writers + 1) as pool:
        reader = pool.submit(read)
        told = [event for seed in range(writers) for event in [pool.submit(write, seed)]]
        written = [event for future in told for event in future.result()]
        visible(gateway)
        done.set()
        seen = reader.result(30)

    assert len(seen) == len(set(seen))
    assert set(seen) == set(written)


def test_a_filter_leaves_out_other_types_and_looks_only_so_far_at_once(
    gateway: Gateway, merchant: str, now: str
) -> None:
    with psycopg.connect(gateway.database) as connection:
        first = tell(connection, merchant, a_payment_id(), 1, "payment.captured")
        for _ in range(SCAN_MAX + 5):
            tell(connection, merchant, a_payment_id(), 1)
        last = [tell(connection, merchant, a_payment_id(), 1, "payment.refunded") for _ in range(3)]

    visible(gateway)
    got = page(gateway, after=now, type="payment.captured,payment.refunded", limit=2)
    found = every(gateway, now, type="payment.captured,payment.refunded", limit=2)

    assert (ids(got), got["has_more"]) == ([first], True)
    assert found == [first, *last]
    assert every(gateway, now, type="payment.refunded", limit=100) == last


def test_who_waits_is_answered_when_something_happens(gateway: Gateway, merchant: str, now: str) -> None:
    with ThreadPoolExecutor(3) as pool, psycopg.connect(gateway.database) as connection:
        waiting = [pool.submit(page, gateway, after=now, prefer="wait=20") for _ in range(2)]
        waiting.append(pool.submit(page, gateway, after=now, prefer="wait=20", type="payment.voided"))
        eventually(lambda: _waiting(gateway) == len(waiting), "they wait: nothing has happened yet")
        quiet = [future.done() for future in waiting]
        event = tell(connection, merchant, a_payment_id(), 1)
        connection.commit()
        heard = [ids(future.result(10)) for future in waiting[:2]]  # their twenty seconds are not over
        voided = tell(connection, merchant, a_payment_id(), 1, "payment.voided")
        connection.commit()
        filtered = ids(waiting[2].result(10))

    assert quiet == [False, False, False]
    assert heard == [[event], [event]]
    assert filtered == [voided]


def _waiting(gateway: Gateway) -> int:
    """Clients that wait, by the edge's own count."""
    text = gateway.http.get(f"{gateway.edge}/metrics").text
    return round(float(text.partition('penstock_http_in_flight{lane="wait"} ')[2].split()[0]))


def test_waiting_ends_in_time_with_an_empty_page_and_a_cursor(gateway: Gateway, now: str) -> None:
    began = time.monotonic()
    answer = ask(gateway, "GET", f"/v1/events?after={now}", Prefer="wait=1")

    assert time.monotonic() - began > 0.9
    assert answer.headers["preference-applied"] == "wait=1"
    assert (answer.json()["data"], answer.json()["has_more"]) == ([], False)
    assert page(gateway, after=answer.json()["next_cursor"])["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        "after=nonsense",
        "after=" + "x" * 600,
        "after=LTF8MQ",  # -1|1
        "after=MXwyfDM",  # three parts
        "type=payment.exploded",
        "type=",
        "type=payment.captured,",
        "limit=0",
        "limit=101",
        "limit=x",
        "after=latest&after=latest",
        "after=latest&cursor=latest",
        "since=now",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(gateway: Gateway, query: str) -> None:
    answer = ask(gateway, "GET", f"/v1/events?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def refused(gateway: Gateway, after: str, **headers: str) -> dict[str, Any]:
    answer = ask(gateway, "GET", f"/v1/events?after={after}", **headers)
    assert answer.status_code == 410, answer.text
    assert answer.json()["code"] == "cursor_unknown"
    assert "after=latest" in answer.json()["detail"], "the reader is told what to do"
    return dict(answer.json())


def an_event(gateway: Gateway, merchant: str) -> str:
    with psycopg.connect(gateway.database) as connection:
        event = tell(connection, merchant, a_payment_id(), 1)
    visible(gateway)
    return event


def set_back(gateway: Gateway, event: str) -> None:
    """The ledger becomes one that was restored from a copy without this event."""
    [(id,)] = gateway.sql("DELETE FROM outbox WHERE event_id = %s RETURNING id", event)
    gateway.sql("SELECT setval('outbox_id_seq', %s, false)", id)


def test_a_cursor_behind_an_event_that_a_restore_has_lost_is_refused_also_when_its_number_is_given_again(
    gateway: Gateway, merchant: str, now: str
) -> None:
    lost = an_event(gateway, merchant)
    cursor = page(gateway, after=now)["next_cursor"]
    set_back(gateway, lost)

    refused(gateway, cursor)
    again = an_event(gateway, merchant)
    refused(gateway, cursor)

    assert every(gateway, now) == [again], "a cursor from before the copy goes on"
    assert page(gateway, after=page(gateway, after=now)["next_cursor"])["data"] == []


def test_the_same_event_that_happened_at_another_time_is_another(gateway: Gateway, merchant: str, now: str) -> None:
    event = an_event(gateway, merchant)
    cursor = page(gateway, after=now)["next_cursor"]
    gateway.sql("UPDATE outbox SET created_at = created_at - interval '1 ms' WHERE event_id = %s", event)

    refused(gateway, cursor)


def test_a_reader_that_waits_through_a_loss_is_refused(gateway: Gateway, merchant: str, now: str) -> None:
    lost = an_event(gateway, merchant)
    cursor = page(gateway, after=now)["next_cursor"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(refused, gateway, cursor, Prefer="wait=20")
        time.sleep(0.3)  # it waits
        early = waiting.done()
        set_back(gateway, lost)

        waiting.result(15)
    assert not early


def test_a_cursor_beyond_the_end_or_of_another_merchant_is_refused(gateway: Gateway, merchant: str, now: str) -> None:
    beyond = cursor_of(10**15, "0123456789abcdef")
    an_event(gateway, merchant_of(gateway, OTHER))
    others = page(gateway, after="latest", by=OTHER)["next_cursor"]

    refused(gateway, beyond)
    refused(gateway, others)


def test_a_cursor_of_the_version_before_is_refused_in_words(gateway: Gateway) -> None:
    refused(gateway, cursor_of(7531, 42))


def test_the_cursor_of_a_merchant_without_events_leads_to_its_first_one_and_is_this_installations(
    gateway: Gateway,
) -> None:
    gateway.sql("DELETE FROM outbox WHERE merchant = %s", merchant_of(gateway, OTHER))
    empty = [page(gateway, by=OTHER, **asked) for asked in ({}, {"after": "latest"})]
    first = an_event(gateway, merchant_of(gateway, OTHER))

    assert [found["data"] for found in empty] == [[], []]
    assert [every(gateway, found["next_cursor"], by=OTHER) for found in empty] == [[first], [first]]
    refused(gateway, cursor_of(0, "0123456789abcdef"))


def test_a_page_may_be_asked_for_with_cursor_as_in_lists(gateway: Gateway, merchant: str, now: str) -> None:
    event = an_event(gateway, merchant)

    assert ids(page(gateway, cursor=now)) == [event]
