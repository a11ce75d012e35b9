"""An endpoint: one path's methods as a pure ASGI application, and the only way an answer leaves the edge.

Everything that is the same for each call happens here, once: its id, the guard, the translation of the error families
into problem documents by one table (engine/problem.py), counting, timing, and the one line that is logged of it. Keeps
I9: what is logged never includes a body, a header, a key or a foreign exception's text.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from itertools import count
from time import perf_counter

import structlog
from starlette.types import Receive, Scope, Send

from edge.server.admission import Admission
from edge.server.metrics import RouteMetrics, RouteTally
from edge.server.request import Disconnected, Request
from edge.server.response import PROBLEM, REPLAYED, Header, Response, date
from engine.errors import FieldError, PenstockError, Rejected, Unavailable
from engine.problem import CATALOGUE, render

Handler = Callable[[Request], Awaitable[Response]]
Guard = Callable[[Request], Awaitable[None]]

_log = structlog.get_logger("penstock.edge")
_DIGITS = re.compile(r"[0-9](?:[^0-9A-Za-z]?[0-9]){12,18}")
_NOTHING = 1000  # above any status: no request is logged

# What each status owes its reader besides the document.
_EXTRA_HEADERS: Mapping[int, tuple[Header, ...]] = {401: ((b"www-authenticate", b'ApiKey realm="penstock"'),)}


class RequestIds:
    """Names for calls whose clients sent none: unique by process and number, cheap to make."""

    def __init__(self) -> None:
        self._prefix, self._numbers = f"req_{os.urandom(8).hex()}", count(1)

    def __call__(self) -> str:
        return f"{self._prefix}{next(self._numbers):08x}"


class Endpoints:
    """Makes endpoints that share their ids, meters, guards and admission."""

    def __init__(
        self,
        *,
        meters: RouteMetrics,
        merchants: Guard,
        operators: Guard,
        admission: Admission,
        request_log: bool = True,
    ) -> None:
        self._meters, self._ids, self._request_log = meters, RequestIds(), request_log
        self._merchants, self._operators, self._admission = merchants, operators, admission

    def open(self, route: str, methods: Mapping[str, Handler]) -> Endpoint:
        """Needs no API key."""
        return self._made(methods, route)

    def probe(self, route: str, methods: Mapping[str, Handler]) -> Endpoint:
        """Needs no API key, and is asked all the time by machines: only its failures are logged."""
        return self._made(methods, route, logged_from=500)

    def merchant(self, route: str, methods: Mapping[str, Handler]) -> Endpoint:
        """Needs a key of merchant scope, then a place; nothing else about the call is looked at before."""
        return self._made(methods, route, self._admitted)

    def operator(self, route: str, methods: Mapping[str, Handler]) -> Endpoint:
        """Needs a key of operator scope; whoever mends an overload is not kept out by it."""
        return self._made(methods, route, self._operators)

    async def _admitted(self, call: Request) -> None:
        await self._merchants(call)
        call.place = self._admission.admit(call.merchant, call.scope["method"])

    def nowhere(self) -> Endpoint:
        """Answers 404 to everything."""
        return self._made({}, "(none)", otherwise=_nowhere)

    def _made(
        self,
        methods: Mapping[str, Handler],
        route: str,
        guard: Guard | None = None,
        otherwise: Handler | None = None,
        logged_from: int = 0,
    ) -> Endpoint:
        logged = logged_from if self._request_log else _NOTHING
        return Endpoint(methods, self._meters.of(route), self._ids, guard, otherwise, logged)


class Endpoint:
    """One path. Answers HEAD where it answers GET, and 405 to what is not in its table."""

    def __init__(
        self,
        methods: Mapping[str, Handler],
        tally: RouteTally,
        ids: RequestIds,
        guard: Guard | None = None,
        otherwise: Handler | None = None,
        logged_from: int = 0,
    ) -> None:
        """`logged_from`: the lowest status of which the request is logged."""
        self._methods = {**methods, "HEAD": methods["GET"]} if "GET" in methods else methods
        self._otherwise = otherwise or self._method_not_allowed
        self._allow = ", ".join(sorted(self._methods))
        self._tally, self._ids, self._guard, self._logged_from = tally, ids, guard, logged_from

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        call = Request(scope, receive, self._ids)
        try:
            answer = await self._answer(call)
        except Disconnected:
            return
        await self._send(call, answer, send)
        took_s = perf_counter() - started
        self._tally.add(scope["method"], answer.status, took_s)
        if answer.status >= self._logged_from:
            self._tell(call, answer, took_s)

    def _tell(self, call: Request, answer: Response, took_s: float) -> None:
        """The canonical line of a request: what it was and what came of it, at its end."""
        more: dict[str, object] = {"merchant": call.merchant} if call.merchant else {}
        if REPLAYED in answer.headers:
            more["replayed"] = True
        _log.info("request", **self._about(call), status=answer.status, ms=round(took_s * 1000, 2), **more)

    async def _answer(self, call: Request) -> Response:
        handler = self._methods.get(call.scope["method"])
        try:
            if handler is None:
                return await self._otherwise(call)
            if self._guard is not None:
                await self._guard(call)
            with call.place or nullcontext():
                return await handler(call)
        except Rejected as refusal:
            return problem(call, refusal.code, refusal.detail, errors=refusal.errors, extra=refusal.extra)
        except Unavailable as fault:
            answer = problem(call, fault.code, fault.detail, retry_after_s=fault.retry_after_s)
            if answer.status >= 500 and fault.code != "overloaded":  # a flood must not flood the log, it is counted
                _log.warning("unavailable", code=fault.code, detail=fault.detail, **self._about(call))
            return answer
        except Disconnected:
            raise
        except Exception as error:  # the border of the process: whatever it was, the client gets a document
            frames = [
                f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
            ]
            # Text of foreign exceptions may quote what they choked on, which may be a card.
            text = str(error) if isinstance(error, PenstockError) else None
            _log.error("broken", error=type(error).__name__, text=text, frames=frames[-12:], **self._about(call))
            return problem(call, "internal_error", "Something went wrong here. It was logged under this request_id.")

    def _about(self, call: Request) -> dict[str, str]:
        return {
            "request_id": _DIGITS.sub(_unless_card, call.request_id),
            "method": call.scope["method"],
            "route": self._tally.route,
        }

    async def _method_not_allowed(self, call: Request) -> Response:
        return problem(
            call,
            "method_not_allowed",
            f"This path does not know this method. Use one of: {self._allow}.",
            headers=((b"allow", self._allow.encode()),),
        )

    async def _send(self, call: Request, answer: Response, send: Send) -> None:
        body = answer.body
        headers = [
            *answer.headers,
            (b"date", date()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", call.request_id.encode()),
        ]
        if call.scope["method"] == "HEAD":
            body = b""
        if call.declares_too_much():
            headers.append((b"connection", b"close"))  # the server throws away what still comes, for a while
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def problem(
    call: Request,
    code: str,
    detail: str,
    *,
    errors: tuple[FieldError, ...] = (),
    extra: Mapping[str, object] | None = None,
    retry_after_s: int | None = None,
    headers: tuple[Header, ...] = (),
) -> Response:
    """The problem document of this code as the answer to this call."""
    status = CATALOGUE[code].status
    body = render(code, detail, request_id=call.request_id, instance=call.path, errors=errors, extra=extra)
    if retry_after_s is not None:
        headers += ((b"retry-after", b"%d" % retry_after_s),)
    return Response(status=status, body=body, headers=PROBLEM + _EXTRA_HEADERS.get(status, ()) + headers)


def _unless_card(found: re.Match[str]) -> str:
    """The digits in an id that a client chose, unless they may be a card number (I9)."""
    digits = [int(character) for character in found[0] if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return found[0] if (sum(digits[-1::-2]) + sum(doubled)) % 10 else "…"


async def _nowhere(call: Request) -> Response:
    raise Rejected("not_found", "There is no such path. The paths are listed at /docs.")
