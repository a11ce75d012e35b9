"""The edge as one ASGI application: what it needs comes in, its routes are one list.

The order of the list is the order of matching, so the busiest path is first and the catch-all last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route

from edge.handlers.deliveries import Deliveries, Events
from edge.handlers.operators import Operators
from edge.handlers.payments import Payments
from edge.handlers.reference import Reference
from edge.handlers.webhooks import Webhooks
from edge.openapi import schemas
from edge.server import problems
from edge.server.admission import Admission
from edge.server.authentication import Authenticator
from edge.server.endpoint import Endpoint, Endpoints, Handler
from edge.server.health import Exposition, Health, Probe
from edge.server.metrics import RouteMetrics
from engine.contracts.connector import Capabilities, Clock
from engine.contracts.gateway import Commands, OperatorCommands, Queries, TimelineQueries
from engine.contracts.url_policy import UrlPolicy
from engine.contracts.webhooks import DeliveryQueries, EndpointCommands, EventQueries
from engine.domain.payment import Verb

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
_HOOK = "/v1/webhook-endpoints/{endpoint}"
Kind = Callable[[str, Mapping[str, Handler]], Endpoint]
Row = tuple[str, Kind, dict[str, Handler]]


def create_app(
    *,
    acceptor: Commands,
    queries: Queries,
    timeline: TimelineQueries,
    operator_actions: OperatorCommands,
    subscriptions: EndpointCommands,
    deliveries: DeliveryQueries,
    feed: EventQueries,
    url_policy: UrlPolicy,
    clock: Clock,
    keys: Authenticator,
    capabilities: Mapping[str, Capabilities],
    probes: Mapping[str, Probe],
    registry: CollectorRegistry,
    admission: Admission,
    request_log: bool = True,
    metrics: Exposition | None = None,
    lifespan: Lifespan | None = None,
) -> Starlette:
    """The HTTP API. `capabilities`: by payment method type; `url_policy`: where webhooks may go; `request_log`: write a
    line for each request; `lifespan` opens what the others need and outlives the refreshing of the keys, which this
    application runs itself."""
    door = Endpoints(
        meters=RouteMetrics(registry, admission),
        merchants=keys.guard,
        operators=keys.guard_operator,
        admission=admission,
        request_log=request_log,
    )
    payments = Payments(
        acceptor=acceptor, queries=queries, timeline=timeline, capabilities=capabilities, url_policy=url_policy
    )
    operators = Operators(operator_actions)
    webhooks = Webhooks(subscriptions, url_policy)
    log, events = Deliveries(deliveries, queries, clock), Events(feed)
    health = Health(probes=probes, registry=registry, metrics=metrics)
    reference = Reference(schemas.describe(capabilities))
    # fmt: off
    table: list[Row] = [
        ("/v1/payments",                    door.merchant, {"POST": payments.create, "GET": payments.list}),
        ("/v1/payments/{payment}/capture",  door.merchant, {"POST": payments.operate(Verb.CAPTURE)}),
        ("/v1/payments/{payment}",          door.merchant, {"GET": payments.get}),
        ("/v1/payments/{payment}/void",     door.merchant, {"POST": payments.operate(Verb.VOID)}),
        ("/v1/payments/{payment}/refund",   door.merchant, {"POST": payments.operate(Verb.REFUND)}),
        ("/v1/payments/{payment}/shippable", door.merchant, {"GET": payments.shippable}),
        ("/v1/payments/{payment}/timeline", door.merchant, {"GET": payments.timeline}),
        ("/v1/operations",                  door.merchant, {"GET": payments.operations}),
        ("/v1/operations/{operation}",      door.merchant, {"GET": payments.operation}),
        *_operator_table(door, operators),
        *_webhook_table(door, webhooks, log, events),
        ("/",                               door.open,     {"GET": reference.home}),
        ("/livez",                          door.probe,    {"GET": health.livez}),
        ("/readyz",                         door.probe,    {"GET": health.readyz}),
        ("/metrics",                        door.probe,    {"GET": health.metrics}),
        ("/openapi.json",                   door.open,     {"GET": reference.openapi}),
        ("/docs",                           door.open,     {"GET": reference.docs}),
        ("/docs/{asset}",                   door.open,     {"GET": reference.asset}),
        ("/problems",                       door.open,     {"GET": problems.every}),
        ("/problems/{code}",                door.open,     {"GET": problems.one}),
    ]
    # fmt: on
    app = Starlette(
        routes=[
            *(Route(path, kind(path, methods)) for path, kind, methods in table),
            Route("/{path:path}", door.nowhere()),
        ],
        lifespan=_refreshing(keys, lifespan),
    )
    # Endpoints translate every error themselves; Starlette's two layers that would do it cost a tenth of a request.
    app.middleware_stack = app.router
    return app


def _operator_table(door: Endpoints, operators: Operators) -> list[Row]:
    """The endpoints for keys of scope operator."""
    # fmt: off
    return [
        ("/v1/payments/{payment}/retry",    door.operator, {"POST": operators.retry}),
        ("/v1/payments/{payment}/resolve",  door.operator, {"POST": operators.resolve}),
        ("/v1/payments/{payment}/correct",  door.operator, {"POST": operators.correct}),
        ("/v1/dead-letters",                door.operator, {"GET": operators.dead_letters}),
        ("/v1/dead-letters/{letter}",       door.operator, {"GET": operators.dead_letter}),
        ("/v1/dead-letters/{letter}/requeue", door.operator, {"POST": operators.requeue}),
        ("/v1/dead-letters/{letter}/drop",  door.operator, {"POST": operators.drop}),
    ]
    # fmt: on


def _webhook_table(door: Endpoints, webhooks: Webhooks, log: Deliveries, events: Events) -> list[Row]:
    """What merchants see of webhooks."""
    # fmt: off
    return [
        ("/v1/events",                      door.merchant, {"GET": events.list}),
        ("/v1/payments/{payment}/deliveries", door.merchant, {"GET": log.of_payment}),
        ("/v1/webhook-endpoints",           door.merchant, {"POST": webhooks.create, "GET": webhooks.list}),
        (_HOOK,                             door.merchant, {"GET": webhooks.get, "PATCH": webhooks.change,
                                                            "DELETE": webhooks.delete}),
        (f"{_HOOK}/rotate-secret",          door.merchant, {"POST": webhooks.rotate}),
        (f"{_HOOK}/disable",                door.merchant, {"POST": webhooks.switch(on=False)}),
        (f"{_HOOK}/enable",                 door.merchant, {"POST": webhooks.switch(on=True)}),
        (f"{_HOOK}/redeliver",              door.merchant, {"POST": log.redeliver_range}),
        (f"{_HOOK}/deliveries",             door.merchant, {"GET": log.of_endpoint}),
        (f"{_HOOK}/deliveries/{{delivery}}", door.merchant, {"GET": log.get}),
        (f"{_HOOK}/deliveries/{{delivery}}/redeliver", door.merchant, {"POST": log.redeliver}),
        ("/v1/webhook-secret",              door.merchant, {"GET": webhooks.default_secret}),
        ("/v1/webhook-secret/rotate",       door.merchant, {"POST": webhooks.rotate_default}),
        ("/.well-known/webhook-keys/{endpoint}", door.open, {"GET": webhooks.public_keys}),
    ]
    # fmt: on


def _refreshing(keys: Authenticator, lifespan: Lifespan | None) -> Lifespan:
    @asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        async with lifespan(app) if lifespan else nullcontext(), anyio.create_task_group() as tasks:
            await keys.run_once()  # before the first call, so that none of them has to wait for it
            tasks.start_soon(keys.run)
            yield
            tasks.cancel_scope.cancel()

    return living
