"""The commands `penstock holds`: what the bank holds for no payment of ours, and giving it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.audit import GRACE_S_MAX
from ops.cli.dead_letters import Reason

if TYPE_CHECKING:
    from ops.audit.holds import Released

hold_app = typer.Typer(
    help="Holds at the bank that no payment has: list, release.", no_args_is_help=True, rich_markup_mode="rich"
)

_LOCAL = Path(".penstock")
DataDir = Annotated[Path, typer.Option("--data-dir", help="The local stack's folder; PENSTOCK_ variables win.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _hold(text: str) -> str:
    from bank.dialect import ENDPOINTS
    from engine.domain.payment import Verb

    if not ENDPOINTS[Verb.AUTHORIZE].shape.match(text):
        raise typer.BadParameter(f"{text!r} is no id of a hold at the bank: they look like auth_ and a UUID")
    return text


@hold_app.command("list")
def list_holds(
    bank_database: Annotated[
        str | None,
        typer.Option(
            "--bank-database",
            metavar="DSN",
            envvar="PENSTOCK_BANK_DATABASE_URL",
            help="The mock bank's database. The local stack's is known.",
        ),
    ] = None,
    grace_s: Annotated[
        float,
        typer.Option(
            "--grace-s", min=0, max=GRACE_S_MAX, help="How old a hold is before it cannot be under way any more."
        ),
    ] = 60.0,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """The holds that no payment has and nobody has given back, oldest first: what `penstock audit` finds of them.

    Needs the bank's own books. Reads PENSTOCK_DATABASE_URL and
    PENSTOCK_REDIS_URL, or the stack that runs in --data-dir.

    Example: penstock holds list --json | jq -r '.[].hold'
    """
    from engine.errors import Broken
    from ops.audit.holds import find
    from ops.stack.data_dir import DataDir as Folder
    from ops.stack.store_locations import places
    from ops.store_url import given_url

    where = places(Folder(data_dir))
    bank = bank_database or given_url("PENSTOCK_BANK_DATABASE_URL") or where.bank
    if bank is None:
        raise Broken("only the bank's books show such holds: give --bank-database, or read the bank's statement")
    rows = [
        {
            "hold": each.reference,
            "made_at": each.made_at.isoformat(),
            "amount": each.hold.amount,
            "card": f"…{each.hold.card[-4:]}",
            "key": each.key or (each.whose and each.whose.id),
            "payment": each.whose and each.whose.payment,
        }
        for each in find(where.ledger, bank, grace_s=grace_s)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        print_holds(rows)


def print_holds(rows: Sequence[Mapping[str, Any]]) -> None:
    """As a table: each hold with the key it was placed under, and the payment that has that key."""
    from ops.terminal import print_table, stacked

    lines = []
    for row in rows:
        ids = stacked(
            str(row["hold"]), row["key"] and f"under {row['key']}", row["payment"] and f"beside {row['payment']}"
        )
        lines.append((ids, stacked(row["made_at"], f"card {row['card']}"), str(row["amount"])))
    print_table(("hold", "made at", "amount>"), lines)


@hold_app.command("release")
def release_hold(
    hold: Annotated[str, typer.Argument(metavar="HOLD", callback=_hold, help="The bank's id of the hold, auth_...")],
    reason: Reason,
    bank_url: Annotated[
        str | None,
        typer.Option(
            "--bank-url", metavar="URL", envvar="PENSTOCK_BANK_URL", help="The bank. The local stack's is known."
        ),
    ] = None,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Give back a hold that no payment has: it is voided at the bank, and the audit trail keeps who and why.

    Refused when a payment has the hold, or when an authorization without an
    answer may have placed it. The command may be repeated: it uses one bank
    key for the hold, for ever, and tells what came of it. Reads
    PENSTOCK_DATABASE_URL, PENSTOCK_REDIS_URL and PENSTOCK_BANK_URL, or the
    stack that runs in --data-dir.

    Example: penstock holds release auth_2f1c6f0e-8f0b-4c5e-9a43-0d6a2b1c7e55 --reason "placed twice, audit of May 4"
    """
    import anyio

    from engine.errors import Broken
    from ops.audit.holds import NotReleased
    from ops.stack.data_dir import DataDir as Folder
    from ops.stack.store_locations import places
    from ops.store_url import given_url

    folder = Folder(data_dir)
    ledger = places(folder).ledger
    bank = bank_url or given_url("PENSTOCK_BANK_URL") or str(folder.state()["bank"])
    try:
        done = anyio.run(_released, ledger, bank, hold, reason)
    except NotReleased as refusal:
        raise Broken(f"The act was refused: {refusal}") from None
    known = " (known before)" if done.before else ""
    typer.echo(json.dumps(asdict(done)) if as_json else f"act_{done.act}, {hold} {done.result}{known}")


async def _released(ledger: str, bank_url: str, hold: str, reason: str) -> Released:
    from bank.ficmart import FicmartBank
    from engine.accounts.merchants import os_user
    from ops.assembly.process import utc_now
    from ops.audit.holds import release

    async with FicmartBank(bank_url, clock=utc_now) as connector:
        return await release(ledger, connector, hold, reason=reason, actor=os_user())
