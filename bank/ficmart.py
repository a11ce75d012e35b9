"""The connector to the FicMart bank: one `ask`, at most one HTTP request.

Keeps its part of I1 and I7: nothing is written after `send_by` or twice, and only what provably was not written is
Unsent. The one place that knows is the request's body: aiohttp holds the headers back until the body is written, so
both leave in one write, and the body looks at the clock and at the connection right before it. All that goes wrong
later is no answer. What answers mean is told by dialect.py and classification.py; retries are the engine's.
Look-ups and probes are plain reads beside that, which wait for no place.
"""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from types import TracebackType
from typing import Self, cast

import anyio
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, hdrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import BytesPayload
from multidict import istr
from yarl import URL

from bank import dialect
from bank.classification import MESSAGES, NO_WORD, TEXT, Doubt, classify
from engine.contracts.connector import BankRequest, Capabilities, Clock
from engine.domain.bank_answer import Absent, Answer, Finding, NoAnswer, Refusal, Refused, Unsearchable, Unsent
from engine.domain.payment import DeclineCode, Verb

CONNECTIONS_MAX = 4096  # as many calls are in flight as a bank of 1 s needs at some thousand payments a second
KEEPALIVE_S = 30.0  # below the bank's own 60 s, so that it is we who close idle connections
ANSWER_BYTES_MAX = 64 * 1024  # the bank's answers are below 1 KiB; more is not from it
TURNS_TO_READ = 2  # of the event loop: in the first one we may be called before what has arrived is read

CAPABILITIES = Capabilities(
    methods=frozenset({"card"}),
    currencies=frozenset({dialect.CURRENCY}),
    verbs=frozenset(Verb),
    partial_amounts=False,
)

_NOT_FOUND = "not_found"
_NOBODY = "auth_00000000-0000-0000-0000-000000000000"  # an id that the bank cannot have given: version 0 of a UUID

_IDEMPOTENCY_KEY = istr("Idempotency-Key")
_TRACEPARENT = istr("traceparent")
_REPLAYED = istr("X-Idempotent-Replayed")
_HEADERS = {
    hdrs.ACCEPT: "application/json",
    hdrs.ACCEPT_ENCODING: "identity",  # the bound on the answer is one on bytes read: nothing may swell afterwards
    hdrs.CONTENT_TYPE: "application/json",
    hdrs.USER_AGENT: "penstock",
}


class FicmartBank:
    """Connector to a FicMart bank at `url`. An async context manager: the connections live as long as it is open."""

    def __init__(
        self, url: str, *, clock: Clock, name: str = "ficmart_bank", connections_max: int = CONNECTIONS_MAX
    ) -> None:
        base = URL(url)
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"the bank's URL must be http(s)://host[:port], not {url!r}")
        self._name = name
        self._clock = clock
        self._urls = {verb: base.joinpath("api/v1", endpoint.path) for verb, endpoint in dialect.ENDPOINTS.items()}
        self._places = anyio.Semaphore(connections_max, fast_acquire=True)
        self._session: ClientSession | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    async def __aenter__(self) -> Self:
        # No limit in the pool: its queue would stand between our look at the clock and the write.
        pool = TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        self._session = ClientSession(connector=pool, cookie_jar=DummyCookieJar(), auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, ask: BankRequest) -> Answer:
        """One attempt. Raises Broken for an Ask that this bank cannot be asked."""
        body = _Body(dialect.request(ask), clock=self._clock, send_by=min(ask.send_by, ask.deadline))
        if not await self._take_place(body.send_by):
            return Unsent(reason="no connection was free before send_by")
        try:
            return await self._exchange(ask, body)
        finally:
            self._places.release()

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding:
        """Absent without asking where the id has not the shape of this bank's."""
        endpoint = dialect.ENDPOINTS[verb]
        if not endpoint.shape.match(reference):
            return Absent(reason=f"it has not the form of this bank's ids of a {verb}")
        if verb in dialect.NOT_SHOWN:
            return Unsearchable(reason=f"the bank shows no {verb} by its id")
        said = await self._shown(self._urls[verb] / reference, timeout_s)
        if said is None:
            return NoAnswer(reason="the bank did not answer the look-up")
        status, word, body = said
        if status == 404 and word == _NOT_FOUND:
            return Absent(reason="the bank does not know it")
        try:
            if status != 200:
                raise dialect.Unreadable(f"{status} {word}")
            return dialect.found(verb, body)
        except dialect.Unreadable as fault:
            return NoAnswer(reason=f"the bank's answer to the look-up says nothing: {fault}", over=True)

    async def probe(self, timeout_s: float) -> bool:
        """Whether the bank's own words come back, be they that it knows nothing or that it failed."""
        said = await self._shown(self._urls[Verb.AUTHORIZE] / _NOBODY, timeout_s)
        return said is not None and said[1] not in (TEXT, NO_WORD)

    async def _shown(self, url: URL, timeout_s: float) -> tuple[int, str, bytes] | None:
        """Status, word and body of a read; None when no whole answer came in time."""
        if self._session is None:
            raise RuntimeError("the connector is not open")
        timeout = ClientTimeout(total=max(timeout_s, 0.001), ceil_threshold=math.inf)  # zero would stand for none
        try:
            async with self._session.get(url, headers=_HEADERS, timeout=timeout, allow_redirects=False) as response:
                body = await _read(response)
                word = dialect.word(response.headers.get(hdrs.CONTENT_TYPE, ""), body or b"")
                return None if body is None else (response.status, word, body)
        except (ClientError, OSError):  # Time-outs are OSErrors.
            return None

    async def _take_place(self, send_by: datetime) -> bool:
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after((send_by - self._clock()).total_seconds()) as wait:
                await self._places.acquire()
            return not wait.cancelled_caught
        return True

    async def _exchange(self, ask: BankRequest, body: _Body) -> Answer:
        if self._session is None:
            raise RuntimeError("the connector is not open")
        began = self._clock()
        if began >= body.send_by:  # Here too, since aiohttp takes a time-out of zero for none.
            return Unsent(reason="send_by had passed")
        timeout = ClientTimeout(
            total=(ask.deadline - began).total_seconds(),
            connect=(body.send_by - began).total_seconds(),
            ceil_threshold=math.inf,  # Otherwise time-outs above 5 s are rounded up to a full second.
        )
        headers = {**_HEADERS, _IDEMPOTENCY_KEY: ask.bank_key}
        if ask.traceparent is not None:
            headers[_TRACEPARENT] = ask.traceparent
        evidence: dict[str, object] = {}
        url = self._urls[ask.verb]
        try:
            # aiohttp resends by itself what it takes for idempotent; POST is never among these.
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if not body.written:  # An answer to what was never asked: left over on a kept connection.
                    response.close()
                    return Unsent(reason="the connection was spoiled before the write")
                evidence["http_status"] = response.status
                evidence["replayed"] = response.headers.get(_REPLAYED) == "true"
                answer = await _read(response)
        except (ClientError, OSError) as fault:  # Time-outs are OSErrors.
            evidence["fault"] = type(fault).__name__
            answer = None
        evidence["duration_ms"] = max(0, round((self._clock() - began).total_seconds() * 1000))
        if not body.written:
            unreachable = not body.obstacle  # nothing of ours stood in the way
            return Unsent(
                reason=body.obstacle or "no connection to the bank", unreachable=unreachable, evidence=evidence
            )
        if answer is None:
            return NoAnswer(reason="the bank's answer did not arrive whole and in time", evidence=evidence)
        return _translate(ask, response, answer, evidence)


