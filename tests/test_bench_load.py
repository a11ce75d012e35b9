"""The load of the bench: due by the clock, counted from when it was due, whatever the gateway does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bank.simulator.card import extra_card
from ops.bench.generator import Generator
from ops.bench.load import Figures, Load, answer_length, arrivals_due, due_s, percentile, percentiles, request_template
from ops.bench.usage import per_thousand

LOAD = Load(
    url="http://127.0.0.1:1",
    api_key="sk_100%",
    run="bench-1",
    rate_per_s=400,
    warmup_s=0.1,
    seconds=0.4,
    cards=[extra_card(number) for number in range(3)],
)
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@dataclass
class TinyServer:
    """Answers requests one by one; `stall_s` once, at request number `stall_at`; cuts the connection at `cut_at`."""

    answers: tuple[bytes, ...] = (ACCEPTED,)
    stall_at: int = -1
    stall_s: float = 0.0
    cut_at: int = -1
    keys: list[str] = field(default_factory=list)
    bodies: list[dict[str, object]] = field(default_factory=list)
    _stalled: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers["Content-Length"]))
                number = len(self.keys)
                self.keys.append(headers["Idempotency-Key"])
                self.bodies.append(orjson.loads(body))
                if number == self.cut_at:
                    break
                if number == self.stall_at:
                    self._stalled.set()
                    await asyncio.sleep(self.stall_s)
                    self._stalled.clear()
                elif self._stalled.is_set():
                    await asyncio.sleep(self.stall_s)
                writer.write(self.answers[number % len(self.answers)])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(tiny: TinyServer) -> AsyncIterator[str]:
    server = await asyncio.start_server(tiny.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def tiny() -> Iterator[TinyServer]:
    yield TinyServer()


def offered(tiny: TinyServer, load: Load = LOAD) -> Figures:
    async def offer() -> Figures:
        async with listening(tiny) as url:
            generator = Generator(replace(load, url=url), say=lambda said: None)
            try:
                return await generator.run()
            finally:
                generator.close()

    return asyncio.run(offer())


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)

    found = percentile(ordered, share)

    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


def test_percentiles_of_a_thousand_are_the_ranks() -> None:
    assert percentiles(range(1000, 0, -1)) == {"p50": 500, "p99": 990, "p99_9": 999, "max": 1000}


def test_there_is_no_percentile_of_nothing() -> None:
    assert math.isnan(percentiles([])["p50"])


@given(st.integers(0, 100_000), st.floats(0.5, 50_000))
def test_an_arrival_is_due_at_its_moment_and_not_before(arrival: int, rate_per_s: float) -> None:
    moment = due_s(arrival, rate_per_s)

    assert arrivals_due(moment, rate_per_s, arrival + 10) == arrival + 1
    assert arrivals_due(moment - 0.01 / rate_per_s, rate_per_s, arrival + 10) == arrival


def test_no_more_arrivals_are_due_than_there_are() -> None:
    assert arrivals_due(1e6, 1000, 50) == 50
    assert arrivals_due(-1, 1000, 50) == 0


def test_a_request_is_whole_and_carries_its_number_twice() -> None:
    request = request_template(LOAD, extra_card(7)) % (41, 41)

    head, body = request.split(b"\r\n\r\n")

    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert b"Idempotency-Key: bench-1-000000041" in head.split(b"\r\n")
    assert b"X-API-Key: sk_100%" in head.split(b"\r\n")
    assert orjson.loads(body)["order_id"] == "order-000000041"
    assert orjson.loads(body)["payment_method"]["number"] == extra_card(7)


@pytest.mark.parametrize(
    ("received", "length"),
    [(ACCEPTED, len(ACCEPTED)), (BUSY, len(BUSY)), (ACCEPTED[:30], None), (ACCEPTED[:-1], len(ACCEPTED))],
)
def test_the_end_of_an_answer_is_found(received: bytes, length: int | None) -> None:
    assert answer_length(received) == length


def test_each_arrival_is_offered_once_and_only_those_after_the_warm_up_count(tiny: TinyServer) -> None:
    figures = offered(tiny)

    assert sorted(tiny.keys) == [f"bench-1-{number:09d}" for number in range(200)]
    assert (figures.accepted, figures.accepted_in_all, figures.errors) == (160, 200, {})
    assert figures.accepts_per_s == pytest.approx(400, rel=0.2)


def test_a_stall_is_felt_by_every_arrival_that_was_due_meanwhile(tiny: TinyServer) -> None:
    tiny.stall_at, tiny.stall_s = 100, 0.25

    figures = offered(tiny, replace(LOAD, connections_max=1))

    assert figures.accept_ms["max"] >= 200
    assert figures.accept_ms["p50"] >= 20  # coordinated omission would leave one slow request among quick ones
    assert figures.waited_for_connection > 20
    assert len(tiny.keys) == 200


def test_refusals_are_counted_by_status(tiny: TinyServer) -> None:
    tiny.answers = (ACCEPTED, BUSY)

    figures = offered(tiny)

    assert figures.errors == {"503": 80}
    assert figures.accepted == 80


def test_a_request_under_which_the_connection_closed_is_sent_again_with_its_key(tiny: TinyServer) -> None:
    tiny.cut_at = 60

    figures = offered(tiny)

    assert (figures.accepted_in_all, figures.errors) == (200, {})
    assert len(tiny.keys) == 201
    assert len(set(tiny.keys)) == 200


def test_nobody_there_is_an_error_at_once() -> None:
    with pytest.raises(OSError):
        asyncio.run(Generator(LOAD, say=lambda said: None).run())


def test_the_cost_is_what_was_spent_in_between_per_thousand_payments() -> None:
    cost = per_thousand({"edge": 1.0}, {"edge": 3.0, "worker": 0.5}, 4000)

    assert cost == {"edge": 0.5, "worker": 0.125}
    assert per_thousand({}, {"edge": 1.0}, 0) == {}
