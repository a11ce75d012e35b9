"""The object graph of an edge."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import uvicorn
from prometheus_client import CollectorRegistry

from edge.app import create_app
from edge.server.admission import Admission, AdmissionLimits
from edge.server.authentication import Authenticator
from edge.server.protocol import DRAIN_S, configuration
from engine.contracts.connector import Clock
from engine.failpoint import Failpoints
from engine.gateway.acceptance import Acceptor, AcceptorContext
from engine.gateway.operator_actions import OperatorActions
from engine.gateway.queries import PaymentQueries
from engine.gateway.timeline import PaymentTimeline
from engine.ledger.audit_log import AuditLog
from engine.ledger.reader import LedgerReader
from engine.ledger.store_clock import ClockMetrics
from engine.metrics import EngineMetrics, WakeupMeters
from engine.security.encryption import Vault
from engine.security.fingerprint import Fingerprinter
from engine.streams.acceptance_store import AcceptanceStore, AcceptLimits
from engine.streams.dead_letter_queue import DeadLetterQueue
from engine.streams.reply_channel import ReplyChannel
from engine.streams.scripts import Scripts
from ops.assembly.clocks import compared, store_clock
from ops.assembly.drain import DrainingServer
from ops.assembly.edge_metrics import of_all, of_process
from ops.assembly.health import health_app
from ops.assembly.logs import configure_logs
from ops.assembly.process import check_production, connected, opened_vault, tame_collector, wall_clock
from ops.assembly.readiness import edge_probes
from ops.assembly.serving import Server, allow_many_files, bind, until_signalled
from ops.assembly.settings import Settings
from ops.assembly.siblings import Sibling, share, tell_parent
from ops.assembly.stores import EDGE, Stores, open_stores
from ops.assembly.tls import Certificate
from ops.assembly.webhook_queries import webhook_desk

_STOP_MARGIN_S = 8.0  # for the steps of a drain before and behind the calls under way


def run_edge(settings: Settings) -> None:
    """Serve until a signal says stop; several processes share one socket when PENSTOCK_EDGE_PROCESSES says so."""
    check_production(settings)
    configure_logs(settings.log_level, settings.log_format)
    _certificate(settings)  # what is wrong with it is said before anything starts, and once
    listener = bind(settings.edge_host, settings.edge_port, "PENSTOCK_EDGE_PORT")
    if settings.edge_processes == 1:
        _edge_process(settings, listener, None)
    else:
        share(
            listener,
            settings.edge_processes,
            partial(_sibling_process, settings),
            patience_s=settings.edge_linger_s + DRAIN_S + _STOP_MARGIN_S,
            metrics_port=settings.edge_metrics_port,
        )


def _sibling_process(settings: Settings, sibling: Sibling) -> None:
    configure_logs(settings.log_level, settings.log_format)
    _edge_process(settings, sibling.listener, sibling)


def _edge_process(settings: Settings, listener: socket.socket, sibling: Sibling | None) -> None:
    allow_many_files()
    tame_collector()
    anyio.run(_serve_edge, settings, listener, sibling, backend_options={"use_uvloop": True})


async def _serve_edge(settings: Settings, listener: socket.socket, sibling: Sibling | None) -> None:
    registry = CollectorRegistry()
    clock = store_clock(settings)
    async with (
        open_stores(settings, EDGE) as stores,
        opened_vault("edge", settings, stores.pool, stores.installation, stores.fitness) as vault,
        connected(settings, clock.steady) as connector,
        anyio.create_task_group() as tasks,
    ):
        watch = await compared(settings, clock, stores.fitness, ClockMetrics(registry), stores.pool, stores.redis)
        scripts = Scripts(stores.redis, EDGE.redis_s)
        parts = _parts(settings, stores, scripts, clock.now, vault, registry)
        acceptance_store, ledger_reader, keys = parts.acceptance_store, parts.ledger_reader, Authenticator(stores.pool)
        webhooks = webhook_desk(stores.pool, stores.installation, vault, parts.fingerprinter)
        admission = Admission(
            AdmissionLimits(
                in_flight_max=settings.in_flight_max,
                waiting_max=settings.waiting_max,
                merchant_rate_per_s=settings.merchant_rate_per_s,
            )
        )
        acceptor = acceptor_of(settings, stores, parts, connector.name, clock.now, EngineMetrics(registry))
        app = create_app(
            acceptor=acceptor,
            queries=parts.queries,
            timeline=PaymentTimeline(acceptance_store, ledger_reader, stores.partitions),
            operator_actions=OperatorActions(
                DeadLetterQueue(scripts, stores.partitions), ledger_reader, AuditLog(stores.pool), stores.partitions
            ),
            keys=keys,
            subscriptions=webhooks.endpoints,
            deliveries=webhooks.log,
            feed=webhooks.feed,
            url_policy=settings.webhook_targets,
            clock=clock.now,
            capabilities=dict.fromkeys(connector.capabilities.methods, connector.capabilities),
            probes=edge_probes(
                draining=lambda: server.draining,
                acceptance_store=acceptance_store,
                ledger_reader=ledger_reader,
                fitness=stores.fitness,
                keys=keys,
                admission=admission,
                partitions=stores.partitions,
                backlog_max=settings.backlog_max,
            ),
            registry=registry,
            request_log=settings.request_log,
            metrics=None if sibling is None else partial(of_all, sibling.ports),
            admission=admission,
        )
        for run in (
            acceptance_store.run,
            ledger_reader.run,
            parts.reply_channel.run,
            webhooks.endpoints.run,
            webhooks.feed.run,
            watch.run,
        ):
            tasks.start_soon(run)
        tasks.start_soon(stores.installation_check.run, scripts)
        server = DrainingServer(
            configuration(app, host=settings.edge_host, port=settings.edge_port), linger_s=settings.edge_linger_s
        )
        certificate = _certificate(settings, registry)
        if certificate is not None:
            server.secure(certificate.context)
            tasks.start_soon(certificate.run)
        if sibling is not None:
            tasks.start_soon(_open_own_door, sibling, server, registry)
        await until_signalled(server, listener, tell_parent)
        tasks.cancel_scope.cancel()


async def _open_own_door(sibling: Sibling, server: DrainingServer, registry: CollectorRegistry) -> None:
    """Health and metrics of this process alone."""

    async def ready() -> tuple[bool, dict[str, object]]:
        return server.started and not server.draining, {"process": sibling.number}

    app = health_app(ready, of_process(registry, sibling.number))
    await Server(uvicorn.Config(app, log_config=None, access_log=False)).serve([sibling.door])


def _certificate(settings: Settings, registry: CollectorRegistry | None = None) -> Certificate | None:
    """For HTTPS, if the settings name one. Raises Broken."""
    if not settings.edge_tls_cert_file:
        return None
    files = Path(settings.edge_tls_cert_file), Path(settings.edge_tls_key_file)
    return Certificate(*files, wall_clock(settings), registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What accepting and reading share."""

    acceptance_store: AcceptanceStore
    ledger_reader: LedgerReader
    queries: PaymentQueries
    reply_channel: ReplyChannel
    fingerprinter: Fingerprinter
    vault: Vault


