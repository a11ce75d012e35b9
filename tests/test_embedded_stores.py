"""The embedded stores keep what they took, are configured as the promises need, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from ops.stack import postgres_location as lodging
from ops.stack.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, _bundled_server

_serial = count()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run Postgres as somebody else")


@pytest.fixture
def folder(store_folder: Path) -> Path:
    """With a space in its name, as on a Mac."""
    folder = store_folder / f"store {next(_serial)}"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def pg(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder / "postgres")
    yield server
    server.kill()


@pytest.fixture
def redis(folder: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(folder / "redis")
    yield server
    server.kill()


def sql(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else None


def test_postgres_keeps_its_data_over_a_stop_and_over_a_crash(pg: EmbeddedPostgres) -> None:
    dsn = pg.start()
    sql(dsn, "CREATE TABLE kept (n integer)")
    sql(dsn, "INSERT INTO kept VALUES (1)")

    pg.stop()
    assert pg.start() == dsn
    sql(dsn, "INSERT INTO kept VALUES (2)")
    backends = psutil.Process(pg.pid).children()
    pg.kill()

    assert not any(backend.is_running() for backend in backends)
    assert pg.start() == dsn
    assert sql(dsn, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_postgres_starts_although_its_old_pid_belongs_to_somebody_now(pg: EmbeddedPostgres, folder: Path) -> None:
    pg.start()
    os.kill(pg.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pg.pid)])
    left = folder / "postgres" / "data" / "postmaster.pid"
    left.write_text(left.read_text().replace(str(pg.pid), str(os.getpid()), 1))

    assert sql(pg.start(), "SELECT 1") == [(1,)]


def test_redis_keeps_its_data_over_a_stop_and_over_a_crash(redis: EmbeddedRedis) -> None:
    url = redis.start()
    with Redis.from_url(url) as client:
        client.set("one", "1")

    redis.stop()
    assert redis.start() == url
    with Redis.from_url(url) as client:
        client.set("two", "2")
    redis.kill()

    assert redis.start() == url
    with Redis.from_url(url) as client:
        assert client.mget("one", "two") == [b"1", b"2"]


def test_postgres_is_configured_as_the_promises_need(postgres: EmbeddedPostgres) -> None:
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "127.0.0.1",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "jit": "off",
        "data_checksums": "on",
        "server_encoding": "UTF8",
    }

    found = sql(postgres.dsn("postgres"), "SELECT name, current_setting(name) FROM pg_settings")

    assert isinstance(found, list)
    assert {name: value for name, value in found if name in wanted} == wanted


def test_postgres_lets_nobody_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(host="127.0.0.1", port=postgres.port, user="postgres", dbname="postgres")


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_redis_is_configured_as_the_promises_need(folder: Path, appendfsync: str) -> None:
    server = EmbeddedRedis(folder / "redis", appendfsync=appendfsync)
    wanted = {
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
        "dir": str(folder / "redis"),
    }

    with Redis.from_url(server.start(), decode_responses=True) as client:
        found = client.config_get(*wanted)
    server.stop()

    assert found == wanted


def test_two_servers_run_side_by_side(pg: EmbeddedPostgres, postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
    other = EmbeddedRedis(redis._data_dir.with_name("other"))
    addresses = {pg.start(), postgres.dsn("postgres"), redis.start(), other.start()}
    other.stop()

    assert len(addresses) == 4


def test_a_folder_has_one_server(redis: EmbeddedRedis, folder: Path) -> None:
    redis.start()

    again = start_in_another_process(folder, after="")
    complaint = again.communicate()[1]

    assert f"Redis already runs in {folder / 'redis'}, started by process {os.getpid()}" in complaint


def test_a_port_in_use_is_named_as_the_reason(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for server in (EmbeddedPostgres(folder / "postgres", port=port), EmbeddedRedis(folder / "redis", port=port)):
            with pytest.raises(EmbeddedError, match=f"port {port} is in use by another program"):
                server.start()


def test_another_port_is_taken_when_the_old_one_is_gone(redis: EmbeddedRedis) -> None:
    redis.start()
    before = redis.port
    redis.stop()

    with socket.create_server(("127.0.0.1", before)), Redis.from_url(redis.start()) as client:
        assert client.ping()

    assert redis.port != before


def test_servers_outlive_neither_their_owner_nor_a_ctrl_c_of_the_terminal(folder: Path) -> None:
    owner = start_in_another_process(folder, after="print(server.pid, flush=True); input()")
    assert owner.stdout is not None
    server = psutil.Process(int(owner.stdout.readline()))
    assert os.getsid(server.pid) == server.pid

    owner.kill()
    owner.communicate()

    assert psutil.wait_procs([server], timeout=10)[1] == []


def start_in_another_process(folder: Path, after: str) -> "subprocess.Popen[str]":
    code = "import sys; from pathlib import Path; from ops.stack.embedded import EmbeddedRedis; "
    code += "server = EmbeddedRedis(Path(sys.argv[1])); server.start(); " + after
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(folder / "redis")]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("Redis server v=6.2.7 sha=00000000:0", "is version 6.2; Penstock needs 7.0 or newer"),
        ("cat (GNU coreutils) 9.1", "is no Redis or Valkey server"),
    ],
)
def test_a_server_that_is_too_old_or_none_is_refused(folder: Path, said: str, complaint: str) -> None:
    program = folder / "named-server"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)

    with pytest.raises(EmbeddedError, match=complaint):
        EmbeddedRedis(folder / "redis", server=str(program)).start()


def test_a_server_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match="no program 'no-such-redis'"):
        EmbeddedRedis(folder / "redis", server="no-such-redis").start()


def test_a_named_server_is_run(folder: Path) -> None:
    named = folder / "our-server"
    named.symlink_to(_bundled_server())
    server = EmbeddedRedis(folder / "redis", server=str(named))

    server.start()
    command = psutil.Process(server.pid).cmdline()
    server.stop()

    assert command[0].startswith(str(named))


def test_a_server_that_does_not_come_up_says_why(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"Redis did not start:(.|\n)*appendfsync"):
        EmbeddedRedis(folder / "redis", appendfsync="sometimes").start()


@as_root
def test_under_a_closed_home_postgres_lodges_elsewhere_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as outdoors:
        Path(outdoors).chmod(0o755)
        monkeypatch.setattr("ops.stack.postgres_location._outdoors", lambda: Path(outdoors))
        server = EmbeddedPostgres(Path(home) / "postgres")
        sql(server.start(), "CREATE TABLE kept (n integer)")
        server.stop()

        again = EmbeddedPostgres(Path(home) / "postgres")
        assert sql(again.start(), "SELECT * FROM kept") == []
        again.stop()

        assert (Path(home) / "postgres" / "moved-to").readlink().parent == Path(outdoors)


@as_root
def test_programs_in_a_closed_home_are_copied_to_where_postgres_reaches_them(
    monkeypatch: pytest.MonkeyPatch, pg: EmbeddedPostgres
) -> None:
    wheel = lodging._wheel()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as outdoors:
        Path(outdoors).chmod(0o755)
        for name in (wheel.name, f"{wheel.name}.libs"):
            subprocess.run(["cp", "-a", wheel.with_name(name), home], check=True)
        monkeypatch.setattr("ops.stack.postgres_location._wheel", lambda: Path(home) / wheel.name)
        monkeypatch.setattr("ops.stack.postgres_location._outdoors", lambda: Path(outdoors))

        assert sql(pg.start(), "SELECT 1") == [(1,)]
        program = Path(psutil.Process(pg.pid).exe())
        pg.stop()

        assert program.is_relative_to(outdoors)
