"""Health, metrics and the list of problems: what needs no key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.problem import CATALOGUE, render
from support.edge_stand import Stand, running_edge, running_postgres

PAYMENT = "pay_4DVNQPMZBZFG0VHZJX492ZPG4J"
LOCATION = f"/v1/payments/{PAYMENT}"


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    running.probes.clear()
    return running


def test_livez_needs_no_key_and_asks_nobody(edge: Stand) -> None:
    edge.probes["redis"] = away

    assert edge.client.get("/livez").json() == {"status": "alive"}


def test_readyz_names_what_is_away(edge: Stand) -> None:
    edge.probes.update(postgres=fine, redis=away)

    plain, verbose = edge.client.get("/readyz"), edge.client.get("/readyz?verbose")

    assert (plain.status_code, plain.json()) == (
        503,
        {"status": "not ready", "failing": {"redis": "connection refused"}},
    )
    assert verbose.json()["checks"] == {"postgres": "ok", "redis": "connection refused"}


def test_an_edge_that_can_accept_stays_ready_and_says_what_it_lacks(edge: Stand) -> None:
    edge.probes.update(postgres=away, redis=fine)

    plain, verbose = edge.client.get("/readyz"), edge.client.get("/readyz?verbose")

    assert (plain.status_code, plain.json()) == (
        200,
        {"status": "degraded", "failing": {"postgres": "connection refused"}},
    )
    assert verbose.json()["checks"] == {"postgres": "connection refused", "redis": "ok"}


def test_readyz_does_not_wait_for_a_probe_that_hangs(edge: Stand) -> None:
    edge.probes["redis"] = hanging

    answer = edge.client.get("/readyz?verbose")

    assert (answer.status_code, answer.json()["failing"]) == (503, {"redis": "no answer within 2 s"})


def test_readyz_is_well_when_all_probes_are(edge: Stand) -> None:
    edge.probes.update(postgres=fine, redis=fine)

    answer = edge.client.get("/readyz?verbose")

    assert (answer.status_code, answer.json()["checks"]) == (200, {"postgres": "ok", "redis": "ok"})


def test_metrics_count_by_route_and_never_by_path(edge: Stand) -> None:
    before = counted(edge)
    edge.get(f"{LOCATION}")
    edge.get("/v1/payments/pay_1")
    edge.get("/secret/4111111111111111")

    after = counted(edge)

    grown = {labels: value - before.get(labels, 0) for labels, value in after.items() if value != before.get(labels)}
    grown.pop(("GET", "/metrics", "200"), None)
    assert grown == {
        ("GET", "/v1/payments/{payment}", "404"): 2,
        ("GET", "(none)", "404"): 1,
    }
    assert "4111" not in edge.client.get("/metrics").text
    assert 'penstock_http_request_seconds_bucket{le="0.05",route="/v1/payments"}' in edge.client.get("/metrics").text


def test_problems_are_listed_for_programs_and_for_people(edge: Stand) -> None:
    listed = edge.client.get("/problems").json()
    page = edge.client.get("/problems", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})

    assert [kind["code"] for kind in listed["data"]] == list(CATALOGUE)
    assert page.headers["content-type"].startswith("text/html")
    assert all(f"<code>{code}</code>" in page.text for code in CATALOGUE)


@pytest.mark.parametrize("code", CATALOGUE)
def test_each_problem_is_described_where_its_type_points(edge: Stand, code: str) -> None:
    where = orjson.loads(render(code, "x", request_id="r"))["type"]

    described = edge.client.get(where).json()
    page = edge.client.get(where, headers={"Accept": "text/html"})

    assert (described["code"], described["status"]) == (code, CATALOGUE[code].status)
    assert f"<code>{code}</code>" in page.text


async def fine() -> str | None:
    return None


async def away() -> str | None:
    return "connection refused"


async def hanging() -> str | None:
    await asyncio.Event().wait()
    return None


def counted(edge: Stand) -> dict[tuple[str, str, str], float]:
    return {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(edge.client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "penstock_http_requests_total"
    }
