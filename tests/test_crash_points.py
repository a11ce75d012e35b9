"""SIGKILL at every step of the path: each operation ends by itself, with one effect at the bank and no help."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.domain.ids import payment_id
from support.bank_harness import Bank, fresh_cards
from support.crash_stage import AT_THE_BANK, EFFECTS, ENDS, FROM_THE_ANSWER, TO_THE_INTENT, Stage, a_stage, effects
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def stage(module_database: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(module_database, calm_bank, tmp_path_factory.mktemp("crash")) as running:
        yield running


@pytest.mark.parametrize(
    ("verb", "points"),
    [
        ("authorize", TO_THE_INTENT),
        ("authorize", FROM_THE_ANSWER),
        ("capture", AT_THE_BANK),
        ("void", AT_THE_BANK),
        ("refund", AT_THE_BANK),
    ],
    ids=["authorize to its intent", "authorize from the bank on", "capture", "void", "refund"],
)
def test_a_worker_killed_at_any_step_leaves_one_effect_and_an_ended_operation(
    stage: Stage, verb: str, points: list[str]
) -> None:
    doomed = stage.meet(verb, points, "kill")

    assert {each.worker.died() for each in doomed} == {-signal.SIGKILL}
    assert stage.ended(verb, doomed) == dict.fromkeys(points, (ENDS[verb], EFFECTS[verb]))
    assert stage.gateway.dead() == []


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    """No worker, and no edge that is spared."""
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


def test_an_edge_killed_before_it_answers_leaves_work_that_ends_by_itself_or_was_never_taken(
    gateway: Gateway, bank: Bank
) -> None:
    points = {"before-accept": 404, "after-accept": 200, "before-answer": 200}
    ((installation,),) = gateway.sql("SELECT id FROM installation")
    spared = gateway.processes.pop()
    edges = [gateway.launch("edge", PENSTOCK_FAILPOINTS=f"{point}:kill") for point in points]
    gateway.wait_for(*edges, gateway.launch("worker"))
    cards = {point: next(fresh_cards) for point in points}

    for point, doomed in zip(points, edges, strict=True):
        with pytest.raises(httpx.TransportError):
            gateway.pay(cards[point], key=point)
        assert doomed.died() == -signal.SIGKILL
    gateway.processes.append(spared)
    eventually(
        lambda: len(gateway.sql("SELECT id FROM payments WHERE state = 'authorized'")) == 2, "two are authorized"
    )
    gateway.settled()

    paths = {point: f"/v1/payments/{payment_id(installation, 'mer_local', point)}" for point in points}
    assert {point: gateway.request("GET", path).status_code for point, path in paths.items()} == points
    again = {point: gateway.pay(card, key=point, wait=10).status_code for point, card in cards.items()}
    assert set(again.values()) == {201}
    assert {point: effects(bank, card) for point, card in cards.items()} == {point: ["AUTH_HOLD"] for point in points}


@pytest.mark.parametrize("first", ["after-read", "during-bank"])
def test_a_payment_outlives_its_owner_and_four_successors_each_killed_in_the_take_over(
    first: str, gateway: Gateway, bank: Bank
) -> None:
    card = next(fresh_cards)
    bank.fault("latency", card_number=card, operation="authorize", latency_ms=300, times=1)
    payment = gateway.pay(card).json()["id"]

    for point in (first, "after-lease", "after-epoch", "after-resume", "after-claim"):
        doomed = gateway.launch("worker", PENSTOCK_FAILPOINTS=f"{point}:kill")
        assert doomed.died() == -signal.SIGKILL, point
    gateway.launch("worker")

    eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is authorized", 20)
    gateway.settled()
    assert effects(bank, card) == ["AUTH_HOLD"]
