"""A card in hand shows nowhere: not in the log of an exception that met it, not in any rendering of it (I9)."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ficmart_asks import CVV, PAN, an_ask
from gateway import a_gateway, eventually
from rich.pretty import pretty_repr
from structlog.tracebacks import ExceptionDictTransformer

from engine.payment import Card


@pytest.mark.parametrize("point", ["before-bank", "after-bank"])
def test_an_exception_beside_the_bank_call_is_logged_without_the_card(
    point: str, database: str, redis_url: str, tmp_path: Path
) -> None:
    method = {"type": "card", "number": PAN, "cvv": CVV, "expiry_month": 12, "expiry_year": 2030}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, PENSTOCK_CONNECTOR="instant") as gw:
        worker = gw.start("worker", PENSTOCK_FAILPOINTS=f"{point}:raise")

        payment = gw.pay(PAN, payment_method=method).json()["id"]
        eventually(lambda: gw.get(payment)["status"] == "authorized", "it is authorized in the end", 20)
        gw.settled()
        logged = worker.log.read_text()
        edge = gw.processes[0].log.read_text()

    assert "FailpointReached" in logged, "or nothing is tested here"
    for text in (logged, edge):
        assert PAN not in text
        assert "cvv" not in text.lower()


def test_no_rendering_of_a_card_shows_it() -> None:
    card = Card(number=PAN, cvv=CVV, expiry_month=12, expiry_year=2030)
    ask = an_ask()

    shown = [repr(card), str(card), f"{card}", pretty_repr(card), repr(ask), pretty_repr(ask), pretty_repr([ask])]

    for text in shown:
        assert PAN not in text and CVV not in text


def test_a_log_that_shows_locals_all_the_same_shows_no_card() -> None:
    def worker_with_a_card(ask: object, card: Card) -> None:
        raise RuntimeError(f"at {datetime.now(UTC)}")

    try:
        worker_with_a_card(an_ask(), Card(number=PAN, cvv=CVV, expiry_month=12, expiry_year=2030))
    except RuntimeError as error:
        frames = repr(
            ExceptionDictTransformer(show_locals=True, locals_max_string=10_000)(
                (type(error), error, error.__traceback__)
            )
        )
        plain = "".join(traceback.format_exception(error))

    assert "worker_with_a_card" in frames
    for text in (frames, plain):
        assert PAN not in text and f"cvv='{CVV}'" not in text
