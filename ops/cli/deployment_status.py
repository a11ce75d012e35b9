"""What `penstock status` says about a deployment: the findings of deployment.py, as a table or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from engine.errors import Broken
from ops.assembly.settings import Settings, SettingsError, keyless
from ops.cli.deployment import DeploymentVerdict, look
from ops.secret_file import variables
from ops.stack.data_dir import DataDir
from ops.terminal import in_colour, print_table

_STORES = ("PENSTOCK_REDIS_URL", "PENSTOCK_DATABASE_URL")
_MOODS = {DeploymentVerdict.OK: "good", DeploymentVerdict.WARNING: "waiting", DeploymentVerdict.WRONG: "bad"}


def named_deployment(data_dir: Path) -> Settings | None:
    """Of the variables; None when they name no store, or those of the local stack that runs in the folder.
    Raises SettingsError."""
    given = variables()
    named = [name for name in _STORES if given.get(name)]
    if not named or _is_of_stack(data_dir, given.get("PENSTOCK_DATABASE_URL")):
        return None
    if len(named) < len(_STORES):
        missing = next(name for name in _STORES if name not in named)
        raise SettingsError(f"{named[0]} names a store of a deployment: set {missing} too, or unset it")
    return keyless(given)


def print_deployment(settings: Settings, *, as_json: bool) -> None:
    """Looks at it. Exit code 1 when something is wrong."""
    seen = look(settings)
    if as_json:
        typer.echo(json.dumps({"well": seen.well, **asdict(seen)}))
    else:
        print_table(
            ("what", "", "found"),
            [(each.name, in_colour(each.verdict, _MOODS[each.verdict]), each.detail) for each in seen.findings],
        )
        waiting = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in seen.waiting.items())
        typer.echo(f"not done yet: {waiting or 'unknown'}")
    if not seen.well:
        raise typer.Exit(1)


def _is_of_stack(data_dir: Path, database: str | None) -> bool:
    try:
        return bool(DataDir(data_dir).state()["database"] == database)
    except Broken:
        return False