def _parts(
    settings: Settings, stores: Stores, scripts: Scripts, clock: Clock, vault: Vault, registry: CollectorRegistry
) -> Parts:
    acceptance_store, ledger_reader = AcceptanceStore(scripts), LedgerReader(stores.pool)
    return Parts(
        acceptance_store=acceptance_store,
        ledger_reader=ledger_reader,
        queries=PaymentQueries(acceptance_store, ledger_reader, stores.partitions, clock, settings.record_ttl_s * 1000),
        reply_channel=ReplyChannel(scripts, secrets.token_hex(8), WakeupMeters(registry).show),
        fingerprinter=Fingerprinter(settings.fingerprint_key_bytes),
        vault=vault,
    )


def acceptor_of(
    settings: Settings, stores: Stores, parts: Parts, connector: str, clock: Clock, meters: EngineMetrics
) -> Acceptor:
    """What accepts. Operations of payments that there are have a tenth more room than new payments."""
    limits = AcceptLimits(
        backlog=settings.backlog_max,
        backlog_headroom=settings.backlog_max + settings.backlog_max // 10,
        merchant=settings.merchant_backlog_max,
        merchant_headroom=settings.merchant_backlog_max + settings.merchant_backlog_max // 10,
        open_operations=settings.mailbox_max,
    )
    return Acceptor(
        AcceptorContext(
            installation=stores.installation,
            partitions=stores.partitions,
            connector=connector,
            acceptance_store=parts.acceptance_store,
            ledger_reader=parts.ledger_reader,
            queries=parts.queries,
            reply_channel=parts.reply_channel,
            vault=parts.vault,
            fingerprinter=parts.fingerprinter,
            limits=limits,
            record_ttl_ms=settings.record_ttl_s * 1000,
            clock=clock,
            failpoints=Failpoints(settings.failpoints),
            meters=meters,
            fitness=stores.fitness,
        )
    )
