"""Where the demo is told: scenes with a heading, what was asked and answered, and claims that hold or do not."""

from __future__ import annotations

import httpx
from rich.console import Console
from rich.markup import escape

from ops.demo.shop import Shop

_COLOURS = {2: "green", 4: "yellow", 5: "red"}


class Reporter:
    """Prints the story and remembers the claims that did not hold."""

    def __init__(self, console: Console, shop: Shop, bank_database: str) -> None:
        self.console, self.shop, self.bank_database = console, shop, bank_database
        self.failures: list[str] = []
        self._scenes = 0

    def scene(self, title: str, words: str) -> None:
        self._scenes += 1
        self.console.print(f"\n[bold cyan]{self._scenes:>2}. {escape(title)}[/]  [dim]{escape(words)}[/]")

    def told(self, what: str, answer: httpx.Response) -> None:
        """One call and its answer."""
        colour = _COLOURS.get(answer.status_code // 100, "white")
        line = f"    {escape(what):<44} [{colour}]{answer.status_code}[/] {escape(_gist(answer))}"
        self.console.print(line, no_wrap=True, overflow="ellipsis")

    def claim(self, text: str, holds: bool) -> None:
        self.console.print(f"    [green]✓[/] {escape(text)}" if holds else f"    [bold red]✗ {escape(text)}[/]")
        if not holds:
            self.failures.append(text)


def _gist(answer: httpx.Response) -> str:
    """What matters of an answer, in a few words."""
    body = answer.json()
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        return f"{body.get('decline_code') or body['code']}: {body['detail']}"
    if body.get("object") == "payment":
        return f"{body['status']}, {dollars(body['amount'])}"
    if "shippable" in body:
        return f"shippable {str(body['shippable']).lower()}: {body['reason']}"
    if body.get("object") == "list":
        return ", ".join(f"{each['order_id']} {each['status']}" for each in body["data"])
    return ""


def dollars(cents: int) -> str:
    return f"${cents / 100:,.2f}"  # for the eye alone; money is counted in cents
