"""The object graph of an edge."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from prometheus_client import CollectorRegistry

from edge.app import create_app
from edge.server.admission import Admission, AdmissionLimits
from edge.server.authentication import Authenticator
from edge.server.protocol import configuration
from engine.errors import Unavailable
from engine.failpoint import Failpoints
from engine.gateway.acceptance import Acceptor, AcceptorContext
from engine.gateway.operator_actions import OperatorActions
from engine.gateway.queries import PaymentQueries
from engine.gateway.timeline import PaymentTimeline
from engine.ledger.audit_log import AuditLog
from engine.ledger.reader import LedgerReader
from engine.ledger.store_clock import ClockMetrics
from engine.metrics import EngineMetrics
from engine.resilience.fitness import Fitness
from engine.security.fingerprint import Fingerprinter
from engine.streams.acceptance_store import AcceptanceStore, AcceptLimits
from engine.streams.dead_letter_queue import DeadLetterQueue
from engine.streams.reply_channel import ReplyChannel
from engine.streams.scripts import Scripts
from ops.assembly.clocks import compared, store_clock
from ops.assembly.logs import configure_logs, crash_logged
from ops.assembly.process import check_production, connected, opened_vault, tame_collector
from ops.assembly.serving import Server, allow_many_files, bind, share, until_signalled
from ops.assembly.settings import Settings
from ops.assembly.stores import EDGE, open_stores
from ops.assembly.webhook_queries import webhook_desk


def run_edge(settings: Settings) -> None:
    """Serve until a signal says stop; several processes share one socket when PENSTOCK_EDGE_PROCESSES says so."""
    check_production(settings)
    listener = bind(settings.edge_host, settings.edge_port, "PENSTOCK_EDGE_PORT")
    if settings.edge_processes == 1:
        _edge_process(settings, listener)
    else:
        share(listener, settings.edge_processes, partial(_edge_child, settings))


def _edge_child(settings: Settings, listener: socket.socket) -> None:
    with crash_logged():
        _edge_process(settings, listener)


def _edge_process(settings: Settings, listener: socket.socket) -> None:
    configure_logs(settings.log_level, settings.log_format)
    allow_many_files()
    tame_collector()
    anyio.run(_serve_edge, settings, listener, backend_options={"use_uvloop": True})


async def _serve_edge(settings: Settings, listener: socket.socket) -> None:
    failpoints, meters_registry = Failpoints(settings.failpoints), CollectorRegistry()
    clock = store_clock(settings)
    async with (
        open_stores(settings, EDGE) as stores,
        opened_vault("edge", settings, stores.pool, stores.installation, stores.fitness) as vault,
        connected(settings, clock.steady) as connector,
        anyio.create_task_group() as tasks,
    ):
        watch = await compared(
            settings, clock, stores.fitness, ClockMetrics(meters_registry), stores.pool, stores.redis
        )
        scripts = Scripts(stores.redis, EDGE.redis_s)
        acceptance_store, ledger_reader = AcceptanceStore(scripts), LedgerReader(stores.pool)
        queries = PaymentQueries(
            acceptance_store, ledger_reader, stores.partitions, clock.now, settings.record_ttl_s * 1000
        )
        reply_channel = ReplyChannel(scripts, secrets.token_hex(8))
        fingerprinter = Fingerprinter(settings.fingerprint_key_bytes)
        acceptor = Acceptor(
            AcceptorContext(
                installation=stores.installation,
                partitions=stores.partitions,
                connector=connector.name,
                acceptance_store=acceptance_store,
                ledger_reader=ledger_reader,
                queries=queries,
                reply_channel=reply_channel,
                vault=vault,
                fingerprinter=fingerprinter,
                limits=_accept_limits(settings),
                record_ttl_ms=settings.record_ttl_s * 1000,
                clock=clock.now,
                failpoints=failpoints,
                meters=EngineMetrics(meters_registry),
                fitness=stores.fitness,
            )
        )
        webhooks = webhook_desk(stores.pool, stores.installation, vault, fingerprinter)
        app = create_app(
            acceptor=acceptor,
            queries=queries,
            timeline=PaymentTimeline(acceptance_store, ledger_reader, stores.partitions),
            operator_actions=OperatorActions(
                DeadLetterQueue(scripts, stores.partitions), ledger_reader, AuditLog(stores.pool), stores.partitions
            ),
            keys=Authenticator(stores.pool),
            subscriptions=webhooks.endpoints,
            deliveries=webhooks.log,
            feed=webhooks.feed,
            url_policy=settings.webhook_targets,
            clock=clock.now,
            capabilities=dict.fromkeys(connector.capabilities.methods, connector.capabilities),
            probes={
                "redis": partial(_probe, acceptance_store.ping),
                "postgres": partial(_probe, ledger_reader.ping),
                "fitness": partial(_fitting, stores.fitness),
            },
            registry=meters_registry,
            request_log=settings.request_log,
            admission=Admission(
                AdmissionLimits(
                    in_flight_max=settings.in_flight_max,
                    waiting_max=settings.waiting_max,
                    merchant_rate_per_s=settings.merchant_rate_per_s,
                )
            ),
        )
        for run in (
            acceptance_store.run,
            ledger_reader.run,
            reply_channel.run,
            webhooks.endpoints.run,
            webhooks.feed.run,
            watch.run,
        ):
            tasks.start_soon(run)
        tasks.start_soon(stores.installation_check.run, scripts)
        server = Server(configuration(app, host=settings.edge_host, port=settings.edge_port))
        await until_signalled(server, listener)
        tasks.cancel_scope.cancel()


def _accept_limits(settings: Settings) -> AcceptLimits:
    return AcceptLimits(
        backlog=settings.backlog_max,
        backlog_headroom=settings.backlog_max + settings.backlog_max // 10,
        merchant=settings.merchant_backlog_max,
        merchant_headroom=settings.merchant_backlog_max + settings.merchant_backlog_max // 10,
        open_operations=settings.mailbox_max,
    )


async def _probe(ping: Callable[[], Awaitable[None]]) -> str | None:
    try:
        await ping()
    except Unavailable as error:
        return error.detail
    return None


async def _fitting(fitness: Fitness) -> str | None:
    return "; ".join(fitness.faults.values()) or None
