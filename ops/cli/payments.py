"""The commands `penstock payment`: which there are, what became of one, and what only a person can do about it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.dead_letters import Reason
from ops.cli.merchants import merchant_id
from ops.cli.operator import act, asked_by_cli, say_act, with_back_office

if TYPE_CHECKING:
    from ops.cli.operator_assembly import BackOffice

_WHERE = (
    "Reads PENSTOCK_DATABASE_URL and PENSTOCK_REDIS_URL, or the stack that runs in --data-dir. Acts are carried out "
    "by the payment's own actor, in the worker that owns its partition; each needs a reason, kept in the audit trail."
)
payment_app = typer.Typer(
    help="Payments: list; and of one: show, timeline, retry, resolve, correct.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_WHERE,
)

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


def optional_payment(text: str | None) -> str | None:
    """An option's value that names a payment. Raises BadParameter."""
    return None if text is None else _payment(text)


def _state(text: str | None) -> str | None:
    states = _states()
    if text is not None and text not in states:
        raise typer.BadParameter(f"{text!r} is no state of a payment: they are {', '.join(states)}")
    return text


def _states() -> list[str]:
    from engine.domain.payment import PaymentState

    return [state.value for state in PaymentState]


def _theirs(text: str | None) -> str | None:
    if text is not None and not (len(text) <= 128 and text.isprintable()):
        raise typer.BadParameter("ids of orders and customers have 1 to 128 printable characters")
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


@payment_app.command("list")
def list_payments(
    in_doubt: Annotated[bool, typer.Option("--in-doubt", help="Those for which the bank's answer is unknown.")] = False,
    review: Annotated[bool, typer.Option("--review", help="Those that wait for a person.")] = False,
    order: Annotated[
        str | None, typer.Option("--order", metavar="ID", callback=_theirs, help="Those of this order.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", callback=_theirs, help="Those of this customer.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", metavar="STATE", callback=_state, autocompletion=_states, help="Those that are captured, or ..."
        ),
    ] = None,
    merchant: Annotated[
        str | None, typer.Option("--merchant", metavar="ID", callback=merchant_id, help="Only this merchant's.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Payments of a page.")] = 20,
    after: Annotated[
        str | None,
        typer.Option("--after", "--cursor", metavar="PAYMENT", callback=optional_payment, help="Begin after this one."),
    ] = None,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Payments of all merchants, newest first, as the ledger has them; all that is asked for must fit.

    What was accepted and not begun yet is not in the ledger (penstock
    partitions counts it), nor are commands that were given up before they
    were (penstock dead-letters list). Reads PENSTOCK_DATABASE_URL, or the
    stack that runs in --data-dir.

    Examples:

      penstock payment list --in-doubt

      penstock payment list --order order-1 --merchant mer_local

      penstock payment list --review --json | jq -r '.data[].id'
    """
    from engine.domain.rendering import render
    from ops.audit.ledger_view import Wanted
    from ops.audit.ledger_view import list_payments as read_page
    from ops.cli.payment_view import print_page
    from ops.stack.store_locations import ledger_of

    if in_doubt and review:
        raise typer.BadParameter("an operation is in doubt or in review, not both: leave --in-doubt or --review out")
    waiting = "in_doubt" if in_doubt else "review" if review else None
    wanted = Wanted(merchant=merchant, order=order, customer=customer, state=state, waiting=waiting, after=after)
    page = read_page(ledger_of(data_dir), wanted, limit)
    if as_json:
        typer.echo(render(page))
    else:
        print_page(json.loads(render(page)))


@payment_app.command("show")
def show_payment(payment: PaymentId, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """The receipt of a payment, whoever's it is, and all its operations.

    Example: penstock payment show pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH --json | jq .payment.status
    """
    from ops.cli.payment_view import print_payment

    receipt, operations = with_back_office(data_dir, lambda office: _receipt(office, payment))
    if as_json:
        typer.echo(json.dumps({"payment": receipt, "operations": operations}))
    else:
        print_payment(receipt, operations)


@payment_app.command("timeline")
def show_timeline(payment: PaymentId, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """All that happened to a payment, by time: commands, bank attempts, transitions, acts, webhooks.

    Example: penstock payment timeline pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH
    """
    from ops.cli.payment_view import print_timeline

    told: dict[str, Any] = json.loads(with_back_office(data_dir, lambda office: office.timeline.whole(payment)))
    if as_json:
        typer.echo(json.dumps(told))
    else:
        print_timeline(told)


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
    if outcome is ResolveOutcome.REFUSED and (reference or auth_code or expires_at):
        raise typer.BadParameter(
            "what the bank refused has no --reference, --auth-code and --expires-at: leave them out"
        )
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
