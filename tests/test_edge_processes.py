"""An edge of one or several processes begins and ends as one: no client of it goes without an answer."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.stack.address import any_free_port
from support.gateway import Gateway, Running, eventually
from support.steady_clients import Seen, drive

CARD = "4111111111111111"
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: edge\r\n\r\n"


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Without a process yet. No bank is needed: the connector approves all, or nobody takes the work."""
    gateway = Gateway(
        database=database,
        redis_url=redis_url,
        bank_url="http://127.0.0.1:1",
        folder=tmp_path,
        environ={"PENSTOCK_CONNECTOR": "instant"},
    )
    yield gateway
    gateway.close()
    for process in leftover(gateway):
        process.kill()


def an_edge(gateway: Gateway, processes: int, **environ: str) -> Running:
    """All its processes are ready, not only the one that answers first."""
    environ = {"PENSTOCK_EDGE_METRICS_PORT": str(any_free_port()), **environ} if processes > 1 else environ
    edge = gateway.start("edge", PENSTOCK_EDGE_PROCESSES=str(processes), **environ)
    if processes > 1:
        await_each(int(environ["PENSTOCK_EDGE_METRICS_PORT"]), processes)
    return edge


def await_each(first_port: int, processes: int) -> None:
    """Each process answers at a port of its own."""

    def is_ready(port: int) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    for number in range(processes):
        eventually(lambda number=number: is_ready(first_port + number), f"process {number + 1} is ready", 60)


def children(edge: Running) -> list[psutil.Process]:
    """The processes that serve, when there are several."""
    found = psutil.Process(edge.pid).children()
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


def leftover(gateway: Gateway) -> list[psutil.Process]:
    ports = {running.port for running in gateway.processes}
    listening = [each for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port in ports]
    return [psutil.Process(each.pid) for each in listening if each.pid and is_ours(gateway, each.pid)]


def is_ours(gateway: Gateway, pid: int) -> bool:
    """A port that was ours may be that of another test's process by now."""
    try:
        return psutil.Process(pid).environ().get("PENSTOCK_DATABASE_URL") == gateway.database
    except psutil.Error:
        return False


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def told(edge: Running, how: str) -> None:
    """Each way in which an edge may be told to stop."""
    serving = [child.pid for child in children(edge)] or [edge.pid]
    pids = {
        "parent": [edge.pid],
        "parent twice": [edge.pid, edge.pid],
        "parent by Ctrl-C": [],
        "child": serving[:1],
        "child twice": [*serving[:1], *serving[:1]],
        "group": [edge.pid, *serving],
        "group twice": [edge.pid, *serving, edge.pid, *serving],
    }[how]
    for pid in pids:
        with suppress(ProcessLookupError):  # one that no client waits at may have ended by the second time
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)  # two signals that are not taken yet are one
    if how == "parent by Ctrl-C":  # which a terminal sends to all of them
        for pid in {edge.pid, *serving}:
            os.kill(pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "how"),
    [
        *((1, how) for how in ("parent", "parent twice", "parent by Ctrl-C")),
        *((2, how) for how in ("parent", "parent twice", "parent by Ctrl-C", "child", "child twice", "group")),
        *((4, how) for how in ("parent", "group twice")),
    ],
)
def test_whoever_is_told_to_stop_clients_that_wait_are_answered(gateway: Gateway, processes: int, how: str) -> None:
    edge = an_edge(gateway, processes)  # and no worker: each client waits as long as it wants to
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(gateway.pay, CARD, wait=4) for _ in range(8)]
        eventually(lambda: gateway.backlog() == 8, "all are accepted")

        told(edge, how)
        code = edge.died(60)

        assert [each.result().status_code for each in waiting] == [202] * 8
    assert code == 0
    assert is_free(edge.port)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_under_load_no_request_goes_without_an_answer(
    gateway: Gateway, processes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.start("worker")
    edge = an_edge(gateway, processes, PENSTOCK_EDGE_LINGER_S="1")

    seen = asyncio.run(stopped_under_load(edge))

    with capsys.disabled():
        print(f"\nSIGTERM of {processes} edge process(es) under 300 payments/s: {seen}")
    assert seen.lost == []
    assert set(seen.answers) <= {201, 202, 503}  # 503: the stores of a slow machine did not answer in time
    assert seen.answers.total() >= 100  # on a slow machine the clients are late
    assert seen.not_sent > 0 and seen.closing > 0
    assert edge.died(60) == 0


@pytest.mark.slow
def test_connections_that_the_kernel_has_completed_are_taken_and_served(gateway: Gateway) -> None:
    # With no time to linger, and many connections a moment before: some are in the queue of the listening socket.
    edge = an_edge(gateway, 2, PENSTOCK_EDGE_LINGER_S="0")
    for pid in (serving := [child.pid for child in children(edge)]):
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(connected(edge)) for _ in range(50)]
        for client in clients:
            client.sendall(LIVEZ)
        os.kill(edge.pid, signal.SIGTERM)
        time.sleep(0.5)
        for pid in serving:
            os.kill(pid, signal.SIGCONT)

        answers = [answer_on(client) for client in clients]

    assert [answer.status for answer in answers] == [200] * 50
    assert edge.died(60) == 0


