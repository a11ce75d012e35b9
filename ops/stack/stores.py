"""The stores of the local stack: embedded servers, unless a variable names one that runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ops.stack.address import any_free_port
from ops.stack.data_dir import is_alive
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from ops.store_url import given_url

_DATABASE = "penstock"


class StackStores:
    """Redis and Postgres for one stack."""

    def __init__(self, postgres: Path, redis: Path, *, appendfsync: str, say: Callable[[str], None]) -> None:
        self._folders, self._appendfsync, self._say = (postgres, redis), appendfsync, say
        self._running: dict[str, EmbeddedPostgres | EmbeddedRedis] = {}

    def start_postgres(self) -> str:
        """The URL of the ledger's database. Raises EmbeddedError, Broken."""
        given = given_url("PENSTOCK_DATABASE_URL")
        if given is not None:
            return given
        # The port is fixed here, so that a server that died comes back where everybody looks for it.
        server = self._running["postgres"] = EmbeddedPostgres(self._folders[0], port=any_free_port())
        server.start()
        return server.dsn(_DATABASE)

    def start_redis(self) -> str:
        """The URL of Redis. Raises EmbeddedError, Broken."""
        given = given_url("PENSTOCK_REDIS_URL")
        if given is not None:
            return given
        program = os.environ.get("PENSTOCK_REDIS_SERVER")
        server = self._running["redis"] = EmbeddedRedis(
            self._folders[1], appendfsync=self._appendfsync, server=program, port=any_free_port()
        )
        return server.start()

    def process(self, name: str) -> tuple[int, int] | None:
        """Pid and port of an embedded server; None for one that runs elsewhere."""
        server = self._running.get(name)
        return (server.pid, server.port) if server else None

    def run_once(self) -> bool:
        """One look: start again what died. True when something did. Raises EmbeddedError."""
        dead = {name: server for name, server in self._running.items() if not is_alive(server.pid)}
        for name, server in dead.items():
            self._say(f"{name} died; starting it again")
            server.kill()  # what is left of it
            server.start()
            self._say(f"{name} is ready again (pid {server.pid})")
        return bool(dead)

    def stop(self, urgent: Callable[[], bool]) -> None:
        """Redis, then Postgres."""
        for name in ("redis", "postgres"):
            server = self._running.pop(name, None)
            if server is not None:
                (server.kill if urgent() else server.stop)()
