"""The mock bank with more clients than it may have files: it raises its limit, and what it cannot serve it says."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil

from bank.simulator.capacity import SPARE_FILES
from support.bank_harness import CALM, RUN
from support.gateway import eventually

pytest_plugins = ["support.bank_fixtures"]

FILES = 160
LANES = int(CALM["DB_MAX_OPEN_CONNS"])
PLACES = FILES - LANES - SPARE_FILES
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({{soft}}, {{hard}})); {RUN}"
HEALTH = b"GET /health HTTP/1.1\r\nHost: bank\r\n\r\n"


class Small:
    """A bank with a small limit of open files, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        self.port = int(eventually(lambda: self.said("bank_listening"), "it listens", 30)[0]["port"])

    def said(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def client(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@contextmanager
def a_small_bank(postgres: str, folder: Path, *, soft: int, hard: int) -> Iterator[Small]:
    log = folder / "bank.log"
    environ = {**os.environ, **CALM, "PORT": "0", "PENSTOCK_BANK_DATABASE_URL": f"{postgres} dbname=full"}
    with log.open("wb") as file:
        command = [sys.executable, "-c", LIMITED.format(soft=soft, hard=hard)]
        process = subprocess.Popen(command, env=environ, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield Small(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(35)


def answer(client: socket.socket, request: bytes = HEALTH) -> bytes:
    """All that comes until the other side closes, or the first answer."""
    said = b""
    try:
        client.sendall(request)
        while part := client.recv(4096):
            said += part
            if b"}}\n" in said or said.endswith(b"}\n"):
                break
    except (ConnectionResetError, BrokenPipeError):
        pass
    return said


def test_the_bank_may_open_as_many_files_as_the_account_allows(bank_postgres: str, tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000 if most == resource.RLIM_INFINITY else min(3000, most)
    with a_small_bank(bank_postgres, tmp_path, soft=64, hard=wanted) as bank:
        limits = Path(f"/proc/{bank.process.pid}/limits")
        if not limits.exists():  # no such place on macOS: then so many clients are served
            with ExitStack() as clients:
                assert b"200" in [answer(clients.enter_context(closing(bank.client()))) for _ in range(100)][-1]
            return
        [line] = [line for line in limits.read_text().splitlines() if line.startswith("Max open files")]

    assert line.split()[3:5] == [str(wanted), str(wanted)]


def test_a_full_bank_says_so_once_answers_503_and_serves_again_when_there_is_room(
    bank_postgres: str, tmp_path: Path
) -> None:
    with a_small_bank(bank_postgres, tmp_path, soft=FILES, hard=FILES) as bank:
        with ExitStack() as clients:
            served = [clients.enter_context(closing(bank.client())) for _ in range(PLACES)]
            first = [answer(client) for client in served]
            with closing(bank.client()) as late:
                refused = answer(late)
            for _ in range(30):
                with closing(bank.client()) as another:
                    answer(another)
            again = [answer(client) for client in served]
        eventually(lambda: _is_served(bank), "there is room again")

        assert all(b" 200 " in said for said in first + again), "whoever is in stays in"
        assert refused.startswith(b"HTTP/1.1 503 ") and b"connection: close" in refused.lower()
        assert b"as many connections as it may" in refused
        assert [line["connections_max"] for line in bank.said("bank_full")] == [PLACES]
        assert len(bank.said("bank_has_room_again")) == 1


def test_silent_clients_cannot_shut_the_bank_and_it_does_not_spin(bank_postgres: str, tmp_path: Path) -> None:
    with a_small_bank(bank_postgres, tmp_path, soft=FILES, hard=FILES) as bank:
        with closing(bank.client()) as inside, ExitStack() as clients:
            assert b" 200 " in answer(inside)
            for _ in range(3 * FILES):
                clients.enter_context(closing(bank.client()))
            eventually(lambda: bank.said("bank_full"), "it is full")
            seen = psutil.Process(bank.process.pid)
            before = sum(seen.cpu_times()[:2])
            time.sleep(2)
            spent = sum(seen.cpu_times()[:2]) - before
            assert b" 200 " in answer(inside)
        eventually(lambda: _is_served(bank), "there is room again")

        assert spent < 1, "a process that spins takes all of both seconds"
        assert bank.process.poll() is None
        assert len(bank.said("bank_full")) == 1


def _is_served(bank: Small) -> bool:
    with closing(bank.client()) as client:
        return b" 200 " in answer(client)