class _Body(BytesPayload):
    """The body of one attempt, which refuses to be written late, or to a connection that cannot answer it."""

    def __init__(self, value: bytes, *, clock: Clock, send_by: datetime) -> None:
        super().__init__(value, content_type="application/json")
        self._clock = clock
        self.send_by = send_by
        self.written = False
        self.obstacle = ""

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Called by aiohttp once, with the headers still held back. What is raised here ends the attempt."""
        protocol = cast(ResponseHandler, cast(StreamWriter, writer).protocol)
        # From Python 3.12 on, aiohttp gets here without a turn of the loop: stray bytes may still be in the kernel.
        for _ in range(TURNS_TO_READ):
            await asyncio.sleep(0)
        if self._clock() >= self.send_by:
            self.obstacle = "send_by passed before the write"
        elif not protocol.is_connected() or protocol.should_close:  # Closed by the bank, or with bytes not asked for.
            self.obstacle = "the connection was spoiled before the write"
        if self.obstacle:
            raise ClientError(self.obstacle)
        self.written = True
        await super().write_with_length(writer, content_length)


async def _read(response: ClientResponse) -> bytes | None:
    """The whole body; None when it is longer than the bank's can be."""
    content = response.content
    whole = await content.read(ANSWER_BYTES_MAX + 1)
    while not content.at_eof() and len(whole) <= ANSWER_BYTES_MAX:
        whole += await content.read(ANSWER_BYTES_MAX)
    return whole if len(whole) <= ANSWER_BYTES_MAX else None


def _translate(ask: BankRequest, response: ClientResponse, body: bytes, evidence: dict[str, object]) -> Answer:
    """The answer in the engine's words."""
    if 200 <= response.status < 300:
        try:
            return dialect.approval(ask, body, evidence)
        except dialect.Mismatch as fault:
            reason = f"mismatch: the bank's success is of something else than was asked ({fault})"
            return NoAnswer(reason=reason, ask_again=False, over=True, evidence=evidence)
        except dialect.Unreadable as fault:
            return NoAnswer(reason=f"the bank's success cannot be read: {fault}", evidence=evidence)
    word = dialect.word(response.headers.get(hdrs.CONTENT_TYPE, ""), body)
    evidence["bank_code"] = word
    verdict = classify(ask.verb, response.status, word)
    if isinstance(verdict, Doubt):
        reason = f"the bank's answer ({response.status}, {word}) proves nothing"
        # Only the bank's own words end the attempt; what a relay says, it may say while the bank is still at work.
        over = word not in (TEXT, NO_WORD)
        return NoAnswer(reason=reason, ask_again=verdict is Doubt.ASK_AGAIN, over=over, evidence=evidence)
    return Refused(
        reason=verdict if isinstance(verdict, Refusal) else Refusal.DECLINED,
        code=word,
        message=MESSAGES[verdict],
        decline_code=verdict if isinstance(verdict, DeclineCode) else None,
        evidence=evidence,
    )
