"""The commands `penstock merchant` and `penstock key`: who may use the gateway. Each act is written to the audit."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from engine.accounts.merchants import NewKey, Register

_WHERE = "The database is PENSTOCK_DATABASE_URL, or that of the stack that runs in --data-dir."

merchant_app = typer.Typer(
    help="Merchants: create, list, disable.", no_args_is_help=True, rich_markup_mode="rich", epilog=_WHERE
)
key_app = typer.Typer(
    help="API keys of merchants: create, revoke, rotate.", no_args_is_help=True, rich_markup_mode="rich", epilog=_WHERE
)

DataDir = Annotated[Path, typer.Option("--data-dir", help="The local stack's folder; PENSTOCK_ variables win.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: a ticket, a sentence; kept in the audit trail.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
_LOCAL = Path(".penstock")
_ONBOARDING = "onboarding"
_OVERLAP_S = 24 * 3600


class ScopeName(StrEnum):
    MERCHANT = "merchant"
    OPERATOR = "operator"


@merchant_app.command("create")
def create_merchant(
    name: Annotated[str, typer.Argument(help="The merchant's name, for people.")],
    merchant: Annotated[str | None, typer.Option("--id", help="mer_ and a-z, 0-9, _; made up if left out.")] = None,
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
    """All merchants, with the keys of each that still work. Secrets are not stored, so none is shown.

    Example: penstock merchant list --json | jq '.[].keys[].id'
    """
    from ops.terminal import print_table

    merchants = _register(data_dir).merchants()
    if as_json:
        typer.echo(json.dumps([{**row, "created_at": row["created_at"].isoformat()} for row in merchants]))
        return
    lines = []
    for row in merchants:
        head = (row["id"], row["name"], row["status"])
        for key in row["keys"] or [{"id": "none", "scope": "", "hint": "", "ends_at": None}]:
            lines.append((*head, key["id"], key["scope"], key["hint"], key["ends_at"] or ""))
            head = ("", "", "")
    print_table(("merchant", "name", "status", "key", "scope", "hint", "until"), lines)


@merchant_app.command("disable")
def disable_merchant(
    merchant: Annotated[str, typer.Argument(metavar="ID")],
    reason: Reason,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """Stop serving a merchant: its keys answer 403 within 30 s. What was accepted is still carried out.

    Example: penstock merchant disable mer_ficmart --reason "fraud case 17"
    """
    _register(data_dir).disable_merchant(merchant, reason)
    _show({"id": merchant, "status": "disabled"}, f"merchant {merchant} disabled", as_json)


@key_app.command("create")
def create_key(
    merchant: Annotated[str, typer.Argument(metavar="MERCHANT", help="Whose key it will be.")],
    scope: Annotated[ScopeName, typer.Option(help="merchant: payments (sk_). operator: the gateway itself (ok_).")] = (
        ScopeName.MERCHANT
    ),
    reason: Reason = _ONBOARDING,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """A new key. Its secret is shown this once and stored nowhere.

    Example: penstock key create mer_ficmart --reason "new shop server"
    """
    from engine.accounts.merchants import KeyScope

    key = _register(data_dir).create_key(merchant, KeyScope(scope.value), reason)
    _show(_key(key), f"key {key.id} of {key.merchant} created; its secret, shown only now:\n{key.secret}", as_json)


@key_app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id (key_...), not its secret.")],
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
    key: Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id (key_...), not its secret.")],
    reason: Reason,
    overlap: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="How long the old key still works beside the new one.")
    ] = _OVERLAP_S,
    data_dir: DataDir = _LOCAL,
    as_json: Json = False,
) -> None:
    """A new key in place of another, which works until the overlap is over.

    Example: penstock key rotate key_5b1c9f1f0a2e4d37 --overlap 3600 --reason "yearly rotation"
    """
    done = _register(data_dir).rotate_key(key, overlap, reason)
    ends_at = done.replaced_ends_at.isoformat(timespec="seconds")
    words = f"key {done.key.id} of {done.key.merchant} created; {key} ends at {ends_at}. Its secret, shown only now:"
    _show({**_key(done.key), "replaces": key, "replaced_ends_at": ends_at}, f"{words}\n{done.key.secret}", as_json)


def _register(data_dir: Path) -> Register:
    """The register of the database we were pointed at."""
    from engine.accounts.merchants import Register
    from ops.stack import data_dir as folder
    from ops.store_url import given_url

    return Register(given_url("PENSTOCK_DATABASE_URL") or folder.DataDir(data_dir).state()["database"])


def _key(key: NewKey) -> dict[str, Any]:
    return {"id": key.id, "merchant": key.merchant, "scope": key.scope.value, "secret": key.secret}


def _show(document: dict[str, Any], words: str, as_json: bool) -> None:
    typer.echo(json.dumps(document) if as_json else words)
