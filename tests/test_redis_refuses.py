"""A Redis that refuses says so, and nothing ran: callers learn why, and whether it is certain. On real servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis as plain_redis
from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from engine.errors import StoreRefused, Unavailable
from engine.streams import keys
from engine.streams.scripts import Scripts, translated
from ops.stack.embedded import EmbeddedRedis, _bundled_server
from support.lossy_wire import LossyWire, a_lossy_wire
from support.scripted import OPEN, PARTITION, STREAM, UNSETTLED

ACCEPT = (
    *(keys.record(PARTITION, "op_1"), OPEN, STREAM, keys.merchants(PARTITION), keys.dead(PARTITION)),
    *("op_1", UNSETTLED, "snapshot", 100, 100, "m", 100, "operation", "op_1"),
)
SECRET = "hunter-2"
AT_ONCE = Retry(NoBackoff(), 1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis of its own: what is done to it would hurt the others."""
    running = EmbeddedRedis(tmp_path / "redis")
    running.start()
    yield running
    running.kill()


@contextmanager
def on(port: int) -> Iterator[plain_redis.Redis]:
    with plain_redis.Redis(port=port) as client:
        yield client


def outcome(port: int, script: str = "accept", arguments: tuple[Any, ...] = ACCEPT, **options: Any) -> Any:
    """The reply of a script, or the exception it stands for."""

    async def once() -> Any:
        async with Redis(port=port, protocol=2, retry=AT_ONCE, **options) as client:
            try:
                return await Scripts(client, 2.0).call(script, *arguments)
            except Unavailable as error:
                return error

    return asyncio.run(once())


REFUSALS: dict[str, Callable[[plain_redis.Redis], Any]] = {
    "read-only replica": lambda client: client.replicaof("127.0.0.1", "1"),
    "too few replicas": lambda client: client.config_set("min-replicas-to-write", 1),
    "out of memory": lambda client: client.config_set("maxmemory", 1),
    "not permit": lambda client: client.acl_setuser("default", enabled=True, commands=["-evalsha"]),
    "credentials": lambda client: client.config_set("requirepass", SECRET),
    "too many clients": lambda client: client.config_set("maxclients", 1),
}


@pytest.mark.parametrize("script", ["accept", "probe"])
@pytest.mark.parametrize("why", REFUSALS)
def test_a_refusal_is_certain_says_why_and_left_nothing(server: EmbeddedRedis, why: str, script: str) -> None:
    with on(server.port) as client:
        REFUSALS[why](client)
        found = outcome(server.port, script, ACCEPT if script == "accept" else (keys.PROBE, 1000))
        left = client.keys("penstock:*")

    assert type(found) is StoreRefused
    if why != "too many clients":  # it may hang up before it has said why
        assert why in found.detail
    assert found.code == ("overloaded" if why == "out of memory" else "store_unavailable")
    assert left == []


def test_a_redis_that_nobody_listens_for_was_asked_nothing(server: EmbeddedRedis) -> None:
    server.kill()

    assert type(outcome(server.port)) is StoreRefused


def test_a_redis_that_hangs_up_while_it_is_greeted_was_asked_nothing(server: EmbeddedRedis) -> None:
    async def once() -> list[type[Exception]]:
        hung_up = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with Redis(port=hung_up.sockets[0].getsockname()[1], protocol=2, retry=AT_ONCE) as client:
            found: list[type[Exception]] = []
            for _ in range(5):
                try:
                    await Scripts(client).call("accept", *ACCEPT)
                except Unavailable as error:
                    found.append(type(error))
        hung_up.close()
        return found

    assert asyncio.run(once()) == [StoreRefused] * 5


def test_a_busy_redis_refuses_for_certain(server: EmbeddedRedis) -> None:
    with on(server.port) as client, on(server.port) as other:
        client.config_set("busy-reply-threshold", 1)
        endless = threading.Thread(target=lambda: _ended(other))
        endless.start()
        try:
            found = outcome(server.port)
            while not isinstance(found, StoreRefused):  # not busy yet
                with suppress(RedisError):  # it may be busy by now
                    client.delete(*ACCEPT[:4])
                found = outcome(server.port)
        finally:
            client.script_kill()
            endless.join(10)

    assert found.detail == "Redis is busy with a script."


