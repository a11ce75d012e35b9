"""The bank as a Starlette application: its layers and its routes, each one literal list in the contract's order."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
from anyio import create_task_group, fail_after
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bank.simulator.access_log import AccessLog
from bank.simulator.answer import failure, reply, text_error
from bank.simulator.chaos import Chaos, FaultProfile, RandomBelow
from bank.simulator.connection import Expectations, WriteDeadline
from bank.simulator.control import Controls
from bank.simulator.docs import docs_routes
from bank.simulator.fault import FaultRules
from bank.simulator.hang_up import HangUps
from bank.simulator.idempotency import IdempotencyCache, Keys
from bank.simulator.instant import hours_ns
from bank.simulator.key_sweeper import KeySweeper
from bank.simulator.lanes import ConnectionWorkers
from bank.simulator.lookup import TransactionLookup
from bank.simulator.operation import Handlers
from bank.simulator.overlap import OverlapLog
from bank.simulator.path import Pieces, moved
from bank.simulator.settings import BankSettings

HEALTH_TIMEOUT_S = 2.0
SPARED_FROM_CHAOS = ("/health", "/docs")
CONTROL_PATH = "/control"


def create_app(
    settings: BankSettings, *, clock_ns: Callable[[], int] = time.time_ns, random_below: RandomBelow | None = None
) -> Starlette:
    """The bank over a database that is migrated and seeded. `random_below(n)` draws from 0 .. n-1."""
    lanes = ConnectionWorkers(
        settings.database_url,
        count=settings.db_max_open_conns if settings.db_max_open_conns > 0 else BankSettings().db_max_open_conns,
        lifetime_s=settings.db_conn_max_lifetime_s,
    )
    weather = FaultProfile(
        failure_rate=settings.failure_rate,
        min_latency_ms=settings.min_latency_ms,
        max_latency_ms=settings.max_latency_ms,
    )
    if random_below is not None:
        weather.random_below = random_below
    hang_ups = HangUps(cancel=settings.hang_up_cancels, lose_key=settings.hang_up_loses_key)
    faults, keys, archive, hold_ns = (
        FaultRules(),
        Keys(lanes),
        TransactionLookup(lanes=lanes),
        hours_ns(settings.auth_expiry_hours),
    )
    teller = Handlers(lanes=lanes, faults=faults, hang_ups=hang_ups, clock_ns=clock_ns, hold_ns=hold_ns)
    controls = Controls(faults=faults, weather=weather, hang_ups=hang_ups, lanes=lanes)
    spared = (*SPARED_FROM_CHAOS, CONTROL_PATH) if settings.control else SPARED_FROM_CHAOS
    access_log = [Middleware(AccessLog)] if logging.getLogger(AccessLog.__module__).isEnabledFor(logging.DEBUG) else []
    app = Starlette(
        middleware=[
            *access_log,
            Middleware(WriteDeadline, write_timeout_s=settings.write_timeout_s, now_s=time.monotonic),
            Middleware(Expectations),
            Middleware(OverlapLog),
            Middleware(IdempotencyCache, keys=keys, hang_ups=hang_ups),
            Middleware(Chaos, weather=weather, spared=spared),
            Middleware(Pieces),
        ],
        routes=_routes(teller, archive, lanes) + (_control_routes(controls) if settings.control else []),
        exception_handlers={HTTPException: _no_route, Exception: _bug},
        lifespan=_lifespan(
            lanes.run, keys.lookups.run, keys.stores.run, teller.effects.run, KeySweeper(lanes, clock_ns=clock_ns).run
        ),
    )
    app.router.redirect_slashes = False  # A slash at the end is another path, and no path of ours.
    return app


def _routes(teller: Handlers, archive: TransactionLookup, lanes: ConnectionWorkers) -> list[Route]:
    # fmt: off
    return [
        Route("/api/v1/authorizations",      teller.authorize,      methods=["POST"]),
        Route("/api/v1/captures",            teller.capture,        methods=["POST"]),
        Route("/api/v1/voids",               teller.void,           methods=["POST"]),
        Route("/api/v1/refunds",             teller.refund,         methods=["POST"]),
        Route("/api/v1/authorizations/{id}", archive.authorization, methods=["GET"]),
        Route("/api/v1/captures/{id}",       archive.capture,       methods=["GET"]),
        Route("/api/v1/refunds/{id}",        archive.refund,        methods=["GET"]),
        Route("/health",                     _health(lanes),        methods=["GET"]),
        Route("/",                           _to_docs,              methods=["GET"]),
        *docs_routes(),
    ]
    # fmt: on


def _control_routes(controls: Controls) -> list[Route]:
    # fmt: off
    return [
        Route(f"{CONTROL_PATH}/faults",   controls.add_fault,     methods=["POST"]),
        Route(f"{CONTROL_PATH}/faults",   controls.list_faults,   methods=["GET"]),
        Route(f"{CONTROL_PATH}/faults",   controls.clear_faults,  methods=["DELETE"]),
        Route(f"{CONTROL_PATH}/chaos",    controls.set_chaos,     methods=["PUT"]),
        Route(f"{CONTROL_PATH}/chaos",    controls.show_chaos,    methods=["GET"]),
        Route(f"{CONTROL_PATH}/hang-ups", controls.set_hang_ups,  methods=["PUT"]),
        Route(f"{CONTROL_PATH}/hang-ups", controls.show_hang_ups, methods=["GET"]),
        Route(f"{CONTROL_PATH}/ledger",   controls.ledger,        methods=["GET"]),
    ]
    # fmt: on


def _lifespan(
    *loops: Callable[[], Coroutine[None, None, None]],
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with create_task_group() as background:
            for loop in loops:
                background.start_soon(loop)
            yield
            background.cancel_scope.cancel()

    return lifespan


def _health(lanes: ConnectionWorkers) -> Callable[[Request], Awaitable[Response]]:
    async def health(request: Request) -> Response:
        try:
            with fail_after(HEALTH_TIMEOUT_S):
                await lanes.ask("ping")
        except (TimeoutError, psycopg.Error):
            return reply({"status": "unhealthy"}, 503)
        return reply({"status": "healthy"})

    return health


async def _to_docs(request: Request) -> Response:
    return moved(request, "/docs")


async def _no_route(request: Request, problem: Exception) -> Response:
    """404 and 405, as Go's ServeMux does them."""
    assert isinstance(problem, HTTPException)
    if problem.status_code == 405:
        allowed = ", ".join(sorted((problem.headers or {})["Allow"].split(", ")))
        return text_error(405, "Method Not Allowed", {"Allow": allowed})
    return text_error(404, "404 page not found")


async def _bug(request: Request, problem: Exception) -> Response:
    return failure(500, "internal error")
