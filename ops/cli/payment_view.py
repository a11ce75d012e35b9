"""Payments as people read them at a terminal: a page of a list, one with its operations, and all that happened to it.

Documents are those of the API. An id has a line or a column of its own, so that it is whole on 80 columns.
"""

from __future__ import annotations

from typing import Any

import typer
from rich.text import Text

from ops.terminal import in_colour, print_table, stacked

_OPERATIONS = ("operation", "verb", "status", "attempts>", "next attempt", "answer>", "key")


def print_page(page: dict[str, Any]) -> None:
    """A page of payments, each with its merchant."""
    rows = []
    for each in page["data"]:
        operation = each["operation"]
        step = Text(f"{operation['verb']} ").append(in_colour(operation["status"]))
        rows.append(
            (
                stacked(each["id"], each["created_at"]),
                stacked(in_colour(each["status"]), step),
                f"{each['amount']} {each['currency']}",
                stacked(each["order_id"], each["customer_id"], each["merchant"]),
            )
        )
    print_table(("payment", "state", "amount>", "order, whose~"), rows)
    if page["has_more"]:
        typer.echo(f"there are more: the same with --after {page['next_cursor']}")


def print_payment(receipt: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    """The receipt, and its operations as the timeline tells them."""
    print_table(("payment", receipt["id"]), [(name, in_colour(value)) for name, value in _facts(receipt)])
    print_table(
        _OPERATIONS,
        [
            (
                each["operation_id"],
                each["verb"],
                in_colour(each["status"]),
                str(each["attempts"]),
                each["next_attempt_at"] or "",
                str(each["response_status"] or ""),
                each["idempotency_key"] or "(the gateway's own)",
            )
            for each in operations
        ],
    )


def print_timeline(told: dict[str, Any]) -> None:
    """A line for what happened, one for the operation or event it happened to, and the rest."""
    print_table(("at", "what"), [(each["at"], _moment(each)) for each in told["data"]])


def _moment(each: dict[str, Any]) -> Text:
    head = Text(f"{each['type'].replace('_', ' ')} ").append(in_colour(each[_WORDS[each["type"]]]))
    return stacked(head, each.get("operation_id") or each.get("event_id"), _more(each))


def _facts(receipt: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person wants to know of a receipt, without what is empty."""
    method, bank = receipt["payment_method"], receipt["bank"]
    facts = {
        "status": receipt["status"],
        "doubt": "in doubt" if receipt["in_doubt"] else None,
        "latest operation": receipt["operation"]["status"],
        "amount": f"{receipt['amount']} {receipt['currency']} (minor units)",
        "captured": receipt["amount_captured"] or None,
        "refunded": receipt["amount_refunded"] or None,
        "order": receipt["order_id"],
        "customer": receipt["customer_id"],
        "card": f"{method['brand']} {method['last4']}",
        **{f"bank's {name}".replace("_", " "): value for name, value in bank.items()},
        "failure": receipt["failure"] and receipt["failure"]["message"],
        **{name.replace("_", " "): value for name, value in receipt.items() if name.endswith("_at")},
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]


_WORDS = {
    "command": "verb",
    "bank_attempt": "answer",
    "transition": "event",
    "operator_act": "act",
    "webhook_attempt": "event",
}


def _more(moment: dict[str, Any]) -> str:
    """The rest of a moment in one line."""
    match moment["type"]:
        case "command":
            waits = f", asked again at {moment['next_attempt_at']}" if moment["next_attempt_at"] else ""
            attempts = "1 attempt" if moment["attempts"] == 1 else f"{moment['attempts']} attempts"
            return f"{moment['status']}, {attempts}{waits}"
        case "bank_attempt":
            facts = ", ".join(f"{name} {value}" for name, value in moment["evidence"].items())
            until = f"until {moment['deadline']}" if moment["deadline"] else facts
            return f"attempt {moment['attempt']}: {until}"
        case "transition":
            facts = ", ".join(f"{name} {value}" for name, value in moment["evidence"].items())
            return f"{moment['from'] or 'nothing'} to {moment['to']}" + (f": {facts}" if facts else "")
        case "webhook_attempt":
            answered = moment["status"] or moment["error"]
            again = f", again at {moment['next_attempt_at']}" if moment["next_attempt_at"] else ""
            return f"attempt {moment['attempt']} to {moment['endpoint_id']}: {moment['outcome']} ({answered}){again}"
    return f"{moment['result'] or 'not done yet'}, by {moment['actor']}: {moment['reason']}"
