"""A webhook endpoint that lives as long as its listener: registered at an edge at the start, deleted at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex

import anyio
import httpx

from engine.errors import Broken

_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An endpoint at an edge: what verifies its signatures."""

    id: str
    secret: str
    public_key: str | None


@asynccontextmanager
async def registered(
    edge: str, api_key: str, wanted: Mapping[str, object], *, keep: bool
) -> AsyncIterator[Registration]:
    """Registered while the block runs and, with `keep`, afterwards too. Raises Broken with what the edge said."""
    headers = {"X-API-Key": api_key}
    async with httpx.AsyncClient(base_url=edge, headers=headers, timeout=_PATIENCE_S) as client:
        try:
            made = await client.post(
                "/v1/webhook-endpoints", json=dict(wanted), headers={"Idempotency-Key": f"listen-{token_hex(8)}"}
            )
        except httpx.TimeoutException as error:
            raise Broken(
                f"the edge at {edge} did not answer in time; it may have registered {wanted['url']}"
            ) from error
        except httpx.HTTPError as error:
            raise Broken(f"no edge answers at {edge} ({type(error).__name__}): name another one with --edge") from error
        if made.status_code != httpx.codes.CREATED:
            raise Broken(f"the edge at {edge} did not register it: {_said(made)}")
        about = made.json()
        try:
            yield Registration(id=about["id"], secret=about["secret"], public_key=about["public_key"])
        finally:
            if not keep:
                await _deleted(client, about["id"])


async def _deleted(client: httpx.AsyncClient, endpoint: str) -> None:
    """Somebody else may have deleted it before. Raises Broken: it is still there."""
    with anyio.CancelScope(shield=True):  # whatever else goes wrong, nothing is left behind
        try:
            gone = await client.delete(f"/v1/webhook-endpoints/{endpoint}")
        except httpx.HTTPError as error:
            raise Broken(f"{endpoint} is still registered: the edge is gone ({type(error).__name__})") from error
    if gone.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
        raise Broken(f"{endpoint} is still registered: {_said(gone)}")


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError):
        return f"status {answer.status_code}"
