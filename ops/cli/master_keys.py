"""The commands `penstock master-key`: what a rotation of PENSTOCK_MASTER_KEY waits for, and its last step."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.stack import DataDirOption

if TYPE_CHECKING:
    from ops.assembly.settings import Settings
    from ops.cli.master_key_store import Holder, MasterKey

master_key_app = typer.Typer(
    no_args_is_help=True, help="Master keys, which seal cards and webhook secrets: who holds which, what may go."
)
_SILENT_S = 15.0


@master_key_app.command()
def status(
    data_dir: DataDirOption = Path(".penstock"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Which key seals now, which processes hold which keys, and which key may be taken out of the configuration.

    The first table counts processes that would seal with each key, and that
    can open with it. Reads PENSTOCK_DATABASE_URL, or the stack that runs in
    --data-dir. Needs no key.

    Example: penstock master-key status --json | jq '.keys[] | select(.may_go)'
    """
    from ops.cli.master_key_store import read_keys
    from ops.stack.store_locations import ledger_of

    keys, holders = read_keys(ledger_of(data_dir))
    if as_json:
        document = {"keys": [asdict(each) for each in keys], "holders": [asdict(each) for each in holders]}
        typer.echo(json.dumps(document, default=str))
    else:
        _print(keys, holders)


@master_key_app.command()
def reseal(data_dir: DataDirOption = Path(".penstock")) -> None:
    """Seal webhook secrets and stored answers anew with the key that seals now, so that an older one may go.

    Reads PENSTOCK_DATABASE_URL, with PENSTOCK_MASTER_KEY,
    PENSTOCK_RETIRED_MASTER_KEYS and PENSTOCK_FINGERPRINT_KEY set as a worker
    has them; or the stack that runs in --data-dir, with the keys of its
    folder where the variables are not set. Safe to run again, and beside
    everything else.

    Example: penstock master-key reseal
    """
    from engine.security.encryption import Vault
    from ops.cli.master_key_store import reseal as seal_anew
    from ops.stack.store_locations import ledger_of

    ledger = ledger_of(data_dir)
    done = seal_anew(ledger, Vault(_settings(data_dir).vault_keys))
    typer.echo(f"{done} webhook secrets and stored answers were sealed anew")


def _settings(data_dir: Path) -> Settings:
    """As a worker has them: from the environment, else from the stack's folder. Raises SettingsError and Broken."""
    from ops.assembly.settings import load_settings
    from ops.stack.data_dir import DataDir
    from ops.store_url import given_url

    known = {"PENSTOCK_BANK_URL": "http://127.0.0.1"}  # no bank is asked
    if given_url("PENSTOCK_DATABASE_URL") is None:
        known |= DataDir(data_dir).keys()
    return load_settings({**known, **{name: value for name, value in os.environ.items() if value}})


def _print(keys: list[MasterKey], holders: list[Holder]) -> None:
    from ops.terminal import in_colour, print_table

    rows = []
    for each in keys:
        state = "seals now" if each.seals else "may go" if each.may_go else "must stay"
        sealed = ", ".join(f"{number} {what}s" for what, number in sorted(each.sealed.items()))
        own = [holder for holder in holders if holder.current == each.id and holder.silent_s < _SILENT_S]
        opened = [holder for holder in holders if each.id in holder.keys and holder.silent_s < _SILENT_S]
        rows.append((each.id, state, sealed or "nothing", str(len(own)), str(len(opened))))
    print_table(("key", "state", "sealed with it", "would seal>", "can open>"), rows)
    print_table(
        ("process", "name~", "its own key", "opens", "seen"),
        [
            (
                each.kind,
                each.name,
                each.current,
                ", ".join(each.keys),
                in_colour(f"{each.silent_s:.0f} s ago", "plain" if each.silent_s < _SILENT_S else "bad"),
            )
            for each in holders
        ],
    )
