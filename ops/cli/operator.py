"""What the commands of operators have in common: the back office for one call, who acts, how an act's end is told."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from engine.contracts.gateway import ActionRequest, StoredResponse
    from ops.cli.operator_assembly import BackOffice

Result = TypeVar("Result")


def with_back_office(data_dir: Path, ask: Callable[[BackOffice], Awaitable[Result]]) -> Result:
    """What `ask` finds out. Raises Broken in words for what the engine refuses."""
    import anyio

    return anyio.run(partial(_asked, data_dir, ask))


async def _asked(data_dir: Path, ask: Callable[[BackOffice], Awaitable[Result]]) -> Result:
    from engine.errors import Broken, Rejected, Unavailable
    from ops.cli.operator_assembly import back_office

    async with back_office(data_dir) as office:
        try:  # in here: what leaves the office's task group is a group of errors
            return await ask(office)
        except Rejected as refusal:
            refused = refusal.detail
        except Unavailable as fault:
            refused = f"{fault.detail}: are PENSTOCK_DATABASE_URL and PENSTOCK_REDIS_URL right?"
    raise Broken(refused)


def asked_by_cli(reason: str, **more: Any) -> ActionRequest:
    """An act in the name of whoever runs the command."""
    from engine.accounts.merchants import os_user
    from engine.contracts.gateway import ActionRequest

    return ActionRequest(reason=reason, actor=os_user(), **more)


def act(data_dir: Path, ask: Callable[[BackOffice], Awaitable[StoredResponse]]) -> dict[str, Any]:
    """The act as it ended, or as it is. Raises Broken when it was refused."""
    from engine.errors import Broken

    reply = with_back_office(data_dir, ask)
    document: dict[str, Any] = json.loads(reply.body)
    if reply.status >= 400:
        raise Broken(document["detail"])
    return document


def say_act(done: dict[str, Any], words: str, as_json: bool) -> None:
    """The act, in words or as JSON; exit code 1 while nobody has carried it out."""
    typer.echo(json.dumps(done) if as_json else words)
    if done["result"] is None:
        waits = (
            f"{done['id']} is written down and not carried out yet; `penstock payment timeline` will show its result"
        )
        typer.echo(f"penstock: {waits}", err=True)
        raise typer.Exit(1)
