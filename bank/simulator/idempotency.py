"""The idempotency cache: looked up before anything else, stored after the handler, with nothing in between.

There is no in-progress row and no lock, as in the contract: concurrent requests under one key all execute. So a
client's timeout must exceed the bank's longest latency, and its attempts must be serial: an abandoned attempt may take
effect after a second one did (hang_up.py).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import psycopg
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bank.simulator.batch import Batch, Halt, Withdrawn
from bank.simulator.connection import hang_up
from bank.simulator.fault import FaultKind, faults_after
from bank.simulator.hang_up import Client, HangUps, client_of, was_executed_anyway
from bank.simulator.lanes import ConnectionWorkers

KEY_CHARACTERS_MAX = 255  # The column's width; a longer key is executed and not stored.
HEADER = b"idempotency-key"
CACHED_PATHS = frozenset(f"/api/v1/{noun}" for noun in ("authorizations", "captures", "voids", "refunds"))

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedResponse:
    """An answer under its key, which is scoped to the path."""

    key: str
    path: str
    status: int
    body: str


class Keys:
    """The table of kept answers, asked and told in batches."""

    def __init__(self, lanes: ConnectionWorkers) -> None:
        self._lanes = lanes
        self.lookups: Batch[tuple[str, str], CachedResponse | None] = Batch(self._look_up)
        self.stores: Batch[CachedResponse, None] = Batch(self._keep)

    async def _look_up(self, asked: Sequence[tuple[str, str]], _: Halt) -> list[CachedResponse | None]:
        rows = await self._lanes.ask("lookup_keys", _json_rows(asked))
        kept = {(k, path): CachedResponse(key=k, path=path, status=status, body=body) for k, path, status, body in rows}
        return [kept.get(question) for question in asked]

    async def _keep(self, answers: Sequence[CachedResponse], halt: Halt) -> list[None]:
        rows = _json_rows([(a.key, a.path, a.status, a.body) for a in answers])
        await self._lanes.ask("keep_keys", rows, halt=halt)
        return [None] * len(answers)


class IdempotencyCache:
    """The outermost layer of the bank's own pipeline. Only POST, only the four paths, only 2xx."""

    def __init__(self, app: ASGIApp, *, keys: Keys, hang_ups: HangUps) -> None:
        self.app = app
        self.keys = keys
        self.hang_ups = hang_ups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = idempotency_keys(scope) if _is_cached(scope) else []
        if not values or not values[0]:
            await self.app(scope, receive, send)
            return
        try:
            key = values[0].decode()
            kept = await self.keys.lookups.ask((key, scope["path"]))
        except (UnicodeDecodeError, psycopg.Error) as error:  # It fails open: executed, and not stored.
            logger.error("idempotency_lookup_failed", extra={"error": str(error)})
            await self.app(scope, receive, send)
            return
        if kept is not None:
            await _replay(kept)(scope, receive, send)
            return
        await self._execute(key, scope, receive, send)

    async def _execute(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]  # The router may make another of it.
        answer: list[Message] = []  # Held back, so that whoever reads a 2xx can rely on its key being stored.

        async def hold(message: Message) -> None:
            answer.append(message)

        await self.app(scope, receive, hold)
        faults = faults_after(scope)
        status, body = answer[0]["status"], b"".join(message.get("body", b"") for message in answer[1:])
        if 200 <= status < 300 and not faults & {FaultKind.DROP_KEY, FaultKind.DROP_KEY_AND_RESPONSE}:
            keeps_it = not self.hang_ups.lose_key or was_executed_anyway(scope)
            client = None if keeps_it else client_of(scope)
            await self._store(CachedResponse(key=key, path=path, status=status, body=body.decode()), client)
        if faults & {FaultKind.DROP_RESPONSE, FaultKind.DROP_KEY_AND_RESPONSE}:
            await hang_up(scope, receive)
            return
        if FaultKind.UNREADABLE_ANSWER in faults:
            await Response(body[: len(body) // 2], status, media_type="application/json")(scope, receive, send)
            return
        for message in answer:
            await send(message)

    async def _store(self, kept: CachedResponse, client: Client | None) -> None:
        """Keep the answer, unless the client, if one is given, hangs up before it is kept."""
        if len(kept.key) > KEY_CHARACTERS_MAX:  # Not tried, because it would take the rest of its batch down with it.
            logger.error("idempotency_store_failed", extra={"error": "value too long for type character varying(255)"})
            return
        try:
            if client is not None and client.gone:
                raise Withdrawn
            await self.keys.stores.ask(kept, client)
        except Withdrawn:
            logger.error("idempotency_store_failed", extra={"error": "context canceled"})
        except psycopg.Error as error:
            logger.error("idempotency_store_failed", extra={"error": str(error)})


def idempotency_keys(scope: Scope) -> list[bytes]:
    """The values of the header, in order, without the white space around them."""
    return [value.strip(b" \t") for name, value in scope["headers"] if name == HEADER]


def _is_cached(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in CACHED_PATHS


def _json_rows(rows: Sequence[tuple[str | int, ...]]) -> str:
    """Many rows as one parameter: a JSON text costs a tenth of what arrays cost to write."""
    return orjson.dumps(rows).decode()


def _replay(kept: CachedResponse) -> Response:
    headers = {"X-Idempotent-Replayed": "true"}
    return Response(kept.body, kept.status, headers=headers, media_type="application/json")
