"""Belonging: whether the Redis that we are connected to is our installation's, and not that of another ledger.

Two installations on one Redis would take each other's payments. The first process writes its installation's id into
Redis; all compare it: at start, for each new connection, and again and again. After a FLUSHALL it is written anew.
Whether our user may still do there what we need (permission.py) is asked in the same breath.
"""

from __future__ import annotations

from typing import Any

import anyio
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from engine.errors import Broken, Unavailable
from engine.resilience.fitness import Fitness
from engine.streams import keys
from engine.streams.permission import NEEDED, lacking
from engine.streams.scripts import Scripts

log = structlog.get_logger()

FAULT = "redis"
PERMISSION_FAULT = "redis_permission"
_EVERY_S = 1.0


class InstallationCheck:
    """One per process, for its installation."""

    def __init__(self, installation: str, fitness: Fitness) -> None:
        self._ours, self._fitness = installation, fitness

    async def look(self, scripts: Scripts) -> None:
        """Compare, and tell the process's fitness. Raises Unavailable, and Broken when the key is nothing of ours."""
        missing, there = await scripts.call_many(
            [("permits", NEEDED), ("belong", (keys.INSTALLATION, self._ours))],
        )
        if not isinstance(missing, Exception):
            self._fitness.tell(PERMISSION_FAULT, lacking(missing))
        if isinstance(there, Broken):
            raise Broken(f"{keys.INSTALLATION} in Redis is no id: DEL it, if this Redis is ours alone")
        if isinstance(there, Exception):
            raise there
        self._judge(there)

    async def run(self, scripts: Scripts) -> None:
        """For life; Redis away is for others to complain about."""
        while True:
            await anyio.sleep(_EVERY_S)
            try:
                await self.look(scripts)
            except (Unavailable, Broken) as error:
                log.warning("redis_away", error=str(error))

    async def greet(self, connection: Any) -> None:
        """Of a new connection, before anything is sent through it: one to a Redis of others is not used."""
        await connection.on_connect()
        await connection.send_command("GET", keys.INSTALLATION)
        try:
            there = await connection.read_response()
        except ResponseError:  # a Redis that does not answer this will say so to what is asked of it
            return
        if there is not None and not self._judge(there):
            raise RedisConnectionError("this Redis is another installation's")

    def _judge(self, there: Any) -> bool:
        whose = there.decode(errors="replace") if isinstance(there, bytes) else str(there)
        ours = whose == self._ours
        self._fitness.tell(
            FAULT,
            None
            if ours
            else f"this Redis belongs to the installation {whose[:40]}, and the ledger to {self._ours}: give each "
            f"installation a Redis, or a database number in PENSTOCK_REDIS_URL, of its own. If the other one is gone "
            f"for good: DEL {keys.INSTALLATION}",
        )
        return ours
