"""The path of a payment with nothing in it: an edge, a stream, a worker, two commits. The bench's second yardstick.

No merchants, no cards, no rules, no retries: what a gateway of this shape does can be compared with it on any machine.
Run as a module it is one of its two processes; where its stores are, the environment says.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import orjson
import psycopg
import uvicorn
import uvloop
from hiredis import pack_command
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.batching import Batcher
from ops.statement import statement

REDIS, DATABASE = "BARE_REDIS_URL", "BARE_DATABASE_URL"  # variables
STREAM, GROUP = "bare:commands", "bare"
RECORD_MS = 15 * 60 * 1000
_ACCEPTS_MAX, _READ_MAX, _BLOCK_MS = 200, 300, 1000  # as the engine's own


class BareEdge:
    """Accepts: one script a request, many in one write."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = ""
        self._accepts: Batcher[tuple[str, bytes], bytes] = Batcher(self._accept, _ACCEPTS_MAX)

    @asynccontextmanager
    async def alive(self, app: Starlette) -> AsyncIterator[None]:
        self._script = await self._redis.script_load(files("ops.bench").joinpath("bare_accept.lua").read_text())
        accepting = asyncio.create_task(self._accepts.run())
        yield
        accepting.cancel()

    async def create(self, request: Request) -> Response:
        body = await request.body()
        order = orjson.loads(body)["order_id"]
        payment = "pay_" + hashlib.sha256(request.headers["idempotency-key"].encode()).hexdigest()[:26]
        await self._accepts((payment, body))
        answer = {"object": "payment", "id": payment, "status": "pending", "order_id": order}
        return Response(orjson.dumps(answer), status_code=202, media_type="application/json")

    async def ready(self, request: Request) -> Response:
        return Response()

    async def _accept(self, batch: Sequence[tuple[str, bytes]]) -> list[bytes]:
        calls = [("EVALSHA", self._script, "2", _record(payment), STREAM, payment, body) for payment, body in batch]
        pool = self._redis.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            packed = [pack_command(call) for call in calls]  # type: ignore[arg-type]  # its stub knows tuples of one
            await connection.send_packed_command([b"".join(packed)])
            return [await connection.read_response() for _ in batch]
        finally:
            await pool.release(connection)


class BareWorker:
    """Reads entries, commits their intents, commits their outcomes, takes them off Redis."""

    def __init__(self, redis: Redis, ledger: psycopg.AsyncConnection) -> None:
        self._redis, self._ledger = redis, ledger

    async def run(self) -> None:
        """Until killed."""
        await self._redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        while True:
            read: Any = await self._redis.xreadgroup(GROUP, "worker", {STREAM: ">"}, count=_READ_MAX, block=_BLOCK_MS)
            if read:
                await self._carry_out(read[0][1])

    async def _carry_out(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> None:
        ids = [fields[b"payment"].decode() for _, fields in entries]
        asked = [orjson.loads(fields[b"body"]) for _, fields in entries]
        intents = {
            "ids": ids,
            "amounts": [each["amount"] for each in asked],
            "currencies": [each["currency"] for each in asked],
            "orders": [each["order_id"] for each in asked],
        }
        await self._ledger.execute(statement("bare_intents"), intents, prepare=True)
        bodies = [
            orjson.dumps({"object": "payment", "id": payment, "status": "authorized", "order_id": each["order_id"]})
            for payment, each in zip(ids, asked, strict=True)
        ]
        outcomes = {"ids": ids, "bodies": [body.decode() for body in bodies]}
        await self._ledger.execute(statement("bare_outcomes"), outcomes, prepare=True)
        numbers = [entry for entry, _ in entries]
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xack(STREAM, GROUP, *numbers)
            pipeline.xdel(STREAM, *numbers)
            for payment, body in zip(ids, bodies, strict=True):
                pipeline.set(_record(payment), body, px=RECORD_MS)
            await pipeline.execute()


def _record(payment: str) -> str:
    return f"bare:record:{payment}"


def serve(listener: socket.socket) -> None:
    """The edge, until killed."""
    edge = BareEdge(_redis())
    routes = [Route("/v1/payments", edge.create, methods=["POST"]), Route("/ready", edge.ready)]
    app = Starlette(routes=routes, lifespan=edge.alive)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_config=None)
    uvicorn.Server(config).run(sockets=[listener])


async def work() -> None:
    """The worker, until killed."""
    async with await psycopg.AsyncConnection.connect(os.environ[DATABASE], autocommit=True) as ledger:
        await BareWorker(_redis(), ledger).run()


def _redis() -> Redis:
    return Redis.from_url(os.environ[REDIS], protocol=2)


if __name__ == "__main__":
    if sys.argv[1] == "edge":
        serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        uvloop.run(work())