def _ended(client: plain_redis.Redis) -> None:
    with suppress(RedisError):
        client.eval("while true do end", 0)


def test_a_node_of_a_cluster_refuses_for_certain(tmp_path: Path) -> None:
    program = tmp_path / "clustered"
    program.write_text(f'#!/bin/sh\nexec {_bundled_server()} "$@" --cluster-enabled yes\n')
    program.chmod(0o755)
    node = EmbeddedRedis(tmp_path / "node", server=str(program))
    node.start()
    try:
        found = outcome(node.port)
    finally:
        node.kill()

    assert (type(found), found.detail) == (StoreRefused, "the Redis cluster is down.")


@pytest.fixture
def wire(server: EmbeddedRedis) -> Iterator[LossyWire]:
    with a_lossy_wire(server.port) as running:
        yield running


def test_a_refusal_after_a_lost_reply_says_nothing_about_the_first_try(server: EmbeddedRedis, wire: LossyWire) -> None:
    assert outcome(server.port, "probe", (keys.PROBE, 1000)) == b"OK"
    with on(server.port) as client:
        client.script_load((Path("engine/streams/lua/accept-5.lua")).read_text())
        wire.on_loss = lambda: client.replicaof("127.0.0.1", "1")
        wire.lose(b"accepted")
        found = outcome(wire.port)
        accepted = client.exists(keys.record(PARTITION, "op_1"))

    assert accepted == 1
    assert isinstance(found, Unavailable)
    assert not isinstance(found, StoreRefused)


# As Redis sends them, with what must never be passed on.
ANSWERS = (
    "READONLY You can't write against a read only replica. script: 5f2, on @user_script:25.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "LOADING Valkey is loading the dataset in memory",
    "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    f"MOVED 3999 {SECRET}.internal:6381",
    f"ASK 3999 {SECRET}.internal:6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "CLUSTERDOWN Hash slot not served",
    f"NOPERM User {SECRET} has no permissions to run the 'evalsha' command",
    "NOAUTH Authentication required.",
    f"WRONGPASS invalid username-password pair or user is disabled. {SECRET}",
    f"DENIED Valkey is running in protected mode {SECRET}",
    "ERR max number of clients reached",
)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.split()[0])
def test_every_refusal_is_told_in_our_words_and_gives_nothing_away(answer: str) -> None:
    told = translated(BaseParser.parse_error(answer))

    assert type(told) is StoreRefused
    assert "edis" in told.detail
    assert SECRET not in str(told) and "internal" not in str(told)


@pytest.mark.parametrize("command", ["-get", "-xadd", "-hset"])
def test_a_command_that_is_not_permitted_inside_a_script_leaves_it_open_whether_it_ran(
    server: EmbeddedRedis, command: str
) -> None:
    with on(server.port) as plain:
        plain.execute_command("ACL", "SETUSER", "default", command)

        found = outcome(server.port)

        assert type(found) is Unavailable, "a caller may repeat the key; and what came before it is done"
        plain.execute_command("ACL", "SETUSER", "default", "+@all")
    assert outcome(server.port)[0] in (b"accepted", b"known")


@pytest.mark.parametrize(
    "answer",
    [
        "ERR ACL failure in script: User default has no permissions to run the 'xadd' command script: 5f2",
        "ERR The user executing the script can't run this command or subcommand script: 5f2",
    ],
    ids=["Valkey", "Redis"],
)
def test_both_servers_words_for_that_are_known(answer: str) -> None:
    assert type(translated(BaseParser.parse_error(answer))) is Unavailable


def test_an_error_inside_a_script_is_no_refusal() -> None:
    found = translated(BaseParser.parse_error("WRONGTYPE Operation against a key holding the wrong kind of value"))

    assert not isinstance(found, Unavailable)
