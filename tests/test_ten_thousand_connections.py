"""Ten thousand connections that say nothing do not shut the door: real sockets, a real edge, a real payment."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support.gateway import Gateway, a_gateway, a_payment

SILENT = 10_000
BYTES_EACH_MAX = 64 * 1024
OTHERS = 1_000  # files of the tests themselves

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """This process opens as many sockets as the edge; the edge inherits how many it may have at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SILENT + OTHERS
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        pytest.skip(f"this account may open {hard} files, and {wanted} are needed: raise it with ulimit -n")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, wanted)))


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, PENSTOCK_CONNECTOR="instant") as running:
        yield running


@pytest.mark.parametrize(
    "said",
    [b"", b"POST /v1/payments HTTP/1.1\r\nHost: x\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["nothing", "half a head", "one request, then nothing"],
)
def test_ten_thousand_silent_connections_leave_the_door_open(gateway: Gateway, said: bytes) -> None:
    (edge,) = [running for running in gateway.processes if running.role == "edge"]
    before = psutil.Process(edge.pid).memory_info().rss
    silent: list[socket.socket] = []
    try:
        for _ in range(SILENT + 200):  # more than an edge keeps
            silent.append(socket.create_connection(("127.0.0.1", edge.port), timeout=30))
            if said:
                silent[-1].sendall(said)

        paid = [gateway.post("/v1/payments", a_payment("4111111111111111"), wait=20) for _ in range(5)]
        with httpx.Client() as others:
            alive = [others.get(f"http://127.0.0.1:{edge.port}{path}").status_code for path in ("/livez", "/readyz")]

        assert [answer.status_code for answer in paid] == [201] * 5
        assert alive == [200, 200]
        grown = psutil.Process(edge.pid).memory_info().rss - before
        assert grown < SILENT * BYTES_EACH_MAX, f"{grown / SILENT:.0f} bytes for each connection"
        print(f"{grown / SILENT:.0f} bytes for each connection")
    finally:
        for wire in silent:
            wire.close()
