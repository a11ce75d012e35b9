"""`penstock demo`: the FicMart story against a stack of its own, with a bank that fails and dawdles.

It ends with the only proof that counts: ledger against bank, effect by effect and cent by cent. Exit code 0 when they
agree and each claim of the story held, 1 otherwise.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Annotated

import anyio
import httpx
import psycopg
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.audit.reconcile import KINDS, Comparison, compare, opening_balances
from ops.demo.reporter import Reporter, dollars
from ops.demo.shop import Shop
from ops.demo.steps import SCENES, STORM
from ops.errors import stopped_in_order
from ops.stack.ephemeral_stack import MERCHANT_KEY, EphemeralAddresses, own_stack
from ops.statement import statement

LATENCY_MS = "100-2000"
LATENCY_FAST_MS = "10-100"
FAILURE_RATE = "0.05"
SETTLE_S = 180.0
LOOK_AGAIN_S = 0.2
_MARK = {True: "[green]✓[/]", False: "[bold red]✗[/]"}


def demo(
    fast: Annotated[bool, typer.Option("--fast", help="a bank that takes 10 to 100 ms instead of 100 to 2000")] = False,
) -> None:
    """The FicMart story, from an order to its refund, on a stack of its own, checked against the bank's own books."""
    console = Console(highlight=False)
    latency_ms = LATENCY_FAST_MS if fast else LATENCY_MS
    options = ["--bank-failure-rate", FAILURE_RATE, "--bank-latency-ms", latency_ms]
    console.print(
        f"[bold]Penstock and FicMart[/]: edge, two workers, Redis, Postgres, and a bank that takes {latency_ms} ms "
        f"and fails {float(FAILURE_RATE):.0%} of the time."
    )
    starting = console.status("starting a stack of its own")
    with stopped_in_order(console), starting, own_stack(purpose="demo", options=options) as stack:
        starting.stop()  # two live displays cannot share a terminal
        agreed = _play(stack, console)
    raise typer.Exit(0 if agreed else 1)


def _play(stack: EphemeralAddresses, console: Console) -> bool:
    openings = opening_balances(stack.bank_database)
    failures = anyio.run(_tell, stack, console)
    comparison = _when_settled(stack, openings, console)
    _show_payments(comparison, console)
    _show_kinds(comparison, console)
    _show_cards(comparison, console)
    for difference in comparison.differences:
        console.print(f"[bold red]✗[/] {escape(difference)}")
    if comparison.unsettled:
        console.print(f"[bold red]✗[/] {comparison.unsettled} operations had no outcome within {SETTLE_S:.0f} s")
    for failure in failures:
        console.print(f"[bold red]✗[/] the story went otherwise: {escape(failure)}")
    repeated = _repeated_attempts(stack.database)
    console.print(f"The bank failed or was silent {repeated} times on the way; each was asked again with the same key.")
    if comparison.agrees:
        matched = len(comparison.matched)
        console.print(f"[bold green]Ledger and bank agree[/]: {matched} effects, one to one, to the cent.")
    else:
        console.print("[bold red]Ledger and bank differ.[/]")
    return comparison.agrees and not failures


async def _tell(stack: EphemeralAddresses, console: Console) -> list[str]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
    headers = {"X-API-Key": MERCHANT_KEY}
    async with httpx.AsyncClient(base_url=stack.edge, headers=headers, timeout=40, limits=limits) as http:
        stage = Reporter(console, Shop(http), stack.bank_database)
        for scene in SCENES:
            try:
                await scene(stage)
            except (httpx.HTTPError, TimeoutError, KeyError, ValueError) as error:
                stage.claim(f"the scene could not go on: {type(error).__name__} {error}", False)
        return stage.failures


def _when_settled(stack: EphemeralAddresses, openings: dict[str, int], console: Console) -> Comparison:
    """Compare once no operation is open any more, or when patience is over."""
    until = time.monotonic() + SETTLE_S
    console.print("\n[bold]Ledger against bank[/]")
    with console.status("waiting until everything is settled") as waiting:
        while True:
            comparison = compare(stack.database, stack.bank_database, openings)
            if not comparison.unsettled or time.monotonic() > until:
                return comparison
            waiting.update(f"waiting until everything is settled: {comparison.unsettled} operations open")
            time.sleep(LOOK_AGAIN_S)


def _repeated_attempts(database: str) -> int:
    with psycopg.connect(database) as ledger:
        row = ledger.execute(statement("repeated_attempts")).fetchone()
    return int(row[0]) if row else 0


def _show_payments(comparison: Comparison, console: Console) -> None:
    """One line an order, the crowd as one."""
    table = Table("order", "state", "effects in the ledger", "transactions at the bank", "", box=box.SIMPLE_HEAD)
    orders: defaultdict[str, list[int]] = defaultdict(list)
    for index, (effect, _) in enumerate(comparison.matched):
        orders["the crowd" if effect.order_id.startswith(STORM) else effect.order_id].append(index)
    for order, indexes in orders.items():
        pairs = [comparison.matched[index] for index in indexes]
        states = ", ".join(dict.fromkeys(effect.state for effect, _ in pairs))
        if order == "the crowd":
            ours, theirs = f"{len(pairs)} effects", f"{len(pairs)} transactions"
        else:
            ours = ", ".join(f"{effect.verb} {dollars(effect.amount)}" for effect, _ in pairs)
            theirs = ", ".join(f"{transaction.kind} {dollars(transaction.amount)}" for _, transaction in pairs)
        same = all(effect.amount == transaction.amount for effect, transaction in pairs)
        table.add_row(order, states, ours, theirs, _MARK[same])
    console.print(table)


def _show_kinds(comparison: Comparison, console: Console) -> None:
    table = Table("", "ledger", "sum", "bank", "sum", "", box=box.SIMPLE_HEAD)
    for column in table.columns[1:5]:
        column.justify = "right"
    for verb, (kind, _) in KINDS.items():
        ours, theirs = comparison.ledger[kind], comparison.bank[kind]
        sides = [text for side in (ours, theirs) for text in (str(side.number), dollars(side.total))]
        table.add_row(verb, *sides, _MARK[ours == theirs])
    console.print(table)


def _show_cards(comparison: Comparison, console: Console) -> None:
    table = Table("card", "began with", "balance by ledger", "at bank", box=box.SIMPLE_HEAD)
    for name in ("available by ledger", "at bank", ""):
        table.add_column(name)
    for column in table.columns[1:6]:
        column.justify = "right"
    for card in comparison.cards:
        sums = (card.expected.balance, card.shown.balance, card.expected.available, card.shown.available)
        table.add_row(f"…{card.card[-4:]}", dollars(card.opening), *map(dollars, sums), _MARK[card.agrees])
    console.print(table)
