"""The commands `penstock payment`: what became of one payment, and what only a person can do about it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.dead_letters import Reason
from ops.cli.operator import act, asked_by_cli, say_act, with_back_office

if TYPE_CHECKING:
    from ops.cli.operator_assembly import BackOffice

_WHERE = (
    "Reads PENSTOCK_DATABASE_URL and PENSTOCK_REDIS_URL, or the stack that runs in --data-dir. Acts are carried out "
    "by the payment's own actor, in the worker that owns its partition; each needs a reason, kept in the audit trail."
)
payment_app = typer.Typer(
    help="One payment: show, timeline, retry, resolve, correct.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_WHERE,
)

_OPERATIONS = ("operation", "verb", "status", "attempts>", "next attempt", "answer>", "key")
_WAIT_S = 15.0  # an idle actor looks about once a second; one that is at the bank may need its deadline first
_LOCAL = Path(".penstock")
DataDir = Annotated[Path, typer.Option("--data-dir", help="The local stack's folder; PENSTOCK_ variables win.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class ResolveOutcome(StrEnum):
    APPROVED = "approved"
    REFUSED = "refused"
    CAPTURED = "captured"


def _payment(text: str) -> str:
    return _id(text, "pay", "payment")


def _operation(text: str | None) -> str | None:
    return None if text is None else _id(text, "op", "operation")


def _id(text: str, prefix: str, noun: str) -> str:
    from engine.domain.ids import is_id

    if not is_id(text, prefix):
        raise typer.BadParameter(f"{text!r} is no id of a {noun}: they look like {prefix}_ and 26 characters")
    return text


def _moment(text: str | None) -> str | None:
    from engine.domain import timestamp

    try:
        return None if text is None else timestamp.parse(text).isoformat()
    except ValueError as wrong:
        raise typer.BadParameter(f"{text!r} must be {wrong}") from None


PaymentId = Annotated[str, typer.Argument(metavar="PAYMENT", callback=_payment, help="Its id, pay_...")]
OperationId = Annotated[
    str | None,
    typer.Option(
        "--operation", metavar="ID", callback=_operation, help="Which one; else the first that is not answered."
    ),
]
Wait = Annotated[float, typer.Option(min=0, max=600, metavar="SECONDS", help="How long to wait for the result.")]


@payment_app.command("show")
def show_payment(payment: PaymentId, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """The receipt of a payment, whoever's it is, and all its operations.

    Example: penstock payment show pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH --json | jq .payment.status
    """
    from ops.terminal import in_colour, print_table

    receipt, operations = with_back_office(data_dir, lambda office: _receipt(office, payment))
    if as_json:
        typer.echo(json.dumps({"payment": receipt, "operations": operations}))
        return
    print_table(("payment", payment), [(name, in_colour(value)) for name, value in _facts(receipt)])
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


@payment_app.command("timeline")
def show_timeline(payment: PaymentId, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """All that happened to a payment, by time: commands, bank attempts, transitions, acts, webhooks.

    Example: penstock payment timeline pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH
    """
    from ops.terminal import in_colour, print_table

    told: dict[str, Any] = json.loads(with_back_office(data_dir, lambda office: office.timeline.whole(payment)))
    if as_json:
        typer.echo(json.dumps(told))
        return
    print_table(
        ("at", "what", "", "operation or event", "more"),
        [
            (
                each["at"],
                each["type"].replace("_", " "),
                in_colour(each[_WORDS[each["type"]]]),
                each.get("operation_id") or each.get("event_id") or "",
                _more(each),
            )
            for each in told["data"]
        ],
    )


@payment_app.command("retry")
def retry_payment(
    payment: PaymentId,
    reason: Reason,
    operation: OperationId = None,
    wait: Wait = _WAIT_S,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Have the bank asked again, now, about an operation that is in doubt or in review. Same bank key, as always.

    Example: penstock payment retry pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH --reason "the bank is back, ticket 17"
    """
    asked = asked_by_cli(reason, operation=operation, wait_s=wait)
    done = act(data_dir, lambda office: office.operator_actions.retry(asked, payment))
    say_act(done, f"retry of {done['operation_id']}: {done['result'] or 'written down'}", as_json)


@payment_app.command("resolve")
def resolve_payment(
    payment: PaymentId,
    reason: Reason,
    outcome: Annotated[
        ResolveOutcome,
        typer.Option(help="What the bank did, by its own statement; captured: the hold that was to be released."),
    ],
    reference: Annotated[
        str | None, typer.Option(metavar="ID", help="The bank's id of what it approved; a void needs none.")
    ] = None,
    auth_code: Annotated[str | None, typer.Option(metavar="CODE", help="The authorization code, if there is one.")] = (
        None
    ),
    bank_at: Annotated[
        str | None, typer.Option(metavar="TIME", callback=_moment, help="When the bank did it, by its statement.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", callback=_moment, help="Until when an approved hold lasts.")
    ] = None,
    operation: OperationId = None,
    wait: Wait = _WAIT_S,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Answer, in the bank's place, an operation that is in review: only a person can tell, from the bank's statement.

    A reference is refused when another payment has it, and when the bank
    does not show under it what this operation asked for. The id of a void
    cannot be looked up at the bank: leave it out rather than guess.

    Examples:

      penstock payment resolve pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH --outcome approved --reference cap_5d0f --reason "line 12"

      penstock payment resolve pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH --outcome refused --reason "not on the statement of May 4"
    """
    word = {"outcome": outcome.value, "reference": reference, "auth_code": auth_code}
    word |= {"bank_at": bank_at, "expires_at": expires_at}
    said = {name: value for name, value in word.items() if value is not None}
    asked = asked_by_cli(reason, operation=operation, wait_s=wait, word=said)
    done = act(data_dir, lambda office: office.operator_actions.resolve(asked, payment))
    say_act(done, f"resolve of {done['operation_id']}: {done['result'] or 'written down'}", as_json)


@payment_app.command("correct")
def correct_payment(
    payment: PaymentId,
    reason: Reason,
    reference: Annotated[str, typer.Option(metavar="ID", help="The bank's id that is right, by its statement.")],
    operation: Annotated[
        str | None,
        typer.Option("--operation", metavar="ID", callback=_operation, help="Which one; else the latest that is done."),
    ] = None,
    wait: Wait = _WAIT_S,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Replace a bank id that an operator gave in a resolve, while nothing is built on it.

    A capture is built on its hold, a refund on its capture. The new id is
    proven like the reference of a resolve. Answers that were stored stay as
    they are.

    Example: penstock payment correct pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH --reference auth_8c1e --reason "line 13, not 12"
    """
    asked = asked_by_cli(reason, operation=operation, wait_s=wait, word={"reference": reference})
    done = act(data_dir, lambda office: office.operator_actions.correct(asked, payment))
    say_act(done, f"correction of {done['operation_id']}: {done['result'] or 'written down'}", as_json)


async def _receipt(office: BackOffice, payment: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The payment as its merchant sees it, and its operations as the timeline tells them."""
    told = json.loads(await office.timeline.whole(payment))
    receipt = json.loads(await office.queries.anyones(payment))
    return receipt, [each for each in told["data"] if each["type"] == "command"]


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
