"""The commands `penstock dead-letters`: commands that were given up, for a person to look at, give back or drop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli.operator import act, asked_by_cli, say_act, with_back_office

_WHERE = (
    "Reads PENSTOCK_DATABASE_URL and PENSTOCK_REDIS_URL, or the stack that runs in --data-dir. "
    "Each act needs a reason, kept in the audit trail."
)
dead_letter_app = typer.Typer(
    help="Commands that were given up: list, show, requeue, drop.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_WHERE,
)

_LOCAL = Path(".penstock")
DataDir = Annotated[Path, typer.Option("--data-dir", help="The local stack's folder; PENSTOCK_ variables win.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _letter(text: str) -> str:
    from engine.streams.dead_letter import place_of

    if place_of(text) is None:
        raise typer.BadParameter(f"{text!r} is no id of a dead letter, as in dl_7-1935734400000-0")
    return text


def _optional_letter(text: str | None) -> str | None:
    return None if text is None else _letter(text)


def _reason(text: str) -> str:
    if not text.strip() or len(text) > 200 or not text.isprintable():
        raise typer.BadParameter("a reason has 1 to 200 printable characters")
    return text


LetterId = Annotated[str, typer.Argument(metavar="ID", callback=_letter, help="As `dead-letters list` shows it.")]
Reason = Annotated[
    str, typer.Option("--reason", callback=_reason, help="Why: a ticket, a sentence; kept in the audit trail.")
]


@dead_letter_app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=100, help="Letters of a page.")] = 20,
    cursor: Annotated[
        str | None,
        typer.Option(metavar="ID", callback=_optional_letter, help="Begin after this one."),
    ] = None,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Dead letters of all partitions, newest first.

    Example: penstock dead-letters list --json | jq -r '.data[] | select(.cause == "exception") | .id'
    """
    page = json.loads(with_back_office(data_dir, lambda office: office.operator_actions.dead_letters(limit, cursor)))
    if as_json:
        typer.echo(json.dumps(page))
    else:
        print_letters(page)


@dead_letter_app.command("show")
def show_letter(letter: LetterId, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """One dead letter with its entry and what was tried. Cards are not shown.

    Example: penstock dead-letters show dl_7-1935734400000-0
    """
    found: dict[str, Any] = json.loads(
        with_back_office(data_dir, lambda office: office.operator_actions.dead_letter(letter))
    )
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_letter(found)


@dead_letter_app.command("requeue")
def requeue_letter(letter: LetterId, reason: Reason, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """Give a dead letter's entry back to the commands, at the end of its stream, once what stood in its way is gone.

    Refused when its operation is answered, or when the entry could only be buried again.

    Example: penstock dead-letters requeue dl_7-1935734400000-0 --reason "constraint corrected, ticket 17"
    """
    done = act(data_dir, lambda office: office.operator_actions.requeue(asked_by_cli(reason), letter))
    say_act(done, f"{letter} was given back: payment {done['payment_id']}", as_json)


@dead_letter_app.command("drop")
def drop_letter(letter: LetterId, reason: Reason, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """Throw a dead letter away, for good.

    A command that was never journaled is then as if it had never been
    accepted: its client may use the key again.

    Example: penstock dead-letters drop dl_7-1935734400000-0 --reason "written by hand, ticket 18"
    """
    done = act(data_dir, lambda office: office.operator_actions.drop(asked_by_cli(reason), letter))
    say_act(done, f"{letter} was dropped", as_json)


def print_letters(page: dict[str, Any]) -> None:
    """A page of dead letters, as a table."""
    from ops.terminal import in_colour, print_table, stacked

    print_table(
        ("dead letter", "payment", "why"),
        [
            (
                stacked(each["id"], each["died_at"]),
                each["payment_id"] or "",
                stacked(in_colour(each["cause"]), each["reason"]),
            )
            for each in page["data"]
        ],
    )
    if page["has_more"]:
        typer.echo(f"there are more: penstock dead-letters list --cursor {page['next_cursor']}")


def print_letter(found: dict[str, Any]) -> None:
    """One dead letter: what it is, what was tried, its entry."""
    from ops.terminal import in_colour, print_table

    facts = {name: value for name, value in found.items() if name not in ("object", "history", "entry")}
    print_table(("dead letter", found["id"]), [(name, in_colour(_word(value))) for name, value in facts.items()])
    if found["history"]:
        print_table(("tried at", "and failed"), [(each["at"], each["error"]) for each in found["history"]])
    print_table(("field of the entry", "value~"), list(found["entry"].items()))


def _word(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
