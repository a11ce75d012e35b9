"""The FicMart story, scene by scene. Each scene asks the gateway as a shop would and claims what must then be so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import anyio
import httpx
import psycopg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ops.demo.reporter import Reporter, dollars
from ops.demo.shop import EMPTY, EXPIRED, MODEST, RICH, UNKNOWN, WRONG_CVV
from ops.statement import statement

Scene = Callable[[Reporter], Awaitable[None]]

CLICKS = 20
CLICKED_AMOUNT = 43_21  # no other payment has it, so that its holds can be counted at the bank
CROWD = 30
STORM = "storm-"


async def buy_ship_return(stage: Reporter) -> None:
    stage.scene("A customer buys, it ships, she returns it", "authorize, capture, refund")
    accepted = await stage.shop.pay(RICH, 50_00, "order-1001", wait=False)
    stage.told("POST /v1/payments", accepted)
    stage.claim("accepted at once, before the bank was asked", accepted.status_code == 202)
    payment = _id(accepted)
    found = await stage.shop.outcome(payment)
    stage.claim("a moment later GET says authorized", found["status"] == "authorized")
    await _shows_shippable(stage, payment, True)
    for verb, state in (("capture", "captured"), ("refund", "refunded")):
        answer = await stage.shop.operate(payment, verb)
        stage.told(f"POST /v1/payments/…/{verb}", answer)
        stage.claim(f"the payment is {state}", _state(answer) == state)
    await _shows_shippable(stage, payment, False)


async def cancel(stage: Reporter) -> None:
    stage.scene("Another customer cancels", "authorize, void")
    payment = await _authorized(stage, 25_00, "order-1002", "grace")
    answer = await stage.shop.operate(payment, "void")
    stage.told("POST /v1/payments/…/void", answer)
    stage.claim("the hold is released", _state(answer) == "voided")
    late = await stage.shop.operate(payment, "capture")
    stage.told("POST /v1/payments/…/capture", late)
    stage.claim("a voided payment cannot be captured: 409", late.status_code == 409)


async def sale(stage: Reporter) -> None:
    stage.scene("A sale", "authorize and capture in one call")
    answer = await stage.shop.pay(MODEST, 120_00, "order-1003", customer="grace", sale=True)
    stage.told("POST /v1/payments, capture: true", answer)
    stage.claim("captured, in one answer", answer.status_code == 201 and _state(answer) == "captured")


async def declines(stage: Reporter) -> None:
    stage.scene("Declines of each kind", "permanent: asked once, answered 402, no money moves")
    # fmt: off
    for card, amount, order, code, what in (
        (UNKNOWN,   10_00,  "order-1004", "invalid_card",       "a card nobody has"),
        (WRONG_CVV, 10_00,  "order-1005", "invalid_cvv",        "a wrong CVV"),
        (EXPIRED,   10_00,  "order-1006", "card_expired",       "an expired card"),
        (EMPTY,     10_00,  "order-1007", "insufficient_funds", "an empty account"),
        (MODEST,    501_00, "order-1008", "insufficient_funds", "$501 of $500"),
    ):
        # fmt: on
        answer = await stage.shop.pay(card, amount, order, customer="edsger")
        stage.told(f"POST /v1/payments, {what}", answer)
        declined = answer.status_code == 402 and answer.json().get("decline_code") == code
        stage.claim(f"402 {code}", declined)


async def replay(stage: Reporter) -> None:
    stage.scene("The answer is lost, the shop repeats its key", "a key is one payment, for ever")
    key = uuid4().hex
    first = await stage.shop.pay(RICH, 75_00, "order-1009", key=key)
    again = await stage.shop.pay(RICH, 75_00, "order-1009", key=key)
    stage.told("POST /v1/payments", first)
    stage.told("POST /v1/payments, same key", again)
    replayed = again.headers.get("Idempotent-Replayed") == "true"
    stage.claim("Idempotent-Replayed: true, and the same bytes", replayed and again.content == first.content)
    other = await stage.shop.pay(RICH, 76_00, "order-1009", key=key)
    stage.told("POST /v1/payments, same key, $76", other)
    stage.claim("the same key with another amount: 422", other.status_code == 422)


async def double_click(stage: Reporter) -> None:
    stage.scene("A double click", f"{CLICKS} identical requests at once")
    key, answers = uuid4().hex, list[httpx.Response]()

    async def click() -> None:
        answers.append(await stage.shop.pay(RICH, CLICKED_AMOUNT, "order-1010", key=key))

    async with anyio.create_task_group() as clicks:
        for _ in range(CLICKS):
            clicks.start_soon(click)
    payments = {_id(answer) for answer in answers}
    stage.claim(f"{CLICKS} answers, all 201, one payment", _all(answers, 201) and len(payments) == 1)
    stage.claim("one body, byte for byte", len({answer.content for answer in answers}) == 1)
    holds = await anyio.to_thread.run_sync(_holds_at_bank, stage.bank_database)
    stage.claim(f"{holds} hold of {dollars(CLICKED_AMOUNT)} at the bank", holds == 1)


async def illegal(stage: Reporter) -> None:
    stage.scene("What cannot be", "refused by the gateway itself, the bank is never asked")
    payment = await _authorized(stage, 30_00, "order-1011", "ada")
    for verb, fits in (("refund", False), ("capture", True), ("capture", False), ("void", False)):
        answer = await stage.shop.operate(payment, verb)
        stage.told(f"POST /v1/payments/…/{verb}", answer)
        if not fits:
            stage.claim(f"{verb} refused: 409", answer.status_code == 409)


async def storm(stage: Reporter) -> None:
    stage.scene("A crowd", f"{CROWD} customers at once, while the bank dawdles and fails")
    bar = Progress(
        TextColumn("    settled"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=stage.console
    )
    ends: list[str] = []
    with bar:
        task = bar.add_task("", total=CROWD)

        async def customer(number: int) -> None:
            bought = await stage.shop.pay(
                RICH, 10_00 + number, f"{STORM}{number:02d}", customer=f"crowd-{number:02d}", sale=number % 3 == 0
            )
            verb = {0: None, 1: "capture", 2: "void"}[number % 3]
            done = await stage.shop.operate(_id(bought), verb) if verb else bought
            ends.append(_state(done))
            bar.advance(task)

        async with anyio.create_task_group() as crowd:
            for number in range(CROWD):
                crowd.start_soon(customer, number)
    counts = {state: ends.count(state) for state in ("captured", "voided")}
    third = CROWD // 3
    stage.claim(f"all {CROWD} ended as asked: {counts}", counts == {"captured": 2 * third, "voided": third})


async def ask(stage: Reporter) -> None:
    stage.scene("What became of it?", "status by order, history by customer, verify before shipping")
    declined = await stage.shop.pay(EMPTY, 15_00, "order-1012", customer="barbara")
    bought = await stage.shop.pay(RICH, 15_00, "order-1012", customer="barbara")
    by_order = await stage.shop.get("/v1/payments", order_id="order-1012")
    stage.told("GET /v1/payments?order_id=order-1012", by_order)
    states = [each["status"] for each in by_order.json()["data"]]
    stage.claim("both attempts of the order, newest first", states == ["authorized", "declined"])
    page = await stage.shop.get("/v1/payments", customer_id="edsger", limit=3)
    stage.told("GET /v1/payments?customer_id=edsger&limit=3", page)
    rest = await stage.shop.get("/v1/payments", customer_id="edsger", cursor=page.json()["next_cursor"])
    stage.told("GET /v1/payments?customer_id=edsger&cursor=…", rest)
    orders = [each["order_id"] for answer in (page, rest) for each in answer.json()["data"]]
    stage.claim(
        "the whole history, page by page, newest first", orders == [f"order-{n}" for n in range(1008, 1003, -1)]
    )
    await _shows_shippable(stage, _id(bought), True)
    await _shows_shippable(stage, declined.json()["payment_id"], False)


SCENES: tuple[Scene, ...] = (buy_ship_return, cancel, sale, declines, replay, double_click, illegal, storm, ask)


async def _authorized(stage: Reporter, amount: int, order: str, customer: str) -> str:
    answer = await stage.shop.pay(RICH, amount, order, customer=customer)
    stage.told("POST /v1/payments", answer)
    stage.claim("authorized", _state(answer) == "authorized")
    return _id(answer)


async def _shows_shippable(stage: Reporter, payment: str, expected: bool) -> None:
    answer = await stage.shop.get(f"/v1/payments/{payment}/shippable")
    stage.told("GET /v1/payments/…/shippable", answer)
    stage.claim("ship it" if expected else "do not ship", answer.json().get("shippable") is expected)


def _id(answer: httpx.Response) -> str:
    return str(_body(answer).get("id"))


def _state(answer: httpx.Response) -> str:
    return str(_body(answer).get("status"))


def _body(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    return body


def _all(answers: list[httpx.Response], status: int) -> bool:
    return all(answer.status_code == status for answer in answers)


def _holds_at_bank(bank_database: str) -> int:
    with psycopg.connect(bank_database) as bank:
        row = bank.execute(statement("holds_of_amount"), {"amount": CLICKED_AMOUNT}).fetchone()
    return int(row[0]) if row else 0
