"""The commands `penstock merchant` and `penstock key`: who may use the gateway. Each act is written to the audit.

What a person can mistype is judged here, before anything is asked of the database.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.dead_letters import Reason

if TYPE_CHECKING:
    from engine.accounts.merchants import NewKey, Register
    from ops.terminal import Cell

_WHERE = "The database is PENSTOCK_DATABASE_URL, or that of the stack that runs in --data-dir."

merchant_app = typer.Typer(
    help="Merchants: create, list, disable, enable.", no_args_is_help=True, rich_markup_mode="rich", epilog=_WHERE
)
key_app = typer.Typer(
    help="API keys of merchants and operators: create, list, revoke, rotate.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_WHERE,
)

_LOCAL = Path(".penstock")
_ONBOARDING = "onboarding"
_OVERLAP_S = 24 * 3600
_OVERLAP_MAX_S = 90 * 24 * 3600  # as in engine/accounts/merchants.py, which brings psycopg along


class ScopeName(StrEnum):
    MERCHANT = "merchant"
    OPERATOR = "operator"


def _name(text: str) -> str:
    if not text.strip() or len(text) > 200 or not text.isprintable():
        raise typer.BadParameter("a name has 1 to 200 printable characters")
    return text


def merchant_id(text: str | None) -> str | None:
    """An option's or argument's value that names a merchant. Raises BadParameter."""
    if text is not None and not re.fullmatch(r"mer_[a-z0-9_]{1,60}", text):
        raise typer.BadParameter(f"{text!r} is no merchant id: they are mer_ and up to 60 of a-z, 0-9 and _")
    return text


def _key_id(text: str) -> str:
    if text.startswith(("sk_", "ok_")):
        raise typer.BadParameter("this is a secret, which nobody else should see: name the key by its id (key_...)")
    if not re.fullmatch(r"key_[A-Za-z0-9_]{1,60}", text):
        raise typer.BadParameter(f"{text!r} is no id of a key, as `penstock key list` shows them (key_...)")
    return text


DataDir = Annotated[Path, typer.Option("--data-dir", help="The local stack's folder; PENSTOCK_ variables win.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
MerchantId = Annotated[str, typer.Argument(metavar="ID", callback=merchant_id, help="The merchant's id (mer_...).")]
KeyId = Annotated[
    str, typer.Argument(metavar="KEY_ID", callback=_key_id, help="The key's id (key_...), not its secret.")
]


@merchant_app.command("create")
def create_merchant(
    name: Annotated[str, typer.Argument(callback=_name, help="The merchant's name, for people.")],
    merchant: Annotated[
        str | None, typer.Option("--id", callback=merchant_id, help="mer_ and a-z, 0-9, _; made up if left out.")
    ] = None,
    reason: Reason = _ONBOARDING,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """A new merchant. It needs a key next: `penstock key create ID`.

    Example: penstock merchant create "FicMart" --id mer_ficmart --reason "contract 2031"
    """
    made = _register(data_dir).create_merchant(name, reason, merchant)
    _show({"id": made, "name": name}, f"merchant {made} created; next: penstock key create {made}", as_json)


@merchant_app.command("list")
def list_merchants(data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """All merchants, enabled or not, with the keys of each that still work. Secrets are not stored, so none is shown.

    Operators' keys that belong to no merchant: penstock key list.

    Example: penstock merchant list --json | jq '.[].keys[].id'
    """
    from ops.terminal import in_colour, print_table

    merchants = _register(data_dir).merchants()
    if as_json:
        typer.echo(json.dumps([{**row, "created_at": row["created_at"].isoformat()} for row in merchants]))
        return
    lines = []
    for row in merchants:
        head: tuple[Cell, ...] = (row["id"], row["name"], in_colour(row["status"]))
        for key in row["keys"] or [{"id": "none", "scope": "", "hint": "", "ends_at": None}]:
            ends_at = key["ends_at"] and datetime.fromisoformat(key["ends_at"])
            lines.append((*head, key["id"], key["scope"], key["hint"] and f"…{key['hint']}", _minute(ends_at)))
            head = ("", "", "")
    print_table(("merchant", "name~", "status", "key", "scope", "ends in", "until"), lines)


@merchant_app.command("disable")
def disable_merchant(merchant: MerchantId, reason: Reason, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """Stop serving a merchant: its keys answer 403 within 30 s. What was accepted is still carried out.

    Example: penstock merchant disable mer_ficmart --reason "fraud case 17"
    """
    _register(data_dir).disable_merchant(merchant, reason)
    words = (
        f"merchant {merchant} disabled: its keys answer 403 within 30 s; penstock merchant enable {merchant} undoes it"
    )
    _show({"id": merchant, "status": "disabled"}, words, as_json)


@merchant_app.command("enable")
def enable_merchant(merchant: MerchantId, reason: Reason, data_dir: DataDir = _LOCAL, as_json: Json = False) -> None:
    """Serve a merchant again: the keys it had work within 30 s, but for those that have ended meanwhile.

    Example: penstock merchant enable mer_ficmart --reason "fraud case 17 is closed"
    """
    _register(data_dir).enable_merchant(merchant, reason)
    words = f"merchant {merchant} enabled: its keys work within 30 s"
    _show({"id": merchant, "status": "active"}, words, as_json)


@key_app.command("create")
def create_key(
    merchant: Annotated[
        str | None,
        typer.Argument(
            metavar="MERCHANT", callback=merchant_id, help="Whose key it will be; an operator's needs none."
        ),
    ] = None,
    scope: Annotated[ScopeName, typer.Option(help="merchant: payments (sk_). operator: the gateway itself (ok_).")] = (
        ScopeName.MERCHANT
    ),
    reason: Reason = _ONBOARDING,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """A new key. Its secret is shown this once and stored nowhere.

    Examples:

      penstock key create mer_ficmart --reason "new shop server"

      penstock key create --scope operator --reason "Ada, on call"
    """
    from engine.accounts.merchants import KeyScope

    if merchant is None and scope is ScopeName.MERCHANT:
        raise typer.BadParameter("name the merchant whose payments it makes; only --scope operator needs none")
    key = _register(data_dir).create_key(merchant, KeyScope(scope.value), reason)
    _show(_key(key), f"key {key.id} of {_whose(key)} created; its secret, shown only now:\n{key.secret}", as_json)


@key_app.command("list")
def list_keys(
    merchant: Annotated[
        str | None, typer.Option("--merchant", metavar="ID", callback=merchant_id, help="Only this merchant's.")
    ] = None,
    scope: Annotated[ScopeName | None, typer.Option(help="Only keys for this.")] = None,
    ended: Annotated[bool, typer.Option("--all", help="Those that were revoked or have expired, too.")] = False,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Keys that work, of merchants and operators, with the time each was last used: to the minute, within 15 s.

    Examples:

      penstock key list --scope operator

      penstock key list --all --json | jq '.[] | select(.last_used_at == null) | .id'
    """
    from engine.accounts.merchants import KeyScope
    from ops.terminal import in_colour, print_table

    keys = _register(data_dir).keys(
        merchant=merchant, scope=None if scope is None else KeyScope(scope.value), ended=ended
    )
    if as_json:
        typer.echo(json.dumps(keys, default=datetime.isoformat))
        return
    print_table(
        ("key", "of", "scope", "ends in", "last used", "until"),
        [
            (
                each["id"],
                f"{each['merchant'] or 'no merchant'}{' (disabled)' if each['merchant_disabled'] else ''}",
                each["scope"],
                f"…{each['hint']}",
                _minute(each["last_used_at"]) or in_colour("never", "waiting"),
                in_colour(_minute(each["ends_at"]), "bad" if each["ended"] else "plain"),
            )
            for each in keys
        ],
    )