@pytest.mark.slow
def test_a_request_on_a_kept_connection_that_comes_while_the_edge_stops_is_the_last_one_there(gateway: Gateway) -> None:
    edge = an_edge(gateway, 2, PENSTOCK_EDGE_LINGER_S="1")
    with ExitStack() as open_ones:
        kept = [open_ones.enter_context(connected(edge)) for _ in range(20)]
        for each in kept:
            assert livez(each).getheader("connection") is None

        edge.send(signal.SIGTERM)
        eventually(lambda: httpx.get(f"http://127.0.0.1:{edge.port}/readyz").status_code == 503, "it stops")
        answers = [livez(each) for each in kept]

    assert [(answer.status, answer.getheader("connection")) for answer in answers] == [(200, "close")] * 20
    assert edge.died(30) == 0


@pytest.mark.slow
def test_a_stopping_edge_is_not_ready_at_once_and_goes_on_answering(gateway: Gateway) -> None:
    edge = an_edge(gateway, 2, PENSTOCK_EDGE_LINGER_S="3")
    url = f"http://127.0.0.1:{edge.port}"

    edge.send(signal.SIGTERM)
    not_ready = eventually(lambda: (answer := httpx.get(f"{url}/readyz")).status_code == 503 and answer, "not ready")
    alive, paid = httpx.get(f"{url}/livez"), gateway.pay(CARD)

    assert not_ready.json()["failing"]["stopping"] == "this process was told to stop"
    assert (alive.status_code, paid.status_code) == (200, 202)
    assert {answer.headers["connection"] for answer in (not_ready, alive, paid)} == {"close"}
    assert edge.died(30) == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_no_process_outlives_a_killed_parent_and_the_port_is_free(gateway: Gateway, processes: int) -> None:
    edge = an_edge(gateway, processes)
    serving = children(edge)
    assert len(serving) == processes
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(gateway.pay, CARD, wait=3) for _ in range(4)]
        eventually(lambda: gateway.backlog() == 4, "all are accepted")

        edge.kill()
        gone, alive = psutil.wait_procs(serving, timeout=30)

        assert [each.result().status_code for each in waiting] == [202] * 4
    assert (len(gone), alive) == (processes, [])
    assert is_free(edge.port)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_a_process_that_dies_is_reported_and_the_others_end_in_order(gateway: Gateway, processes: int) -> None:
    edge = an_edge(gateway, processes)
    with ThreadPoolExecutor(24) as pool:
        waiting = []
        for number in range(24):  # one by one: whoever is awake takes all that wait
            waiting.append(pool.submit(gateway.pay, CARD, wait=10))
            eventually(lambda number=number: gateway.backlog() > number, "it is accepted")
        clients = {
            child: len([each for each in child.net_connections("tcp") if is_client_of(each, edge)])
            for child in children(edge)
        }
        dead, *others = sorted(clients, key=clients.__getitem__, reverse=True)
        held = clients[dead]

        dead.kill()
        code = edge.died(30)

        assert code == 1
        failed = [each for each in waiting if each.exception() is not None]
        assert len(failed) == held > 0  # those of the dead process alone
    assert f"(pid {dead.pid}) died (signal 9, SIGKILL)" in edge.log.read_text()
    assert not any(other.is_running() for other in others)
    assert is_free(edge.port)


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_clients(gateway: Gateway) -> None:
    edge = an_edge(gateway, 2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.pay, CARD, wait=25)
        eventually(lambda: gateway.backlog() == 1, "it is accepted")
        for _ in range(2):
            edge.send(signal.SIGINT)
            time.sleep(0.5)

        edge.died(10)

        assert isinstance(waiting.exception(), httpx.HTTPError)


