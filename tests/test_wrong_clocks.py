"""Processes whose clocks are wrong, on a running gateway: they take no part, undo nothing, and come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, Running, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

WRONG = ["-20", "+4", "691200"]  # seconds: slow, a little fast, eight days ahead


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


@pytest.fixture
def offset(tmp_path: Path) -> Path:
    """The file that says by how many seconds a process's clock is wrong."""
    file = tmp_path / "offset"
    file.write_text("0")
    return file


def readiness(gateway: Gateway, running: Running) -> tuple[int, str]:
    answer = gateway.http.get(f"http://127.0.0.1:{running.port}/readyz")
    return answer.status_code, answer.text


def holds(bank: Bank, card: str) -> list[tuple[str]]:
    statement = "SELECT t.type FROM transactions t JOIN accounts a ON a.id = t.account_id WHERE a.account_number = %s"
    return sorted(bank.sql(statement, card))


@pytest.mark.parametrize("role", ["worker", "edge", "dispatcher"])
@pytest.mark.parametrize("seconds", WRONG)
def test_a_process_with_a_wrong_clock_refuses_to_start(gateway: Gateway, offset: Path, role: str, seconds: str) -> None:
    offset.write_text(seconds)

    refused = gateway.launch(role, PENSTOCK_CLOCK_OFFSET_FILE=str(offset))

    assert refused.died() == 1
    said = re.search(r"this process's clock is ([-+0-9.]+) s from the ledger's", refused.log.read_text())
    assert said is not None and abs(float(said[1]) - float(seconds)) < 1


@pytest.mark.parametrize("seconds", WRONG)
def test_a_worker_whose_clock_goes_wrong_gives_its_partitions_back_and_takes_part_again_when_it_is_right(
    gateway: Gateway, bank: Bank, offset: Path, seconds: str
) -> None:
    good = gateway.start("worker")
    wrong = gateway.start("worker", PENSTOCK_CLOCK_OFFSET_FILE=str(offset))
    gateway.shared(2)
    card = next(fresh_cards)
    live = [gateway.pay(card, amount=100 + number, wait=10).json()["id"] for number in range(6)]

    offset.write_text(seconds)
    eventually(lambda: readiness(gateway, wrong)[0] == 503, "it is not ready", 20)
    eventually(lambda: gateway.owned().get(good.pid) == list(range(16)), "the other worker has all partitions", 20)
    said = readiness(gateway, wrong)[1]
    paid = gateway.pay(next(fresh_cards), wait=10)

    assert "clock" in said
    assert paid.status_code == 201
    assert [gateway.get(payment)["status"] for payment in live] == ["authorized"] * 6
    assert holds(bank, card) == [("AUTH_HOLD",)] * 6, "an authorization is not released on the word of one clock"

    offset.write_text("0")
    gateway.shared(2)


def test_an_edge_whose_clock_goes_wrong_leaves_its_load_balancer(gateway: Gateway, offset: Path) -> None:
    edge = gateway.start("edge", PENSTOCK_CLOCK_OFFSET_FILE=str(offset))

    offset.write_text("60")
    eventually(lambda: readiness(gateway, edge)[0] == 503, "it is not ready", 20)
    said = readiness(gateway, edge)[1]
    offset.write_text("0")
    eventually(lambda: readiness(gateway, edge)[0] == 200, "it is ready again", 20)

    assert "clock" in said


def test_the_skew_is_a_metric(gateway: Gateway, offset: Path) -> None:
    offset.write_text("1.5")
    worker = gateway.start("worker", PENSTOCK_CLOCK_OFFSET_FILE=str(offset))

    def told() -> dict[str, float]:
        lines = gateway.http.get(f"http://127.0.0.1:{worker.port}/metrics").text.splitlines()
        rows = [line.rpartition(" ") for line in lines if line.startswith("penstock_clock_skew_seconds{")]
        return {name.partition('"')[2].partition('"')[0]: float(value) for name, _, value in rows}

    skew_s = eventually(told, "the worker tells its skew")

    assert sorted(skew_s) == ["ledger", "redis"]
    assert all(1.0 < seconds < 2.0 for seconds in skew_s.values())