@key_app.command("revoke")
def revoke_key(
    key: KeyId,
    reason: Reason,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """End a key: it stops working within 30 s.

    Example: penstock key revoke key_5b1c9f1f0a2e4d37 --reason "leaked in a log"
    """
    _register(data_dir).revoke_key(key, reason)
    _show({"id": key, "status": "revoked"}, f"key {key} revoked", as_json)


@key_app.command("rotate")
def rotate_key(
    key: KeyId,
    reason: Reason,
    overlap: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", min=0, max=_OVERLAP_MAX_S, help="How long the old key still works beside the new one."
        ),
    ] = _OVERLAP_S,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """A new key in place of another, which works until the overlap is over.

    Example: penstock key rotate key_5b1c9f1f0a2e4d37 --overlap 3600 --reason "yearly rotation"
    """
    done = _register(data_dir).rotate_key(key, overlap, reason)
    ends_at = done.replaced_ends_at.isoformat(timespec="seconds")
    words = f"key {done.key.id} of {_whose(done.key)} created; {key} ends at {ends_at}. Its secret, shown only now:"
    _show({**_key(done.key), "replaces": key, "replaced_ends_at": ends_at}, f"{words}\n{done.key.secret}", as_json)


def _register(data_dir: Path) -> Register:
    """The register of the database we were pointed at."""
    from engine.accounts.merchants import Register
    from ops.stack.store_locations import ledger_of

    return Register(ledger_of(data_dir))


def _key(key: NewKey) -> dict[str, Any]:
    return {"id": key.id, "merchant": key.merchant, "scope": key.scope.value, "secret": key.secret}


def _whose(key: NewKey) -> str:
    return key.merchant or "an operator"


def _minute(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


def _show(document: dict[str, Any], words: str, as_json: bool) -> None:
    typer.echo(json.dumps(document) if as_json else words)