@pytest.mark.slow
def test_a_mistake_is_told_once_in_words_when_there_are_several_processes(gateway: Gateway) -> None:
    edge = gateway.launch("edge", PENSTOCK_EDGE_PROCESSES="2", PENSTOCK_PARTITIONS="7")

    assert edge.died(30) == 1
    log = edge.log.read_text()
    assert "penstock: PENSTOCK_PARTITIONS is 7, but this database was initialised with 16" in log
    assert log.count("Traceback") <= 1  # the parent's own, which `penstock edge` tells in words


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_metrics_are_of_all_processes_whichever_is_asked(gateway: Gateway, processes: int) -> None:
    first = any_free_port()
    edge = an_edge(gateway, processes, PENSTOCK_EDGE_METRICS_PORT=str(first))
    url = f"http://127.0.0.1:{edge.port}"
    before = requests(f"{url}/metrics")
    for _ in range(100):
        httpx.get(f"{url}/livez")

    scrapes = [requests(f"{url}/metrics") for _ in range(10)]
    own = [requests(f"http://127.0.0.1:{first + number}/metrics") for number in range(processes)]

    numbers = {str(number) for number in range(1, processes + 1)}
    for earlier, later in zip([before, *scrapes], scrapes, strict=False):
        assert all(later[labels] >= value for labels, value in earlier.items())  # none goes backwards, none is missing
    assert all(sum(scrape.values()) == 100 for scrape in scrapes)
    assert {process for process, _ in scrapes[0]} <= numbers
    for number, each in enumerate(own, 1):
        assert {process for process, _ in each} <= {str(number)}
    assert sum(sum(each.values()) for each in own) == 100
    answers = samples(f"{url}/metrics", "penstock_edge_process_answers")
    assert {sample.labels["process"]: sample.value for sample in answers} == dict.fromkeys(numbers, 1.0)


@pytest.mark.slow
def test_a_process_that_does_not_tell_its_metrics_is_named(gateway: Gateway) -> None:
    edge = an_edge(gateway, 2)
    stuck = children(edge)[0]
    stuck.suspend()
    try:
        # Half of the connections are the stuck one's: who got one of those tries again.
        def told() -> dict[str, float] | None:
            try:
                found = samples(f"http://127.0.0.1:{edge.port}/metrics", "penstock_edge_process_answers")
            except httpx.HTTPError:
                return None
            return {sample.labels["process"]: sample.value for sample in found}

        answers = eventually(told, "one answers", 30)
    finally:
        stuck.resume()

    assert sorted(answers.values()) == [0.0, 1.0]


async def stopped_under_load(edge: Running) -> Seen:
    """SIGTERM two seconds into a load that goes on for two seconds more than the edge."""
    ended = asyncio.Event()
    load = asyncio.create_task(drive(edge.port, CARD, per_s=300, wait_s=10, ended=ended))
    await asyncio.sleep(2)
    edge.send(signal.SIGTERM)
    await asyncio.sleep(4)
    ended.set()
    return await load


def connected(edge: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", edge.port), 20)


def livez(kept: socket.socket) -> http.client.HTTPResponse:
    kept.sendall(LIVEZ)
    return answer_on(kept)


def answer_on(kept: socket.socket) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(kept)
    answer.begin()
    answer.read()
    return answer


def is_client_of(connection: object, edge: Running) -> bool:
    return connection.laddr.port == edge.port and connection.status == "ESTABLISHED"  # type: ignore[attr-defined]


def samples(url: str, name: str):  # type: ignore[no-untyped-def]
    families = text_string_to_metric_families(httpx.get(url, timeout=5).text)
    return [sample for family in families for sample in family.samples if sample.name == name]


def requests(url: str) -> dict[tuple[str, str], float]:
    """GET /livez, by process and status."""
    return {
        (sample.labels["process"], sample.labels["status"]): sample.value
        for sample in samples(url, "penstock_http_requests_total")
        if sample.labels["route"] == "/livez"
    }
